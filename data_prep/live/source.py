"""Reads LIVE release 2 as published: five folders of BMP images and the scores in .mat files."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from data_prep.files import by_lower_name, child
from data_prep.scores import Label, ScoreSource
from data_prep.source import BadFile, Item, Listing, Scale
from rank_ssl.errors import UserError

# Folder, its images (those that copy a reference included) and our name, in the tables' order.
FOLDERS = (
    ('jp2k', 227, 'jpeg2000'),
    ('jpeg', 233, 'jpeg'),
    ('wn', 174, 'white_noise'),
    ('gblur', 174, 'gaussian_blur'),
    ('fastfading', 174, 'fast_fading'),
)
TOTAL = sum(number for _, number, _ in FOLDERS)
COPIES = 203  # of references, with DMOS 0
TABLES = (('dmos_realigned.mat', 'dmos_new'), ('dmos.mat', 'dmos'))  # the better one first
SCALES = {
    'dmos_new': Scale(-3.0, 112.0, lower_is_better=True, unit='DMOS'),  # they are -2.64..111.77
    'dmos': Scale(-5.0, 105.0, lower_is_better=True, unit='DMOS'),  # made to fill 0..100
}
REFERENCES = 'refnames_all.mat'


class LiveSource(ScoreSource):
    """The distorted images with their DMOS, realigned over the types where that table is there."""

    name = 'live'
    version = '1.0.0'
    license = 'Free for research with its copyright notice; cite Sheikh et al., 2006 (LIVE).'
    builder = 'Live'
    scale = SCALES['dmos_new']

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return any(child(folder, name).is_file() for name, _ in TABLES) or all(
            child(folder, name).is_dir() for name, *_ in FOLDERS
        )

    @classmethod
    def tree(cls, config: str) -> str:
        folders = [f'  {name + "/":<23}img1.bmp ... img{number}.bmp' for name, number, _ in FOLDERS]
        return '\n'.join(
            [
                'live/                    (or DIR itself)',
                *folders,
                '  refimgs/               the 29 pristine images (not read)',
                '  dmos_realigned.mat     dmos_new and orgs (or dmos.mat with dmos and orgs)',
                '  refnames_all.mat',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep.live import made

        made.write(folder, count=count, seed=seed)

    def expected(self) -> dict[str, int]:
        return {'all': TOTAL - COPIES}

    def items(self) -> Listing:
        assert self.folder is not None
        scores, column = self._table()
        names = self._existing(REFERENCES)
        self.scale = SCALES[column]
        dmos, copies, references = self._columns(scores, column, names)
        if sum(copies) < COPIES:
            raise UserError(
                f'{scores}: orgs flags {sum(copies)} copies of references, not {COPIES}; '
                'unpack it again'
            )
        both, place = [scores, names], str(scores)
        items: list[Item] = []
        at = 0  # in the tables
        for name, number, kind in FOLDERS:
            folder = child(self.folder, name)
            files = by_lower_name(folder)
            self._note_others(name, files, references[at : at + number])
            for n in range(1, number + 1):
                if not copies[at]:
                    image = files.get(f'img{n}.bmp', folder / f'img{n}.bmp')
                    label = Label(dmos[at], pathlib.PurePath(references[at]).stem, kind)
                    self._add(items, f'{name}/img{n}', image, label, tables=both, named_by=place)
                at += 1
        self.notes.append(f'left out {sum(copies)} images that are copies of references')
        return {'all': items}

    def _table(self) -> tuple[pathlib.Path, str]:
        """The better table of scores there is, and its variable."""
        assert self.folder is not None
        for name, column in TABLES:
            path = child(self.folder, name)
            if path.is_file():
                if name != TABLES[0][0]:
                    self.notes.append(f'scores of {name}, which are not realigned over the types')
                return path, column
        return self._existing(TABLES[0][0]), TABLES[0][1]

    def _existing(self, name: str) -> pathlib.Path:
        assert self.folder is not None
        path = child(self.folder, name)
        if not path.is_file():
            raise UserError(
                f'LIVE in {self.folder} lacks {name}; unpack it as below\n{self.tree(self.config)}'
            )
        return path

    def _columns(
        self, scores: pathlib.Path, column: str, names: pathlib.Path
    ) -> tuple[list[float], list[bool], list[str]]:
        """DMOS, whether it's a copy, and reference name of the 982 images."""
        from data_prep import mat

        try:
            with mat.MatReader() as reader:
                table, references = reader.read(scores), reader.read(names)
        except BadFile as error:
            raise UserError(f'{error}; unpack it again') from None
        dmos = _numbers(table, column, scores)
        copies = [value != 0 for value in _numbers(table, 'orgs', scores)]
        low, high = SCALES[column].low, SCALES[column].high
        for i, value in enumerate(dmos):
            if not copies[i] and not low <= value <= high:
                raise UserError(
                    f'{scores}: {column} number {i + 1} is {value:g}, outside '
                    f'{low:g}..{high:g}; unpack it again'
                )
        return dmos, copies, _texts(references, names)

    def _note_others(
        self, name: str, files: dict[str, pathlib.Path], references: list[str]
    ) -> None:
        """Notes strays, and references that info.txt, which isn't used, names otherwise."""
        known = {f'img{n}.bmp': reference for n, reference in enumerate(references, start=1)}
        strays = sorted(files.keys() - known.keys() - {'info.txt'})
        if strays:
            self.notes.append(f'{name}: ignored {len(strays)} other files, such as {strays[0]}')
        told = _info(files['info.txt']) if 'info.txt' in files else {}
        differing = [image for image in known if told.get(image, known[image]) != known[image]]
        if differing:
            self.notes.append(
                f'{name}: info.txt names another reference than {REFERENCES}, which is used, for '
                f'{len(differing)} images, such as {differing[0]}'
            )


def _numbers(table: dict[str, Any], name: str, path: pathlib.Path) -> list[float]:
    """The 982 numbers of a variable; UserError where it holds others."""
    import numpy as np

    values = np.asarray(table.get(name, ()))
    if values.dtype.kind not in 'fiub' or values.size != TOTAL:
        raise UserError(
            f'{path}: {name} holds {values.size} values, not {TOTAL} numbers; unpack it again'
        )
    numbers: list[float] = values.astype(np.float64).ravel().tolist()
    if not all(map(math.isfinite, numbers)):
        raise UserError(f'{path}: {name} holds values that are not finite; unpack it again')
    return numbers


def _texts(table: dict[str, Any], path: pathlib.Path) -> list[str]:
    """The 982 reference names, which MATLAB holds as a cell array of strings."""
    import numpy as np

    from data_prep import mat

    cells = np.asarray(table.get('refnames_all', ())).ravel()
    texts = [str(mat.unwrap(cell)).strip() for cell in cells]
    if len(texts) != TOTAL or not all(texts):
        raise UserError(f'{path}: refnames_all holds no {TOTAL} names; unpack it again')
    return texts


def _info(path: pathlib.Path) -> dict[str, str]:
    """Reference by image from lines such as `studentsculpture.bmp img2.bmp 0.83`."""
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    fields = [line.split() for line in lines]
    return {line[1].lower(): line[0] for line in fields if len(line) >= 2}


SOURCE = LiveSource
