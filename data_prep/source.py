"""What a data set is before TFDS sees it: its files, its checks and its examples.

A data set is one folder in `data_prep/`: `source.py` holds a subclass of `Source` (light to import:
the standard library alone at module level) under the name SOURCE, `NAME.py` the TFDS builder made
from it, beside README.md and CITATIONS.bib.
"""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from rank_ssl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

BAD_SHOWN = 20
TINY_MARKER = '.tiny.json'  # stands in a folder of tiny made images

Listing = dict[str, list['Item']]


class BadFile(Exception):
    """One example that can't be used; the message names the file and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One example to be read.

    `files` are what the fingerprint covers, `problem` is a fault known from file names alone.
    """

    id: str
    files: tuple[pathlib.Path, ...] = ()
    problem: str = ''


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a set's quality scores run as published: declared range, direction and unit."""

    low: float
    high: float
    lower_is_better: bool
    unit: str  # 'MOS', 'DMOS'

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return dataclasses.asdict(self)


class Source:
    """Base class of a data set's reader; used as a context manager while examples are read.

    `folder` is what `locate` found, None for a set that is drawn. `scale` is None for a set without
    quality scores; where the files themselves declare it, `items` sets it.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    license: ClassVar[str]
    configs: ClassVar[tuple[str, ...]] = ('default',)
    options: ClassVar[Mapping[str, int]] = {}
    needs_folder: ClassVar[bool] = True
    folder_is_identity: ClassVar[bool] = False  # another folder is another set, not a copy
    takes_all: ClassVar[bool] = False  # every image below the folder: a person has to name it
    builder: ClassVar[str]  # class name in NAME.py
    scale: Scale | None = None

    def __init__(self, config: str, folder: pathlib.Path | None, **options: int) -> None:
        self.config = config
        self.folder = folder
        self.values = {**self.options, **options}
        self.notes: list[str] = []

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    @classmethod
    def locate(cls, config: str, manual_dir: pathlib.Path) -> pathlib.Path | None:
        """The folder that holds the set: manual_dir/NAME, then manual_dir itself, or None."""
        for folder in (manual_dir / cls.name, manual_dir):
            if cls.holds(config, folder):
                return folder
        return None

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        """Whether `folder` looks like the unpacked set (its layout is checked by `items`)."""
        raise NotImplementedError

    @classmethod
    def tree(cls, config: str) -> str:
        """The expected folder tree, as lines for an error message."""
        raise NotImplementedError

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        """Writes `count` train and max(2, count // 2) test made images in the published layout."""
        raise NotImplementedError

    def expected(self) -> dict[str, int]:
        """Published number of examples per split; empty where any number is right."""
        return {}

    def items(self) -> Listing:
        """The examples of each non-empty split in order; strays are counted in `self.notes`.

        Raises UserError with the expected tree where the layout is not the published one.
        """
        raise NotImplementedError

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        """The features of one example and its decoded image u8[H, W, 3]; raises BadFile."""
        raise NotImplementedError


class MatSource(Source):
    """A source with .mat files, read by one child process that ends with the reading."""

    _mats: Any = None

    def __exit__(self, *exc: object) -> None:
        if self._mats is not None:
            self._mats.close()

    def read_mat(self, path: pathlib.Path) -> dict[str, Any]:
        """The variables of a .mat file; raises BadFile."""
        from data_prep import mat

        if self._mats is None:
            self._mats = mat.MatReader()
        found: dict[str, Any] = self._mats.read(path)
        return found


def names() -> list[str]:
    """The data sets there are: the folders of this package that hold a source.py."""
    here = pathlib.Path(__file__).parent
    return sorted(path.parent.name for path in here.glob('*/source.py'))


def load(name: str) -> type[Source]:
    """The Source class of one data set; a UserError for an unknown name lists those there are."""
    if name not in names():
        raise UserError(f'data set {name!r} is not known; choose one of {", ".join(names())}')
    source: type[Source] = importlib.import_module(f'data_prep.{name}.source').SOURCE
    return source


def check_config(source: type[Source], config: str | None) -> str:
    """The named config, or the set's first one; a UserError lists those there are."""
    if config is None:
        return source.configs[0]
    if config not in source.configs:
        raise UserError(f'--part={config}: {source.name} has {", ".join(source.configs)}')
    return config


def check_options(source: type[Source], given: Mapping[str, int]) -> dict[str, int]:
    """The given options where this set takes them all and they are in range, else a UserError."""
    for key, value in given.items():
        if key not in source.options:
            takes = ', '.join(f'--{option}' for option in source.options) or 'no options'
            raise UserError(f'--{key}={value}: {source.name} takes {takes}')
        least = 0 if key == 'seed' else 1
        if value < least:
            raise UserError(f'--{key}={value} must be at least {least}')
    return dict(given)


def shortfall(source: Source, listing: Listing) -> str:
    """'train 60 of 400, test 40 of 316' for splits below their published size, else ''."""
    parts = []
    for split, expected in source.expected().items():
        found = len(listing.get(split, ()))
        if found < expected:
            parts.append(f'{split} {found} of {expected}')
    return ', '.join(parts)


def bad_files_message(label: str, bad: list[str]) -> str:
    """The error for bad files: one line with their number and the cure, then the files."""
    more = [f'and {len(bad) - BAD_SHOWN} more'] if len(bad) > BAD_SHOWN else []
    noun = 'file is' if len(bad) == 1 else 'files are'
    cure = 'mend or remove them, or leave them out with --on_bad=skip'
    return '\n'.join([f'{label}: {len(bad)} {noun} unusable; {cure}', *bad[:BAD_SHOWN], *more])


def read_image(path: pathlib.Path) -> tuple[bytes, np.ndarray]:
    """A file's bytes and its decoded pixels u8[H, W, 3]; raises BadFile with the path."""
    from rank_ssl.ops import images

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f'{path}: {error.strerror or error}') from error
    try:
        return data, images.decode(data)
    except images.ImageError as error:
        raise BadFile(f'{path}: {error}') from error


def crowd_features(
    source: Source, id: str, data: bytes, image: np.ndarray, points: np.ndarray
) -> dict[str, Any]:
    """The features of a counting example from its bytes, pixels and annotated points [P, 2].

    `count` is P; `points` leaves out those more than a pixel off the image, whose number is
    `outside`. Points off the image are noted in `source.notes`.
    """
    import numpy as np

    from rank_ssl.ops import density

    height, width = image.shape[:2]
    cleaned, outside = density.clean_points(points, (height, width))
    off = np.any((points < 0) | (points > (width, height)), axis=1).sum()
    if off:
        moved = int(off) - outside
        source.notes.append(f'{id}: {outside} points off the image dropped, {moved} moved onto it')
    return {
        'image': data,
        'id': id,
        'points': cleaned,
        'count': len(points),
        'outside': outside,
        'height': height,
        'width': width,
    }


def score_features(
    source: Source,
    id: str,
    data: bytes,
    image: np.ndarray,
    *,
    score: float,
    reference: str = '',
    kind: str = '',
    level: int = 0,
) -> dict[str, Any]:
    """The features of an image with a quality score, from its bytes and its pixels u8[H, W, 3].

    `score` is as published, on `source.scale`; '' and 0 stand for what is not known.
    """
    assert source.scale is not None
    height, width = image.shape[:2]
    return {
        'image': data,
        'id': id,
        'height': height,
        'width': width,
        'score': score,
        'lower_is_better': int(source.scale.lower_is_better),
        'reference': reference,
        'kind': kind,
        'level': level,
    }
