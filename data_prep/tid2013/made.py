"""Writes tiny made images in TID2013's published layout, read by the same reader."""

from __future__ import annotations

import pathlib

from data_prep import tiny_quality

NUMBERS = {'01': 'white_noise', '08': 'gaussian_blur', '10': 'jpeg', '11': 'jpeg2000'}
LEVELS = 5
MOST = 24  # references, besides the synthetic one


def write(folder: pathlib.Path, *, count: int, seed: int) -> None:
    """`count` references, 8 to 24, with four types of distortion at five levels each."""
    references, distorted = folder / 'reference_images', folder / 'distorted_images'
    references.mkdir()
    distorted.mkdir()
    lines = []
    for i in range(tiny_quality.number(count, most=MOST)):
        picture = tiny_quality.picture(seed, i)
        name = f'I{i + 1:02d}'
        (references / f'{name}.BMP').write_bytes(tiny_quality.encode(picture, 'BMP'))
        for number, kind in NUMBERS.items():
            for level in range(1, LEVELS + 1):
                rng = tiny_quality.image_rng(seed, i, int(number), level)
                image = tiny_quality.distort(rng, picture, kind, level)
                file = f'{name}_{number}_{level}.bmp'
                (distorted / file.lower()).write_bytes(tiny_quality.encode(image, 'BMP'))
                quality = tiny_quality.quality(rng, level)
                lines.append(f'{9 * quality:.5f} {file}\n')
    (folder / 'mos_with_names.txt').write_text(''.join(lines))
