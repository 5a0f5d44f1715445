"""Tiny made data for smoke runs: a few small drawn images in a set's published layout."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from data_prep.source import TINY_MARKER, Source
from rank_ssl.errors import UserError

SHAPES = ((64, 96), (72, 96), (64, 80))  # (H, W) px
SPLITS = ('train', 'test')
DAMAGED = 'damaged'
MAT_TEXT = 116  # bytes of free text that a .mat file starts with; scipy writes the date there


def sizes(count: int) -> dict[str, int]:
    """Images per split: `count` train and half as many, at least 2, test."""
    if count < 1:
        raise UserError(f'--tiny={count} must be at least 1 train image')
    return {'train': count, 'test': max(2, count // 2)}


def drawn(
    source: type[Source], options: dict[str, int], *, count: int
) -> tuple[str, dict[str, int]]:
    """The config and options of a drawn set's tiny version."""
    return 'tiny', {**sizes(count), **options}


def write(
    source: type[Source], folder: pathlib.Path, *, config: str, count: int, seed: int
) -> None:
    """Writes the set's tiny version into a new or empty folder; one written before alike is kept.

    It is made beside the folder and renamed when whole; one whose marker is damaged is made again.
    Raises UserError for a folder with other content, so that made images never mix with real ones.
    """
    wanted = {
        'name': source.name,
        'version': source.version,
        'config': config,
        'seed': seed,
        **sizes(count),
    }
    there = _marked(folder / TINY_MARKER)
    if there == wanted:
        return
    if there != DAMAGED and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f'--tiny_dir={folder} must be new, empty or hold this same tiny set; name another'
        )
    folder = folder.resolve()  # it may have been named by a link, or by '.'
    partial = folder.with_name(f'.{folder.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process
    try:
        if there == DAMAGED:
            # Renamed first: a kill in the middle leaves no folder without its marker.
            folder.rename(partial)
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        source.write_tiny(partial, config=config, count=count, seed=seed)
        with (partial / TINY_MARKER).open('w', encoding='utf-8') as file:
            file.write(json.dumps(wanted))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _marked(marker: pathlib.Path) -> Any:
    """What the marker of a folder says; None where there is none, DAMAGED where it is cut off."""
    if not marker.is_file():
        return None
    try:
        return json.loads(marker.read_text(encoding='utf-8'))
    except ValueError:
        return DAMAGED


def crowd(*, count: int, seed: int) -> dict[str, list[tuple[bytes, np.ndarray]]]:
    """JPEG bytes and head points f64[P, 2] of tiny crowd scenes per split.

    Every third one is grayscale; the last train image of two or more has no person.
    """
    return {
        split: [
            _image(split, i, seed, empty=split == 'train' and 0 < i == number - 1)
            for i in range(number)
        ]
        for split, number in sizes(count).items()
    }


def _image(split: str, index: int, seed: int, *, empty: bool) -> tuple[bytes, np.ndarray]:
    from data_prep.synthetic_crowd import scenes

    rng = scenes.image_rng(seed, SPLITS.index(split), index)
    shape = SHAPES[index % len(SHAPES)]
    image, points = scenes.draw(rng, shape, count=0 if empty else int(rng.integers(2, 25)))
    return scenes.encode(image, gray=index % 3 == 2), points


def write_mat(path: pathlib.Path, variables: dict[str, np.ndarray]) -> None:
    """Writes a .mat file, the same bytes whenever it is written."""
    import scipy.io

    scipy.io.savemat(path, variables, do_compression=True)
    text = b'MATLAB 5.0 MAT-file, made'.ljust(MAT_TEXT)
    path.write_bytes(text + path.read_bytes()[MAT_TEXT:])
