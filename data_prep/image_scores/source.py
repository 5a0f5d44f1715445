"""Reads any folder of images with scores.csv, one row an image."""

from __future__ import annotations

import functools
import os
import pathlib

from data_prep import scores, tables
from data_prep.image_folder.source import walk
from data_prep.scores import OPTIONAL, Entry, ScoreSource
from data_prep.source import Item, Listing, Scale
from rank_ssl.errors import UserError
from rank_ssl.tables import number

TABLE = 'scores.csv'
# The score column's name says which way the scores run.
UNITS = {'score': 'score', 'mos': 'MOS', 'dmos': 'DMOS'}
LOWER_IS_BETTER = frozenset(('dmos',))
OTHER_NAMES = {'type': 'kind'}
SPLITS = ('train', 'test')
HEADER = f'image and one of {", ".join(UNITS)}, then any of {", ".join(OPTIONAL)}'


class ImageScoresSource(ScoreSource):
    """One's own images; `scale` is what the table declares, or runs over."""

    name = 'image_scores'
    version = '1.0.0'
    license = "The images' own."
    folder_is_identity = True
    builder = 'ImageScores'

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return (folder / TABLE).is_file()

    @classmethod
    def tree(cls, config: str) -> str:
        return '\n'.join(
            [
                'image_scores/      (or DIR itself)',
                '  any/folder/a.jpg  JPEG, PNG, BMP, GIF, TIFF, WebP, PPM; any number of images',
                f'  {TABLE}        header image,score where a higher score is better,',
                '                    image,dmos where a lower one is; then one line an image:',
                '                    any/folder/a.jpg,3.7',
                f'                    more columns, all optional: {",".join(OPTIONAL)}',
                '                    a line before the header may declare the range: # range 0 100',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep.image_scores import made

        made.write(folder, count=count, seed=seed)

    def items(self) -> Listing:
        assert self.folder is not None
        path = self.folder / TABLE
        if not path.is_file():
            raise UserError(f'{path} is missing; write it as below\n{self.tree(self.config)}')
        entries, self.scale = load(path)
        self._note_others(entries)
        listing: Listing = {}
        for split in SPLITS if entries[0].split else ('all',):
            items: list[Item] = []
            for entry in entries:
                if entry.split == split or split == 'all':
                    id, image = entry.image, self.folder / entry.image
                    place = f'{path} row {entry.row}'
                    self._add(items, id, image, entry.label, tables=[path], named_by=place)
            listing[split] = items
        return listing

    def _note_others(self, entries: list[Entry]) -> None:
        assert self.folder is not None
        named = {self.folder / entry.image for entry in entries}
        images = [image for image in walk(self.folder)[0] if image not in named]
        if images:
            self.notes.append(
                f'left out {len(images)} images that have no row in {TABLE}, such as '
                f'{images[0].relative_to(self.folder)}'
            )


def load(path: pathlib.Path) -> tuple[list[Entry], Scale]:
    """The rows of scores.csv, sorted by image, and the scale of their scores.

    Raises UserError that names the faulty rows.
    """
    table = tables.read(path)
    table.rename(OTHER_NAMES)
    column = _score_column(table)
    limits = _declared(table)
    lower = column in LOWER_IS_BETTER
    declared = Scale(*limits, lower, UNITS[column]) if limits else None
    name = functools.partial(_name, path.parent)
    entries = scores.parse_rows(table, column=column, scale=declared, name=name)
    for entry in entries:
        if 'split' in table.header and entry.split not in SPLITS:
            fault = f'split={entry.split!r} is not known; write train or test'
            table.faults.append((entry.row, fault))
    tables.raise_faults(path, table.faults)
    if not entries:
        raise UserError(f'{path} names no image; write a row for each one below the header')
    _check_splits(path, entries)
    values = [entry.label.score for entry in entries]
    scale = declared or Scale(min(values), max(values), lower, UNITS[column])
    return sorted(entries, key=lambda entry: entry.image), scale


def _score_column(table: tables.Table) -> str:
    """The name of the column with the scores; UserError for a header that is not ours."""
    header = table.header
    columns = [name for name in header if name in UNITS]
    known = {'image', *UNITS, *OPTIONAL}
    if 'image' not in header or len(columns) != 1:
        raise table.wrong_header(f'it must hold {HEADER}, each once')
    # Refused, not left out: a slip in 'reference' would put versions of a picture into both splits.
    if unknown := [name for name in header if name not in known]:
        raise table.wrong_header(f'rename or remove {unknown[0]!r}: it may hold {HEADER}')
    return columns[0]


def _declared(table: tables.Table) -> tuple[float, float] | None:
    """The lowest and highest possible score from the line `# range LOW HIGH`, None without one."""
    if not table.comment:
        return None
    words = table.comment.removeprefix('#').split()
    if len(words) == 3 and words[0].lower() == 'range':
        low, high = map(number, words[1:])
        if low < high:  # false for nan
            return low, high
    raise UserError(
        f'{table.path} row 1: {table.comment[: tables.SHOWN]!r} is not like # range 0 100, '
        'the lowest and highest possible score; mend or remove it'
    )


def _name(folder: pathlib.Path, text: str) -> str:
    """The text as it stands where that names a file, else without the blanks around it."""
    if os.path.isfile(folder / text):
        return text
    stripped = text.strip()
    if '\\' in stripped and not os.path.isfile(folder / stripped):
        raise ValueError(f'{stripped!r} is missing in {folder}; write / between folders')
    return stripped


def _check_splits(path: pathlib.Path, entries: list[Entry]) -> None:
    """Raises UserError for a split without images and for references in both splits."""
    if not entries[0].split:
        return
    for split in SPLITS:
        if not any(entry.split == split for entry in entries):
            raise UserError(
                f'{path} has no row with split={split}; write some, or leave the column out '
                'to have a fifth of the references chosen for testing'
            )
    first: dict[str, Entry] = {}
    faults: dict[str, tables.Fault] = {}
    for entry in entries:
        name = entry.label.reference
        before = first.setdefault(name, entry)
        if name and before.split != entry.split and name not in faults:
            faults[name] = (
                entry.row,
                f'reference {name!r} is in split={entry.split} and, in row {before.row}, in '
                f'split={before.split}; put all its images into one',
            )
    tables.raise_faults(path, list(faults.values()))


SOURCE = ImageScoresSource
