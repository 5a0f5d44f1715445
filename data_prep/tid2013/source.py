"""Reads TID2013 as published: distorted_images and mos_with_names.txt."""

from __future__ import annotations

import pathlib
import re

from data_prep import scores, tables
from data_prep.files import by_lower_name, child
from data_prep.scores import Label, ScoreSource
from data_prep.source import Item, Listing, Scale
from rank_ssl.errors import UserError

IMAGES = 'distorted_images'
TABLE = 'mos_with_names.txt'
NAME = re.compile(r'(i(\d\d))_(\d\d)_([1-5])\.bmp')
REFERENCES = {'natural': 24, 'all': 25}
SYNTHETIC = 'i25'  # a computer-made picture, left out by the paper's code
LEVELS = 5
KINDS = {
    '01': 'white_noise',
    '02': 'colour_noise',
    '03': 'spatially_correlated_noise',
    '04': 'masked_noise',
    '05': 'high_frequency_noise',
    '06': 'impulse_noise',
    '07': 'quantization_noise',
    '08': 'gaussian_blur',
    '09': 'denoising',
    '10': 'jpeg',
    '11': 'jpeg2000',
    '12': 'jpeg_transmission',
    '13': 'jpeg2000_transmission',
    '14': 'pattern_noise',
    '15': 'blockwise',
    '16': 'mean_shift',
    '17': 'contrast',
    '18': 'saturation',
    '19': 'multiplicative_noise',
    '20': 'comfort_noise',
    '21': 'lossy_noisy_compression',
    '22': 'colour_quantization',
    '23': 'chromatic_aberration',
    '24': 'sparse_sampling',
}


class Tid2013Source(ScoreSource):
    """The distorted images with their MOS; the references have none and are no examples."""

    name = 'tid2013'
    version = '1.0.0'
    license = 'Free for research; cite Ponomarenko et al., 2015 (TID2013).'
    configs = ('natural', 'all')
    builder = 'Tid2013'
    scale = Scale(0.0, 9.0, lower_is_better=False, unit='MOS')

    @classmethod
    def holds(cls, config: str, folder: pathlib.Path) -> bool:
        return child(folder, IMAGES).is_dir() or child(folder, TABLE).is_file()

    @classmethod
    def tree(cls, config: str) -> str:
        return '\n'.join(
            [
                'tid2013/                 (or DIR itself; names in capitals or not)',
                f'  {IMAGES}/       i01_01_1.bmp ... i25_24_5.bmp',
                '  reference_images/       I01.BMP ... I25.BMP (not read)',
                f'  {TABLE}      a line an image: 5.51429 I01_01_1.bmp',
            ]
        )

    @classmethod
    def write_tiny(cls, folder: pathlib.Path, *, config: str, count: int, seed: int) -> None:
        from data_prep.tid2013 import made

        made.write(folder, count=count, seed=seed)

    def expected(self) -> dict[str, int]:
        return {'all': REFERENCES[self.config] * len(KINDS) * LEVELS}

    def items(self) -> Listing:
        assert self.folder is not None
        folder, table = child(self.folder, IMAGES), child(self.folder, TABLE)
        files = by_lower_name(folder)
        found = {name: path for name, path in files.items() if _parts(name)}
        if not found or not table.is_file():
            lacking = table if found else f'{folder} with images such as i01_01_1.bmp'
            raise UserError(
                f'TID2013 in {self.folder} lacks {lacking}; unpack it as below\n'
                f'{self.tree(self.config)}'
            )
        if strays := sorted(files.keys() - found.keys()):
            self.notes.append(f'ignored {len(strays)} other files, such as {strays[0]}')
        values = load(table)
        items: list[Item] = []
        for name in sorted(found.keys() | values.keys()):
            reference, kind, level = _parts(name) or ('', '', 0)
            if reference == SYNTHETIC and self.config == 'natural':
                continue
            label = Label(values[name], reference, kind, level) if name in values else None
            image, id = found.get(name, folder / name), name.removesuffix('.bmp')
            self._add(items, id, image, label, tables=[table], named_by=str(table))
        return {'all': items}


def _parts(name: str) -> tuple[str, str, int] | None:
    """(reference, kind, level) of a file name in lower case, None for another file's."""
    match = NAME.fullmatch(name)
    known = match and 1 <= int(match[2]) <= REFERENCES['all'] and match[3] in KINDS
    return (match[1], KINDS[match[3]], int(match[4])) if match and known else None


def load(path: pathlib.Path) -> dict[str, float]:
    """MOS by file name in lower case, from lines such as `5.51429 I01_01_1.bmp`.

    Raises UserError that names the faulty lines.
    """
    values: dict[str, float] = {}
    faults: list[tables.Fault] = []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            if len(fields) != 2 or not _parts(fields[1].lower()):
                raise ValueError(f'{line.strip()[:60]!r} is not like 5.51429 I01_01_1.bmp')
            name = fields[1].lower()
            if name in values:
                raise ValueError(f'{fields[1]} stands in another line already; keep one')
            values[name] = scores.parse_score(fields[0], Tid2013Source.scale, column='MOS')
        except ValueError as error:
            faults.append((number, str(error)))
    tables.raise_faults(path, faults, unit='line')
    return values


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError:
        raise UserError(f'{path} is not text; unpack it again') from None


SOURCE = Tid2013Source
