"""What a cycle's asking gives, as a value and as the lines of acquisition.csv."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rank_ssl import logs
from rank_ssl.active.rules import tied_at_cut
from rank_ssl.data import Units
from rank_ssl.errors import UserError


@dataclasses.dataclass(frozen=True)
class Acquired:
    """What a cycle's asking gave; [N] over all units but for `taken`."""

    names: list[str]
    pool: np.ndarray  # bool: without a label when asked
    certainty: np.ndarray  # C (eq. 15); nan where the rule measures no pairs
    values: np.ndarray  # what the rule sorts by; nan outside the pool
    taken: np.ndarray  # places of the units labeled next, in their order

    def rows(self) -> list[dict[str, Any]]:
        """The lines of acquisition.csv."""
        order = {place: turn for turn, place in enumerate(self.taken.tolist(), 1)}
        return [
            {
                'unit': name,
                'where': 'pool' if self.pool[n] else 'labeled',
                'certainty': text_of(self.certainty[n]),
                'value': text_of(self.values[n]),
                'chosen': order.get(n, 0),
            }
            for n, name in enumerate(self.names)
        ]

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, str]]) -> 'Acquired':
        """The same from those lines."""
        turns = np.array([int(row['chosen']) for row in rows], np.int64)
        pool = np.array([row['where'] == 'pool' for row in rows], bool)
        order = np.sort(turns[turns != 0])
        if not np.array_equal(order, np.arange(1, len(order) + 1)) or turns[~pool].any():
            raise ValueError('chosen must count units of the pool from 1')
        return cls(
            [row['unit'] for row in rows],
            pool,
            np.array([float(row['certainty'] or 'nan') for row in rows]),
            np.array([float(row['value'] or 'nan') for row in rows]),
            np.argsort(turns, kind='stable')[np.count_nonzero(turns == 0) :],
        )

    def summary(self) -> dict[str, Any]:
        """The saturation of C, on pool and labeled units apart, and of the rule's value."""
        place = {n: k for k, n in enumerate(np.flatnonzero(self.pool).tolist())}
        taken = [place[n] for n in self.taken.tolist()]
        found: dict[str, Any] = {'tied_at_cut': tied_at_cut(self.values[self.pool], taken)}
        asked = np.isfinite(self.certainty).any()
        groups = {'pool': self.certainty[self.pool], 'labeled': self.certainty[~self.pool]}
        found['certainty'] = {n: _saturation(c) for n, c in groups.items()} if asked else None
        return found


def read(folder: pathlib.Path, units: Units, labeled: np.ndarray) -> Acquired | None:
    """What the asking of a cycle gave, where it has been written. Raises UserError if of others."""
    path = folder / 'acquisition.csv'
    if not path.exists():
        return None
    try:
        with open(path, newline='', encoding='utf-8') as file:
            found = Acquired.of_rows(list(csv.DictReader(file)))
    except (KeyError, ValueError, TypeError, OverflowError, csv.Error) as error:
        raise UserError(
            f'{path} is damaged ({error}): delete it, and the units are asked again'
        ) from None
    same = found.names == units.names and np.array_equal(np.flatnonzero(~found.pool), labeled)
    if not same or not len(found.taken):
        raise UserError(
            f'{path} is of other units or of other labels: delete it and the cycles after it, or '
            'use another --workdir'
        )
    return found


def log(acquired: Sequence[Acquired]) -> list[dict[str, Any]]:
    """The lines of acquired.csv: what each cycle added, in the order of being chosen."""
    return [
        {
            'cycle': cycle,
            'unit': found.names[n],
            'certainty': text_of(found.certainty[n]),
            'value': text_of(found.values[n]),
        }
        for cycle, found in enumerate(acquired)
        for n in found.taken
    ]


def _saturation(certainty: np.ndarray) -> dict[str, float]:
    return {'mean': float(np.nanmean(certainty)), 'ones': float(np.mean(certainty == 1))}


def text_of(value: float) -> str:
    """A number that reads back as the same bits; empty for nan."""
    return '' if np.isnan(value) else repr(float(value))


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table as its file holds it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Puts the file in place in one step; the other processes go on when it is there."""
    if jax.process_index() == 0:
        logs.write_text(path, csv_text(rows))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(str(path.name))
