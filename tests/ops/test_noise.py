"""Noise: its distribution, slow oracles fed with the same words, and the high-pass's FFT form."""

import cv2
import numpy as np
import pytest
import scipy.stats

from rank_ssl.ops import noise

_GRAY = np.full((256, 256, 3), 128, np.uint8)
_RGB = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
# Rec. 601 as in MATLAB's rgb2ycbcr, RGB in 0..1.
_STUDIO = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]])


def _rng(seed: int = 0, kind: type = np.random.Philox) -> np.random.Generator:
    return np.random.Generator(kind(seed))


def _image(*shape: int) -> np.ndarray:
    return _rng(9).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The unit noise behind the next draw: quantiles of 16-bit words."""
    count = int(np.prod(shape))
    words = rng.integers(0, 2**64, -(-count // 4), dtype=np.uint64).view(np.uint16)[:count]
    unit = scipy.stats.norm.ppf((words + 0.5) / 65536).reshape(shape)
    spread = scipy.stats.norm.ppf((np.arange(65536) + 0.5) / 65536).std()
    return unit / spread


def _round(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)


@pytest.mark.parametrize('variance', [0.0002, 0.001, 0.005, 0.01])
def test_white_noise_is_gaussian(variance):
    noisy = noise.white(_rng(1), _GRAY, variance)
    values = noisy.astype(float) - 128
    sigma, count = 255 * variance**0.5, values.size
    assert abs(values.mean()) < 4 * sigma / count**0.5
    # Rounding to whole levels adds 1/12.
    assert abs(values.var() / (sigma**2 + 1 / 12) - 1) < 4 * (2 / count) ** 0.5
    assert abs(scipy.stats.skew(values, axis=None)) < 4 * (6 / count) ** 0.5
    # Rounded values made continuous again; clipping at 4.9 sigma or more is not felt.
    smooth = values.ravel() + _rng(2).uniform(-0.5, 0.5, count)
    assert scipy.stats.kstest(smooth[::4] / sigma, 'norm').pvalue > 0.01
    if variance < 0.01:
        assert abs(scipy.stats.kurtosis(values, axis=None)) < 4 * (24 / count) ** 0.5


def test_white_noise_has_no_correlation():
    values = noise.white(_rng(3), _GRAY, 0.005).astype(float) - 128
    channels = np.corrcoef(values.reshape(-1, 3).T)
    np.testing.assert_allclose(channels, np.eye(3), atol=4 / 256)
    for near in (values[1:], values[:, 1:]):
        rest = values[: near.shape[0], : near.shape[1]]
        assert abs(np.corrcoef(near.ravel(), rest.ravel())[0, 1]) < 4 / near.size**0.5


@pytest.mark.parametrize('variance', [0.001, 0.05, 1.0])
@pytest.mark.parametrize('shape', [(16, 21), (1, 1), (3, 1)])
def test_white_noise_is_rounded_and_clipped(variance, shape):
    image = _image(*shape)
    # Rounding halves away from zero, before the sum as after it.
    values = 255 * variance**0.5 * _normal(_rng(4), image.shape)
    whole = np.trunc(values + np.copysign(0.5, values))
    expected = np.clip(image + whole, 0, 255)
    np.testing.assert_array_equal(noise.white(_rng(4), image, variance), expected)


@pytest.mark.parametrize(('studio', 'matrix'), [(False, _RGB), (True, _STUDIO / 255)])
def test_colour_noise_is_added_in_ycbcr(studio, matrix):
    image = _image(32, 24)
    ycc = image / 255 @ matrix.T
    ycc += 0.0198**0.5 * _normal(_rng(5), image.shape)
    expected = 255 * ycc @ np.linalg.inv(matrix).T
    noisy = noise.colour(_rng(5), image, 0.0198, studio=studio)
    assert np.abs(noisy - np.clip(expected, 0, 255)).max() < 0.51


def test_multiplicative_noise_is_proportional():
    image = _image(40, 30)
    image[0] = 0
    expected = image * (1 + 0.09**0.5 * _normal(_rng(6), image.shape))
    noisy = noise.multiplicative(_rng(6), image, 0.09)
    assert np.abs(noisy - np.clip(expected, 0, 255)).max() < 0.5001
    assert not noisy[0].any()


def _fft_form(field: np.ndarray) -> np.ndarray:
    height, width = field.shape[:2]
    down, across = np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width)
    distance = np.hypot(down[:, None], across)
    gain = 1 - np.exp(-(distance**2) / (2 * 10**2))
    return np.fft.ifft2(np.fft.fft2(field, axes=(0, 1)) * gain[..., None], axes=(0, 1)).real


@pytest.mark.parametrize(
    'shape',
    [(224, 224), (320, 480), (512, 768), (61, 83), (24, 31), (64, 40), (8, 7), (2, 1), (1, 1)],
)
def test_the_high_pass_is_the_fourier_one(shape):
    field = _rng(7).standard_normal((*shape, 3)).astype(np.float32)
    (top, step_y), (left, step_x) = (noise._filter_sizes(side) for side in shape)
    rows = -(-shape[0] // step_y) * step_y + 2 * top
    columns = -(-shape[1] // step_x) * step_x + 2 * left
    # Periodic, as the discrete Fourier transform takes the field to be.
    wide = field[np.arange(rows) % shape[0]][:, np.arange(columns) % shape[1]]
    high = noise.high_pass(wide, shape)[: shape[0], : shape[1]]
    expected = np.roll(_fft_form(field), (-top, -left), axis=(0, 1))
    # The noise has deviation 1, 57 grey levels at most. The kernel of short sides is exact.
    assert np.abs(high - expected).max() < (0.02 if max(shape) > 64 else 1e-5)
    assert (high - expected).std() < 0.004


@pytest.mark.parametrize('shape', [None, (512, 768)])
def test_high_frequency_noise_lacks_low_frequencies(shape):
    image = np.full((224, 224, 3), 128, np.uint8)
    draws = [noise.high_frequency(_rng(seed), image, 0.005, shape=shape) for seed in range(4)]
    values = (np.stack(draws) - 128.0) / (255 * 0.005**0.5)
    # A window, since a crop's noise does not repeat with the crop.
    window = np.outer(np.hanning(224), np.hanning(224))[..., None]
    spectrum = np.fft.fft2(values * window, axes=(1, 2))
    power = (np.abs(spectrum) ** 2).mean(axis=(0, 3)) / (window**2).sum()
    cycles = np.fft.fftfreq(224, 1 / 224)
    down, across = (side / 224 for side in shape or (224, 224))
    distance = np.hypot(cycles[:, None] * down, cycles * across)
    gain = (1 - np.exp(-(distance**2) / 200)) ** 2
    # Rounding adds white noise of 1/12 everywhere.
    expected = gain + 1 / 12 / (255**2 * 0.005)
    for low, high in ((8, 12), (12, 20), (20, 60), (60, 300)):
        ring = (distance >= low) & (distance < high)
        assert abs(power[ring].mean() / expected[ring].mean() - 1) < 0.15, (low, high)
    assert power[distance < 4].mean() < 0.05


def test_high_frequency_noise_leaves_the_image_alone():
    image = _image(64, 64) // 4 + 96
    mean = np.mean([noise.high_frequency(_rng(k), image, 0.001) for k in range(200)], axis=0)
    assert np.abs(mean - image).max() < 5 * 8.1 / 200**0.5


@pytest.mark.parametrize('density', [0.0003, 0.005, 0.1, 0.6])
def test_impulses_are_independent_trials(density):
    noisy = noise.impulse(_rng(8), _GRAY, density)
    hit = (noisy != 128).ravel()
    count = hit.size
    deviation = (density * (1 - density) * count) ** 0.5
    assert abs(hit.sum() - density * count) < 4 * deviation
    salt = (noisy == 255).sum()
    assert salt + (noisy == 0).sum() == hit.sum()
    assert abs(salt - hit.sum() / 2) < 4 * hit.sum() ** 0.5 / 2
    pairs = (hit[1:] & hit[:-1]).sum()
    assert abs(pairs - density**2 * count) < 5 * max(1, density * count**0.5)
    per_channel = hit.reshape(-1, 3).sum(axis=0)
    assert np.abs(per_channel - per_channel.mean()).max() < 4 * deviation


def test_the_number_of_impulses_is_binomial():
    rng = _rng(10)
    counts = np.array([len(noise._bernoulli_hits(rng, 40, 0.3)) for _ in range(4000)])
    observed = np.bincount(counts, minlength=41)[4:21]
    expected = 4000 * scipy.stats.binom.pmf(np.arange(4, 21), 40, 0.3)
    assert ((observed - expected) ** 2 / expected).sum() < scipy.stats.chi2.ppf(0.999, 16)


def test_impulse_densities_0_and_1():
    image = _image(9, 5) // 2 + 50
    np.testing.assert_array_equal(noise.impulse(_rng(), image, 0), image)
    assert set(np.unique(noise.impulse(_rng(), image, 1))) == {0, 255}


@pytest.mark.parametrize(
    'make',
    [noise.white, noise.colour, noise.high_frequency, noise.impulse, noise.multiplicative],
)
def test_any_bit_generator_serves_and_fixes_the_bytes(make):
    image = _image(30, 20)
    for kind in (np.random.Philox, np.random.PCG64, np.random.MT19937, np.random.SFC64):
        first, second = make(_rng(11, kind), image, 0.01), make(_rng(11, kind), image, 0.01)
        np.testing.assert_array_equal(first, second)
        assert (make(_rng(12, kind), image, 0.01) != first).any()
    cv2.setRNGSeed(1)
    np.testing.assert_array_equal(make(_rng(11, np.random.SFC64), image, 0.01), second)


def test_more_variance_is_more_of_the_same_noise():
    less, more = (noise.white(_rng(13), _GRAY, v).astype(int) - 128 for v in (0.001, 0.002))
    assert (np.abs(more) >= np.abs(less)).all()
    assert (more * less >= 0).all()


@pytest.mark.parametrize(
    'make', [noise.white, noise.colour, noise.high_frequency, noise.impulse, noise.multiplicative]
)
def test_a_negative_strength_is_refused(make):
    with pytest.raises(ValueError, match='-0.1'):
        make(_rng(), _GRAY, -0.1)
