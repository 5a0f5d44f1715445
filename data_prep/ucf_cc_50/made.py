"""Writes tiny made images in UCF_CC_50's published layout, read by the same reader."""

from __future__ import annotations

import pathlib

import numpy as np

from data_prep import tiny
from data_prep.ucf_cc_50.source import FOLDS

ORDER = [number for numbers in zip(*FOLDS, strict=True) for number in numbers]  # fold by fold


def write(folder: pathlib.Path, *, count: int, seed: int) -> None:
    """`count` images and half as many again, but at least one of each fold and at most all 50."""
    folder.mkdir()
    splits = tiny.crowd(count=max(count, len(FOLDS)), seed=seed)
    images = [pair for split in splits.values() for pair in split]
    for number, (data, points) in zip(ORDER, images, strict=False):
        (folder / f'{number}.jpg').write_bytes(data)
        write_annotation(folder / f'{number}_ann.mat', points)


def write_annotation(path: pathlib.Path, points: np.ndarray) -> None:
    """Writes one n_ann.mat: points [P, 2], (x, y) px."""
    tiny.write_mat(path, {'annPoints': np.asarray(points, np.float64)})
