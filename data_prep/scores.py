"""What the image quality sets share: labels, score tables and the reader of their images."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import struct
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from data_prep.source import BadFile, Item, Scale, Source, read_image, score_features
from data_prep.tables import Table
from rank_ssl.tables import number

if TYPE_CHECKING:
    import numpy as np

OPTIONAL = ('reference', 'kind', 'level', 'split')  # columns that a score table may have


@dataclasses.dataclass(frozen=True)
class Label:
    """What is known of an image: its score as published; '' and 0 stand for unknown."""

    score: float
    reference: str = ''
    kind: str = ''
    level: int = 0


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a score table; `image` is a path with '/' relative to the images' folder."""

    row: int
    image: str
    label: Label
    split: str = ''


class ScoreSource(Source):
    """Base of the sets whose `items` calls `_add` for each image, with its label."""

    def __init__(self, config: str, folder: pathlib.Path | None, **options: int) -> None:
        super().__init__(config, folder, **options)
        self._labels: dict[str, Label] = {}

    def _add(
        self,
        items: list[Item],
        id: str,
        image: pathlib.Path,
        label: Label | None,
        *,
        tables: Sequence[pathlib.Path],
        named_by: str,
    ) -> None:
        """Appends an item: one with a problem where the image or its label is missing.

        `tables` are the files the labels come from, `named_by` the place in one of them.
        """
        problem = ''
        if label is None:
            problem = f'{image}: {named_by} has no score for it'
        elif not os.path.isfile(image):  # False for a name that no file can have
            problem = f'{image}: missing, though {named_by} names it'
        # The tables stand with the first item alone: the fingerprint reads each item's files.
        files = [*([] if problem else [image]), *([] if items else tables)]
        items.append(Item(id, tuple(files), problem))
        if label is not None:
            self._labels[id] = label

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        if item.problem:
            raise BadFile(item.problem)
        data, image = read_image(item.files[0])
        label = dataclasses.asdict(self._labels[item.id])
        return score_features(self, item.id, data, image, **label), image


def parse_score(text: str, scale: Scale | None, *, column: str = 'score') -> float:
    """The score in a text; ValueError with fault and cure where it is no number on the scale."""
    value = number(text)
    if math.isnan(value):
        cure = 'write the score or remove the row'
        raise ValueError(f'{column}={text!r} is not a finite number; {cure}')
    try:
        struct.pack('<f', value)
    except OverflowError:
        cure = 'give the scores another unit'
        raise ValueError(f'{column}={text} is beyond 32-bit numbers; {cure}') from None
    if scale and not scale.low <= value <= scale.high:
        declared = f'the declared range {scale.low:g}..{scale.high:g}'
        raise ValueError(f'{column}={text} is outside {declared}; correct one of them')
    return value


def parse_rows(
    table: Table,
    *,
    column: str,
    scale: Scale | None,
    optional: Collection[str] = OPTIONAL,
    name: Callable[[str], str] = str,
    key: Callable[[str], str] = str,
) -> list[Entry]:
    """The entries of a table with the columns image, `column` and perhaps those of `optional`.

    Faults, a second row of one image among them, are added to `table.faults`. `name` gives the
    image's path from its text or raises ValueError, `key` is equal where two paths are one file's.
    """
    entries: dict[str, Entry] = {}
    kept = {'image', column, *optional}
    for row, fields in table.rows:
        fields = {title: text for title, text in fields.items() if title in kept}
        try:
            entry = _entry(row, {**fields, 'image': name(fields['image'])}, column, scale)
            first = entries.setdefault(key(entry.image), entry)
            if first is not entry:
                raise ValueError(
                    f'{entry.image!r} stands in row {first.row} already, there with '
                    f'{column}={first.label.score:g}; keep one row for each image'
                )
        except ValueError as error:
            table.faults.append((row, str(error)))
    return list(entries.values())


def _entry(row: int, fields: dict[str, str], column: str, scale: Scale | None) -> Entry:
    label = Label(
        parse_score(fields[column], scale, column=column),
        reference=fields.get('reference', '').strip(),
        kind=fields.get('kind', '').strip(),
        level=_level(fields.get('level', '').strip()),
    )
    return Entry(row, _image(fields['image']), label, fields.get('split', '').strip())


def _image(name: str) -> str:
    if not name.strip():
        raise ValueError('names no image; write its file name or remove the row')
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts:
        raise ValueError(f'{name!r} is no path below the folder; write it relative, without ..')
    return str(path)


def _level(text: str) -> int:
    value = number(text or '0')  # spreadsheets write 3.0 where other rows are empty
    if not (0 <= value < 2**31 and value == int(value)):
        raise ValueError(f'level={text!r} is no whole number from 0; write one or leave it empty')
    return int(value)
