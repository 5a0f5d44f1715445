"""The update rule against hand-written loops and optax's own optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rank_ssl.config import Optim
from rank_ssl.optimizer import make_optimizer, make_schedule

STEPS = 6


def tree(seed: int) -> dict:
    """Two backbone blocks and a head, as a network's parameters are named."""
    rng = np.random.default_rng(seed)

    def layer() -> dict:
        shapes = {'kernel': (3, 3, 2, 2), 'bias': (2,)}
        return {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}

    return {'backbone': {'block1_conv1': layer(), 'block2_conv1': layer()}, 'head': layer()}


def run(tx, *, steps: int = STEPS) -> dict:
    """The parameters after gradients that depend on the step alone."""
    params = jax.tree.map(jnp.asarray, tree(0))
    state = tx.init(params)

    @jax.jit
    def update(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(steps):
        params, state = update(params, state, tree(100 + step))
    return jax.tree.map(np.asarray, params)


def leaves(params: dict) -> dict[str, np.ndarray]:
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {'/'.join(key.key for key in path): leaf for path, leaf in flat}


@pytest.mark.parametrize(
    'options, expected',
    [
        ({'schedule': 'constant'}, {0: 2e-3, 99: 2e-3}),
        (
            {'schedule': 'step', 'decay_every': 10},
            {0: 2e-3, 9: 2e-3, 10: 2e-4, 19: 2e-4, 20: 2e-5, 30: 2e-6},
        ),
        (
            {'schedule': 'step', 'decay_every': 4, 'decay_factor': 0.5},
            {3: 2e-3, 4: 1e-3, 8: 5e-4, 11: 5e-4},
        ),
        ({'schedule': 'cosine'}, {0: 2e-3, 25: 1.7071068e-3, 50: 1e-3, 100: 0}),
        (
            {'schedule': 'cosine', 'warmup': 20},
            {0: 0, 5: 5e-4, 10: 1e-3, 20: 2e-3, 60: 1e-3, 100: 0},
        ),
        (
            {'schedule': 'step', 'decay_every': 10, 'warmup': 4},
            {0: 0, 1: 5e-4, 3: 1.5e-3, 4: 2e-3, 13: 2e-3, 14: 2e-4},
        ),
        ({'schedule': 'constant', 'warmup': 2}, {0: 0, 1: 1e-3, 2: 2e-3, 99: 2e-3}),
    ],
)
def test_schedule_values(options, expected):
    schedule = make_schedule(Optim(rate=2e-3, **options), 100)
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=2e-6, atol=1e-12, err_msg=f'{step}')


def test_the_cosine_of_a_run_shorter_than_its_warmup_stays_finite():
    schedule = make_schedule(Optim(rate=1.0, schedule='cosine', warmup=50), 10)
    assert all(np.isfinite(schedule(step)) for step in range(10))


@pytest.mark.parametrize('frozen_blocks', [0, 1])
def test_sgd_is_the_hand_written_loop(frozen_blocks):
    optim = Optim(
        rate=0.02, momentum=0.9, weight_decay=0.1, head_rate=10, decay_every=3, decay_factor=0.1
    )
    found = leaves(run(make_optimizer(optim, tree(0), steps=STEPS, frozen_blocks=frozen_blocks)))
    grads = [leaves(tree(100 + step)) for step in range(STEPS)]
    for name, start in leaves(tree(0)).items():
        factor = 10 if name.startswith('head') else 1
        if frozen_blocks and 'block1' in name:
            np.testing.assert_array_equal(found[name], start)
            continue
        value, momentum = start.astype(np.float64), np.zeros(start.shape)
        for step in range(STEPS):
            decay = 0.1 * value if name.endswith('kernel') else 0
            momentum = 0.9 * momentum + grads[step][name] + decay
            value = value - 0.02 * 0.1 ** (step // 3) * factor * momentum
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize('head_rate', [1.0, 4.0])
def test_adam_is_adamw_at_each_groups_rate(head_rate):
    optim = Optim(name='adam', rate=0.01, weight_decay=0.1, head_rate=head_rate, schedule='cosine')
    found = leaves(run(make_optimizer(optim, tree(0), steps=STEPS)))
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', tree(0))
    schedule = optax.cosine_decay_schedule(0.01, STEPS)
    for top, factor in (('backbone', 1.0), ('head', head_rate)):
        adamw = optax.adamw(
            lambda step, factor=factor: factor * schedule(step), weight_decay=0.1, mask=mask
        )
        for name, value in leaves(run(adamw)).items():
            if name.startswith(top):
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_adam_leaves_frozen_blocks_bit_for_bit():
    optim = Optim(name='adam', rate=0.1, weight_decay=0.1, schedule='constant')
    found = leaves(run(make_optimizer(optim, tree(0), steps=STEPS, frozen_blocks=1)))
    for name, start in leaves(tree(0)).items():
        assert np.array_equal(found[name], start) == ('block1' in name), name


@pytest.mark.parametrize('bound, clipped', [(0.5, True), (1e3, False)])
def test_the_gradients_norm_is_bounded_before_weight_decay(bound, clipped):
    optim = Optim(
        rate=1.0, momentum=0.0, weight_decay=0.1, head_rate=1, schedule='constant', clip_norm=bound
    )
    found = leaves(run(make_optimizer(optim, tree(0), steps=1), steps=1))
    grads = leaves(tree(100))
    norm = np.sqrt(sum(np.square(grad).sum() for grad in grads.values()))
    factor = bound / norm if clipped else 1.0
    assert clipped == (norm > bound)
    for name, start in leaves(tree(0)).items():
        decay = 0.1 * start if name.endswith('kernel') else 0
        expected = start - decay - factor * grads[name]
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_new_layers_alone_have_their_own_rate():
    layer = {'kernel': np.ones((2, 2), np.float32), 'bias': np.ones(2, np.float32)}
    params = {
        'backbone': {'block1_conv1': layer},
        'head': {'fc6': layer, 'fc7': layer, 'output': layer},
    }
    optim = Optim(rate=0.1, momentum=0, weight_decay=0, head_rate=10, schedule='constant')
    tx = make_optimizer(optim, params, steps=1)
    updates, _ = tx.update(jax.tree.map(np.ones_like, params), tx.init(params), params)
    for name, update in leaves(updates).items():
        np.testing.assert_allclose(update, -1 if 'output' in name else -0.1, rtol=1e-6)
