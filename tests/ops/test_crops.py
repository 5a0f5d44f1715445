"""Crop pyramids (Algorithm 2) and multi-scale patches: geometry over thousands of draws."""

import numpy as np
import pytest
import scipy.stats

from rank_ssl.ops import crops, images


def _shapes(count: int, low: int, high: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    sides = np.exp(rng.uniform(np.log(low), np.log(high + 1), size=(count, 2)))
    return np.minimum(sides.astype(int), high)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


@pytest.fixture(scope='module')
def draws() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    shapes = _shapes(10_000, 20, 6000)
    boxes = np.stack([crops.pyramid_boxes(rng, (int(h), int(w))) for h, w in shapes])
    return shapes, boxes


def test_squares_lie_inside_and_are_nested(draws):
    shapes, boxes = draws
    assert boxes.dtype == np.int32
    assert boxes.shape == (10_000, 5, 4)
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., 2:] <= shapes[:, None]).all()
    np.testing.assert_array_equal(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1])
    assert (boxes[:, 1:, :2] >= boxes[:, :-1, :2]).all()
    assert (boxes[:, 1:, 2:] <= boxes[:, :-1, 2:]).all()


def test_sides_follow_the_unrounded_geometric_sequence(draws):
    _, boxes = draws
    sides = boxes[..., 2] - boxes[..., 0]
    assert np.abs(sides - sides[:, :1] * 0.75 ** np.arange(5)).max() <= 0.5
    assert (np.diff(sides, axis=1) < 0).all()
    assert sides.min() >= 1


def test_one_common_centre_inside_the_anchor_region(draws):
    shapes, boxes = draws
    centres = _centres(boxes)
    assert np.abs(centres - centres[:, :1]).max() <= 0.5
    assert np.all(np.abs(centres - shapes[:, None] / 2) <= shapes[:, None] / 16 + 0.5)


def test_first_square_is_the_largest_around_its_centre(draws):
    shapes, boxes = draws
    centre = _centres(boxes[:, 0])
    room = 2 * np.minimum(centre, shapes - centre).min(axis=1)
    np.testing.assert_array_equal(boxes[:, 0, 2] - boxes[:, 0, 0], room)


def test_anchor_is_uniform_in_its_region_and_reaches_both_ends():
    rng = np.random.default_rng(3)
    first = np.stack([crops.pyramid_boxes(rng, (1600, 4800))[0] for _ in range(4000)])
    unit = (_centres(first) / (1600, 4800) - 0.5) * 8 + 0.5
    for axis in range(2):
        # Centres are whole multiples of half a pixel, so the ends may be passed by that much.
        assert -0.003 < unit[:, axis].min() < 0.003
        assert 0.997 < unit[:, axis].max() < 1.003
        assert scipy.stats.kstest(unit[:, axis], 'uniform').pvalue > 0.01
    assert abs(np.corrcoef(unit.T)[0, 1]) < 0.05


def test_anchor_fraction_bounds_the_region():
    rng = np.random.default_rng(4)
    still = np.stack([crops.pyramid_boxes(rng, (64, 100), anchor_fraction=0) for _ in range(9)])
    assert (still == [[0, 18, 64, 82]] + [still[0, k].tolist() for k in range(1, 5)]).all()
    wide = np.stack([crops.pyramid_boxes(rng, (64, 100), anchor_fraction=1) for _ in range(2000)])
    centres = _centres(wide[:, 0])
    assert centres[:, 0].min() < 2
    assert centres[:, 1].max() > 98
    assert wide.min() >= 0
    assert (wide[..., 2:] <= (64, 100)).all()


def test_known_boxes_of_a_centred_square_image():
    boxes = crops.pyramid_boxes(np.random.default_rng(0), (256, 256), anchor_fraction=0)
    sides = [256, 192, 144, 108, 81]
    np.testing.assert_array_equal(boxes[:, 2] - boxes[:, 0], sides)
    np.testing.assert_array_equal(boxes[:4, 0], [0, 32, 56, 74])
    assert boxes[4, 0] in (87, 88)


@pytest.mark.parametrize('levels', [1, 2, 5, 8])
@pytest.mark.parametrize('scale', [0.3, 0.75, 0.99])
def test_small_images_decrease_down_to_one_pixel(levels, scale):
    rng = np.random.default_rng(5)
    for height in range(1, 24):
        for width in (1, 2, 3, 7, 12, 500):
            shape = (height, width)
            boxes = crops.pyramid_boxes(rng, shape, levels=levels, scale=scale)
            sides = boxes[:, 2] - boxes[:, 0]
            assert sides.min() >= 1
            steps = np.diff(sides)
            assert ((steps < 0) | (sides[:-1] == 1)).all()
            # Equal sides only where there are fewer whole sides than levels.
            assert sides[0] < levels or (steps < 0).all()
            assert boxes.min() >= 0
            assert (boxes[:, 2:] <= shape).all()
            assert (boxes[1:, :2] >= boxes[:-1, :2]).all()
            assert (boxes[1:, 2:] <= boxes[:-1, 2:]).all()


def test_boxes_come_from_the_generator_alone():
    def draw(seed: int) -> np.ndarray:
        return crops.pyramid_boxes(np.random.default_rng(seed), (480, 640))

    np.testing.assert_array_equal(draw(7), draw(7))
    assert (draw(7) != draw(8)).any()
    rng = np.random.default_rng(7)
    first, second = (crops.pyramid_boxes(rng, (480, 640)) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'levels': 0}, 'levels=0'),
        ({'scale': 1.0}, r'scale=1\.0'),
        ({'scale': 0.0}, r'scale=0\.0'),
        ({'anchor_fraction': 1.5}, r'anchor_fraction=1\.5'),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        crops.pyramid_boxes(np.random.default_rng(0), (64, 64), **options)


def test_crop_pyramid_is_the_boxes_resized_with_phi_their_sides():
    image = np.random.default_rng(6).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    boxes = crops.pyramid_boxes(np.random.default_rng(9), (240, 320), levels=4, scale=0.5)
    stack, phi = crops.crop_pyramid(np.random.default_rng(9), image, levels=4, scale=0.5, size=64)
    assert stack.shape == (4, 64, 64, 3)
    assert stack.dtype == np.uint8
    assert phi.dtype == np.float32
    np.testing.assert_array_equal(phi, boxes[:, 2] - boxes[:, 0])
    for crop, (y0, x0, y1, x1) in zip(stack, boxes, strict=True):
        np.testing.assert_array_equal(crop, images.resize(image[y0:y1, x0:x1], (64, 64)))


def test_phi_orders_the_persons_inside():
    rng = np.random.default_rng(10)
    persons = rng.uniform(0, 1, (500, 2)) * (300, 400)
    for _ in range(50):
        boxes = crops.pyramid_boxes(rng, (300, 400))
        inside = (persons[None] >= boxes[:, None, :2]) & (persons[None] < boxes[:, None, 2:])
        counts = inside.all(axis=2).sum(axis=1)
        assert (np.diff(counts) <= 0).all()


def test_crop_resize_at_its_own_size_is_the_slice():
    image = np.random.default_rng(11).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    crop = crops.crop_resize(image, np.array([5, 7, 37, 39], np.int32), 32)
    np.testing.assert_array_equal(crop, image[5:37, 7:39])


def test_crop_resize_shrinks_to_the_mean():
    image = np.random.default_rng(12).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    crop = crops.crop_resize(image, np.array([2, 3, 34, 35], np.int32), 1)
    assert np.abs(crop[0, 0] - image[2:34, 3:35].mean(axis=(0, 1))).max() <= 0.51


def test_patches_are_squares_inside_within_their_bounds():
    rng = np.random.default_rng(13)
    shapes = _shapes(10_000, 1, 3000)
    boxes = np.stack(
        [crops.patch_box(rng, (int(h), int(w)), min_side=56, max_side=448) for h, w in shapes]
    )
    assert boxes.dtype == np.int32
    sides = boxes[:, 2] - boxes[:, 0]
    np.testing.assert_array_equal(sides, boxes[:, 3] - boxes[:, 1])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= shapes).all()
    shorter = shapes.min(axis=1)
    assert (sides <= np.minimum(shorter, 448)).all()
    assert (sides >= np.minimum(shorter, 56)).all()
    np.testing.assert_array_equal(sides[shorter <= 56], shorter[shorter <= 56])


@pytest.mark.parametrize(('shape', 'high'), [((1000, 2000), 448), ((300, 2000), 300)])
def test_patch_sides_are_log_uniform_up_to_the_shorter_side(shape, high):
    rng = np.random.default_rng(14)
    count = 20_000
    sides = np.array(
        [
            np.diff(crops.patch_box(rng, shape, min_side=56, max_side=448)[[0, 2]])[0]
            for _ in range(count)
        ]
    )
    values = np.arange(56, high + 1)
    expected = np.log((values + 1) / 56) / np.log((high + 1) / 56)
    observed = np.searchsorted(np.sort(sides), values, side='right') / count
    # The 0.999 quantile of the Kolmogorov-Smirnov statistic.
    assert np.abs(observed - expected).max() < 1.95 / np.sqrt(count)
    assert sides.min() == 56
    assert sides.max() == high


def test_patch_positions_are_uniform_over_all_that_fit():
    rng = np.random.default_rng(15)
    boxes = np.stack([crops.patch_box(rng, (12, 16), min_side=8, max_side=8) for _ in range(9000)])
    cells = np.zeros((5, 9))
    np.add.at(cells, (boxes[:, 0], boxes[:, 1]), 1)
    assert scipy.stats.chisquare(cells.ravel()).pvalue > 0.001


def test_patch_bounds_in_the_wrong_order_are_named():
    with pytest.raises(ValueError, match='min_side=9 max_side=8'):
        crops.patch_box(np.random.default_rng(0), (64, 64), min_side=9, max_side=8)


def test_sub_images_are_uniform_over_all_that_fit():
    rng = np.random.default_rng(16)
    boxes = np.stack([crops.sub_box(rng, (12, 16), 8) for _ in range(9000)])
    assert (boxes[:, 2:] - boxes[:, :2] == 8).all()
    cells = np.zeros((5, 9))
    np.add.at(cells, (boxes[:, 0], boxes[:, 1]), 1)
    assert scipy.stats.chisquare(cells.ravel()).pvalue > 0.001


@pytest.mark.parametrize(('shape', 'expected'), [((6, 8), [0, 0, 8, 8]), ((3, 2), [0, 0, 8, 8])])
def test_a_sub_image_of_a_smaller_image_starts_at_its_corner(shape, expected):
    assert crops.sub_box(np.random.default_rng(0), shape, 8).tolist() == expected


def test_a_sub_image_has_a_size():
    with pytest.raises(ValueError, match='size=0 must be at least 1 px'):
        crops.sub_box(np.random.default_rng(0), (64, 64), 0)


def test_free_squares_are_nested_and_reach_every_place():
    shape, rng = (90, 120), np.random.default_rng(3)
    boxes = np.stack([crops.pyramid_boxes(rng, shape, nesting='free') for _ in range(4000)])
    centred = np.stack([crops.pyramid_boxes(rng, shape) for _ in range(4000)])
    assert (boxes[:, 1:, :2] >= boxes[:, :-1, :2]).all()
    assert (boxes[:, 1:, 2:] <= boxes[:, :-1, 2:]).all()
    assert (boxes[..., 2:] <= shape).all() and (boxes[..., :2] >= 0).all()
    sides = boxes[..., 2] - boxes[..., 0]
    np.testing.assert_array_equal(sides, boxes[..., 3] - boxes[..., 1])
    assert np.abs(sides - sides[:, :1] * 0.75 ** np.arange(5)).max() <= 0.5
    # Each next square is uniform over the places there are, 0 .. the difference of the sides.
    for axis in (0, 1):
        room = sides[:, 0] - sides[:, 1]
        share = (boxes[:, 1, axis] - boxes[:, 0, axis]) / room
        assert abs(share.mean() - 0.5) < 0.02 and share.min() == 0 and share.max() == 1
        assert np.abs(_centres(boxes)[:, 4, axis] - _centres(boxes)[:, 0, axis]).max() > 10
        assert np.abs(_centres(centred)[:, 4, axis] - _centres(centred)[:, 0, axis]).max() <= 0.5


def test_unknown_nesting_is_refused():
    with pytest.raises(ValueError, match="nesting='loose' must be one of centred, free"):
        crops.pyramid_boxes(np.random.default_rng(0), (50, 50), nesting='loose')
