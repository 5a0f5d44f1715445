import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from rank_ssl.models.heads import INIT_STD, DensityHead, FCHead, PoolHead


def features(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def with_bias(params, value):
    return {'params': {**params['params'], 'bias': jnp.asarray([value])}}


def test_density_is_a_correlation_plus_bias_without_relu():
    head, x = DensityHead(), features(5, 7, 6)
    params = with_bias(head.init(jax.random.key(0), x), 0.25)
    kernel = np.asarray(params['params']['kernel'], np.float64)
    padded = np.pad(np.asarray(x, np.float64), ((1, 1), (1, 1), (0, 0)))
    expected = correlate(padded, kernel[..., 0], mode='valid')[..., 0] + 0.25
    density = head.apply(params, x)
    assert density.shape == (5, 7) and density.dtype == jnp.float32
    np.testing.assert_allclose(density, expected, rtol=1e-4, atol=1e-6)
    assert (head.apply(with_bias(params, -9.0), x) < 0).all()


def test_density_is_zero_outside_the_valid_cells():
    head, x = DensityHead(), features(5, 7, 6)
    params = with_bias(head.init(jax.random.key(0), x), 0.25)
    inside = jnp.zeros((5, 7, 1)).at[:3, :4].set(1)
    density = head.apply(params, x * inside, valid=jnp.asarray([3, 4]))
    assert not density[3:].any() and not density[:, 4:].any()
    np.testing.assert_allclose(density[:3, :4], head.apply(params, x[:3, :4]), atol=1e-6)


def test_init_is_a_narrow_normal_with_zero_bias():
    params = DensityHead().init(jax.random.key(0), features(2, 2, 512))['params']
    assert params['kernel'].shape == (3, 3, 512, 1) and params['bias'].tolist() == [0]
    np.testing.assert_allclose(np.std(params['kernel']), INIT_STD, rtol=0.05)


def test_a_bfloat16_backbone_still_gives_a_float32_density():
    head, x = DensityHead(), features(3, 3, 8).astype(jnp.bfloat16)
    params = head.init(jax.random.key(0), x)
    density = head.apply(params, x)
    assert density.dtype == jnp.float32
    np.testing.assert_array_equal(density, head.apply(params, x.astype(jnp.float32)))


def params_of(head, x):
    """Parameters of any size: biases away from zero as well."""
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), x))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape, scale=0.3)), shapes)


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
    found = head.apply(params, x)
    assert found.shape == () and found.dtype == jnp.float32
    np.testing.assert_allclose(found, numpy_output(value, params), rtol=1e-5)


def test_the_layers_start_as_he_normal_and_the_output_near_its_bias():
    head, x = FCHead(features=400, init_std=0.002, init_bias=0.5), features(3, 3, 20)
    params = head.init(jax.random.key(0), x)['params']
    np.testing.assert_allclose(params['fc6']['kernel'].std(), (2 / 180) ** 0.5, rtol=0.02)
    np.testing.assert_allclose(params['fc7']['kernel'].std(), (2 / 400) ** 0.5, rtol=0.02)
    np.testing.assert_allclose(params['output']['kernel'].std(), 0.002, rtol=0.1)
    biases = [params[name]['bias'] for name in ('fc6', 'fc7', 'output')]
    assert not biases[0].any() and not biases[1].any() and biases[2].tolist() == [0.5]
    pool = PoolHead(init_std=0.002, init_bias=0.5).init(jax.random.key(0), features(3, 3, 500))
    output = pool['params']['output']
    np.testing.assert_allclose(output['kernel'].std(), 0.002, rtol=0.1)
    assert output['kernel'].shape == (1000, 1) and output['bias'].tolist() == [0.5]


@pytest.mark.parametrize('kind', [FCHead, PoolHead])
def test_dropout_needs_training_and_a_key(kind):
    head, x = kind(dropout=0.4), features(2, 2, 40)
    params = params_of(head, x)
    one, again, other = (
        head.apply(params, x, train=True, rngs={'dropout': jax.random.key(k)}) for k in (1, 1, 2)
    )
    plain = head.apply(params, x)
    assert one == again and len({float(one), float(other), float(plain)}) == 3
    assert plain == head.apply(params, x, rngs={'dropout': jax.random.key(1)})
    kept = kind(dropout=0).apply(params, x, train=True, rngs={'dropout': jax.random.key(1)})
    assert kept == plain


def test_dropout_leaves_out_that_share_and_keeps_the_mean():
    head, x = PoolHead(dropout=0.3), jnp.ones((1, 1, 5000))
    # A deviation of 0 takes no part in the score: what is left counts the channels kept.
    kernel = jnp.concatenate([jnp.full((5000, 1), 1 / 5000), jnp.zeros((5000, 1))])
    params = {'params': {'output': {'kernel': kernel, 'bias': jnp.zeros(1)}}}
    found = float(head.apply(params, x, train=True, rngs={'dropout': jax.random.key(0)}))
    left = round(found * 0.7 * 5000)
    np.testing.assert_allclose(found * 0.7 * 5000, left, atol=0.05)
    assert abs(left / 5000 - 0.7) < 0.03


def test_pooling_takes_the_mean_and_deviation_of_each_channel():
    head, x = PoolHead(), features(4, 3, 6)
    params = params_of(head, x)
    cells = np.asarray(x, np.float64).reshape(-1, 6)
    pooled = np.concatenate([cells.mean(0), cells.std(0)])
    found = head.apply(params, x)
    assert found.shape == () and found.dtype == jnp.float32
    np.testing.assert_allclose(found, numpy_output(pooled, params), rtol=1e-5)


def test_pooling_sees_the_valid_cells_alone():
    head, x = PoolHead(), features(5, 7, 6)
    params = params_of(head, x)
    found = head.apply(params, x, valid=jnp.asarray([3, 4]))
    np.testing.assert_allclose(found, head.apply(params, x[:3, :4]), rtol=1e-5)
    assert found != head.apply(params, x)
    # No cell at all: a number, not a division by 0.
    assert jnp.isfinite(head.apply(params, x, valid=jnp.asarray([0, 4])))


def test_the_gradient_of_a_silent_channel_is_zero_and_not_nan():
    head, x = PoolHead(), features(3, 3, 4).at[..., 1].set(0)
    params = params_of(head, x)
    slope = jax.grad(lambda x: head.apply(params, x))(x)
    assert jnp.isfinite(slope).all()
    expected = params['params']['output']['kernel'][1, 0] / 9
    np.testing.assert_allclose(slope[..., 1], jnp.full((3, 3), expected), rtol=1e-5)


@pytest.mark.parametrize('head', [FCHead(features=8), PoolHead()])
def test_a_bfloat16_backbone_still_gives_a_float32_score(head):
    x = features(3, 3, 8).astype(jnp.bfloat16)
    variables = head.init(jax.random.key(0), x)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    params = params_of(head, x)
    found = head.apply(params, x)
    expected = head.apply(params, x.astype(jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)
    if isinstance(head, PoolHead):  # it computes nothing before float32
        assert found == expected


@pytest.mark.parametrize('head', [FCHead(features=8), PoolHead()])
def test_vmapped_scores_are_those_one_by_one(head):
    batch = features(3, 2, 2, 4)
    params = params_of(head, batch[0])
    together = jax.vmap(lambda x: head.apply(params, x))(batch)
    alone = jnp.stack([head.apply(params, x) for x in batch])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
