"""Images with noise, uint8 [H, W, 3]: TID2013 types 01, 02, 05, 06 and 19.

Variances are for pixels in [0, 1]. Sums are rounded, ties to the even level as OpenCV does, and
clipped to 0..255. All words come from the generator given: its state fixes every byte.
"""

import functools

import cv2
import numpy as np
from scipy.special import ndtri

from rank_ssl.ops import blur

_WORDS = 1 << 16  # quantiles of one normal variate: 16 random bits each
_CUTOFF = 10.0  # D0 of the high-pass, in cycles per image side
_FINE = 3.0  # standard deviations of the low-pass in coarse pixels, at least
_REACH = 3.5  # standard deviations of the low-pass kernel that are kept

# RGB of (Y, Cb, Cr): full range (JFIF), and Rec. 601's 16..235, 16..240 that MATLAB works in.
_FULL_RANGE = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
_STUDIO_RANGE = _FULL_RANGE * [255 / 219, 255 / 224, 255 / 224]


def white(rng: np.random.Generator, image: np.ndarray, variance: float) -> np.ndarray:
    """Image plus white Gaussian noise, independent in every value, uint8 [H, W, 3] (type 01)."""
    noise = _lookup(rng, image.shape, _integer_table(_sigma(variance)))
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def colour(
    rng: np.random.Generator, image: np.ndarray, variance: float, *, studio: bool = False
) -> np.ndarray:
    """Image with white Gaussian noise in Y, Cb and Cr, uint8 [H, W, 3] (type 02).

    `variance` is that of each of the three on [0, 1]. YCbCr is full range, or with `studio` that
    of Rec. 601 (Y in 16..235), where the same variance is 1.3 times more in RGB.
    """
    noise = _lookup(rng, image.shape, _real_table(_sigma(variance)))
    noise = cv2.transform(noise, _STUDIO_RANGE if studio else _FULL_RANGE)
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def high_frequency(
    rng: np.random.Generator,
    image: np.ndarray,
    variance: float,
    *,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Image plus high-pass noise, uint8 [H, W, 3] (type 05).

    White noise of `variance` is filtered with 1 - exp(-D^2 / (2 D0^2)), D0 = 10; the image is not.
    D counts cycles per side of the whole image, whose (H, W) is `shape` where `image` is a crop.
    """
    whole = image.shape[:2] if shape is None else shape
    margins, coarse = zip(*map(_filter_sizes, whole), strict=True)
    sides = zip(image.shape[:2], margins, coarse, strict=True)
    needed = [-(-side // step) * step + 2 * margin for side, margin, step in sides]
    rows, columns = (min(pair) for pair in zip(needed, whole, strict=True))
    field = _lookup(rng, (rows, columns, 3), _real_table(_sigma(variance)))
    # The discrete Fourier transform sees the field repeat with the whole image's sides.
    field = _repeat(_repeat(field, needed[0], 0), needed[1], 1)
    high = high_pass(field, whole)[: image.shape[0], : image.shape[1]]
    return cv2.add(image, high, dtype=cv2.CV_8U)


def high_pass(field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The field less its low-pass part, float32 [h, w, 3], without the margins of the filter.

    For an image of (H, W) = `shape`. A Gaussian in frequency is a Gaussian in space, of sigma =
    side / (2 pi D0) px: local, so a crop needs a margin and no transform of the whole.
    """
    (top, rows), (left, columns) = map(_filter_sizes, shape)
    kernels = (
        blur.coarse_kernel(_low_pass_kernel(shape[0]).tobytes(), rows),
        blur.coarse_kernel(_low_pass_kernel(shape[1]).tobytes(), columns),
    )
    low = blur.filter_coarsely(field, kernels, (rows, columns))
    return field[top : len(field) - top, left : field.shape[1] - left] - low


def impulse(rng: np.random.Generator, image: np.ndarray, density: float) -> np.ndarray:
    """Image where each value is replaced with chance `density` by 0 or 255, [H, W, 3] (type 06)."""
    if not 0 <= density <= 1:
        raise ValueError(f'{density=} must lie in 0..1')
    noisy = np.array(image, order='C')
    hits = _bernoulli_hits(rng, noisy.size, density)
    words = rng.integers(0, 2**64, -(-len(hits) // 64), dtype=np.uint64)
    bits = np.unpackbits(words.view(np.uint8), count=len(hits))
    noisy.reshape(-1)[hits] = bits * np.uint8(255)
    return noisy


def multiplicative(rng: np.random.Generator, image: np.ndarray, variance: float) -> np.ndarray:
    """Image times 1 + n, n white Gaussian noise of `variance`, uint8 [H, W, 3] (type 19)."""
    if variance < 0:
        raise ValueError(f'{variance=} must be at least 0')
    factor = _lookup(rng, image.shape, _factor_table(float(np.sqrt(variance))))
    return cv2.multiply(image, factor, dtype=cv2.CV_8U)


def _sigma(variance: float) -> float:
    """Standard deviation in grey levels of a variance on [0, 1]."""
    if variance < 0:
        raise ValueError(f'{variance=} must be at least 0')
    return 255 * float(np.sqrt(variance))


def _lookup(rng: np.random.Generator, shape: tuple[int, ...], table: np.ndarray) -> np.ndarray:
    """Independent entries of a table of 2**16, of the given shape."""
    count = int(np.prod(shape))
    words = rng.integers(0, 2**64, -(-count // 4), dtype=np.uint64)
    return np.take(table, words.view(np.uint16)[:count], mode='wrap').reshape(shape)


@functools.lru_cache(maxsize=1)
def _quantiles() -> np.ndarray:
    """Quantiles of the normal distribution at 2**16 equal steps, with variance 1. float64."""
    values = ndtri((np.arange(_WORDS) + 0.5) / _WORDS)
    values = (values - values[::-1]) / 2
    return values / values.std()


@functools.lru_cache(maxsize=32)
def _integer_table(sigma: float) -> np.ndarray:
    # Pixels are integers, so the noise may be rounded before the sum; 255 already saturates.
    values = _quantiles() * sigma
    values = np.trunc(values + np.copysign(0.5, values)).clip(-256, 256).astype(np.int16)
    values.flags.writeable = False
    return values


@functools.lru_cache(maxsize=32)
def _real_table(sigma: float) -> np.ndarray:
    values = (_quantiles() * sigma).astype(np.float32)
    values.flags.writeable = False
    return values


@functools.lru_cache(maxsize=32)
def _factor_table(sigma: float) -> np.ndarray:
    values = (1 + _quantiles() * sigma).astype(np.float32)
    values.flags.writeable = False
    return values


@functools.lru_cache(maxsize=64)
def _low_pass_kernel(side: int) -> np.ndarray:
    """The inverse transform of exp(-u^2 / (2 D0^2)) over `side` samples, cut off, float32 [odd]."""
    frequency = np.fft.fftfreq(side, 1 / side)
    cycle = np.fft.ifft(np.exp(-(frequency**2) / (2 * _CUTOFF**2))).real
    # Of a short side the spectrum ends before it has vanished: its kernel spans the whole cycle.
    radius = int(np.ceil(_REACH * side / (2 * np.pi * _CUTOFF))) if side > 64 else side // 2
    kernel = cycle[np.arange(-radius, radius + 1) % side]
    if radius and 2 * radius == side:
        kernel[[0, -1]] /= 2  # both ends are the same sample of the cycle
    kernel = (kernel / kernel.sum()).astype(np.float32)
    kernel.flags.writeable = False
    return kernel


@functools.lru_cache(maxsize=64)
def _filter_sizes(side: int) -> tuple[int, int]:
    """Margin in px and side of a coarse pixel of the low-pass along a side of the image."""
    coarse = blur.coarseness(side / (2 * np.pi * _CUTOFF), _FINE)
    return blur.margin_of(len(_low_pass_kernel(side)), coarse), coarse


def _repeat(field: np.ndarray, count: int, axis: int) -> np.ndarray:
    if field.shape[axis] >= count:
        return field
    return np.take(field, np.arange(count), axis=axis, mode='wrap')


def _bernoulli_hits(rng: np.random.Generator, count: int, density: float) -> np.ndarray:
    """Sorted indices of `count` independent trials that hit, each with chance `density`."""
    if density == 0:
        return np.zeros(0, np.intp)
    with np.errstate(divide='ignore'):
        rate = -np.log1p(-density)
    # Misses between hits are geometric: the integer part of an exponential variate.
    expected = count * density
    batch = int(expected + 6 * np.sqrt(expected)) + 16
    hits, last = [], -1
    while last < count:
        misses = rng.standard_exponential(batch) / rate
        steps = np.minimum(misses, count).astype(np.intp) + 1
        hits.append(last + np.cumsum(steps))
        last = int(hits[-1][-1])
    found = hits[0] if len(hits) == 1 else np.concatenate(hits)
    return found[: np.searchsorted(found, count)]
