"""Reads and writes points.csv: the header `image,x,y`, then one row a person."""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Container, Iterable, Iterator, Mapping

from data_prep.source import BAD_SHOWN
from rank_ssl.errors import UserError

HEADER = ['image', 'x', 'y']
SHOWN = 60  # characters of a header that is not ours

Point = tuple[float, float]


def load(path: pathlib.Path, files: Container[str]) -> dict[str, list[Point]]:
    """Points (x, y) px by image name; an empty list for an image without people.

    `files` are the names of the files beside it. Raises UserError that names the file and the row,
    counted from 1 at the header: one line for one fault, below it the others where there are more.
    """
    table: dict[str, list[Point]] = {}
    seen: dict[str, dict[bool, int]] = {}  # name -> whether with a point -> first such row
    faults: list[tuple[int, str]] = []
    for row, fields in _rows(path):
        try:
            name, point = parse(fields)
        except ValueError as error:
            faults.append((row, str(error)))
        else:
            seen.setdefault(name, {}).setdefault(point is not None, row)
            table.setdefault(name, []).extend([point] if point else [])
    for name, rows in seen.items():
        if name not in files:
            cure = 'add the image or remove its rows'
            fault = f'{name!r} is missing in {path.parent}; {cure}'
            faults.append((min(rows.values()), fault))
        elif len(rows) == 2:
            faults.append((rows[False], f'{name!r} has points in other rows; remove this one'))
    if faults:
        raise UserError(_message(path, sorted(faults)))
    if not table:
        raise UserError(f'{path} names no image; write a row for each person below the header')
    return table


def parse(fields: list[str]) -> tuple[str, Point | None]:
    """The image's name and (x, y) px, None where both are empty; ValueError with the fault."""
    if len(fields) != len(HEADER):
        number = f'{len(fields)} field' + 's' * (len(fields) != 1)
        raise ValueError(f'has {number}; write image,x,y, a name with a comma in double quotes')
    name, x, y = fields
    if not name.strip():
        raise ValueError('names no image; write its file name or remove the row')
    if pathlib.PurePath(name).name != name:
        raise ValueError(f'{name!r} is no file name; leave out the folders')
    if not x.strip() and not y.strip():
        return name, None
    return name, (_number('x', x), _number('y', y))


def _number(axis: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        cure = 'write px such as 12.5, or leave both empty for an image without people'
        raise ValueError(f'{axis}={text!r} is not a finite number; {cure}')
    return value


def _rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """(row number, fields) below the header, empty rows left out."""
    with path.open(encoding='utf-8-sig', newline='') as file:
        reader = csv.reader(file, strict=True)
        row = 1
        try:
            header = next(reader, [])
            if [field.strip() for field in header] != HEADER:
                found = ','.join(header)[:SHOWN]
                raise UserError(f'{path} row 1: the header is {found!r}; it must be image,x,y')
            row = reader.line_num + 1
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield row, fields
                row = reader.line_num + 1
        except UnicodeDecodeError:
            raise UserError(f'{path} is not UTF-8 text; save it as CSV in UTF-8') from None
        except csv.Error as error:
            cure = 'check its double quotes'
            raise UserError(f'{path} row {row}: {error}; {cure}') from None


def _message(path: pathlib.Path, faults: list[tuple[int, str]]) -> str:
    lines = [f'{path} row {row}: {fault}' for row, fault in faults]
    if len(lines) > 1:
        lines[0] += f' (the first of {len(lines)} faults)'
    more = [f'and {len(lines) - BAD_SHOWN} more'] if len(lines) > BAD_SHOWN else []
    return '\n'.join(lines[:BAD_SHOWN] + more)


def write(path: pathlib.Path, table: Mapping[str, Iterable[Iterable[float]]]) -> None:
    """Writes points (x, y) px by image name, to a hundredth of a px, as `load` reads them."""
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(HEADER)
        for name, points in table.items():
            rows = [[name, *(f'{value:.2f}' for value in point)] for point in points]
            writer.writerows(rows or [[name, '', '']])
