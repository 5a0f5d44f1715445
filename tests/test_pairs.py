"""Hard mining's pairs against loops over all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_ssl import pairs, ranking

K = 5
mined = jax.jit(pairs.mined)


def problem(seed: int, *, ties: bool = False):
    """Scores and order of three groups: nine, ten and no comparable pairs."""
    rng = np.random.default_rng(seed)
    phi = np.stack([rng.permutation(K), rng.permutation(K), np.zeros(K)]).astype(np.float32)
    if ties:
        phi[0] = [0, 0, 1, 2, 3]
    scores = rng.normal(size=(3, K)).astype(np.float32)
    return scores, np.asarray(ranking.order_sign(phi)), jax.random.split(jax.random.key(seed), 3)


def listed(mask: np.ndarray, order: np.ndarray) -> set[tuple[int, int]]:
    """The pairs (i, j) with phi_i < phi_j that a mask of one group takes."""
    return {(i, j) for i, j in np.argwhere(mask) if order[i, j] > 0}


@given(seed=st.integers(0, 2**31), hard=st.integers(0, 12))
@settings(max_examples=40)
def test_mined_pairs_are_the_random_ones_and_the_hardest_of_the_others(seed, hard):
    scores, order, keys = problem(seed, ties=True)
    mask = np.asarray(mined(keys, scores, order, hard))
    start = np.asarray(mined(keys, scores, order, 0))
    for g in range(3):
        every = {(i, j) for i in range(K) for j in range(K) if order[g, i, j] > 0}
        drawn, taken = listed(start[g], order[g]), listed(mask[g], order[g])
        assert len(drawn) == min(K // 2, len(every))
        loss = {(i, j): scores[g, i] - scores[g, j] for i, j in every - drawn}
        hardest = sorted(loss, key=loss.__getitem__, reverse=True)[:hard]
        assert taken == drawn | set(hardest)
        np.testing.assert_array_equal(mask[g], mask[g].T)
        assert not mask[g][order[g] == 0].any()


def test_random_pairs_are_uniform_and_of_their_own_key():
    scores, order, _ = problem(0)
    keys = jax.random.split(jax.random.key(3), 4000)
    upper = (np.arange(K)[:, None] < np.arange(K)).astype(np.int8)
    sign = np.broadcast_to(upper - upper.T, (4000, K, K))
    mask = np.asarray(mined(keys, np.zeros((4000, K), np.float32), sign, 0)) & (sign > 0)
    share = mask.mean(0)[upper > 0]
    np.testing.assert_allclose(share, 0.2, atol=0.03)  # 2 of 10 pairs
    again = np.asarray(mined(keys[:7], np.zeros((7, K), np.float32), sign[:7], 0)) & (sign[:7] > 0)
    np.testing.assert_array_equal(again, mask[:7])


def test_the_schedule_grows_and_counts_what_is_there():
    mining = pairs.Mining(every=10, add=2)
    assert [int(mining.hard(jnp.int32(step))) for step in (0, 9, 10, 29, 30)] == [0, 0, 2, 4, 6]
    used = mining.used(jnp.array([10.0, 3.0, 0.0]), K, jnp.int32(4))
    np.testing.assert_array_equal(used, [6, 3, 0])


@pytest.mark.parametrize('hard', [0, 3, 20])
def test_used_is_the_number_of_pairs_mined(hard):
    scores, order, keys = problem(1, ties=True)
    found = (np.asarray(mined(keys, scores, order, hard)) & (order > 0)).sum((1, 2))
    comparable = (order > 0).sum((1, 2))
    used = pairs.Mining(1, 1).used(jnp.asarray(comparable), K, jnp.int32(hard))
    np.testing.assert_array_equal(found, used)
