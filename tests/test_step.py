"""The training step against the flat masked form, plain autodiff, and itself on several devices."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rank_ssl import parallel
from rank_ssl import step as steps
from rank_ssl.errors import UserError
from rank_ssl.pairs import Mining
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch
from tests.drawn import norm, two_layer_params
from tests.drawn import two_layers as apply_fn

SCRIPT = Path(__file__).with_name('device_facts.py')
TASK = Crowd(size=32)
GROUPS, LEVELS, LABELS = 3, 4, 2


def made_batch(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    where = np.ones((GROUPS, LEVELS), bool)
    where[1, 2] = False
    labeled = np.ones((GROUPS, LABELS), bool)
    labeled[2, 0] = False
    return Batch(
        image=rng.integers(0, 256, (GROUPS, LEVELS + LABELS, 32, 32, 3)).astype(np.uint8),
        phi=rng.integers(1, 4, (GROUPS, LEVELS)).astype(np.float32),
        segments=rng.integers(0, 2, (GROUPS, LEVELS)).astype(np.int32),
        ranked_where=where,
        target=rng.random((GROUPS, LABELS, 2, 2)).astype(np.float32),
        labeled_where=labeled,
    )


def made_state(tx, seed: int = 0):
    # What is looked at is the step, and VGG takes a minute.
    state = steps.create_state(apply_fn, two_layer_params(seed), tx, jax.random.key(1))
    # As the loop places it: from anywhere else, a second step would compile anew.
    return parallel.replicate(state, parallel.make_mesh(jax.devices()[:1]))


SGD = optax.sgd(1.0)
OPTIONS = {'rank_weight': 0.7, 'margin': 0.5}


@functools.cache
def made_step(reduction: str, parts: int):
    """Shared, since the step of each set of options takes a second to compile."""
    return steps.make_train_step(TASK, SGD, reduction=reduction, parts=parts, **OPTIONS)


@jax.jit
@jax.value_and_grad
def flat_loss(params, batch: Batch, pair, margins, scale):
    """The paper's form: one list of M images, a masked [M, M] hinge, plain autodiff."""
    ranked = batch.image[:, :LEVELS].reshape(-1, 32, 32, 3)
    labeled = batch.image[:, LEVELS:].reshape(-1, 32, 32, 3)
    forward = jax.vmap(lambda image: apply_fn(params, image))
    y = forward(ranked).sum((1, 2))
    hinge = jnp.where(pair, jax.nn.relu(y[:, None] - y + margins), 0).sum()
    errors = ((forward(labeled) - batch.target.reshape(-1, 2, 2)) ** 2).sum((1, 2))
    error = (errors * batch.labeled_where.reshape(-1)).sum()
    return scale[0] * error + scale[1] * hinge


def flat_gradient(
    params, batch: Batch, reduction: str, *, rank_weight: float, margin: float, grows: bool = False
):
    """The value and the gradient of flat_loss, one program for all reductions and margins."""
    phi, keep = batch.phi.reshape(-1), batch.ranked_where.reshape(-1)
    chain = np.arange(GROUPS).repeat(LEVELS) * 10 + batch.segments.reshape(-1)
    pair = (
        (phi[:, None] < phi)
        & (chain[:, None] == chain)
        & keep[:, None]
        & keep
    )  # fmt: skip
    # Items of the chain from i up to but not j, where levels may tie: those below j, not below i.
    below = (pair[:, None, :] & ~pair[:, :, None]).sum(0) if grows else np.ones(pair.shape)
    images, count = batch.labeled_where.sum(), keep.sum()
    scale = {
        'paper': (1 / images, 1.0),
        'caffe': (1 / (2 * images), 1 / count),
        'mean': (1 / images, 1 / pair.sum()),
    }[reduction]
    weighted = np.array([scale[0], rank_weight * scale[1]], np.float32)
    return flat_loss(params, batch, pair, (margin * below).astype(np.float32), weighted)


@pytest.mark.parametrize('reduction', ['paper', 'caffe', 'mean'])
def test_one_step_of_sgd_is_the_flat_forms_gradient(reduction):
    batch, state = made_batch(), made_state(SGD)
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = made_step(reduction, 1)(state, batch)
    value, grads = flat_gradient(before, batch, reduction, **OPTIONS)
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
    np.testing.assert_allclose(metrics['grad_norm'], norm(grads), rtol=1e-4)
    found = jax.tree.map(lambda old, new: old - np.asarray(new), before, state.params)
    assert norm(jax.tree.map(np.subtract, found, grads)) < 1e-4 * norm(grads)
    total = float(metrics['regression']) + 0.7 * float(metrics['ranking'])
    np.testing.assert_allclose(metrics['loss'], total, rtol=1e-6)


def test_a_margin_that_grows_is_multiplied_with_the_levels_between():
    batch, state = made_batch(3), made_state(SGD)
    before = jax.tree.map(np.asarray, state.params)
    step = steps.make_train_step(TASK, SGD, margin_grows=True, **OPTIONS)
    state, metrics = step(state, batch)
    value, grads = flat_gradient(before, batch, 'paper', **OPTIONS, grows=True)
    plain, _ = flat_gradient(before, batch, 'paper', **OPTIONS)
    assert abs(float(value) - float(plain)) > 0.1
    np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
    np.testing.assert_allclose(metrics['grad_norm'], norm(grads), rtol=1e-4)


def test_hard_mining_starts_from_some_pairs_and_ends_with_all():
    tx, batch = optax.sgd(0.0), made_batch()
    batch = batch._replace(
        phi=np.tile(np.arange(4, dtype=np.float32), (GROUPS, 1)),
        segments=np.zeros((GROUPS, LEVELS), np.int32),
        ranked_where=np.ones((GROUPS, LEVELS), bool),
    )
    options = {'rank_weight': 1.0, 'margin': 100.0}  # no pair is without loss
    every = steps.make_train_step(TASK, tx, **options)(made_state(tx), batch)[1]
    step = steps.make_train_step(TASK, tx, mining=Mining(every=1, add=2), **options)
    state, ranking = made_state(tx), []
    for _ in range(4):
        state, metrics = step(state, batch)
        ranking.append(float(metrics['ranking']))
    # 2 of a group's 6 pairs are random, then 4, then all; a hinge is 100 and a little.
    np.testing.assert_allclose(ranking, np.array([2, 4, 6, 6]) * GROUPS * 100, rtol=0.1)
    assert ranking[3] == pytest.approx(float(every['ranking']), rel=1e-6)
    # The share in the right order is still of all pairs, and `mean` divides by those ranked.
    assert metrics['rank_accuracy'] == every['rank_accuracy']
    mean = steps.make_train_step(TASK, tx, reduction='mean', mining=Mining(9, 1), **options)
    assert float(mean(made_state(tx), batch)[1]['ranking']) == pytest.approx(100, rel=0.1)


def test_unknown_reduction_is_refused():
    with pytest.raises(UserError, match='config.reduction=median'):
        steps.normalizers(np.ones(4), 'median')


def test_rank_accuracy_counts_pairs_of_all_groups():
    batch, state = made_batch(), made_state(SGD)
    params = jax.tree.map(np.asarray, state.params)
    _, metrics = made_step('paper', 1)(state, batch)
    score = jax.jit(lambda image: apply_fn(params, image).sum())
    right = pairs = 0
    for g in range(GROUPS):
        y = [float(score(image)) for image in batch.image[g, :LEVELS]]
        for i in range(LEVELS):
            for j in range(LEVELS):
                kept = batch.ranked_where[g, i] and batch.ranked_where[g, j]
                same = batch.segments[g, i] == batch.segments[g, j]
                if kept and same and batch.phi[g, i] < batch.phi[g, j]:
                    pairs += 1
                    right += y[i] < y[j]
    assert pairs > 0
    np.testing.assert_allclose(metrics['rank_accuracy'], right / pairs, rtol=1e-6)


@pytest.mark.parametrize('levels, labels', [(0, LABELS), (LEVELS, 0)])
def test_regimes_without_ranking_or_without_labels(levels, labels):
    full, tx = made_batch(), optax.sgd(1e-3)
    image = np.concatenate([full.image[:, :levels], full.image[:, LEVELS : LEVELS + labels]], 1)
    batch = Batch(image, full.phi[:, :levels], full.segments[:, :levels],
                  full.ranked_where[:, :levels], full.target[:, :labels],
                  full.labeled_where[:, :labels])  # fmt: skip
    step = steps.make_train_step(TASK, tx, rank_weight=1, margin=1, parts=3)
    state, metrics = step(made_state(tx), batch)
    absent, present = ('ranking', 'regression') if levels == 0 else ('regression', 'ranking')
    assert metrics[absent] == 0 and metrics[present] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_parts_give_the_same_loss_and_gradient():
    results = []
    for parts in (1, 3):
        state, metrics = made_step('paper', parts)(made_state(SGD), made_batch())
        results.append((jax.tree.map(np.asarray, state.params), float(metrics['loss'])))
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)
    gap = norm(jax.tree.map(np.subtract, results[0][0], results[1][0]))
    assert gap < 1e-5 * norm(results[0][0])


def test_a_group_whose_masks_are_false_weighs_nothing():
    batch, step = made_batch(), made_step('caffe', 1)
    padded = Batch(*(np.concatenate([x, np.zeros_like(x[:1])]) for x in batch))
    (a, left), (b, right) = step(made_state(SGD), batch), step(made_state(SGD), padded)
    np.testing.assert_allclose(left['loss'], right['loss'], rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a.params, b.params)


@pytest.mark.fault(
    row=6,
    injected='NaN in a target of single batches',
    outcome='skipped and counted; parameters and optimizer keep their bits',
)
def test_a_non_finite_gradient_is_skipped_and_counted():
    tx, batch = optax.adam(1e-3), made_batch()
    step = steps.make_train_step(TASK, tx, rank_weight=1, margin=1)
    state, _ = step(made_state(tx), batch)
    before = jax.tree.map(np.asarray, (state.params, state.opt_state))
    target = batch.target.copy()
    target[0, 0] = np.nan
    poisoned = batch._replace(target=target)
    for bad in (1, 2):
        state, _ = step(state, poisoned)
        assert (int(state.skipped), int(state.bad_in_a_row)) == (bad, bad)
        assert int(state.worst_in_a_row) == bad
        assert int(state.last_bad_step) == 1 + bad
    jax.tree.map(np.testing.assert_array_equal, before, (state.params, state.opt_state))
    state, _ = step(state, batch)
    assert (int(state.skipped), int(state.bad_in_a_row), int(state.step)) == (2, 0, 4)
    assert int(state.last_bad_step) == 3
    state, _ = step(state, poisoned)
    # The most in a row stays, so that a look now and then finds it.
    assert (int(state.bad_in_a_row), int(state.worst_in_a_row)) == (1, 2)


class Infinite(Crowd):
    """A task whose loss is infinite, its gradient not."""

    def loss(self, output, target):
        return super().loss(output, target) + jnp.inf


@pytest.mark.fault(
    row=6,
    injected='an infinite loss whose gradient is finite',
    outcome='skipped and counted; parameters keep their bits',
)
def test_an_infinite_loss_is_skipped_and_counted_whatever_its_gradient():
    tx = optax.sgd(1.0)
    step = steps.make_train_step(Infinite(size=32), tx, rank_weight=1, margin=1)
    before = jax.tree.map(np.asarray, made_state(tx).params)
    state, metrics = step(made_state(tx), made_batch())
    assert np.isposinf(metrics['loss']) and 0 < metrics['grad_norm'] < np.inf
    assert (int(state.skipped), int(state.bad_in_a_row), int(state.last_bad_step)) == (1, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, before, state.params)


@pytest.fixture(scope='module')
def device_facts():
    """What device_facts.py prints of the step on 1 and on 4 virtual devices."""
    flags = '--xla_force_host_platform_device_count=4'
    environment = {**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(SCRIPT.parents[1])}
    done = subprocess.run(
        [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.fault(
    row=16,
    injected='the step on 1 and 4 virtual devices',
    outcome='loss and gradient close',
)
def test_four_devices_give_the_loss_and_gradient_of_one(device_facts):
    one, four = device_facts['1'], device_facts['4']
    assert four['loss'] == pytest.approx(one['loss'], rel=1e-5)
    assert device_facts['gradient_gap'] < 1e-5


def test_the_compiled_step_has_two_all_reduces_and_moves_no_image(device_facts):
    for devices in ('1', '4'):
        assert device_facts[devices]['all_reduces'] <= 2
        assert device_facts[devices]['moves'] == 0


def test_five_groups_run_on_any_number_of_devices(device_facts):
    assert device_facts['5 groups'] == pytest.approx([device_facts['5 groups'][0]] * 3, rel=1e-5)
