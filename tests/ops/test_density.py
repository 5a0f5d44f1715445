"""Exact cell masses: brute-force sums of normal CDFs, quadrature, and every image of part A."""

import itertools
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.integrate
import scipy.io
import scipy.ndimage
import scipy.special
from PIL import Image

from rank_ssl.ops import density


def _brute_axis(centre: float, length: int, edges: np.ndarray, sigma: float) -> np.ndarray:
    turns = int(np.ceil(10 * sigma / length)) + 2
    mass = np.zeros(len(edges) - 1)
    for turn in range(-turns, turns + 1):
        for image in (2 * turn * length + centre, 2 * turn * length - centre):
            mass += np.diff(scipy.special.ndtr((edges - image) / sigma))  # the normal CDF
    return mass


def _brute(points, shape, box, cells, sigma) -> np.ndarray:
    y_edges = box[0] + (box[2] - box[0]) * np.arange(cells[0] + 1) / cells[0]
    x_edges = box[1] + (box[3] - box[1]) * np.arange(cells[1] + 1) / cells[1]
    total = np.zeros(cells)
    for x, y in points:
        rows = _brute_axis(y, shape[0], y_edges, sigma)
        columns = _brute_axis(x, shape[1], x_edges, sigma)
        total += np.outer(rows, columns)
    return total


@pytest.mark.parametrize('sigma', [0.5, 4.0, 15.0, 60.0])
@pytest.mark.parametrize('box', [(0, 0, 20, 31), (3, 5, 17, 26), (10, 0, 20, 9)])
def test_cell_mass_is_the_sum_over_mirror_images(sigma, box):
    points = [(0.0, 0.0), (31.0, 20.0), (12.3, 7.9), (30.9, 0.1), (5.0, 13.0)]
    got = density.cell_mass(np.array(points), (20, 31), box=box, cells=(3, 5), sigma=sigma)
    assert got.dtype == np.float32
    np.testing.assert_allclose(
        got, _brute(points, (20, 31), box, (3, 5), sigma), rtol=1e-6, atol=1e-10
    )


def test_a_very_wide_gaussian_is_flat():
    got = density.cell_mass(np.array([[1.0, 2.0]]), (10, 20), cells=(5, 4), sigma=1e6)
    np.testing.assert_allclose(got, 1 / 20, rtol=1e-6)


def test_one_cell_agrees_with_numeric_quadrature():
    x, y, sigma, (height, width) = 33.7, 4.2, 15.0, (120, 90)
    box, cells, (i, j) = (3.0, 10.0, 80.0, 66.0), (11, 8), (2, 5)

    def reflected(t: float, centre: float, length: int) -> float:
        images = [2 * k * length + s * centre for k in range(-3, 4) for s in (1, -1)]
        return sum(np.exp(-((t - m) ** 2) / (2 * sigma**2)) for m in images)

    y_step, x_step = 77 / 11, 56 / 8
    value, _ = scipy.integrate.dblquad(
        lambda v, u: reflected(u, x, width) * reflected(v, y, height) / (2 * np.pi * sigma**2),
        10 + j * x_step,
        10 + (j + 1) * x_step,
        3 + i * y_step,
        3 + (i + 1) * y_step,
        epsabs=1e-13,
    )
    got = density.cell_mass(np.array([[x, y]]), (height, width), box=box, cells=cells)
    assert abs(got[i, j] - value) < 1e-9


def test_map_agrees_with_a_reflecting_gaussian_filter():
    rng = np.random.default_rng(0)
    # At pixel centres, where a histogram loses nothing.
    pixels = np.stack([rng.integers(0, 150, 40), rng.integers(0, 110, 40)], axis=1)
    counts = np.zeros((110, 150))
    np.add.at(counts, (pixels[:, 1], pixels[:, 0]), 1)
    expected = scipy.ndimage.gaussian_filter(counts, 15.0, mode='reflect', truncate=8)
    got = density.density_map(pixels + 0.5, (110, 150))
    # The filter samples the Gaussian where the map integrates it: 1 / (12 sigma^2) = 4e-4.
    np.testing.assert_allclose(got, expected, atol=4e-4 * expected.max())


def test_a_person_is_brightest_in_the_pixel_that_holds_it():
    got = density.density_map(np.array([[12.5, 30.5]]), (50, 40), sigma=2.0)
    assert np.unravel_index(got.argmax(), got.shape) == (30, 12)
    np.testing.assert_allclose(got[25:36, 7:18], got[25:36, 7:18][::-1, ::-1], rtol=1e-5)


def test_two_persons_on_one_pixel_count_twice():
    one = density.density_map(np.array([[7.0, 9.0]]), (20, 30))
    two = density.density_map(np.array([[7.0, 9.0], [7.0, 9.0]]), (20, 30))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


@pytest.mark.parametrize('shape', [(1, 1), (3, 200), (64, 48), (240, 320)])
@pytest.mark.parametrize('sigma', [0.3, 15.0, 500.0])
def test_border_and_corner_persons_count_whole(shape, sigma):
    height, width = shape
    xs, ys = (0, width / 2, width), (0, height / 2, height)
    points = np.array(list(itertools.product(xs, ys)), np.float32)
    got = density.density_map(points, shape, sigma=sigma)
    assert got.shape == shape
    assert abs(got.sum(dtype=np.float64) - 9) < 1e-5


def test_persons_past_the_border_are_taken_at_the_border():
    past = density.density_map(np.array([[-40.0, 10.0], [33.0, 99.0]]), (25, 30))
    at = density.density_map(np.array([[0.0, 10.0], [30.0, 25.0]]), (25, 30))
    np.testing.assert_array_equal(past, at)
    assert abs(past.sum() - 2) < 1e-5


@pytest.mark.parametrize('empty', [np.zeros((0, 2), np.float32), np.zeros(0), []])
def test_no_persons_give_zeros(empty):
    got = density.density_map(empty, (6, 8))
    assert got.shape == (6, 8)
    assert got.dtype == np.float32
    assert (got == 0).all()


@hypothesis.settings(max_examples=100, derandomize=True)
@hypothesis.given(
    st.lists(st.tuples(st.floats(-5, 70), st.floats(-5, 50)), max_size=12),
    st.tuples(st.integers(1, 45), st.integers(1, 65)),
    st.floats(0.01, 300),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_every_grid_holds_exactly_the_count(points, shape, sigma, cells):
    got = density.cell_mass(np.array(points).reshape(-1, 2), shape, cells=cells, sigma=sigma)
    assert (got >= 0).all()
    assert abs(got.sum(dtype=np.float64) - len(points)) < 1e-5


@pytest.fixture(scope='module')
def scene() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    points = (rng.beta(0.6, 0.6, (700, 2)) * (352, 256)).astype(np.float32)
    return points, density.density_map(points, (256, 352))


@pytest.mark.parametrize('cell', [1, 4, 16, 32])
def test_cells_are_the_block_sums_of_the_map(scene, cell):
    points, full = scene
    cells = (256 // cell, 352 // cell)
    got = density.cell_mass(points, (256, 352), cells=cells)
    np.testing.assert_allclose(got, density.block_sum(full, cell), atol=1e-5)


def test_a_crops_target_is_the_map_inside_it(scene):
    points, full = scene
    box = np.array([37, 91, 37 + 112, 91 + 112], np.int32)
    got = density.cell_mass(points, (256, 352), box=box, cells=(14, 14))
    inside = full[37 : 37 + 112, 91 : 91 + 112]
    np.testing.assert_allclose(got, density.block_sum(inside, 8), atol=1e-5)
    for cells in ((1, 1), (7, 7), (13, 5), (224, 224)):
        resized = density.cell_mass(points, (256, 352), box=box, cells=cells)
        assert abs(resized.sum(dtype=np.float64) - inside.sum(dtype=np.float64)) < 1e-4


def test_boxes_that_tile_the_image_share_out_the_count(scene):
    points, _ = scene
    rows, columns = (0, 100.5, 256), (0, 17, 200, 352)
    total = 0.0
    for (y0, y1), (x0, x1) in itertools.product(
        itertools.pairwise(rows), itertools.pairwise(columns)
    ):
        part = density.cell_mass(points, (256, 352), box=(y0, x0, y1, x1), cells=(3, 4))
        total += part.sum(dtype=np.float64)
    assert abs(total - 700) < 1e-4


def test_distant_persons_do_not_reach_the_box():
    points = np.array([[20.0, 20.0], [980.0, 980.0]])
    got = density.cell_mass(points, (1000, 1000), box=(0, 0, 224, 224), cells=(14, 14))
    alone = density.cell_mass(points[:1], (1000, 1000), box=(0, 0, 224, 224), cells=(14, 14))
    np.testing.assert_array_equal(got, alone)


def test_order_of_persons_does_not_matter(scene):
    points, full = scene
    shuffled = np.random.default_rng(2).permutation(points)
    np.testing.assert_allclose(density.density_map(shuffled, (256, 352)), full, rtol=1e-5)


def test_memory_stays_small_for_twelve_thousand_persons():
    points = np.random.default_rng(3).uniform(0, 1024, (12_000, 2))
    tracemalloc.start()
    got = density.density_map(points, (1024, 1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert abs(got.sum(dtype=np.float64) - 12_000) < 1e-3


@pytest.mark.parametrize('shape', [(16, 24), (17, 31), (5, 3), (1, 1)])
@pytest.mark.parametrize('cell', [1, 4, 8, 40])
def test_block_sum_against_a_loop(shape, cell):
    values = np.random.default_rng(4).uniform(0, 1, shape).astype(np.float32)
    got = density.block_sum(values, cell)
    rows, columns = -(-shape[0] // cell), -(-shape[1] // cell)
    expected = np.zeros((rows, columns))
    for (i, j), value in np.ndenumerate(values):
        expected[i // cell, j // cell] += value
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_block_sum_keeps_a_whole_sum_exactly():
    counts = np.random.default_rng(5).integers(0, 9, (37, 53))
    assert density.block_sum(counts, 16).sum() == counts.sum()


def test_clean_points_clamps_near_and_drops_far():
    points = np.array(
        [[5, 5], [0, 0], [30, 20], [-1, 3], [31, 21], [-1.01, 3], [3, 21.5], [600, -9]], np.float32
    )
    kept, outside = density.clean_points(points, (20, 30))
    assert outside == 3
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, [[5, 5], [0, 0], [30, 20], [0, 3], [30, 20]])
    strict, outside = density.clean_points(points, (20, 30), tolerance=0)
    assert outside == 5
    np.testing.assert_array_equal(strict, points[:3])


def test_clean_points_of_nothing():
    kept, outside = density.clean_points(np.zeros((0, 2)), (20, 30))
    assert kept.shape == (0, 2)
    assert outside == 0


@pytest.mark.parametrize('function', [density.clean_points, density.density_map])
def test_nan_points_are_named_by_row(function):
    points = np.zeros((5, 2))
    points[1, 0], points[4, 1] = np.nan, -np.inf
    with pytest.raises(ValueError, match='rows 1, 4$'):
        function(points, (20, 30))


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r'\(3, 3\) must be \[P, 2\]'):
        density.density_map(np.zeros((3, 3)), (20, 30))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'cells': (0, 2)}, 'cells='),
        ({'cells': (2, 2), 'sigma': 0.0}, 'sigma='),
        ({'cells': (2, 2), 'sigma': float('nan')}, 'sigma='),
        ({'cells': (2, 2), 'box': (0, 0, 21, 30)}, 'inside the image'),
        ({'cells': (2, 2), 'box': (-1, 0, 5, 5)}, 'inside the image'),
        ({'cells': (2, 2), 'box': (5, 5, 5, 9)}, 'not empty'),
    ],
)
def test_impossible_grids_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        density.cell_mass(np.zeros((1, 2)), (20, 30), **options)


def test_block_sum_refuses_an_empty_cell():
    with pytest.raises(ValueError, match='cell=0'):
        density.block_sum(np.zeros((4, 4)), 0)


def _part_a(real_data):
    truths = sorted((real_data / 'shanghaitech/part_A').glob('*/ground-truth/GT_IMG_*.mat'))
    assert len(truths) == 482
    for truth in truths:
        points = scipy.io.loadmat(truth)['image_info'][0, 0][0, 0][0]
        name = truth.name.removeprefix('GT_').replace('.mat', '.jpg')
        with Image.open(truth.parents[1] / 'images' / name) as image:
            yield points, (image.height, image.width)


def test_cells_sum_to_the_count_on_every_image_of_part_a(real_data):
    for points, shape in _part_a(real_data):
        kept, outside = density.clean_points(points, shape, tolerance=0)
        assert outside == 0
        for cells in ((14, 14), (-(-shape[0] // 16), -(-shape[1] // 16))):
            mass = density.cell_mass(kept, shape, cells=cells)
            assert abs(mass.sum(dtype=np.float64) - len(points)) < 1e-3


@pytest.mark.parametrize(
    'stride', [8, pytest.param(1, marks=pytest.mark.slow)], ids=['every_8th', 'all']
)
def test_maps_sum_to_the_count_on_part_a(real_data, stride):
    for points, shape in itertools.islice(_part_a(real_data), 0, None, stride):
        full = density.density_map(points, shape)
        assert abs(full.sum(dtype=np.float64) - len(points)) < 1e-3
        cells = density.cell_mass(points, shape, box=(0, 0, 176, 176), cells=(11, 11))
        blocks = density.block_sum(full, 16)[:11, :11]
        np.testing.assert_allclose(cells, blocks, atol=1e-5)


def test_points_outside_in_ucf_cc_50(real_data):
    strict, tolerant = {}, {}
    for truth in sorted((real_data / 'ucf_cc_50').glob('**/*_ann.mat')):
        points = scipy.io.loadmat(truth)['annPoints']
        number = int(truth.name.removesuffix('_ann.mat'))
        with Image.open(truth.with_name(f'{number}.jpg')) as image:
            shape = (image.height, image.width)
        strict[number] = density.clean_points(points, shape, tolerance=0)[1]
        tolerant[number] = density.clean_points(points, shape)[1]
    assert {n: c for n, c in strict.items() if c} == {1: 2, 17: 1, 6: 1, 20: 1}
    assert {n: c for n, c in tolerant.items() if c} == {6: 1, 20: 1}
