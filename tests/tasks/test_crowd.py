"""Crowd counting: targets and ranked sets of known content, views, settings, figures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from rank_ssl.errors import UserError
from rank_ssl.ops import crops
from rank_ssl.tasks.crowd import PADDING, Crowd
from rank_ssl.types import Prediction, Task


def record(points=(), shape=(96, 128), count=None, image=None) -> dict:
    """A record whose pixel (y, x) is the colour (x, y, 0), so that a crop tells its place."""
    points = np.asarray(points, np.float32).reshape(-1, 2)
    if image is None:
        image = np.zeros((*shape, 3), np.uint8)
        image[..., 0], image[..., 1] = np.arange(shape[1]), np.arange(shape[0])[:, None]
    return {
        'image': image,
        'id': 'made',
        'index': 0,
        'points': points,
        'count': len(points) if count is None else count,
    }


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def patch_of(task: Crowd, seed: int, shape: tuple[int, int]) -> np.ndarray:
    """The patch that `task.labeled(rng(seed), ...)` takes."""
    return crops.patch_box(rng(seed), shape, min_side=task.patch_min, max_side=task.patch_max)


def test_crowd_is_a_task_whose_head_gives_its_target_shape():
    task = Crowd(size=96)
    assert isinstance(task, Task)
    assert (task.stride(), task.target_shape()) == (16, (6, 6))
    assert (task.best, task.lower_is_better, task.unit) == ('mae', True, 'persons')
    features = jnp.zeros((6, 6, 8))
    output, _ = jax.eval_shape(task.head().init_with_output, jax.random.key(0), features)
    assert output.shape == task.target_shape()


@pytest.mark.parametrize('head_std', [0.0, 0.001, 0.1])
def test_the_map_starts_with_a_kernel_of_the_deviation_set(head_std):
    head, features = Crowd(head_std=head_std).head(), jnp.zeros((2, 2, 512))
    params = head.init(jax.random.key(0), features)['params']
    np.testing.assert_allclose(params['kernel'].std(), head_std, rtol=0.05)
    assert not params['bias'].any()


@pytest.mark.parametrize('size', [16, 32, 80])
@pytest.mark.parametrize('seed', range(4))
def test_target_is_the_mass_of_persons_in_the_patch_whatever_the_size(size, seed):
    shape = (200, 240)
    points = rng(7).uniform((30, 30), (210, 170), (40, 2))  # no mass reaches a border of the image
    task = Crowd(size=size, sigma=4.0, patch_min=40, patch_max=150)
    target = task.labeled(rng(seed), record(points, shape)).target
    assert target.shape == (size // 16, size // 16) and target.dtype == np.float32
    y0, x0, y1, x1 = patch_of(task, seed, shape)
    x, y = (scipy.stats.norm(points[:, axis], 4.0) for axis in (0, 1))
    mass = (x.cdf(x1) - x.cdf(x0)) * (y.cdf(y1) - y.cdf(y0))
    assert 0 < mass.sum() < len(points)
    np.testing.assert_allclose(target.sum(), mass.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    'points',
    [
        [(30.5, 20.5), (30.5, 20.5)],
        [(0, 0), (64, 64), (64, 10), (17, 0)],
        [(1, 2), (40, 63.9), (40, 40)],
        [],
    ],
)
def test_a_patch_of_the_whole_image_holds_every_person(points):
    task = Crowd(size=64, patch_min=64, patch_max=64)
    labeled = task.labeled(rng(), record(points, (64, 64)))
    np.testing.assert_allclose(labeled.target.sum(), len(points), rtol=1e-5)
    assert (labeled.target >= 0).all()
    np.testing.assert_array_equal(labeled.image, record(points, (64, 64))['image'])


def test_a_person_is_in_the_cell_of_its_place():
    task = Crowd(size=64, patch_min=128, patch_max=128, sigma=1.0)
    target = task.labeled(rng(), record([(48, 16), (112, 80)], (128, 128))).target
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[2, 3] = 1  # cells of 32 px of the patch
    np.testing.assert_allclose(target, expected, atol=1e-6)


def test_the_labeled_image_shows_the_targets_patch():
    task = Crowd(size=48, patch_min=48, patch_max=48)
    for seed in range(5):
        y0, x0, y1, x1 = patch_of(task, seed, (96, 128))
        image = task.labeled(rng(seed), record()).image
        np.testing.assert_array_equal(image, record()['image'][y0:y1, x0:x1])


@pytest.mark.parametrize('seed', range(6))
def test_ranked_images_fall_in_phi_and_each_lies_in_the_one_before(seed):
    task = Crowd(size=32)
    ranked = task.ranked_set(rng(seed), record(shape=(180, 250)))
    assert ranked.images.shape == (5, 32, 32, 3) and ranked.images.dtype == np.uint8
    assert ranked.phi.dtype == np.float32 and (np.diff(ranked.phi) < 0).all()
    np.testing.assert_allclose(ranked.phi[1:] / ranked.phi[:-1], 0.75, atol=0.02)
    assert ranked.segments.dtype == np.int32 and (ranked.segments == 0).all()
    places = ranked.images[..., :2].reshape(5, -1, 2).astype(int)
    low, high = places.min(1), places.max(1)
    assert (np.diff(low, axis=0) > 0).all() and (np.diff(high, axis=0) < 0).all()
    # A crop of side phi shows a span of phi px, less what averaging to 32 px takes at its ends.
    expected = np.repeat(ranked.phi[:, None], 2, axis=1) * 31 / 32
    np.testing.assert_allclose(high - low, expected, atol=1.5)
    anchor = (low + high) / 2 - np.array([250, 180]) / 2
    assert (np.abs(anchor) <= np.array([250, 180]) / 16 + 1).all()


@pytest.mark.parametrize('shape', [(1, 1), (3, 40), (20, 14), (31, 500)])
def test_images_smaller_than_patch_and_input_work(shape):
    task, image = Crowd(size=32), np.full((*shape, 3), 200, np.uint8)
    one = record([(0.5, 0.5)], image=image)
    ranked, labeled = task.ranked_set(rng(), one), task.labeled(rng(), one)
    assert (ranked.images == 200).all() and (labeled.image == 200).all()
    assert (np.diff(ranked.phi) <= 0).all() and ranked.phi[0] <= min(shape)
    assert 0 <= labeled.target.sum() <= 1.0001 and (labeled.target.sum() > 0 or shape[1] == 500)


def test_the_same_generator_gives_the_same_example():
    task, one = Crowd(size=32), record([(40, 40)])
    for make in (task.ranked_set, task.labeled):
        first, again, other = (make(rng(seed), one) for seed in (1, 1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_score_and_loss_are_sums_over_the_map():
    task = Crowd()
    output, target = rng(0).normal(size=(2, 3, 4, 5)), rng(1).normal(size=(2, 3, 4, 5))
    score, loss = task.score(jnp.asarray(output)), task.loss(jnp.asarray(output), target)
    assert score.shape == loss.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        pairs = [(output[i, j, y, x], target[i, j, y, x]) for y in range(4) for x in range(5)]
        np.testing.assert_allclose(score[i, j], sum(o for o, _ in pairs), rtol=1e-5)
        np.testing.assert_allclose(loss[i, j], sum((o - t) ** 2 for o, t in pairs), rtol=1e-5)
    half = task.score(jnp.full((64, 64), 1.01, jnp.bfloat16))  # summed in float32
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, 4096 * float(jnp.bfloat16(1.01)), rtol=1e-6)


def test_metrics_are_the_mean_error_and_the_root_of_the_mean_square():
    found = Crowd().metrics(np.array([1.0, 5, 2]), np.array([2.0, 3, 4]))
    assert found == pytest.approx({'mae': 5 / 3, 'mse': np.sqrt(3)})
    records = [record(count=count) for count in (2, 3, 4)]
    assert Crowd().metrics(np.array([1.0, 5, 2]), np.array([2.0, 3, 4]), records) == found


def test_the_table_of_predictions_gets_no_column_of_its_own():
    assert Crowd().columns(record([(3, 3)])) == {}


def test_the_label_is_the_number_annotated_also_where_points_were_dropped():
    assert Crowd().label(record([(3, 3)], count=4)) == 4.0
    assert Crowd().label(record()) == 0.0


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([0, 16, 33, 50, 64]))
def test_views_have_the_promised_shape_and_hold_the_image(height, width, eval_side):
    task = Crowd(eval_side=eval_side)
    image = rng().integers(0, 256, (height, width, 3)).astype(np.uint8)
    views = task.views(rng(), record(image=image)).images
    assert views.shape == (1, *task.view_shape(height, width), 3) and views.dtype == np.uint8
    assert views.shape[1] % 16 == views.shape[2] % 16 == 0
    if eval_side and max(height, width) > eval_side:
        factor = eval_side / max(height, width)
        height, width = (max(1, round(side * factor)) for side in (height, width))
        assert max(height, width) == eval_side
    else:
        np.testing.assert_array_equal(views[0, :height, :width], image)
    assert views.shape[1] - height in range(16) and views.shape[2] - width in range(16)
    filled = np.ones(views.shape[1:3], bool)
    filled[:height, :width] = False
    assert (views[0][filled] == PADDING).all()


def test_views_are_filled_with_imagenets_mean_colour():
    assert tuple(round(255 * mean) for mean in (0.485, 0.456, 0.406)) == PADDING


def test_a_bounded_view_shows_the_whole_image():
    image = np.zeros((100, 200, 3), np.uint8)
    image[50:, 100:] = 255
    view = Crowd(eval_side=64).views(rng(), record(image=image)).images[0]
    assert view.shape == (32, 64, 3)
    assert (view[:15, :31] == 0).all() and (view[17:, 33:] == 255).all()


@pytest.mark.parametrize(
    'setting, names',
    [
        ({'size': 100}, ['config.task.size=100', 'stride 16', 'use 96']),
        ({'size': 0}, ['config.task.size=0', 'use 16']),
        ({'cell': 0}, ['config.task.cell=0', 'use 16']),
        ({'cell': -16}, ['config.task.cell=-16', 'use 16']),
        ({'levels': 1}, ['config.task.levels=1', 'use 5']),
        ({'scale': 1.0}, ['config.task.scale=1.0', 'between 0 and 1', 'use 0.75']),
        ({'scale': 0.0}, ['config.task.scale=0.0', 'use 0.75']),
        ({'scale': float('nan')}, ['config.task.scale=nan', 'use 0.75']),
        ({'anchor': 0.5}, ['config.task.anchor=0.5', '1 or greater', 'use 8']),
        ({'sigma': 0.0}, ['config.task.sigma=0.0', 'greater than 0', 'use 15']),
        ({'head_std': -1.0}, ['config.task.head_std=-1.0', '0 or greater', 'use 0.001']),
        ({'head_std': float('nan')}, ['config.task.head_std=nan', 'use 0.001']),
        ({'patch_min': 0}, ['config.task.patch_min=0', 'use 56 and 448']),
        ({'patch_min': 500}, ['config.task.patch_min=500', 'config.task.patch_max=448', 'use 56']),
        ({'eval_side': 15}, ['config.task.eval_side=15', '0 or at least 16']),
        ({'eval_side': -1}, ['config.task.eval_side=-1', '0 or at least 16']),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_cure(setting, names):
    with pytest.raises(UserError) as raised:
        Crowd(**setting).check()
    message = str(raised.value)
    assert '\n' not in message and all(name in message for name in names), message


@pytest.mark.parametrize(
    'setting',
    [
        {},
        {'size': 16, 'patch_min': 1, 'patch_max': 1},
        {'levels': 2, 'anchor': 1.0, 'eval_side': 16},
    ],
)
def test_settings_at_the_edge_of_their_range_are_accepted(setting):
    Crowd(**setting).check()


def prediction(one: dict, output: np.ndarray, name: str) -> Prediction:
    return Prediction(name, one['image'], output, float(output.sum()), one)


def test_figures_show_the_drawn_images_with_both_maps():
    task = Crowd(sigma=4.0)
    crowd, empty = record([(30, 40), (90, 20)]), record(shape=(33, 47))
    drawn = [
        prediction(crowd, rng().random((6, 8), np.float32), 'crowd'),
        prediction(empty, np.zeros((3, 3), np.float32), 'empty'),
    ]
    values, records = np.array([[3.0, 0.0], [2.0, 0.0]]), [crowd, empty]
    figures = task.figures(drawn, *values, records)
    assert set(figures) == {'density', 'counts'}
    assert all(isinstance(figure, Figure) for figure in figures.values())
    titles = [axes.get_title() for axes in figures['density'].axes]
    assert 'true 2' in titles and 'true 0' in titles
    truth = figures['density'].axes[1].images[0].get_array()
    assert truth.shape == (6, 8)
    np.testing.assert_allclose(truth.sum(), 2, rtol=1e-5)


def test_without_a_drawn_image_the_plot_of_counts_is_left():
    figures = Crowd().figures([], np.array([3.0, 0.0]), np.array([2.0, 0.0]), [])
    assert set(figures) == {'counts'}


def test_of_counts_without_points_no_density_is_drawn():
    task, crowd = Crowd(sigma=4.0), record([(30, 40)])
    bare = {name: value for name, value in crowd.items() if name != 'points'}
    output, values = np.ones((6, 8), np.float32), (np.array([48.0]), np.array([1.0]))
    assert set(task.figures([prediction(bare, output, 'bare')], *values, [bare])) == {'counts'}
    both = [prediction(one, output, 'made') for one in (bare, crowd, bare)]
    figures = task.figures(both, *values, [bare, crowd, bare])
    alone = task.figures(both[1:2], *values, [crowd])
    assert len(figures['density'].axes) == len(alone['density'].axes)


def test_the_ranked_figure_shows_what_the_ranked_set_holds():
    task, one = Crowd(size=32), record(shape=(120, 200))
    figure = task.ranked_figure(rng(3), one)
    ranked = task.ranked_set(rng(3), one)
    assert isinstance(figure, Figure) and len(figure.axes) == 1 + task.levels
    for axes, image, phi in zip(figure.axes[1:], ranked.images, ranked.phi, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert axes.get_title().endswith(f'= {phi:g}')
    sides = [patch.get_width() for patch in figure.axes[0].patches]
    np.testing.assert_array_equal(sides, ranked.phi)


def test_the_settings_are_the_papers():
    given = dataclasses.asdict(Crowd())
    paper = {'size': 224, 'levels': 5, 'scale': 0.75, 'anchor': 8.0, 'sigma': 15.0,
             'patch_min': 56, 'patch_max': 448, 'eval_side': 0, 'cell': 16}  # fmt: skip
    assert {name: given[name] for name in paper} == paper


def test_free_squares_are_those_of_the_figure_and_of_the_ranked_set():
    task, made = Crowd(size=32, nesting='free'), record(shape=(200, 300))
    ranked = task.ranked_set(rng(), made)
    boxes = crops.pyramid_boxes(rng(), (200, 300), nesting='free')
    np.testing.assert_array_equal(ranked.phi, boxes[:, 2] - boxes[:, 0])
    for image, box in zip(ranked.images, boxes, strict=True):
        np.testing.assert_array_equal(image, crops.crop_resize(made['image'], box, 32))


def test_unknown_nesting_is_a_mistake():
    with pytest.raises(UserError, match='config.task.nesting=loose is unknown; use centred, free'):
        Crowd(nesting='loose').check()
