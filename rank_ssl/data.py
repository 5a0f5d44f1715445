"""From prepared data sets to mini-batches: TFDS records, grain workers, counter-based randomness.

A batch is a function of (seed, step) alone: example i of step t draws from a Philox generator whose
counter is (stream, t, i). So batches are the same bits for any number of workers, threads, devices
and processes, and the position of the data is one number, saved with each checkpoint.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds

from rank_ssl.config import Config, Data
from rank_ssl.errors import UserError
from rank_ssl.ops import images
from rank_ssl.types import Batch, Record, Task

# Streams of random draws: one number for each use, so that no two uses share a counter.
SPLIT, RANKED, LABELED, EVALUATE, FIGURE = range(5)


def counter_rng(seed: int, stream: int, step: int, index: int) -> np.random.Generator:
    """The generator of one example of one step: a function of its four numbers alone."""
    # The lowest word counts the blocks drawn, so two examples never overlap.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, stream, step, index]))


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set on disk: its TFDS folder and what its preparation reported."""

    path: str
    report: dict[str, Any]

    @functools.cached_property
    def builder(self) -> Any:
        """The TFDS builder that reads it."""
        return tfds.builder_from_directory(self.path)

    def records(self, split: str, rows: Sequence[int] | None = None) -> 'Records':
        """The records of a split, or those rows of it."""
        source = self.builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
        rows = range(len(source)) if rows is None else rows
        return Records([source], [(0, int(row)) for row in rows])


def prepare(config: Config, workdir: str) -> tuple[Prepared, list[Prepared]]:
    """The data set of a config and its unlabeled folders, prepared first where they are not.

    `data_prep` runs as a process of its own; its progress goes to stderr. Raises UserError with
    its message where it fails.
    """
    data = config.data
    main = _prepare(data, data.dataset, workdir, manual_dir=data.manual_dir, part=data.part)
    folders = [
        _prepare(data, 'image_folder', workdir, manual_dir=folder, tiny=False)
        for folder in filter(None, map(str.strip, data.unlabeled_dirs.split(',')))
    ]
    return main, folders


def _prepare(
    data: Data, name: str, workdir: str, *, manual_dir: str, part: str = '', tiny: bool = True
) -> Prepared:
    command = [sys.executable, '-m', 'data_prep.prepare', name, f'--on_bad={data.on_bad}']
    data_dir = data.data_dir
    if data.tiny:
        # A smoke run leaves nothing outside its workdir.
        data_dir = data_dir or str(pathlib.Path(workdir) / 'data')
    if tiny and data.tiny:
        tiny_dir = pathlib.Path(workdir) / 'tiny' / name
        command += [f'--tiny={data.tiny}', f'--tiny_dir={tiny_dir}']
    options = {'part': part, 'manual_dir': manual_dir, 'data_dir': data_dir}
    command += [f'--{option}={value}' for option, value in options.items() if value]
    command += ['--allow_partial'] if data.allow_partial else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True, check=False)
    if done.returncode == 2:
        raise PreparationRefused
    if done.returncode != 0 or not done.stdout.strip():
        raise UserError(
            f'preparing {name} failed with exit code {done.returncode}; '
            f'run it alone: {" ".join(command[1:])}'
        )
    path = done.stdout.strip().splitlines()[-1]
    return Prepared(path, json.loads((pathlib.Path(path) / 'prepared.json').read_text()))


class PreparationRefused(UserError):
    """The preparation has already said on stderr what is wrong."""


class Records:
    """Rows of one or several data sources, decoded on reading. Picklable for grain's workers."""

    def __init__(self, sources: list[Any], rows: list[tuple[int, int]]) -> None:
        self._sources, self._rows = sources, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Record:
        """Record i, with its 'image' decoded to u8[H, W, 3] RGB and its 'index' here."""
        raw = self.raw(i)
        return {**raw, 'image': images.decode(raw['image']), 'index': int(i)}

    def raw(self, i: int) -> dict[str, Any]:
        """Record i with its image as the bytes of the file."""
        source, row = self._rows[i]
        raw = self._sources[source][row]
        return {**raw, 'id': _text(raw['id'])}

    def __add__(self, other: 'Records') -> 'Records':
        shifted = [(source + len(self._sources), row) for source, row in other._rows]
        return Records(self._sources + other._sources, self._rows + shifted)

    @functools.cached_property
    def annotations(self) -> list[Record]:
        """Every record without its image; read once."""
        raws = (self.raw(i) for i in range(len(self)))
        return [{name: v for name, v in raw.items() if name != 'image'} for raw in raws]

    def ids(self) -> list[str]:
        """The id of each record, in order."""
        return [record['id'] for record in self.annotations]

    def take(self, rows: Iterable[int]) -> 'Records':
        """The records at these places, in this order."""
        return Records(self._sources, [self._rows[row] for row in rows])


@dataclasses.dataclass(frozen=True)
class Splits:
    """Who is trained on, selected on and tested on. Test is read by evaluation alone."""

    labeled: Records
    unlabeled: Records
    validation: Records
    test: Records
    partial: bool  # the copy of the data set is incomplete, by the user's leave
    fingerprint: str  # of the sources and of the rows chosen


def load_splits(config: Config, main: Prepared, folders: Sequence[Prepared]) -> Splits:
    """The splits of a run: validation and the labeled subset are seeded draws from training.

    The rest of the training set serves unlabeled, and so do the folders; what is labeled depends
    on the seed alone. Raises UserError where a split that is needed would be empty.
    """
    data = config.data
    train = main.records('train')
    order = counter_rng(config.seed, SPLIT, 0, 0).permutation(len(train))
    held_out = max(1, round(data.validation * len(train)))
    left = len(train) - held_out
    if left < 1:
        raise UserError(
            f'config.data.validation={data.validation} leaves none of the {len(train)} training '
            'images to train on; use less, or prepare more images'
        )
    if data.labels > left:
        raise UserError(
            f'config.data.labels={data.labels} is more than the {left} training images left by '
            f'validation (config.data.validation={data.validation}); use at most {left}'
        )
    labels = data.labels or left
    chosen = {
        'validation': order[:held_out],
        'labeled': order[held_out : held_out + labels],
        'rest': order[held_out + labels :],
    }
    unlabeled = train.take(chosen['rest'] if data.unlabeled_rest else [])
    if data.unlabeled_labeled:
        unlabeled += train.take(chosen['labeled'])
    for folder in folders:
        unlabeled += folder.records('train')
    if config.ranked and not len(unlabeled):
        raise UserError(
            f'config.data.labels={data.labels} leaves no unlabeled image to rank: set '
            'config.data.unlabeled_labeled=true, name folders in config.data.unlabeled_dirs, '
            'or use config.regime=baseline'
        )
    test = main.records('test')
    return Splits(
        labeled=train.take(chosen['labeled']),
        unlabeled=unlabeled,
        validation=train.take(chosen['validation']),
        test=test.take(range(0, len(test), data.test_stride)),
        partial=any(p.report['partial'] for p in (main, *folders)),
        fingerprint=_fingerprint(main, folders, chosen),
    )


class Batches:
    """Step t -> this process's groups of the mini-batch of step t, as the fields of a Batch.

    Labeled and unlabeled records are each passed in a new shuffled order every epoch. Groups
    beyond `data.groups` are padding: zeros, with both masks False.
    """

    def __init__(self, config: Config, splits: Splits, groups: range) -> None:
        self._task, self._seed = config.task, config.seed
        self._total, self._groups = config.data.groups, groups
        self._levels, self._labels = config.ranked, config.labeled
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
        step = int(step)
        made = [
            self._group(step, group) if group < self._total else self._padding
            for group in self._groups
        ]
        return {name: np.stack([group[name] for group in made]) for name in Batch._fields}

    def ids(self, step: int) -> list[str]:
        """The examples of a step: what an error report names."""
        found = []
        for group in (g for g in self._groups if g < self._total):
            place = step * self._total + group
            if self._levels:
                found.append(self._ranked[place]['id'])
            places = range(place * self._labels, (place + 1) * self._labels)
            found += [self._labeled[p]['id'] for p in places]
        return found

    def _group(self, step: int, group: int) -> dict[str, np.ndarray]:
        out = {name: array.copy() for name, array in self._padding.items()}
        place = step * self._total + group
        if self._levels:
            rng = counter_rng(self._seed, RANKED, step, group)
            ranked = self._task.ranked_set(rng, self._ranked[place])
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


class BatchIterator(Iterator[Batch]):
    """Batches from step `start` on, made ahead by threads or worker processes."""

    def __init__(self, batches: Batches, data: Data, *, start: int = 0) -> None:
        self._next = start
        dataset = grain.MapDataset.source(batches)[start:]
        if data.workers:
            read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            ahead = grain.MultiprocessingOptions(
                num_workers=data.workers, per_worker_buffer_size=data.prefetch
            )
            self._iterator = iter(dataset.to_iter_dataset(read).mp_prefetch(ahead))
        else:
            read = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.prefetch)
            self._iterator = iter(dataset.to_iter_dataset(read))

    def __next__(self) -> Batch:
        batch = Batch(**next(self._iterator))
        self._next += 1
        return batch

    @property
    def position(self) -> dict[str, int]:
        """The step whose batch comes next: all that a checkpoint has to keep.

        Batches depend on their step alone, so a run goes on with any number of workers.
        """
        return {'next_step': self._next}

    def close(self) -> None:
        """Ends threads and worker processes."""
        self._iterator.close()


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
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        chosen = grain.MapDataset.source(places).map(self.__getitem__)
        return iter(chosen.to_iter_dataset(read))


def view_shapes(task: Task, records: Records) -> list[tuple[int, int]]:
    """(H, W) of the views that a task makes of each record; no image is decoded."""
    return [task.view_shape(int(r['height']), int(r['width'])) for r in records.annotations]


def _shuffled(records: Records, seed: int, stream: int) -> Any:
    """The records without end, in a new order every epoch; random access by place."""
    # grain seeds with 32 bits; the stream keeps the two orders apart.
    seed = int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])
    return grain.MapDataset.source(records).seed(seed).shuffle().repeat()


def _fingerprint(main: Prepared, folders: Sequence[Prepared], chosen: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for prepared in (main, *folders):
        digest.update(prepared.report['fingerprint'].encode())
    for name, rows in chosen.items():
        digest.update(f'{name} {rows.tolist()}'.encode())
    return digest.hexdigest()[:16]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
