"""Image quality: ladders as ranked sets, scores of one direction, sub-images, metrics by type."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from rank_ssl.errors import UserError
from rank_ssl.ops import distortions
from rank_ssl.tasks.iqa import IQA
from rank_ssl.types import Prediction, Task


def record(shape=(96, 128), *, score=5.0, lower=0, kind='jpeg', level=1, image=None) -> dict:
    """A record whose pixel (y, x) is the colour (x, y, 0), so that a crop tells its place."""
    if image is None:
        image = np.zeros((*shape, 3), np.uint8)
        image[..., 0], image[..., 1] = np.arange(shape[1]), np.arange(shape[0])[:, None]
    return {'image': image, 'id': 'made', 'index': 0, 'score': score, 'lower_is_better': lower,
            'reference': 'r1', 'kind': kind, 'level': level}  # fmt: skip


def natural(shape=(120, 140)) -> np.ndarray:
    """Smooth shapes and some texture."""
    rng = np.random.default_rng(5)
    small = rng.uniform(0, 255, (6, 7, 3))
    big = np.kron(small, np.ones((20, 20, 1)))
    return np.clip(big + rng.normal(0, 8, big.shape), 0, 255).astype(np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


@pytest.mark.parametrize('last', ['fc', 'pool'])
def test_iqa_is_a_task_with_one_output(last):
    task = IQA(size=64, last=last)
    assert isinstance(task, Task)
    assert task.target_shape() == () and task.stride() == (32 if last == 'fc' else None)
    assert (task.best, task.lower_is_better) == ('srocc', False)
    features = jnp.ones((2, 2, 8))
    output, _ = jax.eval_shape(task.head().init_with_output, jax.random.key(0), features)
    assert output.shape == ()


def test_fc6_and_fc7_have_as_many_features_as_the_task_says():
    for task, features in ((IQA(size=32), 4096), (IQA(size=32, features=7), 7)):
        params = jax.eval_shape(task.head().init, jax.random.key(0), jnp.ones((1, 1, 8)))['params']
        kernels = [params[name]['kernel'].shape for name in ('fc6', 'fc7', 'output')]
        assert kernels == [(8, features), (features, features), (features, 1)]


@pytest.mark.parametrize('last', ['fc', 'pool'])
def test_the_new_layer_starts_as_its_fields_say(last):
    task = IQA(size=64, last=last, head_std=0.0, head_bias=4.5)
    output, _ = task.head().init_with_output(jax.random.key(0), jnp.ones((2, 2, 8)))
    assert float(output) == 4.5


def test_a_ranked_set_is_a_chain_from_the_pristine_image_down():
    task, made = IQA(size=32), set()
    for seed in range(8):
        ranked = task.ranked_set(rng(seed), record(image=natural()))
        assert ranked.images.shape == (5, 32, 32, 3) and ranked.images.dtype == np.uint8
        assert ranked.phi.tolist() == [0, -1, -2, -3, -4] and not ranked.segments.any()
        made.add(ranked.images.tobytes())
    assert len(made) == 8
    live = IQA(size=32, ladder='live', chains='live_blur').ranked_set(rng(), record())
    assert live.images.shape == (6, 32, 32, 3)


def test_levels_lie_at_one_place_or_at_their_own():
    """The colours of a pristine-like chain tell where each level was cut."""
    task = IQA(size=32, chains='mean_shift_up')
    apart, together = (
        dataclasses.replace(task, crop=crop).ranked_set(rng(3), record()).images
        for crop in ('independent', 'aligned')
    )
    shifts = np.array([0, 15, 30, 45, 60])
    corners = together[:, 0, 0, :2].astype(int) - shifts[:, None]
    assert (corners == corners[0]).all()
    corners = apart[:, 0, 0, :2].astype(int) - shifts[:, None]
    assert len({tuple(corner) for corner in corners}) > 2


def test_only_the_chains_named_are_ranked():
    task, image = IQA(size=120, chains='mean_shift_up, mean_shift_down', crop='aligned'), natural()
    drawn = set()
    for seed in range(12):
        made = task.ranked_set(rng(seed), record(image=image[:, :120])).images.astype(int)
        shift = np.median(made[2] - made[0])
        assert abs(shift) == 30
        drawn.add(shift)
    assert drawn == {-30, 30}


def test_every_chain_makes_a_ranked_set():
    for ladder, chains in (('tid2013', distortions.TID2013), ('live', distortions.LIVE)):
        for chain in chains:
            task = IQA(size=48, ladder=ladder, chains=chain)
            made = task.ranked_set(rng(1), record(image=natural()))
            assert made.images.shape == (task.levels, 48, 48, 3)
            assert len({image.tobytes() for image in made.images}) == task.levels


def test_labels_are_of_one_direction_and_published_as_they_came():
    task = IQA(size=32)
    better, worse = record(score=70.0), record(score=30.0, lower=1)
    assert (task.label(better), task.label(worse)) == (70, -30)
    assert task.published(worse, task.label(worse)) == 30
    assert task.labeled(rng(), worse).target == np.float32(-30)


def test_a_labeled_sub_image_is_cut_not_scaled():
    made = {tuple(IQA(size=32).labeled(rng(s), record()).image[0, 0]) for s in range(20)}
    assert len(made) > 10
    image = IQA(size=32).labeled(rng(4), record()).image.astype(int)
    x, y, _ = image[0, 0]
    assert (image[..., 0] == x + np.arange(32)).all()
    assert (image[..., 1] == y + np.arange(32)[:, None]).all()


def test_views_are_random_sub_images_of_one_key():
    task = IQA(size=32, sub_images=7)
    views = task.views(rng(1), record())
    assert views.images.shape == (7, *task.view_shape(96, 128), 3)
    assert (views.images == task.views(rng(1), record()).images).all()
    assert len({view.tobytes() for view in views.images}) == 7


def test_an_image_smaller_than_a_sub_image_is_mirrored():
    small = record(shape=(20, 24))
    for image in (IQA(size=32).labeled(rng(), small).image, *IQA(size=32).views(rng(), small)[0]):
        assert image.shape == (32, 32, 3)
        assert (image[:20, :24] == small['image']).all()
        assert (image[20:, :24] == small['image'][:7:-1]).all()
    assert IQA(size=32).ranked_set(rng(), small).images.shape == (5, 32, 32, 3)


def test_score_and_loss():
    task, output = IQA(), jnp.array([[1.0, 2.0], [3.0, 5.0]], jnp.bfloat16)
    assert task.score(output).dtype == jnp.float32
    assert (task.loss(output, jnp.ones((2, 2))) == jnp.array([[0, 1], [4, 16]])).all()


def test_metrics_on_all_and_by_type():
    made = np.random.default_rng(2)
    true, predicted = made.normal(size=(2, 30))
    kinds = ['jpeg', 'white_noise', 'gaussian_blur'] * 10
    records = [record(kind=kind) for kind in kinds]
    found = IQA().metrics(predicted, true, records)
    assert found['srocc'] == pytest.approx(scipy.stats.spearmanr(predicted, true).statistic)
    assert found['lcc'] == pytest.approx(scipy.stats.pearsonr(predicted, true).statistic)
    expected = scipy.stats.spearmanr(predicted[::3], true[::3]).statistic
    assert found['srocc/jpeg'] == pytest.approx(expected)
    assert len(found) == 8
    assert IQA().metrics(predicted, true).keys() == {'lcc', 'srocc'}
    assert IQA().metrics(predicted, true, [record()] * 30).keys() == {'lcc', 'srocc'}


def test_figures_of_known_and_of_unknown_types():
    made = np.random.default_rng(2)
    true, predicted = made.normal(size=(2, 20))
    records = [record(kind=kind, level=n % 5 + 1) for n in range(10) for kind in ('jpeg', 'blur')]
    image = np.zeros((32, 32, 3), np.uint8)
    drawn = [Prediction('made', image, np.float32(1), 1.0, records[0])]
    figures = IQA().figures(drawn, predicted, true, records)
    assert figures.keys() == {'scores', 'levels'}
    plain = [record(kind='', level=0) for _ in range(20)]
    assert IQA().figures(drawn, predicted, true, plain).keys() == {'scores'}
    assert all(isinstance(figure, Figure) for figure in figures.values())
    ladder = IQA(size=32, chains='live_blur', ladder='live').ranked_figure(rng(), record())
    titles = [axes.get_title() for axes in ladder.axes]
    assert titles == ['live blur', 'φ = 0', *(f'φ = −{level}' for level in range(1, 6))]


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'ladder': 'csiq'}, 'config.task.ladder=csiq is unknown; use tid2013, live'),
        ({'crop': 'same'}, 'config.task.crop=same is unknown; use independent, aligned'),
        ({'compat': 'matlab'}, 'config.task.compat=matlab is unknown; use paper, caffe'),
        ({'last': 'dense'}, 'config.task.last=dense is unknown; use fc, pool'),
        ({'chains': 'jpeg,jpg'}, 'config.task.chains names jpg, which the tid2013 ladder has not'),
        ({'ladder': 'live', 'chains': 'jpeg'}, 'names jpeg, which the live ladder has not; use li'),
        ({'size': 230}, 'config.task.size=230 must be a multiple of the stride 32'),
        ({'size': 8, 'last': 'pool'}, 'config.task.size=8 px must be 16 or greater'),
        ({'sub_images': 0}, 'config.task.sub_images=0 must be 1 or greater; use 30'),
        ({'features': 0}, 'config.task.features=0 must be 1 or greater; use 4096'),
        ({'dropout': 1.0}, 'config.task.dropout=1.0 must be 0 or greater and below 1'),
        ({'head_std': -1.0}, 'config.task.head_std=-1.0 must be 0 or greater'),
        ({'head_std': float('inf')}, 'config.task.head_std=inf must be 0 or greater'),
        ({'head_bias': float('nan')}, 'config.task.head_bias=nan must be finite'),
    ],
)
def test_a_setting_out_of_range_is_told(fields, said):
    with pytest.raises(UserError) as error:
        IQA(**fields).check()
    assert said in str(error.value) and '\n' not in str(error.value)
