"""Acquisition rules against brute force, and that ties are left to the draw."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_ssl import config, ranking
from rank_ssl.active import rules
from rank_ssl.active.rules import RULES, Question, certainty_of, chosen, graded_of, tied_at_cut
from rank_ssl.data import sampled_pairs


@dataclasses.dataclass
class Known:
    """Measures given by hand."""

    differences: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    features: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    draws: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def question(measured: Known, pool, labeled=(), *, count: int = 2, seed: int = 0) -> Question:
    return Question(measured, np.array(pool), np.array(labeled, int), count, rng(seed))


def test_the_rules_are_those_of_the_config():
    assert set(RULES) == set(config.RULES)


@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 4), st.integers(0, 40))
@settings(max_examples=60)
def test_certainty_is_a_brute_force_count(seed, items, segments, count):
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 4, items).astype(np.float32)  # equal ones are wrong
    phi = draw.integers(0, 4, items).astype(np.float32)
    chain = draw.integers(0, segments, items)
    pairs = sampled_pairs(rng(seed), phi, chain, count)
    every = [
        (i, j)
        for i in range(items)
        for j in range(items)
        if phi[i] < phi[j] and chain[i] == chain[j]
    ]
    listed = [tuple(pair) for pair in pairs.tolist()]
    assert len(set(listed)) == len(listed) and set(listed) <= set(every)
    assert len(listed) == (min(count, len(every)) if count else len(every))
    i, j = pairs.T
    found = certainty_of((scores[j] - scores[i])[None])[0]
    right = sum(scores[a] < scores[b] for a, b in listed)
    if not listed:
        assert math.isnan(found)
    else:
        assert found == right / len(listed)
    if not count and every:
        whole = ranking.certainty(scores, phi, segments=chain)
        assert found == pytest.approx(float(whole), abs=1e-6)


def test_pairs_are_drawn_evenly():
    phi, chain = np.arange(5.0), np.zeros(5)
    counts = np.zeros((5, 5), int)
    for seed in range(2000):
        for i, j in sampled_pairs(rng(seed), phi, chain, 3):
            counts[i, j] += 1
    drawn = counts[np.triu_indices(5, 1)]
    assert drawn.sum() == 6000 and counts.sum() == 6000
    assert abs(drawn - 600).max() < 100  # 4.9 deviations


def test_a_unit_with_fewer_pairs_is_counted_over_its_own():
    differences = np.array([[1, -1, 0, 2], [1, np.nan, np.nan, np.nan], [np.nan] * 4])
    np.testing.assert_array_equal(certainty_of(differences), [0.5, 1, np.nan])
    np.testing.assert_allclose(graded_of(differences)[1], 1 / (1 + math.exp(-1)))
    assert np.isnan(graded_of(differences)[2])


def test_graded_is_the_mean_sigmoid_over_the_units_own_spread():
    differences = rng().normal(1, 2, (3, 50))
    for unit, found in zip(differences, graded_of(differences), strict=True):
        spread = math.sqrt(sum(d * d for d in unit) / 50)
        expected = sum(1 / (1 + math.exp(-d / spread)) for d in unit) / 50
        assert found == pytest.approx(expected)
    np.testing.assert_allclose(graded_of(differences * 100), graded_of(differences))
    assert graded_of(np.zeros((1, 5)))[0] == 0.5


def test_the_least_certain_come_first():
    measured = Known(differences=np.array([[1, 1], [1, -1], [9, 9], [-1, -1]], np.float32))
    asked = question(measured, [0, 1, 3], [2])
    assert rules.certainty(asked).tolist() == [1, 0.5, 0]
    order = chosen(rules.certainty(asked), 2, rng())
    assert order.tolist() == [2, 1]
    assert chosen(rules.graded(asked), 2, rng()).tolist() == [2, 1]


def test_dropout_takes_the_largest_variance():
    draws = np.linspace(-1, 1, 30) * np.array([1, 3, 0, 2, 9])[:, None] + 5
    asked = question(Known(draws=draws.astype(np.float32)), [0, 1, 2, 3], [4])
    values = rules.dropout(asked)
    np.testing.assert_allclose(values, [-np.var(draws[n]) for n in range(4)], rtol=1e-4, atol=1e-9)
    assert chosen(values, 4, rng()).tolist() == [1, 3, 0, 2]


def farthest_first(features, pool, labeled, count):
    """The greedy k-center rule by its definition."""
    taken = list(labeled)
    for _ in range(count):
        left = [n for n in pool if n not in taken]
        near = {n: min(np.sum((features[n] - features[m]) ** 2) for m in taken) for n in left}
        taken.append(max(left, key=near.__getitem__))
    return taken[len(labeled) :]


@pytest.mark.parametrize('seed', range(5))
def test_k_center_is_greedy_by_the_definition(seed):
    features = np.random.default_rng(seed).normal(size=(20, 3)).astype(np.float32)
    places = np.random.default_rng(seed).permutation(20)
    pool, labeled = np.sort(places[:15]), places[15:]
    asked = question(Known(features=features), pool, labeled, count=6, seed=seed)
    values = rules.kcenter(asked)
    expected = farthest_first(features.astype(float), pool.tolist(), labeled.tolist(), 6)
    assert pool[chosen(values, 6, rng(9))].tolist() == expected
    assert sorted(values)[:6] == list(range(6)) and (np.sort(values)[6:] == 6).all()


def test_k_center_without_a_label_begins_at_random():
    features = np.eye(6, dtype=np.float32)
    firsts = {
        int(rules.kcenter(question(Known(features=features), range(6), seed=seed)).argmin())
        for seed in range(40)
    }
    assert firsts == set(range(6))


def test_equal_values_are_broken_by_the_draw_and_never_by_the_index():
    values = np.array([1.0, 0.5, 1.0, 1.0, 1.0, 1.0])
    seconds = [int(chosen(values, 2, rng(seed))[1]) for seed in range(200)]
    assert {int(chosen(values, 2, rng(seed))[0]) for seed in range(200)} == {1}
    counts = np.bincount(seconds, minlength=6)
    assert counts[1] == 0 and counts[[0, 2, 3, 4, 5]].min() > 15
    again = [chosen(values, 2, rng(7)).tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_what_nothing_is_known_of_is_asked_first():
    assert chosen(np.array([0.1, np.nan, 0.0]), 2, rng()).tolist() == [1, 2]


def test_the_share_that_is_left_to_the_draw():
    values = np.array([0.2, 1.0, 1.0, 1.0])
    assert tied_at_cut(values, [0]) == 0.25
    assert tied_at_cut(values, [0, 2]) == 0.75
    assert tied_at_cut(np.array([np.nan, np.nan, 0.1]), [1]) == pytest.approx(2 / 3)
