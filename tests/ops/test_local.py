"""Patches and blocks against slow loops over the same draws."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rank_ssl.ops import local

_SHAPES = st.tuples(st.integers(1, 90), st.integers(1, 90))
_PLACES = st.tuples(*[st.floats(0, 1)] * 4)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def _image(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _box(shape: tuple[int, int], place: tuple[float, ...]) -> tuple[int, int, int, int]:
    y0, x0 = (int(p * (side - 1)) for p, side in zip(place[:2], shape, strict=True))
    y1 = y0 + 1 + int(place[2] * (shape[0] - y0 - 1))
    x1 = x0 + 1 + int(place[3] * (shape[1] - x0 - 1))
    return y0, x0, y1, x1


def _slow_pattern(image: np.ndarray, draws: np.ndarray, one_way: bool) -> np.ndarray:
    moved = image.copy()
    for draw in draws:
        targets, sources = [], []
        for place, sign, length in zip(draw[:2], draw[2:], image.shape, strict=False):
            side = min(15, length)
            last = length - side
            target = int(place * ((max(0, last - 5) if one_way else last) + 1))
            offset = 5 if one_way or sign >= 0.5 else -5
            if not one_way and not 0 <= target + offset <= last:
                offset = -offset
            source = min(max(target + offset, 0), last)
            targets.append(slice(target, target + side))
            sources.append(slice(source, source + side))
        moved[tuple(targets)] = image[tuple(sources)]
    return moved


def _slow_blocks(image: np.ndarray, draws: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    covered = image.copy()
    for y, x, *rgb in draws:
        top, left = int(y * max(1, height - 31)), int(x * max(1, width - 31))
        covered[top : top + 32, left : left + 32] = [int(256 * value) for value in rgb]
    return covered


@hypothesis.given(shape=_SHAPES, count=st.integers(0, 60), one_way=st.booleans(), place=_PLACES)
@hypothesis.settings(max_examples=100)
def test_pattern_copies_patches_from_nearby(shape, count, one_way, place):
    image = _image(shape)
    moved = local.pattern(_rng(1), image, count, one_way=one_way)
    expected = _slow_pattern(image, _rng(1).random((count, 4)), one_way)
    np.testing.assert_array_equal(moved, expected)
    y0, x0, y1, x1 = box = _box(shape, place)
    part = local.pattern(_rng(1), image, count, one_way=one_way, box=box)
    np.testing.assert_array_equal(part, expected[y0:y1, x0:x1])


@hypothesis.given(shape=_SHAPES, count=st.integers(0, 20), place=_PLACES)
@hypothesis.settings(max_examples=100)
def test_blocks_are_filled_squares(shape, count, place):
    image = _image(shape)
    covered = local.blocks(_rng(2), image, count)
    expected = _slow_blocks(image, _rng(2).random((count, 5)))
    np.testing.assert_array_equal(covered, expected)
    y0, x0, y1, x1 = box = _box(shape, place)
    part = local.blocks(_rng(2), image, count, box=box)
    np.testing.assert_array_equal(part, expected[y0:y1, x0:x1])


def test_patches_go_all_four_ways_and_everywhere():
    # Each value names its place, so the result tells where it came from.
    y, x = np.mgrid[:200, :200].astype(np.uint8)
    image = np.stack([y, x, y * 0], axis=-1)
    moved = local.pattern(_rng(), image, 60_000).astype(int) - image
    ways, counts = np.unique(moved[..., :2].reshape(-1, 2), axis=0, return_counts=True)
    shares = dict(zip(map(tuple, ways.tolist()), counts / counts.sum(), strict=True))
    # A corner is in one of the 186 x 186 places only, and may be left.
    assert shares.pop((0, 0), 0) < 0.001
    assert set(shares) == {(5, 5), (5, -5), (-5, 5), (-5, -5)}
    assert min(shares.values()) > 0.2


def test_one_way_patches_come_from_below_and_the_right():
    y, x = np.mgrid[:100, :100].astype(np.uint8)
    image = np.stack([y, x, y * 0], axis=-1)
    moved = local.pattern(_rng(3), image, 50, one_way=True).astype(int) - image
    assert set(map(tuple, np.unique(moved[..., :2].reshape(-1, 2), axis=0))) == {(0, 0), (5, 5)}


@pytest.mark.parametrize('change', [local.pattern, local.blocks])
def test_a_higher_number_damages_more_from_one_state(change):
    image = _image((120, 120))
    damage = [(change(_rng(4), image, n) != image).any(axis=-1) for n in (1, 2, 5, 9, 20)]
    assert all((less <= more).mean() > 0.99 for less, more in zip(damage, damage[1:], strict=False))
    sizes = [part.sum() for part in damage]
    assert sizes == sorted(sizes)
    np.testing.assert_array_equal(change(_rng(4), image, 4.6), change(_rng(4), image, 5))


def test_small_images_are_covered_whole():
    image = _image((8, 20))
    assert (np.ptp(local.blocks(_rng(5), image, 1), axis=(0, 1)) == 0).all()
    # Higher than wide enough to move along one axis only.
    moved = local.pattern(_rng(5), image, 30)
    assert moved.shape == image.shape
    assert (moved != image).any()
    np.testing.assert_array_equal(local.pattern(_rng(5), image[:, :9], 30), image[:, :9])


@pytest.mark.parametrize(('number', 'red'), [(2, 0), (4, 150), (8, 130), (16, 100)])
def test_the_released_colour_follows_the_number(number, red):
    image = np.full((64, 64, 3), (90, 60, 20), np.uint8)
    image[::2] += 20
    assert local.released_colour(image, number) == (red, 70, 30)
    covered = local.blocks(_rng(6), image, number, colour=(red, 70, 30))
    changed = (covered != image).any(axis=-1)
    assert changed.any()
    np.testing.assert_array_equal(covered[changed], np.tile((red, 70, 30), (changed.sum(), 1)))


@pytest.mark.parametrize('change', [local.pattern, local.blocks])
def test_a_negative_number_is_refused(change):
    with pytest.raises(ValueError, match='-1'):
        change(_rng(), _image((9, 9)), -1)
