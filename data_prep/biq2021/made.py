"""Writes tiny made images in BIQ2021's published layout, read by the same reader."""

from __future__ import annotations

import pathlib

from data_prep import tiny, tiny_quality


def write(folder: pathlib.Path, *, count: int, seed: int) -> None:
    """`count` train and half as many, at least 2, test images, each of a picture of its own."""
    (folder / 'Images').mkdir()
    number = 0
    for split, images in tiny.sizes(count).items():
        lines = ['Image Name,MOS\n']
        for _ in range(images):
            rng = tiny_quality.image_rng(seed, number, 1)
            level = number % (tiny_quality.LEVELS + 1)
            image = tiny_quality.picture(seed, number)
            if level:
                kind = tiny_quality.KINDS[int(rng.integers(len(tiny_quality.KINDS)))]
                image = tiny_quality.distort(rng, image, kind, level)
            number += 1
            name = f'ss01 ({number}).jpg'
            data = tiny_quality.encode(image, 'JPEG', quality=95)
            (folder / 'Images' / name).write_bytes(data)
            lines.append(f'{name},{tiny_quality.quality(rng, level):.4f}\n')
        table = folder / f'{split.capitalize()} (Images and MOS).csv'
        table.write_text(''.join(lines))
