"""Changes of value and colour against slow loops over pixels."""

import itertools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from rank_ssl.ops import colour

_IMAGES = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
    elements=st.integers(0, 255),
)
_RNG = np.random.default_rng(0)
_WHOLE = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)  # every value
_ANY = _RNG.integers(0, 256, (40, 31, 3), dtype=np.uint8)


def _round(values: np.ndarray) -> np.ndarray:
    """Clipped and rounded, halves away from zero."""
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)


@pytest.mark.parametrize('step', [0.5, 1, 10, 27, 39, 55, 76, 300, 600])
def test_quantize_takes_the_nearest_multiple(step):
    multiples = np.arange(0, 3000, step)
    for value, result in zip(_WHOLE.ravel(), colour.quantize(_WHOLE, step).ravel(), strict=True):
        # The upper of two at one distance.
        nearest = multiples[::-1][np.abs(multiples[::-1] - value).argmin()]
        assert result == _round(nearest)


@pytest.mark.parametrize(
    'amount', [-300, -60, -15, -0.6, -0.5, 0, 0.4, 0.5, 15, 59.5, 60, 255, 999]
)
@pytest.mark.parametrize('image', [_WHOLE, np.tile(_WHOLE, (20, 20, 1))], ids=['small', 'large'])
def test_shift_adds_and_rounds(amount, image):
    expected = _round(image.astype(float) + amount)
    np.testing.assert_array_equal(colour.shift(image, amount), expected)


@hypothesis.given(
    image=_IMAGES, factor=st.sampled_from([0, 0.4, 0.55, 0.7, 0.85, 1, 1.2, 1.6, 1.8])
)
@hypothesis.settings(max_examples=200)
def test_contrast_is_about_the_mean(image, factor):
    mean = image.mean()
    assert abs(colour.mean(image) - mean) < 1e-9
    expected = mean + factor * (image - mean)
    changed = colour.contrast(image, factor, mean)
    assert changed.shape == image.shape
    # Sums in float32, which settle values within 1e-4 of a half.
    assert np.abs(changed - np.clip(expected, 0, 255)).max() < 0.5003


@pytest.mark.parametrize('factor', [0.4, 0.55, 0.7, 0.85, 1.2, 1.4, 1.5, 1.8])
def test_contrast_about_0_multiplies_and_halves_go_up(factor):
    expected = np.minimum((_WHOLE.astype(int) * round(factor * 100) + 50) // 100, 255)
    np.testing.assert_array_equal(colour.contrast(_WHOLE, factor, 0), expected)


@pytest.mark.parametrize('factor', [1.3, 1, 0.4, 0, -0.4, -0.8])
def test_saturate_scales_the_chroma(factor):
    to_ycc = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    ycc = _ANY @ to_ycc.T * (1, factor, factor)
    expected = np.clip(ycc @ np.linalg.inv(to_ycc).T, 0, 255)
    error = colour.saturate(_ANY, factor) - expected
    assert np.abs(error).max() < 0.9
    assert abs(error.mean()) < 0.06


@pytest.mark.parametrize('factor', [0.4, 0, -0.4, -0.8])
def test_saturate_keeps_gray(factor):
    np.testing.assert_array_equal(colour.saturate(_WHOLE, factor), _WHOLE)


def _slow_aberration(image: np.ndarray, shift: int, channel: int) -> np.ndarray:
    height, width = image.shape[:2]
    moved = image.astype(float)
    for k, pixels in ((0, shift), (channel, shift // 2)):
        for x in range(pixels, width):
            moved[:, x, k] = image[:, x - pixels, k]
    side = np.exp(-2.0)
    blurred = np.zeros(image.shape)
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):
        weight = side ** (abs(dy) + abs(dx)) / (1 + 2 * side) ** 2
        y = np.clip(np.arange(height) + dy, 0, height - 1)
        x = np.clip(np.arange(width) + dx, 0, width - 1)
        blurred += weight * moved[y][:, x]
    return blurred


@pytest.mark.parametrize('shift', [0, 2, 6, 14, 40, 80])
@pytest.mark.parametrize('channel', [1, 2])
def test_aberrate_moves_two_channels_and_blurs(shift, channel):
    expected = _slow_aberration(_ANY, shift, channel)
    assert np.abs(colour.aberrate(_ANY, shift, channel=channel) - expected).max() < 0.5001


def test_aberrate_interpolates_between_pixels():
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None, :, None], 3, axis=2)
    ramp = np.repeat(ramp, 5, axis=0)
    for shift in (2, 2.5, 3.25, 4):
        difference = ramp.astype(int) - colour.aberrate(ramp, shift)
        inner = difference[:, 6:-1].reshape(-1, 3)
        # 8 levels a pixel, to the rounding of the move and of the blur.
        assert np.abs(inner - (8 * shift, 0, 4 * shift)).max() <= 1


def _between_variance(counts: np.ndarray, cuts: tuple[int, ...]) -> float:
    values = np.arange(len(counts))
    edges = [-1, *cuts, len(counts) - 1]
    mean = (counts * values).sum() / counts.sum()
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = slice(low + 1, high + 1)
        number = counts[inside].sum()
        if number:
            total += number * ((counts[inside] * values[inside]).sum() / number - mean) ** 2
    return total


@pytest.mark.parametrize('thresholds', [1, 2, 3])
def test_otsu_is_the_best_of_all_thresholds(thresholds):
    for seed in range(4):
        values = np.random.default_rng(seed).choice(14, 300, p=None).astype(np.uint8)
        image = np.minimum(values, 13)[: 3 * 97].reshape(97, 1, 3)
        counts = np.bincount(image.ravel(), minlength=14)
        cuts = colour._otsu(np.append(counts, np.zeros(242)), thresholds)
        best = max(
            _between_variance(counts, some)
            for some in itertools.combinations(range(13), thresholds)
        )
        assert abs(_between_variance(counts, tuple(cuts)) - best) < 1e-9 * best


def test_otsu_classes_become_their_upper_threshold():
    image = np.repeat(np.array([10, 12, 90, 92, 200], np.uint8), 6).reshape(2, 5, 3)
    cuts = colour._otsu(np.bincount(image.ravel(), minlength=256), 2)
    assert cuts == [12, 92]
    quantized = colour.quantize_otsu(image, 2)
    expected = np.select([image <= 12, image <= 92], [0, 92], 255)
    np.testing.assert_array_equal(quantized, expected)


@pytest.mark.parametrize('values', [[7], [0, 255], [3, 4, 5]])
def test_otsu_with_fewer_values_than_classes(values):
    image = np.resize(np.array(values, np.uint8), (4, 5, 3))
    assert len(np.unique(colour.quantize_otsu(image, 9))) <= max(len(values), 1)


@pytest.mark.parametrize(
    'call',
    [
        lambda: colour.quantize(_ANY, 0),
        lambda: colour.quantize_otsu(_ANY, 0),
        lambda: colour.contrast(_ANY, -1, 0),
        lambda: colour.aberrate(_ANY, -1),
    ],
)
def test_values_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match='must'):
        call()
