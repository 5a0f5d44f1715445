"""Pictures to measure on, as encoded files: real ones below $RANK_SSL_DATA, else drawn ones."""

import io
import os
import pathlib
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

# Set -> folder below $RANK_SSL_DATA, and the format and (width, height) of most of its pictures.
SETS = {
    'bsds500': ('pristine/bsds500/train', 'JPEG', (481, 321)),
    'kodak24': ('pristine/kodak24', 'PNG', (768, 512)),
}


def sources(count: int) -> dict[str, dict[str, bytes]]:
    """Up to `count` pictures of each set: set -> id -> file. Drawn ones where a set is missing."""
    found = {}
    for name, (folder, file_format, size) in SETS.items():
        root = os.environ.get('RANK_SSL_DATA')
        paths = sorted(pathlib.Path(root, folder).glob('*.[jp][pn]g')) if root else []
        if paths:
            chosen = paths[:: max(1, len(paths) // count)][:count]
            found[name] = {path.stem: path.read_bytes() for path in chosen}
        else:
            drawn_files = [encoded(drawn(seed, size), file_format) for seed in range(count)]
            found[f'drawn {size[0]}x{size[1]}'] = {
                f'drawn{seed}': data for seed, data in enumerate(drawn_files)
            }
    return found


def said(sources: Mapping[str, Mapping[str, bytes]]) -> str:
    """How many pictures of which set, as text."""
    return ', '.join(f'{len(files)} of {name}' for name, files in sources.items())


def drawn(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Discs on a random field whose amplitude falls with frequency, uint8 [height, width, 3]."""
    width, height = size
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for octave in range(1, 8):
        field = rng.standard_normal((2**octave, 2**octave, 3), np.float32)
        image += 45 * 0.65**octave * cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)
    image = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(12):
        centre = rng.integers(0, (width, height)).tolist()
        colour = rng.integers(0, 256, 3).tolist()
        cv2.circle(image, centre, int(rng.integers(5, height // 6)), colour, -1, cv2.LINE_AA)
    return image


def encoded(image: np.ndarray, file_format: str) -> bytes:
    """A picture as a file; JPEG at quality 95."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format, quality=95)
    return buffer.getvalue()
