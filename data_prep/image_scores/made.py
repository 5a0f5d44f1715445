"""Writes tiny made images with a scores.csv that uses every column but `split`."""

from __future__ import annotations

import pathlib

from data_prep import tiny_quality

KINDS = ('white_noise', 'gaussian_blur', 'jpeg')
MOST = 100  # references


def write(folder: pathlib.Path, *, count: int, seed: int) -> None:
    """`count` references, 8 to 100, with three types of distortion at five levels each."""
    lines = ['# range 0 100\n', 'image,score,reference,kind,level\n']
    for i in range(tiny_quality.number(count, most=MOST)):
        picture = tiny_quality.picture(seed, i)
        reference = f'made{i:02d}'
        (folder / reference).mkdir()
        for k, kind in enumerate(KINDS):
            for level in range(1, tiny_quality.LEVELS + 1):
                rng = tiny_quality.image_rng(seed, i, k, level)
                image = tiny_quality.distort(rng, picture, kind, level)
                name = f'{reference}/{kind}_{level}.png'
                (folder / name).write_bytes(tiny_quality.encode(image, 'PNG'))
                score = 100 * tiny_quality.quality(rng, level)
                lines.append(f'{name},{score:.2f},{reference},{kind},{level}\n')
    (folder / 'scores.csv').write_text(''.join(lines))
