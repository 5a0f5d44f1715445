"""Acquisition rules: a value for each unit without a label; the smallest are labeled first."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np


class Measured(Protocol):
    """What a rule may read of the units, as `measures.Measures` says; N units in all."""

    @property
    def differences(self) -> np.ndarray:
        """f32[N, K], nan where a unit has fewer pairs."""

    @property
    def features(self) -> np.ndarray:
        """f32[N, C]."""

    @property
    def draws(self) -> np.ndarray:
        """f32[N, M]."""


@dataclasses.dataclass(frozen=True)
class Question:
    """Which `count` units of the pool to label next."""

    measured: Measured
    pool: np.ndarray  # places of the units without a label
    labeled: np.ndarray  # places of the others
    count: int
    rng: np.random.Generator


def certainty_of(differences: np.ndarray) -> np.ndarray:
    """C (eq. 15): the share of a unit's pairs in the strictly right order. [N, K] -> f64[N].

    nan for a unit without a pair.
    """
    pairs = np.isfinite(differences).sum(-1)
    right = (differences > 0).sum(-1)
    return np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def graded_of(differences: np.ndarray) -> np.ndarray:
    """Mean sigmoid of the differences over their root mean square, .5 for equal scores. f64[N].

    It tells units of equal C apart by how clear their order is. A unit's own spread is the
    measure: by a common one, whoever has small scores would be uncertain.
    """
    d = np.asarray(differences, np.float64)
    finite = np.isfinite(d)
    pairs = finite.sum(-1)
    d = np.where(finite, d, 0)
    spread = np.sqrt(np.square(d).sum(-1) / np.maximum(pairs, 1))
    scaled = d / np.where(spread > 0, spread, 1)[:, None]
    total = np.where(finite, 1 / (1 + np.exp(-scaled)), 0).sum(-1)
    return np.divide(total, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def random(asked: Question) -> np.ndarray:
    """The baseline: a draw."""
    return asked.rng.random(len(asked.pool))


def certainty(asked: Question) -> np.ndarray:
    """The paper's: C."""
    return certainty_of(asked.measured.differences[asked.pool])


def graded(asked: Question) -> np.ndarray:
    """A C that does not saturate."""
    return graded_of(asked.measured.differences[asked.pool])


def dropout(asked: Question) -> np.ndarray:
    """Minus the variance of the score under dropout (Gal and Ghahramani, 2016)."""
    return -asked.measured.draws[asked.pool].astype(np.float64).var(-1)


def kcenter(asked: Question) -> np.ndarray:
    """The order in which the greedy k-center rule takes them (Sener and Savarese, 2018).

    Each is the one whose features are farthest from all that are labeled or taken.
    """
    features = asked.measured.features.astype(np.float64)
    pool = asked.rng.permutation(asked.pool)  # of equal distances the first here is taken
    near = np.full(len(pool), np.inf)
    for place in asked.labeled:
        near = np.minimum(near, _distance(features[pool], features[place]))
    turns = dict.fromkeys(pool.tolist(), asked.count)
    for turn in range(min(asked.count, len(pool))):
        taken = near.argmax()
        turns[int(pool[taken])] = turn
        near = np.minimum(near, _distance(features[pool], features[pool[taken]]))
        near[taken] = -np.inf
    return np.array([turns[place] for place in asked.pool.tolist()], np.float64)


def _distance(many: np.ndarray, one: np.ndarray) -> np.ndarray:
    return np.square(many - one).sum(-1)


RULES: dict[str, Callable[[Question], np.ndarray]] = {
    'certainty': certainty,
    'graded': graded,
    'random': random,
    'dropout': dropout,
    'kcenter': kcenter,
}
# Those that measure pairs, so that C can be logged without a forward more.
RANKING = ('certainty', 'graded')


def chosen(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The places of the `count` smallest values, the smallest first; equal ones by a draw.

    A nan, of a unit that nothing is known of, comes first.
    """
    return np.lexsort((rng.permutation(len(values)), _sortable(values)))[:count]


def tied_at_cut(values: np.ndarray, taken: Sequence[int] | np.ndarray) -> float:
    """The share of the pool whose value is that of the last unit taken: left to the draw."""
    return float(np.mean(np.equal(_sortable(values), _sortable(values)[taken[-1]])))


def _sortable(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), -np.inf, values)
