"""The predictions of finished runs, as predictions.csv holds them."""

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from rank_ssl import logs
from rank_ssl.errors import UserError


class Values(NamedTuple):
    """A run's test images, [N] each."""

    true: np.ndarray
    predicted: np.ndarray
    ids: np.ndarray
    groups: np.ndarray  # images of one group are drawn together
    kinds: np.ndarray | None = None  # distortion types

    def of(self, kinds: Sequence[str], *, others: bool = False) -> 'Values':
        """The images of these types, or those of the other types."""
        if self.kinds is None:
            raise ValueError('these values have no types')
        kept = np.isin(self.kinds, list(kinds)) != others
        return Values(*(np.asarray(column)[kept] for column in self))


class Run(Protocol):
    """What an arm gave with one seed: a cell, or its folds together."""

    @property
    def arm(self) -> str:
        """The name it has in the tables."""

    @property
    def seed(self) -> int:
        """The seed that pairs it with another arm's."""

    @property
    def folders(self) -> tuple[pathlib.Path, ...]:
        """Where its predictions lie."""


def predictions(run: Run) -> Values:
    """What a run predicted of its test images, one folder after the other."""
    return _joined([_predicted(folder) for folder in run.folders])


def paired(one: Run, other: Run) -> tuple[Values, Values]:
    """The predictions of both. Raises UserError for other true values of the same images."""
    ours, theirs = ([_predicted(folder) for folder in run.folders] for run in (one, other))
    for a, b, first, second in zip(one.folders, other.folders, ours, theirs, strict=False):
        _check_truth(a, b, first, second)
    return _joined(ours), _joined(theirs)


def _joined(parts: Sequence[Values]) -> Values:
    """The images of all parts, one after the other."""
    return Values(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _predicted(folder: pathlib.Path) -> Values:
    """What the run of one folder predicted. Raises UserError for a missing or damaged file."""
    path = folder / 'predictions.csv'
    try:
        with open(path, newline='', encoding='utf-8') as file:
            text = file.read()
        if not text.endswith('\n'):
            raise _damaged(folder, 'is cut off')
        rows = list(csv.DictReader(io.StringIO(text, newline='')))
        true, predicted = (np.array([float(row[n]) for row in rows]) for n in ('true', 'predicted'))
        ids = np.array([row['id'] for row in rows])
    except OSError as error:
        raise _damaged(folder, f'cannot be read ({error.strerror})') from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise _damaged(folder, 'is damaged') from error
    wanted = _images(folder)
    if wanted is not None and len(rows) != wanted:
        raise _damaged(folder, f'is damaged: it should have {wanted} images, and has {len(rows)}')
    # An image without a reference stands for itself.
    groups = np.array([row.get('reference') or f'id/{row["id"]}' for row in rows])
    return Values(true, predicted, ids, groups, np.array([row.get('kind') or '' for row in rows]))


def _images(folder: pathlib.Path) -> int | None:
    """How many images the run of a folder says that it predicted; None where it says nothing."""
    result = logs.read_result(folder) or {}
    tested = any(name.startswith('test/') for name in result)
    return result.get('test_images' if tested else 'validation_images')


def _damaged(folder: pathlib.Path, fault: str) -> UserError:
    # The folder of a cycle lies in that of its run, which has a result of its own.
    marks = [place / 'result.json' for place in (folder.parent, folder)]
    there = ' and '.join(str(mark) for mark in marks if mark.exists())
    return UserError(
        f'{folder / "predictions.csv"} {fault}: delete {there}, and the same command makes it again'
    )


def _check_truth(a: pathlib.Path, b: pathlib.Path, first: Values, second: Values) -> None:
    """Raises UserError where the same test images have other true values in two folders."""
    if not np.array_equal(first.ids, second.ids):
        return  # not paired
    (places,) = np.nonzero(first.true != second.true)
    if len(places):
        at = places[0]
        raise UserError(
            f'{a / "predictions.csv"} and {b / "predictions.csv"} have other true values for '
            f'the same images ({first.ids[at]}: {first.true[at]:g} and {second.true[at]:g}): '
            'train one of them again in another --workdir, on the same data'
        )
