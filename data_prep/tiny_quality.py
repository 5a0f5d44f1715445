"""Tiny made images for smoke runs of quality sets: small pictures, spoilt in simple ways."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

SHAPE = (96, 128)  # (H, W) px
LEAST = 8  # references, so that a fifth of them for testing is more than one
KINDS = ('white_noise', 'gaussian_blur', 'jpeg', 'jpeg2000', 'fast_fading')
LEVELS = 5
SIDE = 8  # px of a block lost in transmission


def number(count: int, *, most: int) -> int:
    """References in a tiny set of `count`: at least 8, at most `most`."""
    return min(max(count, LEAST), most)


def image_rng(seed: int, *place: int) -> np.random.Generator:
    """The random stream of one image, whichever others are drawn."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *place])))


def picture(seed: int, index: int) -> np.ndarray:
    """A pristine picture u8[96, 128, 3]: a smooth ground, shapes with sharp edges, fine stripes."""
    rng = image_rng(seed, index)
    height, width = SHAPE
    ground = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    image = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        colour = [int(c) for c in rng.integers(0, 256, 3)]
        x, y = int(rng.integers(width)), int(rng.integers(height))
        side = int(rng.integers(4, 24))
        if rng.random() < 0.5:
            cv2.circle(image, (x, y), side // 2, colour, -1)
        else:
            cv2.rectangle(image, (x, y), (x + side, y + side // 2), colour, -1)
    x = int(rng.integers(width - 40))
    stripes = slice(x, x + 40, int(rng.integers(3, 6)))
    image[:, stripes] = image[:, stripes] // 2
    return image


def distort(rng: np.random.Generator, image: np.ndarray, kind: str, level: int) -> np.ndarray:
    """The picture u8[H, W, 3] spoilt; levels 1 to 5 are worse and worse."""
    if kind == 'white_noise':
        noisy = image + rng.normal(0, 6 * 1.8**level, image.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    if kind == 'gaussian_blur':
        return cv2.GaussianBlur(image, (0, 0), 0.4 * 1.6**level)
    if kind == 'jpeg':
        data = encode(image, 'JPEG', quality=(60, 35, 18, 9, 4)[level - 1])
    else:
        data = encode(image, 'JPEG2000', quality_layers=[10 * 1.7**level])
    decoded = np.array(Image.open(io.BytesIO(data)))
    return _lose_blocks(rng, decoded, 4 * level) if kind == 'fast_fading' else decoded


def _lose_blocks(rng: np.random.Generator, image: np.ndarray, blocks: int) -> np.ndarray:
    for y, x in rng.integers(0, np.array(SHAPE) - SIDE, (blocks, 2)):
        image[y : y + SIDE, x : x + SIDE] = image[0, 0]
    return image


def quality(rng: np.random.Generator, level: int) -> float:
    """A made opinion in 0..1, 1 the best, that falls with the level from 0 to 5."""
    return float(np.clip(0.9 - 0.15 * level + rng.normal(0, 0.02), 0, 1))


def encode(image: np.ndarray, format: str, **options: object) -> bytes:
    """The picture's bytes in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()
