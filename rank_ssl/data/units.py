"""Units of active learning: what is labeled at once, and the images that tell how certain f is."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rank_ssl.data.batches import Examples, read_ahead
from rank_ssl.data.draws import ACQUIRE, counter_rng
from rank_ssl.data.records import Records
from rank_ssl.types import Task, Views, active_task


class Units:
    """Records in units, in the order of their first records; places of units count from 0."""

    def __init__(self, task: Task, records: Records) -> None:
        task = active_task(task)
        self.records = records
        members: dict[str, list[int]] = {}
        for row, record in enumerate(records.annotations):
            members.setdefault(task.unit_of(record), []).append(row)
        self.names = list(members)
        self.rows = list(members.values())  # of each unit's records

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, places: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of the records of these units."""
        names = self.records.ids()
        return [names[row] for place in places for row in self.rows[place]]

    def number(self, place: int) -> int:
        """What the unit's draws are counted by, below 2**64: its place."""
        return place

    def examples(self, task: Task, seed: int) -> Examples:
        """The records as evaluation reads them."""
        return Examples(self.records, task, seed)


class CertaintySets:
    """The images that some units are asked about and K of their pairs, as a sweep reads them.

    Drawn for (seed, step, number of the unit): the same whichever units are asked with it.
    """

    def __init__(
        self,
        task: Task,
        units: Units,
        places: Sequence[int],
        *,
        seed: int,
        step: int,
        pairs: int,
    ) -> None:
        self._task, self._units, self._places = active_task(task), units, places
        self._seed, self._step, self._pairs = seed, step, pairs

    def __getitem__(self, i: Any) -> dict[str, Any]:
        """Unit i of those asked: 'views' and 'pairs', i64[<= K, 2]."""
        place = self._places[int(i)]
        rng = counter_rng(self._seed, ACQUIRE, self._step, self._units.number(place))
        records = [self._units.records[row] for row in self._units.rows[place]]
        made = self._task.certainty_set(rng, records)
        pairs = sampled_pairs(rng, made.phi, made.segments, self._pairs)
        return {'views': Views(made.images), 'pairs': pairs}

    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) of the images of each unit."""
        return [(self._task.size, self._task.size)] * len(self._places)

    def read(self, places: Sequence[int], threads: int) -> Iterator[dict[str, Any]]:
        """The units at these places of those asked, made ahead by threads."""
        return read_ahead(self, places, threads)


def sampled_pairs(
    rng: np.random.Generator, phi: np.ndarray, segments: np.ndarray, count: int
) -> np.ndarray:
    """K different pairs (i, j) of one segment with phi_i < phi_j (eq. 15), i64[<= count, 2].

    All that there are where `count` is 0, or where there are no more.
    """
    comparable = (phi[:, None] < phi) & (segments[:, None] == segments)
    pairs = np.argwhere(comparable)
    if not 0 < count < len(pairs):
        return pairs
    return pairs[rng.choice(len(pairs), count, replace=False)]
