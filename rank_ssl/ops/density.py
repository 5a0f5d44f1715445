"""Density maps whose sum is the count: exact masses of Gaussians reflected at the borders.

Coordinates: points are (x, y) in px of the image area [0, W] x [0, H], borders included; pixel
(i, j) is the square [i, i + 1) x [j, j + 1) of (y, x). Boxes are (y0, x0, y1, x1) in the same
coordinates: the slice [y0:y1, x0:x1] of an image and the box hold the same persons.

A person at (x, y) is an isotropic Gaussian; what falls beyond a border is reflected back inside
(the sum over mirror images of the person), so an image always holds exactly its count.
"""

import numpy as np
from scipy.special import erf

# A Gaussian's mass beyond 7 sigma is 2.6e-12: far below float32's rounding of the result.
_REACH = 7.0
# Numbers in one axis' table of masses: bounds the memory whatever the count, and keeps the persons
# of one product close together.
_TABLE = 2**17
# OpenBLAS does a product of up to this many terms on the calling thread and splits larger ones,
# which costs more than it saves here: 28 x 28 cells of 1,337 persons took 1 ms, of 300 8 us.
_PRODUCT = 2**18


def cell_mass(
    points: np.ndarray,
    shape: tuple[int, int],
    *,
    box: tuple[float, float, float, float] | np.ndarray | None = None,
    cells: tuple[int, int],
    sigma: float = 15.0,
) -> np.ndarray:
    """Persons in each cell of a regular grid laid over `box`, float32 [cells] (section 5, P4).

    The integral of the density over each cell, A_y^T A_x with A[p, j] = the mass of person p
    between edges j and j + 1; nothing is sampled, so a crop's target is the mass inside it,
    whatever size the crop is resized to. Persons outside the box count with the mass that
    reaches into it; what lies beyond 7 sigma is left out (under 1e-11 of each person).

    Args:
      points: [P, 2] as (x, y) px in the whole image's coordinates. A point outside the image is
        taken at the nearest point of its border; `clean_points` drops such points.
      shape: (H, W) of the whole image.
      box: (y0, x0, y1, x1) px inside the image; None is the whole image.
      cells: (h, w) of the grid.
      sigma: px of the whole image.

    Raises:
      ValueError: NaN or infinite points, a box outside the image, no cells, sigma not positive.
    """
    height, width = shape
    points = _as_points(points)
    y0, x0, y1, x1 = (0, 0, height, width) if box is None else (float(side) for side in box)
    _check_grid(shape, (y0, x0, y1, x1), cells, sigma)
    x, y = np.clip(points, 0, (width, height)).T
    # A mirror image is never nearer to the box than its person: one test serves for both.
    reach = _REACH * sigma
    near = (y > y0 - reach) & (y < y1 + reach) & (x > x0 - reach) & (x < x1 + reach)
    # Sorted by y, the persons of one product touch few rows, and only those are multiplied.
    order = np.flatnonzero(near)[np.argsort(y[near], kind='stable')]
    alone = _PRODUCT // (cells[0] * cells[1])
    chunk = alone if alone >= 64 else max(1, _TABLE // max(cells))
    total = np.zeros(cells)
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        rows = _axis_mass(y[part], height, y0, y1, cells[0], sigma)
        columns = _axis_mass(x[part], width, x0, x1, cells[1], sigma)
        touched = np.flatnonzero(rows.any(axis=0))
        total[touched] += rows[:, touched].T @ columns
    return total.astype(np.float32)


def density_map(points: np.ndarray, shape: tuple[int, int], *, sigma: float = 15.0) -> np.ndarray:
    """Persons per pixel, float32 [H, W]; sums to P, also for points on the border (P4).

    `points` [P, 2] as (x, y) px; `sigma` px. Errors as in `cell_mass`.
    """
    return cell_mass(points, shape, cells=shape, sigma=sigma)


def block_sum(density: np.ndarray, cell: int) -> np.ndarray:
    """Sums over cell x cell blocks, [ceil(H / cell), ceil(W / cell)]; ragged edges are kept.

    Added up in float64 and returned in `density`'s dtype.
    """
    if cell < 1:
        raise ValueError(f'{cell=} must be at least 1 px')
    height, width = density.shape
    rows = np.add.reduceat(density, np.arange(0, height, cell), axis=0, dtype=np.float64)
    blocks = np.add.reduceat(rows, np.arange(0, width, cell), axis=1)
    return blocks.astype(density.dtype)


def clean_points(
    points: np.ndarray, shape: tuple[int, int], *, tolerance: float = 1.0
) -> tuple[np.ndarray, int]:
    """Points inside the image, float32 [P', 2] in their order, and how many were dropped.

    The image is 0 <= x <= W, 0 <= y <= H, borders included. Points at most `tolerance` px beyond
    a border are moved onto it; those farther out are dropped.

    Raises:
      ValueError: NaN or infinite points, naming their rows.
    """
    points = _as_points(points)
    border = np.array([shape[1], shape[0]], np.float64)
    inside = np.all((points >= -tolerance) & (points <= border + tolerance), axis=1)
    kept = np.clip(points[inside], 0, border).astype(np.float32)
    return kept, int(len(points) - len(kept))


def _axis_mass(
    centres: np.ndarray, length: int, start: float, stop: float, count: int, sigma: float
) -> np.ndarray:
    """Mass of 1-D Gaussians reflected at 0 and `length`, in cells of [start, stop]. [P, count]."""
    # At sigma = 3 lengths the reflected density is already flat to 2 exp(-9 pi^2 / 2) = 1e-19.
    sigma = min(sigma, 3.0 * length)
    reach = _REACH * sigma
    step = (stop - start) / count
    # Only the cells within reach of a Gaussian are computed: a window of fixed width for each.
    window = min(count, int(np.ceil(2 * reach / step)) + 1)
    mass = np.zeros((len(centres), count))
    turns = int(reach / (2 * length)) + 1
    for turn in range(-turns, turns + 1):
        for mirrored in (centres, -centres):
            image = 2 * turn * length + mirrored
            near = np.flatnonzero((image > start - reach) & (image < stop + reach))
            if near.size == 0:
                continue
            image = image[near, None]
            first = np.floor((image - reach - start) / step).clip(0, count - window)
            edges = start + step * (first + np.arange(window + 1))
            cdf = 0.5 * erf((edges - image) / (np.sqrt(2) * sigma))
            cell = (near[:, None] * count + first.astype(np.int64)) + np.arange(window)
            mass.reshape(-1)[cell] += np.diff(cdf, axis=1)
    return mass


def _as_points(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.size == 0:
        return points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f'points of shape {points.shape} must be [P, 2] as (x, y)')
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        rows = ', '.join(map(str, bad[:10])) + (', ...' if bad.size > 10 else '')
        raise ValueError(f'points must be finite; NaN or infinite in rows {rows}')
    return points


def _check_grid(
    shape: tuple[int, int],
    box: tuple[float, float, float, float],
    cells: tuple[int, int],
    sigma: float,
) -> None:
    y0, x0, y1, x1 = box
    height, width = shape
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise ValueError(f'{box=} must be (y0, x0, y1, x1), not empty, inside the image {shape}')
    if min(cells) < 1:
        raise ValueError(f'{cells=} must be at least 1 each way')
    if not sigma > 0:
        raise ValueError(f'{sigma=} must be above 0 px')
