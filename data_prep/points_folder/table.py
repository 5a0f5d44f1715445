"""Reads and writes points.csv: the header `image,x,y`, then one row a person."""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Container, Iterable, Mapping

from data_prep import tables
from rank_ssl.errors import UserError
from rank_ssl.tables import number

HEADER = ['image', 'x', 'y']

Point = tuple[float, float]


def load(path: pathlib.Path, files: Container[str]) -> dict[str, list[Point]]:
    """Points (x, y) px by image name; an empty list for an image without people.

    `files` are the names of the files beside it. Raises UserError that names the file and the row,
    counted from 1 at the header: one line for one fault, below it the others where there are more.
    """
    table = tables.read(path)
    if table.header != HEADER:
        raise table.wrong_header('it must be image,x,y')
    points: dict[str, list[Point]] = {}
    seen: dict[str, dict[bool, int]] = {}  # name -> whether with a point -> first such row
    for row, fields in table.rows:
        try:
            name, point = parse(fields)
        except ValueError as error:
            table.faults.append((row, str(error)))
        else:
            seen.setdefault(name, {}).setdefault(point is not None, row)
            points.setdefault(name, []).extend([point] if point else [])
    for name, rows in seen.items():
        if name not in files:
            cure = 'add the image or remove its rows'
            fault = f'{name!r} is missing in {path.parent}; {cure}'
            table.faults.append((min(rows.values()), fault))
        elif len(rows) == 2:
            fault = f'{name!r} has points in other rows; remove this one'
            table.faults.append((rows[False], fault))
    tables.raise_faults(path, table.faults)
    if not points:
        raise UserError(f'{path} names no image; write a row for each person below the header')
    return points


def parse(fields: Mapping[str, str]) -> tuple[str, Point | None]:
    """The image's name and (x, y) px, None where both are empty; ValueError with the fault."""
    name, x, y = (fields[title] for title in HEADER)
    if not name.strip():
        raise ValueError('names no image; write its file name or remove the row')
    if pathlib.PurePath(name).name != name:
        raise ValueError(f'{name!r} is no file name; leave out the folders')
    if not x.strip() and not y.strip():
        return name, None
    return name, (_number('x', x), _number('y', y))


def _number(axis: str, text: str) -> float:
    value = number(text)
    if math.isnan(value):
        cure = 'write px such as 12.5, or leave both empty for an image without people'
        raise ValueError(f'{axis}={text!r} is not a finite number; {cure}')
    return value


def write(path: pathlib.Path, table: Mapping[str, Iterable[Iterable[float]]]) -> None:
    """Writes points (x, y) px by image name, to a hundredth of a px, as `load` reads them."""
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(HEADER)
        for name, points in table.items():
            rows = [[name, *(f'{value:.2f}' for value in point)] for point in points]
            writer.writerows(rows or [[name, '', '']])
