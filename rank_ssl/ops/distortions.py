"""Distorted images of TID2013's 19 generated chains and LIVE's four, uint8 RGB [H, W, 3].

Levels follow the paper's appendix; `compat='caffe'` takes what the released generator does where
the two differ. Variances are for pixels in [0, 1].
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from rank_ssl.errors import UserError
from rank_ssl.ops import blur, codecs, colour, denoise, dither, local, noise

COMPATS = ('paper', 'caffe')

# TID2013's number of each type; both directions of 16 and 17 are chains of their own.
NUMBERS = {
    'white_noise': '01',
    'colour_noise': '02',
    'high_frequency_noise': '05',
    'impulse_noise': '06',
    'quantization_noise': '07',
    'gaussian_blur': '08',
    'denoising': '09',
    'jpeg': '10',
    'jpeg2000': '11',
    'pattern_noise': '14',
    'blockwise': '15',
    'mean_shift_down': '16',
    'mean_shift_up': '16',
    'contrast_down': '17',
    'contrast_up': '17',
    'saturation': '18',
    'multiplicative_noise': '19',
    'colour_quantization': '22',
    'chromatic_aberration': '23',
}

_BITS = (0.46, 0.16, 0.07, 0.04, 0.02)  # per pixel of 24, of the released JPEG2000 levels
_KERNELS = (7, 15, 39, 91, 199)  # px, of the released blur levels; sigma is a sixth

_PAPER: dict[str, tuple[float, ...]] = {
    'white_noise': (0.001, 0.005, 0.01, 0.05),  # variance
    'colour_noise': (0.0140, 0.0198, 0.0343, 0.0524),  # variance in Y, Cb and Cr
    'high_frequency_noise': (0.001, 0.005, 0.01, 0.05),  # variance before the filter
    'impulse_noise': (0.005, 0.01, 0.05, 0.1),  # density
    'quantization_noise': (27, 39, 55, 76),  # step
    'gaussian_blur': (1.2, 2.5, 6.5, 15.2),  # sigma, px
    'denoising': (0.001, 0.005, 0.01, 0.05),  # variance of the noise removed
    'jpeg': (43, 12, 7, 4),  # quality
    'jpeg2000': (52, 150, 343, 600),  # compression ratio
    'pattern_noise': (30, 70, 150, 300),  # patches
    'blockwise': (2, 4, 8, 16),  # blocks
    'mean_shift_down': (-15, -30, -45, -60),  # grey levels
    'mean_shift_up': (15, 30, 45, 60),
    'contrast_down': (0.85, 0.7, 0.55, 0.4),  # factor
    'contrast_up': (1.2, 1.4, 1.6, 1.8),
    'saturation': (0.4, 0, -0.4, -0.8),  # factor on the chroma
    'multiplicative_noise': (0.05, 0.09, 0.13, 0.2),  # variance
    'colour_quantization': (64, 32, 16, 8),  # colours
    'chromatic_aberration': (2, 6, 10, 14),  # shift of R, px; B moves by half
    'live_blur': tuple(size / 6 for size in _KERNELS),  # sigma, px
    'live_noise': (2**-10, 2**-7.5, 2**-5.5, 2**-3.5, 1),  # variance
    'live_jpeg': (43, 12, 7, 4, 0),  # quality
    'live_jpeg2000': tuple(24 / bits for bits in _BITS),  # compression ratio
}

_CAFFE = _PAPER | {
    'gaussian_blur': tuple(size / 6 for size in _KERNELS[:4]),
    'jpeg2000': tuple(24 / bits for bits in _BITS[:4]),
    'quantization_noise': (9, 7, 5, 3),  # Otsu thresholds: 255 / step, rounded
    'multiplicative_noise': (0.05, 0.09, 0.13, 0.2),  # standard deviation
}

_VALUES = {'paper': _PAPER, 'caffe': _CAFFE}

LIVE = {name: len(values) for name, values in _PAPER.items() if name.startswith('live_')}
TID2013 = {name: len(values) for name, values in _PAPER.items() if name not in LIVE}
LADDERS = {'tid2013': TID2013, 'live': LIVE}  # the chains of each, and their levels


def distort(
    rng: np.random.Generator, image: np.ndarray, name: str, level: int, *, compat: str = 'paper'
) -> np.ndarray:
    """The image at a level of a chain, uint8 [H, W, 3]; level 0 is `image` itself, not a copy.

    Raises:
      UserError: no chain or compat of that name.
      ValueError: a level the chain does not have, or an image that is not uint8 [H, W, 3].
    """
    if level == 0:
        _check_names(name, compat)
        _check_image(image)
        return image
    return apply(rng, image, name, value(name, level, compat=compat), compat=compat)


def apply(
    rng: np.random.Generator, image: np.ndarray, name: str, value: float, *, compat: str = 'paper'
) -> np.ndarray:
    """The image with a parameter of one's own in place of a level's, uint8 [H, W, 3].

    `value` is in the unit of the chain's table: variance, density, step, sigma in px, quality,
    compression ratio, number of patches, blocks or colours, shift, factor. Quality and numbers
    are rounded. From one state of `rng` Gaussian noise is the same field at every variance, and
    more patches or blocks are those of fewer and others.

    Raises:
      UserError: no chain or compat of that name.
      ValueError: a value that is not finite or out of the chain's range, or an image that is not
        uint8 [H, W, 3].
    """
    _check_names(name, compat)
    _check_image(image)
    if not math.isfinite(value):
        raise ValueError(f'{name} {value=} must be finite')
    return _apply(rng, image, name, value, compat, None)


def value(name: str, level: int, *, compat: str = 'paper') -> float:
    """The parameter of a chain at level 1, 2, ..., in the unit that `apply` takes."""
    _check_names(name, compat)
    values = _VALUES[compat][name]
    if not 1 <= level <= len(values):
        raise ValueError(f'{level=} of {name} must lie in 1..{len(values)}')
    return values[level - 1]


def distort_crop(
    rng: np.random.Generator,
    image: np.ndarray,
    name: str,
    level: int,
    box: Sequence[int] | np.ndarray,
    *,
    compat: str = 'paper',
) -> np.ndarray:
    """The part of `distort`'s image inside `box`, uint8 [h, w, 3], made from no more than it needs.

    `box` is (y0, x0, y1, x1), cut off at the image's borders as a slice would be. Equal pixels to
    the whole image's; independent noise is drawn for the box alone: equal in distribution. At
    level 0 a view of `image`.
    """
    _check_names(name, compat)
    _check_image(image)
    inside = _clipped(box, image.shape[:2])
    if level == 0:
        return _cut(image, inside)
    parameter = value(name, level, compat=compat)
    return _apply(rng, image, name, parameter, compat, inside)


def _apply(
    rng: np.random.Generator,
    image: np.ndarray,
    name: str,
    parameter: float,
    compat: str,
    box: local.Box | None,
) -> np.ndarray:
    caffe = compat == 'caffe'
    if name in _POINTWISE:
        part = image if box is None else _cut(image, box)
        return _POINTWISE[name](rng, part, parameter, caffe)
    if name in _BOXED:
        return _BOXED[name](rng, image, parameter, caffe, box)
    whole = _WHOLE[name](rng, image, parameter, caffe)
    return whole if box is None else _cut(whole, box)


def _high_frequency_noise(
    rng: np.random.Generator,
    image: np.ndarray,
    variance: float,
    caffe: bool,
    box: local.Box | None,
) -> np.ndarray:
    part = image if box is None else _cut(image, box)
    if caffe:
        # Its high-pass takes the spectrum's origin to lie elsewhere: plain noise is what is left.
        return noise.white(rng, part, variance)
    return noise.high_frequency(rng, part, variance, shape=image.shape[:2])


def _quantization_noise(
    rng: np.random.Generator, image: np.ndarray, step: float, caffe: bool, box: local.Box | None
) -> np.ndarray:
    if not caffe:
        return colour.quantize(image if box is None else _cut(image, box), step)
    quantized = colour.quantize_otsu(image, round(step))
    return quantized if box is None else _cut(quantized, box)


def _denoising(
    rng: np.random.Generator, image: np.ndarray, variance: float, caffe: bool
) -> np.ndarray:
    noisy = noise.white(rng, image, variance)
    if not caffe:
        return denoise.denoise(noisy, variance)
    # A second noise of sigma 25 is added there, and only that one's strength given to the filter.
    second = (25 / 255) ** 2
    return denoise.denoise(noise.white(rng, noisy, second), second)


def _jpeg(
    rng: np.random.Generator, image: np.ndarray, quality: float, caffe: bool, box: local.Box | None
) -> np.ndarray:
    if box is None:
        return codecs.jpeg(image, round(quality))
    # Whole units of 16 px, and one more on each side: the decoder interpolates chroma from them.
    unit = 16
    y0, x0 = (max(0, side // unit * unit - unit) for side in box[:2])
    y1, x1 = (-(-side // unit) * unit + unit for side in box[2:])
    coded = codecs.jpeg(image[y0:y1, x0:x1], round(quality))
    return coded[box[0] - y0 : box[2] - y0, box[1] - x0 : box[3] - x0]


def _contrast(
    rng: np.random.Generator, image: np.ndarray, factor: float, caffe: bool, box: local.Box | None
) -> np.ndarray:
    centre = 0.0 if caffe else colour.mean(image)
    return colour.contrast(image if box is None else _cut(image, box), factor, centre)


def _blockwise(
    rng: np.random.Generator, image: np.ndarray, number: float, caffe: bool, box: local.Box | None
) -> np.ndarray:
    filling = local.released_colour(image, number) if caffe else None
    return local.blocks(rng, image, number, box=box, colour=filling)


def _colour_quantization(
    rng: np.random.Generator, image: np.ndarray, colours: float, caffe: bool, box: local.Box | None
) -> np.ndarray:
    if box is None:
        return dither.quantize(image, round(colours))
    # Row by row from the top: what lies below the box is not needed.
    return dither.quantize(image, round(colours), rows=box[2])[box[0] :, box[1] : box[3]]


def _chromatic_aberration(
    rng: np.random.Generator, image: np.ndarray, amount: float, caffe: bool, box: local.Box | None
) -> np.ndarray:
    channel = 1 if caffe else 2
    if box is None:
        return colour.aberrate(image, amount, channel=channel)
    y0, x0 = max(0, box[0] - 1), max(0, box[1] - math.ceil(amount) - 1)
    part = image[y0 : box[2] + 1, x0 : box[3] + 1]
    moved = colour.aberrate(part, amount, channel=channel)
    return moved[box[0] - y0 : box[2] - y0, box[1] - x0 : box[3] - x0]


# A part of the image gives that part of the result.
_POINTWISE: dict[str, Callable[[np.random.Generator, np.ndarray, float, bool], np.ndarray]] = {
    'white_noise': lambda rng, image, variance, _: noise.white(rng, image, variance),
    'colour_noise': lambda rng, image, variance, caffe: noise.colour(
        rng, image, variance, studio=caffe
    ),
    'impulse_noise': lambda rng, image, density, _: noise.impulse(rng, image, density),
    'mean_shift_down': lambda _, image, amount, __: colour.shift(image, amount),
    'mean_shift_up': lambda _, image, amount, __: colour.shift(image, amount),
    'saturation': lambda _, image, factor, __: colour.saturate(image, factor),
    'multiplicative_noise': lambda rng, image, spread, caffe: noise.multiplicative(
        rng, image, spread**2 if caffe else spread
    ),
    'live_noise': lambda rng, image, variance, _: noise.white(rng, image, variance),
}

# A part of the result can be made from less than the whole image, or at less cost.
_BOXED: dict[
    str,
    Callable[[np.random.Generator, np.ndarray, float, bool, local.Box | None], np.ndarray],
] = {
    'high_frequency_noise': _high_frequency_noise,
    'quantization_noise': _quantization_noise,
    'gaussian_blur': lambda _, image, sigma, __, box: blur.gaussian(image, sigma, box=box),
    'jpeg': _jpeg,
    'pattern_noise': lambda rng, image, patches, caffe, box: local.pattern(
        rng, image, patches, box=box, one_way=caffe
    ),
    'blockwise': _blockwise,
    'contrast_down': _contrast,
    'contrast_up': _contrast,
    'colour_quantization': _colour_quantization,
    'chromatic_aberration': _chromatic_aberration,
    'live_blur': lambda _, image, sigma, __, box: blur.gaussian(image, sigma, box=box),
    'live_jpeg': _jpeg,
}

# Every pixel of the result depends on the whole image.
_WHOLE: dict[str, Callable[[np.random.Generator, np.ndarray, float, bool], np.ndarray]] = {
    'denoising': _denoising,
    'jpeg2000': lambda _, image, ratio, __: codecs.jpeg2000(image, ratio),
    'live_jpeg2000': lambda _, image, ratio, __: codecs.jpeg2000(image, ratio),
}


def _clipped(box: Sequence[int] | np.ndarray, shape: tuple[int, int]) -> local.Box:
    y0, x0, y1, x1 = (int(side) for side in box)
    y1, x1 = min(y1, shape[0]), min(x1, shape[1])
    if not (0 <= y0 < y1 and 0 <= x0 < x1):
        raise ValueError(f'box={tuple(box)} must be (y0, x0, y1, x1), not empty, in image {shape}')
    return y0, x0, y1, x1


def _cut(image: np.ndarray, box: local.Box) -> np.ndarray:
    y0, x0, y1, x1 = box
    return image[y0:y1, x0:x1]


def _check_names(name: str, compat: str) -> None:
    if name not in _PAPER:
        raise UserError(f'distortion {name!r} is unknown; use one of {", ".join(_PAPER)}')
    if compat not in _VALUES:
        raise UserError(f'compat={compat!r} is unknown; use one of {", ".join(COMPATS)}')


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f'image {image.dtype} {image.shape} must be uint8 [H, W, 3], not empty')
