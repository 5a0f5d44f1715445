"""Prepared data sets on disk: made by `data_prep` where they are not, read through TFDS."""

import contextlib
import dataclasses
import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from rank_ssl import logs
from rank_ssl.config import Config, Data
from rank_ssl.errors import UserError
from rank_ssl.ops import images
from rank_ssl.types import Record

TEXTS = ('id', 'reference', 'kind')  # TFDS gives text as bytes
CURE = 'delete it, and it is prepared again'


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set on disk: its TFDS folder and what its preparation reported.

    Where its files are damaged, reading them raises UserError.
    """

    path: str
    report: dict[str, Any]

    @functools.cached_property
    def builder(self) -> Any:
        """The TFDS builder that reads it."""
        with _damage(self.path):
            return tfds.builder_from_directory(self.path)

    @property
    def splits(self) -> list[str]:
        """The names of its splits."""
        return list(self.builder.info.splits)

    @property
    def features(self) -> list[str]:
        """The names of what its records hold."""
        return list(self.builder.info.features)

    def records(self, split: str, rows: Sequence[int] | None = None) -> 'Records':
        """The records of a split, or those rows of it."""
        decoders = {'image': tfds.decode.SkipDecoding()}
        builder = self.builder
        with _damage(self.path):
            source = builder.as_data_source(split, decoders=decoders)
        rows = range(len(source)) if rows is None else rows
        return Records([source], [(0, int(row)) for row in rows])


def prepare(
    config: Config, workdir: str, *, flags: str = 'config.data.'
) -> tuple[Prepared, list[Prepared]]:
    """The data set of a config and its unlabeled folders, prepared first where they are not.

    `data_prep` runs as a process of its own; its progress goes to stderr, and its cures name flags
    that begin with `flags`. Raises UserError with its message where it fails.
    """
    data = config.data
    make = functools.partial(_prepare, data, workdir=workdir, flags=flags)
    main = make(data.dataset, manual_dir=data.manual_dir, part=data.part)
    named = list(filter(None, map(str.strip, data.unlabeled_dirs.split(','))))
    name = data.unlabeled_set
    ranks = config.needs_unlabeled and config.mode != 'evaluate'
    if not ranks or not (named or name != 'image_folder'):
        return main, []
    if named:
        return main, [make(name, manual_dir=f, tiny=False) for f in named]
    if name == 'ladders' and not data.tiny:
        raise UserError(
            'config.data.unlabeled_set=ladders reads folders of pristine images: name them in '
            'config.data.unlabeled_dirs'
        )
    return main, [make(name, manual_dir=data.manual_dir)]


def _prepare(
    data: Data,
    name: str,
    *,
    workdir: str,
    flags: str,
    manual_dir: str,
    part: str = '',
    tiny: bool = True,
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
    done = subprocess.run(
        [*command, f'--flags={flags}'], stdout=subprocess.PIPE, stderr=None, text=True, check=False
    )
    if done.returncode == 2:
        raise PreparationRefused
    if done.returncode != 0 or not done.stdout.strip():
        raise UserError(
            f'preparing {name} failed with exit code {done.returncode}; '
            f'run it alone: {" ".join(command[1:])}'
        )
    path = done.stdout.strip().splitlines()[-1]
    report = logs.read_json(pathlib.Path(path) / 'prepared.json', cure=f'{path} is damaged: {CURE}')
    return Prepared(path, report or {})


@contextlib.contextmanager
def _damage(folder: str) -> Iterator[None]:
    """What reading a damaged folder raises as a UserError; TFDS has many kinds of errors for it."""
    try:
        yield
    except Exception as error:
        fault = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'{folder} is damaged ({fault}): {CURE}') from error


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
        """Record i with its image as the bytes of the file. Raises UserError for a damaged one."""
        place, row = self._rows[i]
        source = self._sources[place]
        try:
            raw = source[row]
        except RuntimeError:  # what array_record raises for each of its hashes that is another
            with _damage(str(source.dataset_info.data_dir)):
                raise
        return {**raw, **{name: _text(raw[name]) for name in TEXTS if name in raw}}

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


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
