import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import correlate

from rank_ssl.models.heads import INIT_STD, DensityHead


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
