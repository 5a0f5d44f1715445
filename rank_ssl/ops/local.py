"""Local damage in uint8 images [H, W, 3]: TID2013 types 14 and 15.

Number and positions belong to the whole image; with a box only that part of the result is made.
An image smaller than a patch or block is covered by one of its own size.
"""

import cv2
import numpy as np

Box = tuple[int, int, int, int]

PATCH = 15  # px
BLOCK = 32  # px
_DISTANCE = 5  # px a patch is moved along each axis


def pattern(
    rng: np.random.Generator,
    image: np.ndarray,
    patches: float,
    *,
    box: Box | None = None,
    one_way: bool = False,
) -> np.ndarray:
    """Image where patches of 15x15 px are copied to a place nearby, uint8 [H, W, 3] (type 14).

    Each patch of the result is the image's own, from 5 px away along both axes: up or down and
    left or right at random, or always from below and the right with `one_way`. `patches` is
    rounded.
    """
    height, width = image.shape[:2]
    y0, x0, y1, x1 = box or (0, 0, height, width)
    draws = rng.random((_count(patches), 4))
    sides = min(PATCH, height), min(PATCH, width)
    to_y, from_y = _places(draws[:, 0], draws[:, 2], height, sides[0], one_way)
    to_x, from_x = _places(draws[:, 1], draws[:, 3], width, sides[1], one_way)
    # Every patch that meets the box lies inside the box with a margin of a patch.
    top, left = max(0, y0 - PATCH + 1), max(0, x0 - PATCH + 1)
    bottom, right = min(height, y1 + PATCH - 1), min(width, x1 + PATCH - 1)
    near = (to_y >= top) & (to_x >= left)
    near &= (to_y + sides[0] <= bottom) & (to_x + sides[1] <= right)
    moved = np.array(image[top:bottom, left:right], order='C')
    targets = _windows(moved, sides)
    sources = _windows(image, sides)
    targets[to_y[near] - top, to_x[near] - left] = sources[from_y[near], from_x[near]]
    return moved if box is None else moved[y0 - top : y1 - top, x0 - left : x1 - left]


def blocks(
    rng: np.random.Generator,
    image: np.ndarray,
    number: float,
    *,
    box: Box | None = None,
    colour: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Image where blocks of 32x32 px are one colour, uint8 [H, W, 3] (type 15).

    The colours are uniform over RGB, drawn for each block, unless `colour` is given. `number` is
    rounded.
    """
    height, width = image.shape[:2]
    y0, x0, y1, x1 = box or (0, 0, height, width)
    scale = (max(1, height - BLOCK + 1), max(1, width - BLOCK + 1), 256, 256, 256)
    draws = rng.random((_count(number), 5)) * scale
    colours = draws[:, 2:].astype(np.uint8)
    if colour is not None:
        colours[:] = colour
    covered = np.array(image[y0:y1, x0:x1], order='C')
    values = covered.reshape(y1 - y0, -1)
    rows = np.tile(colours, (1, min(BLOCK, width)))
    for (y, x), row in zip(draws[:, :2].astype(int).tolist(), rows, strict=True):
        bottom, right = y - y0 + BLOCK, x - x0 + BLOCK
        if bottom > 0 and right > 0:
            part = values[max(0, y - y0) : bottom, 3 * max(0, x - x0) : 3 * right]
            part[:] = row[: part.shape[1]]
    return covered


def released_colour(image: np.ndarray, number: float) -> tuple[int, int, int]:
    """The one colour of all blocks in the released generator: the image's means, R changed.

    Up to 2 blocks R is 0, up to 4 its mean + 50, up to 8 its mean + 30, and the mean with more.
    """
    red, green, blue, _ = cv2.mean(image)
    if number <= 2:
        red = 0
    elif number <= 8:
        red += 50 if number <= 4 else 30
    red, green, blue = (min(255, int(value + 0.5)) for value in (red, green, blue))
    return red, green, blue


def _count(number: float) -> int:
    if number < 0:
        raise ValueError(f'{number=} must be at least 0')
    return round(number)


def _places(
    place: np.ndarray, sign: np.ndarray, length: int, side: int, one_way: bool
) -> tuple[np.ndarray, np.ndarray]:
    """First pixels along one axis of where patches go and where they come from, [n] each."""
    last = length - side
    reach = max(0, last - _DISTANCE) if one_way else last
    target = (place * (reach + 1)).astype(np.intp)
    offset = np.full(len(place), _DISTANCE)
    if not one_way:
        offset[sign < 0.5] = -_DISTANCE
        outside = (target + offset < 0) | (target + offset > last)
        offset[outside] *= -1
    return target, np.clip(target + offset, 0, last)


def _windows(image: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """All windows of the image as one view, [H - h + 1, W - w + 1, h, w, 3]."""
    height, width, channels = image.shape
    rows, columns, values = image.strides
    return np.lib.stride_tricks.as_strided(
        image,
        (height - sides[0] + 1, width - sides[1] + 1, *sides, channels),
        (rows, columns, rows, columns, values),
    )
