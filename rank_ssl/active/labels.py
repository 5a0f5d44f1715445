"""One line of a file of labels: its photo, and its point or score; a ValueError has the fault."""

import contextlib
import pathlib
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from rank_ssl.active import tables
from rank_ssl.errors import UserError
from rank_ssl.ops import images
from rank_ssl.tables import number

UNITS = ('score', 'mos', 'dmos')  # names of a column of scores; of the last less is better
Point = tuple[str, str]  # (x, y) px as they are written


@contextlib.contextmanager
def faults(given: tables.Table, line: int) -> Iterator[None]:
    """A ValueError within is a fault of that line."""
    try:
        yield
    except ValueError as error:
        given.faults.append((line, str(error)))


def check_header(given: tables.Table, wanted: Sequence[str]) -> None:
    """Raises UserError where a column is missing, or no line follows."""
    if any(given.header.count(title) != 1 for title in wanted):
        raise UserError(
            f'--labels={given.path}: the header is {",".join(given.header)[:60]!r}; it must hold '
            f'{",".join(wanted)}'
        )
    if not given.rows and not given.faults:
        raise UserError(f'--labels={given.path} labels no photo: write a line below the header')


def name_of(pool: pathlib.Path, text: str) -> str:
    """The photo's path in the pool, with '/'; ValueError where there is none."""
    try:
        name = text if (pool / text).is_file() else text.strip()
        path = pathlib.PurePosixPath(name)
        there = (pool / path).is_file()
    except OSError:  # a name that is too long
        there = False
    if not there or path.is_absolute() or '..' in path.parts:
        raise ValueError(f'{text!r} is no file in {pool}; write it as to_label.csv does')
    return str(path)


def shape_of(path: pathlib.Path) -> tuple[int, int]:
    """(H, W) px of the upright image; ValueError where it cannot be read."""
    try:
        height, width = images.decode(path.read_bytes()).shape[:2]
    except images.ImageError as error:
        raise ValueError(f'{path.name}: {error}; leave it out') from None
    except OSError as error:
        raise ValueError(f'{path.name}: {error.strerror}; leave it out') from None
    return height, width


def point_of(x: str, y: str, shape: tuple[int, int]) -> Point | None:
    """The point, None where both are empty; ValueError for one outside the image."""
    if not x and not y:
        return None
    for axis, text, side in (('x', x, shape[1]), ('y', y, shape[0])):
        if np.isnan(value := number(text)):
            cure = 'write px such as 12.5, or leave both empty for an image without people'
            raise ValueError(f'{axis}={text!r} is no number; {cure}')
        if not 0 <= value <= side:
            raise ValueError(f'{axis}={text} is outside the image, whose {axis} are 0 to {side} px')
    return x, y


def score_of(unit: str, text: str, limits: tuple[float, float] | None) -> float:
    """The score in a text; ValueError where it is no number of 32 bits within the limits."""
    value = number(text)
    try:
        struct.pack('<f', value)
    except OverflowError:
        value = np.nan
    if np.isnan(value):
        raise ValueError(f'{unit}={text!r} is no number; write the score or remove the line')
    if limits and not limits[0] <= value <= limits[1]:
        raise ValueError(
            f'{unit}={text} is outside the declared range {limits[0]:g}..{limits[1]:g}'
        )
    return value


def limits_of(comment: str) -> tuple[float, float] | None:
    """The lowest and highest score of a line `# range LOW HIGH`; None of another."""
    words = comment.removeprefix('#').split()
    if len(words) != 3 or words[0].lower() != 'range':
        return None
    return number(words[1]), number(words[2])


def numbers_of(point: Point) -> tuple[float, float]:
    """(x, y) of a point that is written so."""
    return number(point[0]), number(point[1])
