"""Writes LIVE's tables, and tiny made images in its published layout, read by the same reader."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from data_prep import tiny, tiny_quality
from data_prep.live.source import FOLDERS, REFERENCES, TABLES, TOTAL

LEVELS = (1, 3, 5)
MOST = 29  # references


def write(folder: pathlib.Path, *, count: int, seed: int) -> None:
    """`count` references, 8 to 29, with the five types at three levels.

    The tables have their published length: what is not made counts as a copy of a reference.
    """
    dmos, orgs, names = [0.0] * TOTAL, [1] * TOTAL, ['made1.bmp'] * TOTAL
    pictures = [tiny_quality.picture(seed, i) for i in range(tiny_quality.number(count, most=MOST))]
    (folder / 'refimgs').mkdir()
    for i, picture in enumerate(pictures, start=1):
        (folder / 'refimgs' / f'made{i}.bmp').write_bytes(tiny_quality.encode(picture, 'BMP'))
    start = 0
    for type_index, (name, number, kind) in enumerate(FOLDERS):
        (folder / name).mkdir()
        lines = []
        versions = [(i, level) for i in range(len(pictures)) for level in LEVELS]
        for n, (i, level) in enumerate(versions):
            rng = tiny_quality.image_rng(seed, i, type_index, level)
            image = tiny_quality.distort(rng, pictures[i], kind, level)
            data = tiny_quality.encode(image, 'BMP')
            (folder / name / f'img{n + 1}.bmp').write_bytes(data)
            reference = f'made{i + 1}.bmp'
            quality = tiny_quality.quality(rng, level)
            dmos[start + n], orgs[start + n], names[start + n] = 100 * (1 - quality), 0, reference
            lines.append(f'{reference} img{n + 1}.bmp {level}\n')
        (folder / name / 'info.txt').write_text(''.join(lines))
        start += number
    write_tables(folder, dmos, orgs, names)


def write_tables(
    folder: pathlib.Path,
    dmos: Sequence[float],
    orgs: Sequence[int],
    names: Sequence[str],
    *,
    realigned: bool = True,
) -> None:
    """Writes the scores' .mat file and refnames_all.mat, a cell array of strings."""
    file, column = TABLES[0 if realigned else 1]
    cells = np.empty((1, len(names)), object)
    cells[0] = list(names)
    for path, variables in (
        (folder / file, {column: np.array([dmos]), 'orgs': np.array([orgs], np.uint8)}),
        (folder / REFERENCES, {'refnames_all': cells}),
    ):
        tiny.write_mat(path, variables)
