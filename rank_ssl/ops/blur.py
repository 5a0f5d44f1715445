"""Gaussian blur of uint8 images [H, W, 3]: TID2013 type 08 and LIVE's GB, and the filter behind it.

A wide filter works on means of f x f pixels and is interpolated from there: its kernel is the
one that comes nearest to the exact kernel, and it costs a part of it.
"""

import functools

import cv2
import numpy as np

from rank_ssl.ops import images  # noqa: F401 (sets OpenCV to one thread)

Box = tuple[int, int, int, int]

_BLOCK = 32  # px; a multiple of what one vector instruction filters
_FINE = 6.0  # standard deviations in coarse pixels, at least, for an image


def gaussian(image: np.ndarray, sigma: float, *, box: Box | None = None) -> np.ndarray:
    """Image after a Gaussian of `sigma` px, uint8 [H, W, 3], the border mirrored (type 08).

    The kernel has 2 r + 1 samples, r = `radius(sigma)`: 7 15 39 91 199 for a sigma of a sixth.
    With `box` (y0, x0, y1, x1) only that part of the result is made. Up to 12 px of sigma a value
    is the rounded convolution; above that it is within 0.15 grey levels before rounding (0.35 for
    black and white noise).
    """
    if sigma < 0:
        raise ValueError(f'{sigma=} must be at least 0 px')
    height, width = image.shape[:2]
    y0, x0, y1, x1 = box or (0, 0, height, width)
    if sigma == 0:
        return image[y0:y1, x0:x1].copy()
    kernel, coarse = exact_kernel(float(sigma)), coarseness(sigma, _FINE)
    if coarse == 1:
        reach = radius(sigma)
        # Whole blocks, as of the whole image: the last pixels of a row, which fill no vector, are
        # summed in another order, and of a value at .5 that may round the other way.
        top, left = max(0, y0 - reach), max(0, x0 - reach) // _BLOCK * _BLOCK
        part = image[top : y1 + reach, left : -(-(x1 + reach) // _BLOCK) * _BLOCK]
        # Not GaussianBlur, whose kernel is rounded to 8 bits: off by up to 1 level, and slower.
        blurred = cv2.sepFilter2D(part, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
        return blurred[y0 - top : y1 - top, x0 - left : x1 - left]
    margin = margin_of(len(kernel), coarse)
    # On one grid for every box: coarse pixels begin at multiples of their side.
    top, left = y0 // coarse * coarse, x0 // coarse * coarse
    rows, columns = (-(-length // coarse) * coarse for length in (y1 - top, x1 - left))
    part = _mirrored(image, top - margin, left - margin, rows + 2 * margin, columns + 2 * margin)
    kernels = (coarse_kernel(kernel.tobytes(), coarse),) * 2
    smooth = filter_coarsely(part.astype(np.float32), kernels, (coarse, coarse))
    # Nothing is negative: the absolute value does not matter, the rounding does.
    rounded = cv2.convertScaleAbs(smooth.reshape(rows, -1)).reshape(smooth.shape)
    return rounded[y0 - top : y1 - top, x0 - left : x1 - left]


def radius(sigma: float) -> int:
    """Pixels on each side that `gaussian` takes into account."""
    return max(1, round(3 * sigma - 0.5)) if sigma > 0 else 0


@functools.lru_cache(maxsize=64)
def exact_kernel(sigma: float) -> np.ndarray:
    """The samples of a Gaussian up to `radius`, with sum 1, float32 [2 r + 1]."""
    return cv2.getGaussianKernel(2 * radius(sigma) + 1, sigma, cv2.CV_32F).ravel()


def coarseness(sigma: float, fine: float) -> int:
    """The side of a coarse pixel, a power of 2, that leaves a sigma of `fine` of them or more."""
    return 1 << max(0, int(np.floor(np.log2(max(1.0, sigma / fine)))))


def margin_of(taps: int, coarse: int) -> int:
    """Pixels on each side that `filter_coarsely` takes away, for a kernel of so many pixels."""
    return (_coarse_radius(taps, coarse) + (coarse > 1)) * coarse


def filter_coarsely(
    field: np.ndarray, kernels: tuple[np.ndarray, np.ndarray], coarse: tuple[int, int]
) -> np.ndarray:
    """A float32 field [h, w, 3] after a separable filter, without its margins.

    Args:
      field: its sides are multiples of `coarse`, margins (`margin_of`) included.
      kernels: `coarse_kernel` for y and for x.
      coarse: sides (y, x) of a coarse pixel.
    """
    height, width = field.shape[:2]
    cells = (width // coarse[1], height // coarse[0])
    if coarse != (1, 1):
        field = cv2.resize(field, cells, interpolation=cv2.INTER_AREA)
    field = cv2.sepFilter2D(field, cv2.CV_32F, kernels[1], kernels[0])
    # One coarse pixel more than the result on each side, which the interpolation needs.
    top, left = (len(kernel) // 2 for kernel in kernels)
    field = field[top : cells[1] - top, left : cells[0] - left]
    if coarse == (1, 1):
        return field
    size = (field.shape[1] * coarse[1], field.shape[0] * coarse[0])
    field = cv2.resize(field, size, interpolation=cv2.INTER_LINEAR)
    top, left = (side * (side > 1) for side in coarse)
    return field[top : size[1] - top, left : size[0] - left]


@functools.lru_cache(maxsize=64)
def coarse_kernel(kernel: bytes, coarse: int) -> np.ndarray:
    """The kernel on coarse pixels that with averaging and interpolation is nearest to a given one.

    In the mean square over all positions of the result inside a coarse pixel. `kernel` holds the
    float32 values of a symmetric kernel of odd length (as bytes, for the cache).
    """
    exact = np.frombuffer(kernel, np.float32).astype(np.float64)
    if coarse == 1:
        return exact.astype(np.float32)
    reach, count = len(exact) // 2, _coarse_radius(len(exact), coarse)
    cells = np.arange(-count - 2, count + 3)
    design, target = [], []
    for position in range(coarse):
        place = (position + 0.5) / coarse - 0.5
        first = int(np.floor(place))
        share = place - first
        taps = np.arange(-count, count + 1)
        rows = (1 - share) * (cells[:, None] - first == taps)
        design.append(rows + share * (cells[:, None] - first - 1 == taps))
        pixels = cells[:, None] * coarse + np.arange(coarse) - position
        inside = np.abs(pixels) <= reach
        values = np.where(inside, exact[np.clip(pixels + reach, 0, 2 * reach)], 0)
        target.append(values.sum(axis=1))
    fitted = np.linalg.lstsq(np.concatenate(design), np.concatenate(target), rcond=None)[0]
    return (fitted / fitted.sum()).astype(np.float32)


def _coarse_radius(taps: int, coarse: int) -> int:
    return -(-(taps // 2) // coarse)


def _mirrored(image: np.ndarray, top: int, left: int, rows: int, columns: int) -> np.ndarray:
    """Part of an image that its mirror images surround, from (top, left) on, [rows, columns, 3]."""
    height, width = image.shape[:2]
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(height, top + rows), min(width, left + columns)
    below, beside = top + rows - y1, left + columns - x1
    part = image[y0:y1, x0:x1]
    border = cv2.BORDER_REFLECT
    return cv2.copyMakeBorder(part, y0 - top, below, x0 - left, beside, border)
