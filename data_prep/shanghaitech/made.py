"""Writes tiny made images in ShanghaiTech's published layout, read by the same reader."""

from __future__ import annotations

import pathlib

import numpy as np

from data_prep import tiny


def write(part: pathlib.Path, *, count: int, seed: int) -> None:
    """train_data and test_data below `part`, with images/ and ground-truth/."""
    for split, images in tiny.crowd(count=count, seed=seed).items():
        folder = part / f'{split}_data'
        (folder / 'images').mkdir(parents=True)
        (folder / 'ground-truth').mkdir()
        for number, (data, points) in enumerate(images, start=1):
            (folder / 'images' / f'IMG_{number}.jpg').write_bytes(data)
            write_annotation(folder / 'ground-truth' / f'GT_IMG_{number}.mat', points)


def write_annotation(path: pathlib.Path, points: np.ndarray, *, count: int | None = None) -> None:
    """Writes one GT_IMG_n.mat: a cell of a struct of points [P, 2], (x, y) px, and count."""
    record = np.empty((1, 1), [('location', object), ('number', object)])
    number = len(points) if count is None else count
    record[0, 0] = (np.asarray(points, np.float64), np.array([[number]], np.uint16))
    cell = np.empty((1, 1), object)
    cell[0, 0] = record
    tiny.write_mat(path, {'image_info': cell})
