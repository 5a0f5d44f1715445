"""Writes tiny made images and scores in this set's layout, read by the same reader."""

from __future__ import annotations

import pathlib

from data_prep import tiny_quality
from data_prep.tid2013 import source as tid2013
from data_prep.tid2013_kodak import scores, source

NUMBERS = ('01', '06', '08')  # quick types, which reach each PSNR on small pictures too


def write(folder: pathlib.Path, *, count: int, seed: int) -> None:
    """kodak24/ with `count` references, 8 to 24, and mos_with_names.txt with made scores."""
    images = folder / 'kodak24'
    images.mkdir(parents=True)
    lines = []
    for reference in range(1, tiny_quality.number(count, most=source.REFERENCES) + 1):
        picture = tiny_quality.picture(seed, reference)
        source.image_path(images, reference).write_bytes(source.encode(picture))
        for number in NUMBERS:
            for level in range(1, source.LEVELS + 1):
                rng = tiny_quality.image_rng(seed, reference, int(number), level)
                score = source.SCALE.high * tiny_quality.quality(rng, level)
                lines.append(f'{score:.5f} {scores.id_of((reference, number, level))}.bmp\n')
    (folder / tid2013.TABLE).write_text(''.join(lines), encoding='utf-8')
