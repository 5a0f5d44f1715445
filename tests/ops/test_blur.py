"""Gaussian blur against the exact convolution, and parts of it against the whole."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.ndimage

from rank_ssl.ops import blur

_RNG = np.random.default_rng(0)
_SIGMAS = (0.4, 1.2, 2.5, 6.5, 15.2, 199 / 6)


def _exact(image: np.ndarray, sigma: float) -> np.ndarray:
    """Unrounded convolution with the truncated Gaussian, mirrored border."""
    reach = blur.radius(sigma)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    result = image.astype(float)
    for axis in (0, 1):
        result = scipy.ndimage.correlate1d(result, kernel / kernel.sum(), axis, mode='reflect')
    return result


def _step(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 3 :] = 255
    image[height // 2 :] ^= 255
    return image


def _noise(height: int, width: int) -> np.ndarray:
    return _RNG.integers(0, 2, (height, width, 3), dtype=np.uint8) * 255


@pytest.mark.parametrize('size', [7, 15, 39, 91, 199])
def test_the_kernel_has_the_size_the_sigma_is_a_sixth_of(size):
    assert 2 * blur.radius(size / 6) + 1 == size


@pytest.mark.parametrize(('sigma', 'size'), [(1.2, 7), (2.5, 15), (6.5, 39), (15.2, 91), (0.1, 3)])
def test_the_kernel_size_of_other_sigmas(sigma, size):
    assert 2 * blur.radius(sigma) + 1 == size


@pytest.mark.parametrize('sigma', _SIGMAS)
@pytest.mark.parametrize('make', [_step, _noise])
@pytest.mark.parametrize('shape', [(224, 224), (101, 67), (5, 30), (1, 1)])
def test_blur_is_the_mirrored_gaussian(sigma, make, shape):
    image = make(*shape)
    blurred = blur.gaussian(image, sigma)
    error = blurred - _exact(image, sigma)
    assert blurred.dtype == np.uint8
    # Fine kernels are exact before rounding; black and white noise is the worst for coarse ones.
    assert np.abs(error).max() < (0.5001 if blur.coarseness(sigma, 6.0) == 1 else 0.9)
    if min(shape) > 50:
        assert abs(error.mean()) < 0.05


@hypothesis.given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    place=st.tuples(*[st.floats(0, 1)] * 4),
    sigma=st.sampled_from(_SIGMAS),
)
@hypothesis.example(shape=(32, 45), place=(0, 0.5, 1, 1), sigma=6.5)  # has a value at .5
@hypothesis.settings(max_examples=60)
def test_a_part_is_equal_to_the_whole(shape, place, sigma):
    image = np.random.default_rng(shape).integers(0, 256, (*shape, 3), dtype=np.uint8)
    y0, x0 = (int(p * (side - 1)) for p, side in zip(place[:2], shape, strict=True))
    y1 = y0 + 1 + int(place[2] * (shape[0] - y0 - 1))
    x1 = x0 + 1 + int(place[3] * (shape[1] - x0 - 1))
    whole = blur.gaussian(image, sigma)
    part = blur.gaussian(image, sigma, box=(y0, x0, y1, x1))
    np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


def test_a_flat_image_stays_flat():
    image = np.full((60, 70, 3), 255, np.uint8)
    for sigma in (0, *_SIGMAS):
        np.testing.assert_array_equal(blur.gaussian(image, sigma), image)


@pytest.mark.parametrize('coarse', [2, 4, 8])
def test_the_coarse_kernel_makes_the_fine_one(coarse):
    kernel = blur.exact_kernel(coarse * 6.5)
    fitted = blur.coarse_kernel(kernel.tobytes(), coarse)
    margin = blur.margin_of(len(kernel), coarse)
    for position in range(coarse):
        side = 2 * margin + coarse
        impulse = np.zeros((side, coarse * 3, 1), np.float32)
        impulse[margin + position] = 1
        row = np.ones(1, np.float32)
        # Along y alone; x is one coarse pixel wide with its neighbours.
        one = blur.filter_coarsely(impulse, (fitted, row), (coarse, coarse))
        offsets = np.arange(coarse) - position
        expected = kernel[len(kernel) // 2 + offsets]
        np.testing.assert_allclose(one[:, 0], expected, atol=0.04 * kernel.max())


def test_a_negative_sigma_is_refused():
    with pytest.raises(ValueError, match='sigma=-1'):
        blur.gaussian(_step(3, 3), -1)
