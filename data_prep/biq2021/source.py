"""Reads BIQ2021 as published: Images and one table of scores for each split."""

from __future__ import annotations

import pathlib

from data_prep import scores, tables
from data_prep.files import by_lower_name, child
from data_prep.scores import Entry, ScoreSource
from data_prep.source import Item, Listing, Scale
from rank_ssl.errors import UserError

EXPECTED = {'train': 10_000, 'test': 2_000}
IMAGES = 'Images'
# The authors' repository holds both; the first one's scores are the final ones.
TABLES = ('{} (images and mos).csv', '{}.csv')
EARLIER = TABLES[1]
HEADERS = {'image name': 'image'}  # published spelling -> ours


class Biq2021Source(ScoreSource):
    """Photos with MOS; their distortions come from the camera, so there are no references."""

    name = 'biq2021'
    version = '1.0.0'
    license = 'Free for research; cite Ahmed and Asif, 2022 (BIQ2021).'
    builder = 'Biq2021'
    scale = Scale(0.0, 1.0, lower_is_better=False, unit='MOS')

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return child(folder, IMAGES).is_dir() and bool(cls._tables(folder))

    @classmethod
    def _tables(cls, folder: pathlib.Path) -> dict[str, pathlib.Path]:
        """The split tables of one spelling, where there are any."""
        for pattern in TABLES:
            paths = {split: child(folder, pattern.format(split)) for split in EXPECTED}
            found = {split: path for split, path in paths.items() if path.is_file()}
            if found:
                return found
        return {}

    @classmethod
    def tree(cls, config: str) -> str:
        return '\n'.join(
            [
                'biq2021/                       (or DIR itself)',
                '  Images/                      ss01 (10).jpg and so on',
                '  Train (Images and MOS).csv   (or train.csv) header Image Name,MOS or image,mos',
                '  Test (Images and MOS).csv    (or test.csv)',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep.biq2021 import made

        made.write(folder, count=count, seed=seed)

    def expected(self) -> dict[str, int]:
        return EXPECTED

    def items(self) -> Listing:
        assert self.folder is not None
        paths = self._tables(self.folder)
        for split in EXPECTED:
            if split not in paths:
                raise UserError(
                    f'BIQ2021 in {self.folder} lacks its table of {split} scores; '
                    f'arrange it as below\n{self.tree(self.config)}'
                )
        if any(path.name.lower() == EARLIER.format(split) for split, path in paths.items()):
            names = ' and '.join(path.name for path in paths.values())
            self.notes.append(
                f"scores of {names}: an earlier version, where they are the repository's own, of "
                'those in Train (Images and MOS).csv and Test (Images and MOS).csv'
            )
        entries = {split: _load(path) for split, path in paths.items()}
        _check_splits(entries, paths)
        files = by_lower_name(child(self.folder, IMAGES))
        named = {entry.image.lower() for rows in entries.values() for entry in rows}
        if strays := sorted(files.keys() - named):
            self.notes.append(
                f'left out {len(strays)} of {len(files)} files in {IMAGES}, which no table names, '
                f'such as {files[strays[0]].name}'
            )
        return {split: self._split_items(split, entries[split], paths[split]) for split in EXPECTED}

    def _split_items(self, split: str, rows: list[Entry], table: pathlib.Path) -> list[Item]:
        assert self.folder is not None
        folder = child(self.folder, IMAGES)
        files = by_lower_name(folder)
        items: list[Item] = []
        for row in rows:
            id, image = f'{split}/{row.image}', files.get(row.image.lower(), folder / row.image)
            place = f'{table} row {row.row}'
            self._add(items, id, image, row.label, tables=[table], named_by=place)
        return items


def _load(path: pathlib.Path) -> list[Entry]:
    """The rows of one table in its order; UserError that names the faulty ones."""
    table = tables.read(path)
    table.rename(HEADERS)
    if not {'image', 'mos'} <= set(table.header):
        raise table.wrong_header('it must be image,mos or Image Name,MOS')
    entries = scores.parse_rows(
        table, column='mos', scale=Biq2021Source.scale, optional=(), key=str.lower
    )
    tables.raise_faults(path, table.faults)
    if not entries:
        raise UserError(f'{path} names no image; unpack it again')
    return entries


def _check_splits(entries: dict[str, list[Entry]], paths: dict[str, pathlib.Path]) -> None:
    train = {entry.image.lower() for entry in entries['train']}
    faults = [
        (entry.row, f'{entry.image!r} stands in {paths["train"].name} too; remove one of them')
        for entry in entries['test']
        if entry.image.lower() in train
    ]
    tables.raise_faults(paths['test'], faults)


SOURCE = Biq2021Source
