"""The denoiser: less noise at each variance, more harm at higher ones."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rank_ssl.ops import denoise, images

VARIANCES = (0.001, 0.005, 0.01, 0.05)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def _noisy(image: np.ndarray, variance: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 255 * variance**0.5, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


# Hard texture, a face before a dark ground, saturated colours.
@pytest.mark.parametrize('number', [13, 4, 2])
def test_psnr_rises_at_each_variance_and_falls_over_them(real_data, number):
    path = real_data / f'pristine/kodak24/kodim{number:02d}.png'
    image = images.decode(path.read_bytes())[150:278, 200:328]
    after = []
    for variance in VARIANCES:
        noisy = _noisy(image, variance)
        after.append(_psnr(image, denoise.denoise(noisy, variance)))
        assert after[-1] > _psnr(image, noisy) + 1
    assert after == sorted(after, reverse=True) and len(set(after)) == 4


@pytest.mark.parametrize('colour', [(128, 128, 128), (40, 30, 20), (200, 60, 60)])
def test_noise_on_a_flat_colour_all_but_vanishes(colour):
    image = np.full((64, 64, 3), colour, np.uint8)
    left = denoise.denoise(_noisy(image, 0.005), 0.005)[8:-8, 8:-8] - np.asarray(colour, float)
    assert np.abs(left.mean(axis=(0, 1))).max() < 2
    assert left.std(axis=(0, 1)).max() < 0.3 * 255 * 0.005**0.5


def test_variance_0_is_the_image_and_less_is_an_error():
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    np.testing.assert_array_equal(denoise.denoise(image, 0), image)
    with pytest.raises(ValueError, match='variance=-1'):
        denoise.denoise(image, -1)


@pytest.mark.parametrize('shape', [(1, 1), (1, 9), (9, 1), (3, 4), (16, 17)])
def test_any_size(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    np.testing.assert_array_equal(denoise.denoise(image, 0.01), image)


def test_channels_keep_their_order():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16], image[:, 16:] = (230, 20, 40), (20, 40, 230)
    result = denoise.denoise(image, 0.001)
    np.testing.assert_allclose(result[16, 4], (230, 20, 40), atol=2)
    np.testing.assert_allclose(result[16, 28], (20, 40, 230), atol=2)


def test_threads_give_the_same_bytes_and_the_input_stays():
    image = _noisy(np.full((48, 56, 3), 90, np.uint8), 0.01)
    before, expected = image.copy(), denoise.denoise(image, 0.01).tobytes()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: denoise.denoise(image, 0.01).tobytes(), range(8)))
    assert made == [expected] * 8
    np.testing.assert_array_equal(image, before)
