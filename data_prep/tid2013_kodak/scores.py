"""TID2013's scores by reference, type and level, from its own table or from a CSV table."""

from __future__ import annotations

import pathlib
import re

from data_prep import tables
from data_prep.scores import parse_score
from data_prep.tid2013 import source as tid2013

CSV_TABLE = 'iqa_tables/TID2013.txt'
IMAGE_COLUMN, SCORE_COLUMN = 'dis_img_path', 'score'
ID = re.compile(r'i(\d\d)_(\d\d)_([1-5])')

Key = tuple[int, str, int]  # reference, type number, level


def key_of(id: str) -> Key | None:
    """Reference, type number and level of an image such as i01_01_1; None for another text."""
    match = ID.fullmatch(id)
    return (int(match[1]), match[2], int(match[3])) if match else None


def id_of(key: Key) -> str:
    """The id of an image, such as i01_01_1."""
    return f'i{key[0]:02d}_{key[1]}_{key[2]}'


def load(path: pathlib.Path) -> dict[Key, float]:
    """Every image's score; raises UserError that names the faulty rows."""
    values = tid2013.load(path) if path.name.lower() == tid2013.TABLE else _load_csv(path)
    keys = {key_of(name.removesuffix('.bmp')): value for name, value in values.items()}
    return {key: value for key, value in keys.items() if key}


def _load_csv(path: pathlib.Path) -> dict[str, float]:
    """Score by file name in lower case; paths may stand before the names."""
    table = tables.read(path)
    if not {IMAGE_COLUMN, SCORE_COLUMN} <= set(table.header):
        raise table.wrong_header(f'it must name {IMAGE_COLUMN} and {SCORE_COLUMN}')
    values: dict[str, float] = {}
    for row, fields in table.rows:
        name = pathlib.PurePosixPath(fields[IMAGE_COLUMN]).name.lower()
        try:
            if not key_of(name.removesuffix('.bmp')):
                raise ValueError(f'{fields[IMAGE_COLUMN]!r} is not like i01_01_1.bmp')
            if name in values:
                raise ValueError(f'{name} stands in another row already; keep one')
            scale = tid2013.Tid2013Source.scale
            values[name] = parse_score(fields[SCORE_COLUMN], scale, column=SCORE_COLUMN)
        except ValueError as error:
            table.faults.append((row, str(error)))
    tables.raise_faults(path, table.faults)
    return values
