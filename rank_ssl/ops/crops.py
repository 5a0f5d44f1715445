"""Square crops: the ranked pyramid of Algorithm 2 and multi-scale patches (section 6.2).

A box is (y0, x0, y1, x1) in px, half-open, inside the image; a crop is a view of its image.
"""

import numpy as np

from rank_ssl.ops import images

NESTINGS = ('centred', 'free')


def pyramid_boxes(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    levels: int = 5,
    scale: float = 0.75,
    anchor_fraction: float = 1 / 8,
    nesting: str = 'centred',
) -> np.ndarray:
    """Nested squares around one random anchor, largest first, int32 [levels, 4] (Algorithm 2).

    The anchor is uniform in the centred region of sides `anchor_fraction` * (H, W). The first
    square is the largest inside the image around it, so it touches a border; side k is the first
    side times scale**k, rounded. The centres are equal to half a pixel, the least that odd and
    even sides allow, and stay within half a pixel of the anchor. With `nesting` 'free' the first
    square is the same, and each further one lies anywhere in the one before: still ordered, with
    contents that the centre alone does not tell.

    Sides decrease strictly, by at least 1 px, as long as they exceed 1 px. An image too small for
    `levels` different sides ends in repeated sides of 1 px: equal phi, hence not comparable.
    """
    _check_pyramid(shape, levels, scale, anchor_fraction)
    if nesting not in NESTINGS:
        raise ValueError(f'{nesting=} must be one of {", ".join(NESTINGS)}')
    height, width = shape
    offset = rng.uniform(-0.5, 0.5, size=2) * anchor_fraction
    centre_y, centre_x = (0.5 + offset) * (height, width)
    largest = 2 * min(centre_y, height - centre_y, centre_x, width - centre_x)
    sides = _geometric_sides(max(1, int(largest)), levels, scale)
    # floor(c - s/2 + 1/2) moves by 0 or 1 where s falls by 1: the squares stay nested.
    top = np.minimum(np.floor(centre_y - sides / 2 + 0.5), height - sides)
    left = np.minimum(np.floor(centre_x - sides / 2 + 0.5), width - sides)
    if nesting == 'free':
        room = np.stack([sides[:-1] - sides[1:]] * 2)
        moved = np.cumsum(rng.integers(room + 1), axis=1)
        top[1:], left[1:] = top[0] + moved[0], left[0] + moved[1]
    return np.stack([top, left, top + sides, left + sides], axis=1).astype(np.int32)


def crop_pyramid(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    levels: int = 5,
    scale: float = 0.75,
    size: int = 224,
    anchor_fraction: float = 1 / 8,
    nesting: str = 'centred',
) -> tuple[np.ndarray, np.ndarray]:
    """Ranked crops, uint8 [levels, size, size, 3], and phi = their sides in px, float32 [levels].

    A larger phi holds at least as many persons: each crop contains the next (Algorithm 2).
    """
    boxes = pyramid_boxes(
        rng,
        image.shape[:2],
        levels=levels,
        scale=scale,
        anchor_fraction=anchor_fraction,
        nesting=nesting,
    )
    crops = np.stack([crop_resize(image, box, size) for box in boxes])
    return crops, (boxes[:, 2] - boxes[:, 0]).astype(np.float32)


def patch_box(
    rng: np.random.Generator, shape: tuple[int, int], *, min_side: int, max_side: int
) -> np.ndarray:
    """Random square patch, int32 [4] as (y0, x0, y1, x1) (multi-scale sampling, section 6.2).

    The side is log-uniform over the integers from `min_side` to `max_side`, or to the image's
    shorter side where that is less; an image below `min_side` gives its largest square. The
    position is uniform over all that fit.
    """
    if not 1 <= min_side <= max_side:
        raise ValueError(f'{min_side=} {max_side=} must satisfy 1 <= min_side <= max_side')
    height, width = shape
    high = min(max_side, height, width)
    low = min(min_side, high)
    # The floor of a log-uniform real in [low, high + 1) has P(s) proportional to log((s + 1) / s).
    side = min(int(np.exp(rng.uniform(np.log(low), np.log(high + 1)))), high)
    side = max(side, low)
    top = rng.integers(height - side + 1)
    left = rng.integers(width - side + 1)
    return np.array([top, left, top + side, left + side], np.int32)


def sub_box(rng: np.random.Generator, shape: tuple[int, int], size: int) -> np.ndarray:
    """Random square of `size` px, int32 [4] as (y0, x0, y1, x1), uniform over all that fit (4.3).

    Along a side shorter than `size` it starts at 0 and ends beyond the image (`images.extend`).
    """
    if size < 1:
        raise ValueError(f'{size=} must be at least 1 px')
    height, width = shape
    top = rng.integers(max(1, height - size + 1))
    left = rng.integers(max(1, width - size + 1))
    return np.array([top, left, top + size, left + size], np.int32)


def crop_resize(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The part of `image` [H, W, 3] inside `box`, resized to uint8 [size, size, 3]."""
    y0, x0, y1, x1 = box
    return images.resize(image[y0:y1, x0:x1], (size, size))


def _geometric_sides(largest: int, levels: int, scale: float) -> np.ndarray:
    sides = [largest]
    for level in range(1, levels):
        rounded = int(largest * scale**level + 0.5)
        # At least one pixel less than the last side, and as many left as levels are to come.
        below = max(sides[-1] - 1, 1)
        sides.append(min(max(rounded, levels - level), below))
    return np.array(sides)


def _check_pyramid(
    shape: tuple[int, int], levels: int, scale: float, anchor_fraction: float
) -> None:
    if min(shape) < 1:
        raise ValueError(f'{shape=} must have sides of at least 1 px')
    if levels < 1:
        raise ValueError(f'{levels=} must be at least 1')
    if not 0 < scale < 1:
        raise ValueError(f'{scale=} must lie in (0, 1): each square is smaller than the last')
    if not 0 <= anchor_fraction <= 1:
        raise ValueError(f'{anchor_fraction=} must lie in [0, 1], a share of the image')
