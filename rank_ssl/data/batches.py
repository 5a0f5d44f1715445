"""Mini-batches, each a function of its step, and evaluated examples."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from rank_ssl.config import Config
from rank_ssl.data.draws import EVALUATE, LABELED, RANKED, counter_rng
from rank_ssl.data.records import Records
from rank_ssl.data.splits import Splits
from rank_ssl.types import Batch, RankedSet, Record, Task


class Batches:
    """Step t -> this process's groups of the mini-batch of step t, as the fields of a Batch.

    Steps are counted from `config.first_step` on.

    Labeled and unlabeled records are each passed in a new shuffled order every epoch. A group's
    ranked images are the ranked set of one record, or pairs of as many records. Groups beyond
    `config.groups` are padding: zeros, with both masks False.
    """

    def __init__(self, config: Config, splits: Splits, groups: range) -> None:
        self._task, self._seed, self._first = config.task, config.seed, config.first_step
        self._total, self._groups = config.groups, groups
        self._levels, self._labels = config.ranked, config.labeled
        self._paired = config.sampler == 'random'
        # A group's ranked images are of so many records.
        self._sources = self._levels // 2 if self._paired else 1
        # A regime without ranking or without labels has no such records to shuffle.
        self._ranked: Any = None
        self._labeled: Any = None
        if self._levels:
            self._ranked = _shuffled(splits.unlabeled, config.seed, RANKED)
        if self._labels:
            self._labeled = _shuffled(splits.labeled, config.seed, LABELED)

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        step = int(step) + self._first
        made = [
            self._group(step, group) if group < self._total else self._padding
            for group in self._groups
        ]
        return {name: np.stack([group[name] for group in made]) for name in Batch._fields}

    def ids(self, step: int) -> list[str]:
        """The examples of a step: what an error report names."""
        found, step = [], step + self._first
        for group in (g for g in self._groups if g < self._total):
            place = step * self._total + group
            if self._levels:
                sources = range(place * self._sources, (place + 1) * self._sources)
                found += [self._ranked[p]['id'] for p in sources]
            places = range(place * self._labels, (place + 1) * self._labels)
            found += [self._labeled[p]['id'] for p in places]
        return found

    def _group(self, step: int, group: int) -> dict[str, np.ndarray]:
        out = {name: array.copy() for name, array in self._padding.items()}
        place = step * self._total + group
        if self._levels:
            ranked = self._ranked_images(step, group)
            out['image'][: self._levels] = ranked.images
            out['phi'][:], out['segments'][:] = ranked.phi, ranked.segments
            out['ranked_where'][:] = True
        for r in range(self._labels):
            rng = counter_rng(self._seed, LABELED, step, group * self._labels + r)
            labeled = self._task.labeled(rng, self._labeled[place * self._labels + r])
            out['image'][self._levels + r] = labeled.image
            out['target'][r] = labeled.target
            out['labeled_where'][r] = True
        return out

    def _ranked_images(self, step: int, group: int) -> RankedSet:
        """The ranked set of one record; with random pairs, two images of each of K / 2 sets."""
        made = []
        for n in range(group * self._sources, (group + 1) * self._sources):
            rng = counter_rng(self._seed, RANKED, step, n)
            record = self._ranked[step * self._total * self._sources + n]
            whole = self._task.ranked_set(rng, record)
            made.append(random_pair(rng, whole) if self._paired else whole)
        if not self._paired:
            return made[0]
        images, phi, _ = (np.concatenate(values) for values in zip(*made, strict=True))
        return RankedSet(images, phi, np.arange(len(made), dtype=np.int32).repeat(2))

    @functools.cached_property
    def _padding(self) -> dict[str, np.ndarray]:
        levels, labels, size = self._levels, self._labels, self._task.size
        return {
            'image': np.zeros((levels + labels, size, size, 3), np.uint8),
            'phi': np.zeros(levels, np.float32),
            'segments': np.zeros(levels, np.int32),
            'ranked_where': np.zeros(levels, bool),
            'target': np.zeros((labels, *self._task.target_shape()), np.float32),
            'labeled_where': np.zeros(labels, bool),
        }


class Examples:
    """What evaluation reads: each record with its views, and a generator of its own."""

    def __init__(self, records: Records, task: Task, seed: int) -> None:
        self._records, self._task, self._seed = records, task, seed

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: Any) -> dict[str, Any]:
        record = self._records[int(i)]
        rng = counter_rng(self._seed, EVALUATE, 0, int(i))
        return {'record': record, 'views': self._task.views(rng, record)}

    @property
    def annotations(self) -> list[Record]:
        """The records without their images."""
        return self._records.annotations

    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) of each example's views."""
        return view_shapes(self._task, self._records)

    def read(self, places: Sequence[int], threads: int) -> Iterator[dict[str, Any]]:
        """The examples at these places in this order, read ahead by threads."""
        return read_ahead(self, places, threads)


def read_ahead(examples: Any, places: Sequence[int], threads: int) -> Iterator[dict[str, Any]]:
    """`examples[place]` for each of these places in this order, made ahead by threads."""
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    chosen = grain.MapDataset.source(places).map(examples.__getitem__)
    return iter(chosen.to_iter_dataset(read))


def random_pair(rng: np.random.Generator, whole: RankedSet) -> RankedSet:
    """Two images of a ranked set: one of its comparable pairs, all equally likely (6.1.1)."""
    comparable = (whole.phi[:, None] < whole.phi) & (whole.segments[:, None] == whole.segments)
    pairs = np.argwhere(comparable)
    # A set without a pair gives two images that are not compared.
    chosen = pairs[rng.integers(len(pairs))] if len(pairs) else np.array([0, 0])
    return RankedSet(*(values[chosen] for values in whole))


def view_shapes(task: Task, records: Records) -> list[tuple[int, int]]:
    """(H, W) of the views that a task makes of each record; no image is decoded."""
    return [task.view_shape(int(r['height']), int(r['width'])) for r in records.annotations]


def _shuffled(records: Records, seed: int, stream: int) -> Any:
    """The records without end, in a new order every epoch; random access by place."""
    # grain seeds with 32 bits; the stream keeps the two orders apart.
    seed = int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])
    return grain.MapDataset.source(records).seed(seed).shuffle().repeat()
