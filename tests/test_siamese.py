"""The two-branch reference against a loop over pairs, and against one forward per image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rank_ssl.bench.programs import convolutions, forwards
from rank_ssl.bench.siamese import siamese_loss
from rank_ssl.models import make_network
from rank_ssl.models.network import init_params, make_apply
from rank_ssl.step import Terms, make_loss
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch
from tests.drawn import flat

MARGIN, SIDE = 0.3, 4


def made_batch(groups: int, k: int, *, side: int = SIDE, seed: int = 0, labels: int = 0) -> Batch:
    """Ties in phi, two segments and images left out; target and labels are not read."""
    rng = np.random.default_rng(seed)
    return Batch(
        image=rng.integers(0, 256, (groups, k + labels, side, side, 3), np.uint8),
        phi=rng.integers(0, 4, (groups, k)).astype(np.float32),
        segments=rng.integers(0, 2, (groups, k)).astype(np.int32),
        ranked_where=rng.random((groups, k)) < 0.8,
        target=np.zeros((groups, labels), np.float32),
        labeled_where=np.zeros((groups, labels), bool),
    )


def small_params(seed: int = 0):
    first, second = np.random.default_rng(seed).standard_normal((2, 3, 8))
    return {'first': first, 'second': second.T}


def small_network(params, image, *, key):
    """A score of one image; the key adds noise, as dropout does."""
    x = jnp.tanh(image / 128.0 @ params['first'])
    # By arithmetic on the key: a random generator would take most of the time to compile.
    noise = jnp.sin(jax.random.key_data(key).sum() + jnp.arange(8.0))
    return ((x.mean((0, 1)) * (1 + 0.1 * noise)) @ params['second']).sum()


class Plain(Crowd):
    """A task whose network gives the score itself."""

    def score(self, output):
        return output

    def loss(self, output, target):
        return (output - target) ** 2


def keys_of(groups: int, items: int):
    """Keys whose data are small numbers with sums that all differ."""
    return jax.random.wrap_key_data(
        np.arange(2 * groups * items, dtype=np.uint32).reshape(groups, items, 2)
    )


@jax.jit
def score_of(params, image, key_data):
    return small_network(params, image, key=jax.random.wrap_key_data(key_data))


def brute_force(params, batch: Batch, keys) -> float:
    total = 0.0
    data = np.asarray(jax.random.key_data(keys))
    y = np.zeros(batch.phi.shape)
    for at in np.ndindex(y.shape):
        y[at] = score_of(params, batch.image[at], data[at])
    for g, phi in enumerate(batch.phi):
        for i, low in enumerate(phi):
            for j, high in enumerate(phi):
                same = batch.segments[g, i] == batch.segments[g, j]
                if low < high and same and batch.ranked_where[g, [i, j]].all():
                    total += max(0.0, y[g, i] - y[g, j] + MARGIN)
    return total


@pytest.mark.parametrize(('groups', 'k'), [(16, 2), (2, 5)])
def test_the_loss_is_the_loop_over_comparable_pairs(groups, k):
    batch, keys = made_batch(groups, k, seed=2), keys_of(groups, k)
    with jax.enable_x64(True):
        params = small_params()
        loss = jax.jit(siamese_loss(lambda y: y, small_network, margin=MARGIN))
        expected = brute_force(params, batch, keys)
        assert expected > 0
        assert float(loss(params, batch, keys)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('k', [2, pytest.param(3, marks=pytest.mark.slow), 8])
def test_gradients_are_ours_to_the_rounding_of_float64(k):
    with jax.enable_x64(True):
        loss = make_loss(Plain(), small_network, rank_weight=1.0, margin=MARGIN)
        terms = Terms(jnp.float64(0), jnp.float64(1), jnp.int32(0))
        two = siamese_loss(lambda y: y, small_network, margin=MARGIN)
        ours = jax.jit(jax.value_and_grad(lambda p, b, k: loss(p, b, k, terms)[0]))
        theirs = jax.jit(jax.value_and_grad(two))
        for seed in range(3):
            given = small_params(seed), made_batch(4, k, seed=seed, labels=2), keys_of(4, k + 2)
            (value, grads), (other, expected) = ours(*given), theirs(*given)
            assert grads['first'].dtype == jnp.float64
            assert float(value) == pytest.approx(float(other), rel=1e-12)
            gap, size = np.linalg.norm(flat(grads) - flat(expected)), np.linalg.norm(flat(expected))
            assert size > 0 and gap <= 1e-12 * size


def test_a_group_without_a_comparable_pair_costs_nothing():
    batch, keys = made_batch(2, 4), keys_of(2, 4)
    alone = batch._replace(segments=np.arange(4, dtype=np.int32)[None].repeat(2, 0))
    loss = siamese_loss(lambda y: y, small_network, margin=MARGIN)
    params = jax.tree.map(np.float32, small_params())
    value, grads = jax.jit(jax.value_and_grad(loss))(params, alone, keys)
    assert value == 0 and (flat(grads) == 0).all()


@pytest.mark.parametrize('k', [pytest.param(2, marks=pytest.mark.slow), 5])
def test_each_pair_passes_the_compiled_network_again(k):
    """Every layer of the compiled program, gradients of inputs too: K - 1 times the images."""
    task, groups, side = Crowd(size=32), 2, 32
    network = make_network(
        backbone='vgg8', width=0.1, blocks=5, last_pool=False, frozen_blocks=0, dtype='float32',
        remat=False, pixels='torch', head=task.head(),
    )  # fmt: skip
    params = jax.eval_shape(lambda key: init_params(network, key, side), jax.random.key(0))
    batch, keys = made_batch(groups, k, side=side), keys_of(groups, k)
    batch = batch._replace(target=np.zeros((groups, 0, 2, 2), np.float32))
    ours = make_loss(task, make_apply(network), rank_weight=1.0, margin=MARGIN)
    terms = Terms(jnp.float32(1), jnp.float32(1), jnp.int32(0))
    two = siamese_loss(task.score, make_apply(network), margin=MARGIN)
    kernel = params['backbone']['block1_conv1']['kernel'].shape
    texts = [
        jax.jit(jax.grad(f)).lower(params, batch, keys).compile().as_text()
        for f in (lambda p, b, k: ours(p, b, k, terms)[0], two)
    ]
    first = [forwards(text, kernel=kernel, pixels=side**2) for text in texts]
    assert first == [groups * k, groups * k * (k - 1)]
    flops = [sum(c.flops for c in convolutions(text) if c.kernel[:2] == (3, 3)) for text in texts]
    assert flops[1] == (k - 1) * flops[0] > 0
