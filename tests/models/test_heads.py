import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from rank_ssl.models.heads import INIT_STD, DensityHead, FCHead, PoolHead


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def compiled(head, **options):
    """The head as one program: layer by layer, each operation compiles for each shape."""
    return jax.jit(functools.partial(head.apply, **options))


def run(head, params, x, **arrays):
    return np.asarray(compiled(head)(params, x, **arrays))


def run_train(head, params, x, seed):
    found = compiled(head, train=True)(params, x, rngs={'dropout': jax.random.key(seed)})
    return np.asarray(found)


def init(head, x):
    """Initial parameters, as NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(head.init)(jax.random.key(0), x))


def params_of(head, x):
    """Parameters of any size: biases away from zero as well."""
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), x))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: rng.normal(size=a.shape, scale=0.3).astype('f4'), shapes)


def with_bias(params, value):
    return {'params': {**params['params'], 'bias': np.array([value], np.float32)}}


def test_density_is_a_correlation_plus_bias_without_relu():
    head, x = DensityHead(), features(5, 7, 6)
    params = with_bias(params_of(head, x), 0.25)
    kernel = np.asarray(params['params']['kernel'], np.float64)
    padded = np.pad(x.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    expected = correlate(padded, kernel[..., 0], mode='valid')[..., 0] + 0.25
    density = run(head, params, x)
    assert density.shape == (5, 7) and density.dtype == jnp.float32
    np.testing.assert_allclose(density, expected, rtol=1e-4, atol=1e-6)
    assert (run(head, with_bias(params, -9.0), x) < 0).all()


def test_density_is_zero_outside_the_valid_cells():
    head, x = DensityHead(), features(5, 7, 6)
    params = with_bias(params_of(head, x), 0.25)
    masked = np.pad(x[:3, :4], ((0, 2), (0, 3), (0, 0)))
    density = run(head, params, masked, valid=np.array([3, 4]))
    assert not density[3:].any() and not density[:, 4:].any()
    np.testing.assert_allclose(density[:3, :4], run(head, params, x[:3, :4]), atol=1e-6)


def test_init_is_a_narrow_normal_with_zero_bias():
    params = init(DensityHead(), features(2, 2, 512))['params']
    assert params['kernel'].shape == (3, 3, 512, 1) and params['bias'].tolist() == [0]
    np.testing.assert_allclose(np.std(params['kernel']), INIT_STD, rtol=0.05)


def test_a_bfloat16_backbone_still_gives_a_float32_density():
    head, x = DensityHead(), features(3, 3, 8).astype(jnp.bfloat16)
    params = params_of(head, x)
    density = run(head, params, x)
    assert density.dtype == jnp.float32
    np.testing.assert_array_equal(density, run(head, params, x.astype(np.float32)))


def numpy_output(x, params):
    output = params['params']['output']
    return float(x @ np.asarray(output['kernel'], np.float64)[:, 0] + output['bias'][0])


def test_fully_connected_is_two_relu_layers_and_one_output():
    head, x = FCHead(features=5), features(2, 3, 4)
    params = params_of(head, x)
    shapes = {name: leaves['kernel'].shape for name, leaves in params['params'].items()}
    assert shapes == {'fc6': (24, 5), 'fc7': (5, 5), 'output': (5, 1)}
    value = np.asarray(x, np.float64).reshape(-1)
    for name in ('fc6', 'fc7'):
        layer = {k: np.asarray(v, np.float64) for k, v in params['params'][name].items()}
        value = np.maximum(value @ layer['kernel'] + layer['bias'], 0)
    assert (value > 0).any()
    found = run(head, params, x)
    assert found.shape == () and found.dtype == jnp.float32
    np.testing.assert_allclose(found, numpy_output(value, params), rtol=1e-5)


def test_the_layers_start_as_he_normal_and_the_output_near_its_bias():
    head, x = FCHead(features=400, init_std=0.002, init_bias=0.5), features(3, 3, 20)
    params = init(head, x)['params']
    np.testing.assert_allclose(params['fc6']['kernel'].std(), (2 / 180) ** 0.5, rtol=0.02)
    np.testing.assert_allclose(params['fc7']['kernel'].std(), (2 / 400) ** 0.5, rtol=0.02)
    np.testing.assert_allclose(params['output']['kernel'].std(), 0.002, rtol=0.1)
    biases = [params[name]['bias'] for name in ('fc6', 'fc7', 'output')]
    assert not biases[0].any() and not biases[1].any() and biases[2].tolist() == [0.5]
    pool = init(PoolHead(init_std=0.002, init_bias=0.5), features(3, 3, 500))
    output = pool['params']['output']
    np.testing.assert_allclose(output['kernel'].std(), 0.002, rtol=0.1)
    assert output['kernel'].shape == (1000, 1) and output['bias'].tolist() == [0.5]


@pytest.mark.parametrize('kind', [FCHead, PoolHead])
def test_dropout_needs_training_and_a_key(kind):
    head, x = kind(dropout=0.4), features(2, 2, 40)
    params = params_of(head, x)
    one, again, other = (run_train(head, params, x, seed) for seed in (1, 1, 2))
    plain = run(head, params, x)
    assert one == again and len({float(one), float(other), float(plain)}) == 3
    assert plain == run(head, params, x, rngs={'dropout': jax.random.key(1)})
    assert run_train(kind(dropout=0), params, x, 1) == plain


def test_dropout_leaves_out_that_share_and_keeps_the_mean():
    head, x = PoolHead(dropout=0.3), np.ones((1, 1, 5000), np.float32)
    # A deviation of 0 takes no part in the score: what is left counts the channels kept.
    kernel = np.repeat(np.array([[1 / 5000], [0]], np.float32), 5000, 0)
    params = {'params': {'output': {'kernel': kernel, 'bias': np.zeros(1, np.float32)}}}
    found = float(run_train(head, params, x, 0))
    left = round(found * 0.7 * 5000)
    np.testing.assert_allclose(found * 0.7 * 5000, left, atol=0.05)
    assert abs(left / 5000 - 0.7) < 0.03


def test_pooling_takes_the_mean_and_deviation_of_each_channel():
    head, x = PoolHead(), features(4, 3, 6)
    params = params_of(head, x)
    cells = np.asarray(x, np.float64).reshape(-1, 6)
    pooled = np.concatenate([cells.mean(0), cells.std(0)])
    found = run(head, params, x)
    assert found.shape == () and found.dtype == jnp.float32
    np.testing.assert_allclose(found, numpy_output(pooled, params), rtol=1e-5)


def test_pooling_sees_the_valid_cells_alone():
    head, x = PoolHead(), features(5, 7, 6)
    params = params_of(head, x)
    found = run(head, params, x, valid=np.array([3, 4]))
    np.testing.assert_allclose(found, run(head, params, x[:3, :4]), rtol=1e-5)
    assert found != run(head, params, x)
    # No cell at all: a number, not a division by 0.
    assert np.isfinite(run(head, params, x, valid=np.array([0, 4])))


def test_the_gradient_of_a_silent_channel_is_zero_and_not_nan():
    head, x = PoolHead(), features(3, 3, 4)
    x[..., 1] = 0
    params = params_of(head, x)
    slope = np.asarray(jax.jit(jax.grad(lambda x: head.apply(params, x)))(x))
    assert np.isfinite(slope).all()
    expected = params['params']['output']['kernel'][1, 0] / 9
    np.testing.assert_allclose(slope[..., 1], np.full((3, 3), expected), rtol=1e-5)


@pytest.mark.parametrize('head', [FCHead(features=8), PoolHead()])
def test_a_bfloat16_backbone_still_gives_a_float32_score(head):
    x = features(3, 3, 8).astype(jnp.bfloat16)
    variables = jax.eval_shape(lambda: head.init(jax.random.key(0), x))
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    params = params_of(head, x)
    found = run(head, params, x)
    expected = run(head, params, x.astype(np.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)
    if isinstance(head, PoolHead):  # it computes nothing before float32
        assert found == expected


@pytest.mark.parametrize('head', [FCHead(features=8), PoolHead()])
def test_vmapped_scores_are_those_one_by_one(head):
    batch = features(3, 2, 2, 4)
    params = params_of(head, batch[0])
    together = jax.jit(jax.vmap(lambda x: head.apply(params, x)))(batch)
    alone = np.stack([run(head, params, x) for x in batch])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
