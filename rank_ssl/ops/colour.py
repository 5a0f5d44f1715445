"""Changes of value and colour, uint8 images [H, W, 3]: TID2013 types 07, 16, 17, 18 and 23.

Results are rounded, halves up, and clipped to 0..255.
"""

import functools
import math

import cv2
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])
_TIE = 1e-4  # lifts exact halves over OpenCV's rounding to even; above float32's error
_CACHED = 1 << 18  # values of an image up to which a constant image of its size is kept
_BLUR = cv2.getGaussianKernel(3, 0.5, cv2.CV_32F)


def quantize(image: np.ndarray, step: float) -> np.ndarray:
    """Each value at the nearest multiple of `step` (0..255), uint8 [H, W, 3] (type 07)."""
    if not step > 0:
        raise ValueError(f'{step=} must be above 0 grey levels')
    return cv2.LUT(image, _step_table(float(step)))


def quantize_otsu(image: np.ndarray, thresholds: int) -> np.ndarray:
    """Each value by its class between Otsu's thresholds t_1 < .. < t_n, uint8 [H, W, 3].

    The thresholds maximise the variance between the classes over all values of the image. A
    class of values above t_k and up to t_k+1 becomes t_k+1, the lowest 0 and the highest 255, as in
    the released generator. An image of fewer than n + 1 values has as many thresholds as it can.
    """
    if not 1 <= thresholds <= 255:
        raise ValueError(f'{thresholds=} must lie in 1..255')
    flat = image.reshape(len(image), -1)
    counts = cv2.calcHist([flat], [0], None, [256], [0, 256]).ravel()
    cuts = _otsu(counts, thresholds)
    table = np.zeros(256, np.uint8)
    for low, high in zip(cuts, [*cuts[1:], 255], strict=True):
        table[low + 1 : high + 1] = high
    return cv2.LUT(image, table)


def shift(image: np.ndarray, amount: float) -> np.ndarray:
    """Image plus `amount` grey levels, rounded, uint8 [H, W, 3] (type 16)."""
    whole = math.floor(amount + 0.5)
    size = min(abs(whole), 255)
    if image.size <= _CACHED:
        constant = _constant(image.shape, size)
    else:
        constant = np.array([size, size, size, 0], np.float64)
    return cv2.add(image, constant) if whole >= 0 else cv2.subtract(image, constant)


def contrast(image: np.ndarray, factor: float, mean: float) -> np.ndarray:
    """mean + factor (p - mean) for each value p, uint8 [H, W, 3] (type 17)."""
    if factor < 0:
        raise ValueError(f'{factor=} must be at least 0')
    offset = (1 - factor) * mean + _TIE
    flat = image.reshape(len(image), -1)
    if offset >= 0:
        # Nothing is negative: the absolute value that this function takes does not matter.
        changed = cv2.convertScaleAbs(flat, alpha=factor, beta=offset)
    else:
        kernel = np.array([[factor]], np.float32)
        changed = cv2.filter2D(flat, -1, kernel, delta=offset)
    return changed.reshape(image.shape)


def mean(image: np.ndarray) -> float:
    """Mean of all values of the image."""
    return cv2.sumElems(image.reshape(len(image), -1))[0] / image.size


def saturate(image: np.ndarray, factor: float) -> np.ndarray:
    """Image with its chroma times `factor`, uint8 [H, W, 3] (type 18).

    Scaling Cb and Cr moves each of R, G and B along its line through the luma Y: a matrix in RGB.
    OpenCV rounds it to units of 1/1024, so a value may be off by 1; gray stays as it is.
    """
    return cv2.transform(image, _saturation_matrix(float(factor)))


def aberrate(image: np.ndarray, amount: float, *, channel: int = 2) -> np.ndarray:
    """R moved right by `amount` px and another channel by half, blurred, [H, W, 3] (type 23).

    Positions between pixels are interpolated. The columns at the left that nothing moves into
    keep their values. The blur is 3x3 with sigma 0.5, the border mirrored.
    """
    if amount < 0:
        raise ValueError(f'{amount=} must be at least 0 px')
    moved = image.copy()
    _move_right(moved, image, amount, 0)
    _move_right(moved, image, amount / 2, channel)
    return cv2.sepFilter2D(moved, -1, _BLUR, _BLUR, borderType=cv2.BORDER_REFLECT)


def _move_right(moved: np.ndarray, image: np.ndarray, amount: float, channel: int) -> None:
    whole = math.floor(amount)
    part = amount - whole
    _copy_right(moved, image, whole, channel)
    if part:
        further = image.copy()
        _copy_right(further, image, whole + 1, channel)
        mixed = (1 - part) * moved[..., channel] + part * further[..., channel]
        moved[..., channel] = np.floor(mixed + 0.5)


def _copy_right(moved: np.ndarray, image: np.ndarray, pixels: int, channel: int) -> None:
    width = image.shape[1]
    if 0 < pixels < width:
        kept = width - pixels
        cv2.copyTo(image[:, :kept], _mask(image.shape, channel)[:, :kept], moved[:, pixels:])


@functools.lru_cache(maxsize=64)
def _step_table(step: float) -> np.ndarray:
    values = np.floor(np.arange(256) / step + 0.5) * step
    return np.floor(np.minimum(values, 255) + 0.5).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _constant(shape: tuple[int, ...], value: int) -> np.ndarray:
    # Two images add up faster than an image and a scalar.
    return np.full(shape, value, np.uint8)


@functools.lru_cache(maxsize=8)
def _mask(shape: tuple[int, ...], channel: int) -> np.ndarray:
    # A masked copy of all channels is faster than a copy of every third byte.
    mask = np.zeros(shape, np.uint8)
    mask[..., channel] = 255
    return mask


@functools.lru_cache(maxsize=64)
def _saturation_matrix(factor: float) -> np.ndarray:
    return factor * np.eye(3) + (1 - factor) * _LUMA


def _otsu(counts: np.ndarray, thresholds: int) -> list[int]:
    """Thresholds that maximise the sum over classes of (sum of values)^2 / (number), exactly."""
    counts = counts.astype(np.float64)
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return [int(used[0])] if len(used) else [0]
    thresholds = min(thresholds, len(used) - 1)
    number = np.concatenate([[0], np.cumsum(counts[used])])
    total = np.concatenate([[0], np.cumsum(counts[used] * used)])
    with np.errstate(divide='ignore', invalid='ignore'):
        # gain[i, j]: the class of used values i .. j - 1.
        gain = (total[None] - total[:, None]) ** 2 / (number[None] - number[:, None])
    gain[np.tril_indices(len(number))] = -np.inf
    best, back = gain[0], []
    for _ in range(thresholds):
        options = best[:, None] + gain
        back.append(options.argmax(axis=0))
        best = options.max(axis=0)
    cuts, end = [], len(used)
    for step in reversed(back):
        end = int(step[end])
        cuts.append(int(used[end - 1]))
    return cuts[::-1]
