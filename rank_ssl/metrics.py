"""Metrics of whole vectors in float64, for both fields, and an interval for any of them.

Every pair of vectors has one length and finite values; anything else is a `ValueError` with the
shapes or the number of bad values. Where a metric is not defined (constant or empty input, no
pair, an empty bin) it is nan, without a warning.
"""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST = 3  # images of a kind that have a correlation: two points always lie on a line


class Kind(TypedDict):
    """Correlations over the images of one kind, and their number."""

    lcc: float
    srocc: float
    count: int


class Bin(TypedDict):
    """Errors of the images whose true count lies in [low, high)."""

    low: float
    high: float
    count: int
    mae: float
    mse: float


def lcc(pred: ArrayLike, target: ArrayLike) -> float:
    """Pearson's linear correlation of two vectors [N] (eq. 18)."""
    x, y = (_standardised(v) for v in _vectors(pred=pred, target=target))
    return float(np.clip(x @ y, -1.0, 1.0))


def srocc(pred: ArrayLike, target: ArrayLike) -> float:
    """Spearman's rank correlation of two vectors [N]: Pearson of mid-ranks.

    Without ties this is eq. 19; with ties eq. 19 is not exact.
    """
    from scipy.stats import rankdata  # a second of every start, which counting does without

    x, y = _vectors(pred=pred, target=target)
    return lcc(rankdata(x), rankdata(y))


def mae(pred: ArrayLike, target: ArrayLike) -> float:
    """Mean absolute error of two vectors [N], in their unit (section 6.2)."""
    x, y = _vectors(pred=pred, target=target)
    return float(np.abs(x - y).mean()) if x.size else np.nan


def mse(pred: ArrayLike, target: ArrayLike) -> float:
    """ROOT of the mean squared error of two vectors [N], in their unit (section 6.2).

    Crowd counting calls this root the MSE.
    """
    x, y = _vectors(pred=pred, target=target)
    return float(np.sqrt(np.square(x - y).mean())) if x.size else np.nan


def ordered_pair_accuracy(
    scores: ArrayLike, phi: ArrayLike, segments: ArrayLike | None = None
) -> float:
    """Share of the comparable pairs of a whole set [N] that stand in the strictly right order.

    Comparable: unequal `phi` in one of the `segments` (any labels), as in `ranking.certainty`, but
    pooled over all segments and in O(N) memory.
    """
    y, order = _vectors(scores=scores, phi=phi)
    chain = np.zeros(y.size, int) if segments is None else _codes(segments, y.shape)
    by_chain = np.argsort(chain, kind='stable')
    y, order, chain = y[by_chain], order[by_chain], chain[by_chain]
    pairs = right = 0
    for lag in range(1, y.size):
        together = chain[lag:] == chain[:-lag]
        if not together.any():  # chains lie in one piece, so no longer lag has a pair either
            break
        up, down = order[lag:] > order[:-lag], order[lag:] < order[:-lag]
        pairs += int(np.count_nonzero(together & (up | down)))
        hit = (up & (y[lag:] > y[:-lag])) | (down & (y[lag:] < y[:-lag]))
        right += int(np.count_nonzero(together & hit))
    return right / pairs if pairs else np.nan


def by_bin(pred: ArrayLike, target: ArrayLike, edges: ArrayLike) -> list[Bin]:
    """Errors per bin of the true count, one row for each of the len(edges) - 1 bins.

    `edges` ascend and may end in inf. A bin holds low <= target < high, the last one its upper
    edge too. A target outside all bins is a `ValueError`, because a dropped image hides its error.
    """
    x, y = _vectors(pred=pred, target=target)
    bounds = np.asarray(edges, np.float64)
    if bounds.ndim != 1 or bounds.size < 2 or not (np.diff(bounds) > 0).all():
        raise ValueError(f'edges={bounds.tolist()} must be at least two ascending numbers')
    outside = int(np.count_nonzero((y < bounds[0]) | (y > bounds[-1])))
    if outside:
        raise ValueError(
            f'{outside} of {y.size} targets lie outside [{bounds[0]:g}, {bounds[-1]:g}]; '
            'widen the edges, for example to inf'
        )
    index = np.minimum(np.searchsorted(bounds, y, side='right') - 1, bounds.size - 2)
    return [_bin(x[index == i], y[index == i], bounds[i : i + 2]) for i in range(bounds.size - 1)]


def by_kind(pred: ArrayLike, target: ArrayLike, kinds: Sequence[str]) -> dict[str, Kind]:
    """Correlations of two vectors [N] within each of the `kinds` [N], in their sorted order.

    nan below three images and where a vector is constant. An image of unknown kind, '', is left
    out.
    """
    x, y = _vectors(pred=pred, target=target)
    labels = np.asarray(kinds, str)
    if labels.shape != x.shape:
        raise ValueError(f'kinds {labels.shape} and pred {x.shape} must be of one length')
    return {
        kind: _kind(x[labels == kind], y[labels == kind])
        for kind in np.unique(labels).tolist()
        if kind
    }


def bootstrap_interval(
    values: ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    draws: int = 10_000,
    statistic: Callable[[NDArray[np.float64]], float] = np.mean,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of `statistic` at `level`, in the values' unit.

    `values` [N, ...] are resampled along the first axis with replacement: differences of paired
    arms go in as they are, and columns [N, 2] serve a statistic of two vectors. One value has no
    spread to resample: (nan, nan). Where the statistic of a resample is nan, so is the interval.
    """
    sample = np.asarray(values, np.float64)
    if not sample.ndim or not sample.size:
        raise ValueError(f'values {sample.shape} must be [N, ...] with N > 0')
    _check_finite('values', sample)
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f'level={level}, draws={draws}: level must be in (0, 1), draws at least 1')
    if len(sample) == 1:
        return np.nan, np.nan
    n = len(sample)
    estimates = [float(statistic(sample[rng.integers(n, size=n)])) for _ in range(draws)]
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _vectors(**named: ArrayLike) -> list[NDArray[np.float64]]:
    vectors = {name: np.asarray(values, np.float64) for name, values in named.items()}
    shapes = {v.shape for v in vectors.values()}
    if len(shapes) > 1 or any(v.ndim != 1 for v in vectors.values()):
        listed = ' and '.join(f'{name} {v.shape}' for name, v in vectors.items())
        raise ValueError(f'{listed} must be vectors of one length')
    for name, vector in vectors.items():
        _check_finite(name, vector)
    return list(vectors.values())


def _check_finite(name: str, values: NDArray[np.float64]) -> None:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(f'{name} holds {bad} non-finite of {values.size} values')


def _standardised(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred on 0 and scaled to length 1; all nan where x is constant or empty. [N]."""
    # Compared before centring: the mean of N equal floats need not equal them to the last bit.
    if x.size == 0 or x.min() == x.max():
        return np.full(max(x.size, 1), np.nan)
    x = x / np.abs(x).max()  # squares of large values would overflow
    x = x - x.mean()
    return x / np.linalg.norm(x)


def _codes(segments: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.intp]:
    labels = np.asarray(segments)
    if labels.shape != shape:
        raise ValueError(f'segments {labels.shape} and scores {shape} must be of one length')
    return np.unique(labels, return_inverse=True)[1]


def _kind(x: NDArray[np.float64], y: NDArray[np.float64]) -> Kind:
    if x.size < FEWEST:
        return {'lcc': np.nan, 'srocc': np.nan, 'count': x.size}
    return {'lcc': lcc(x, y), 'srocc': srocc(x, y), 'count': x.size}


def _bin(x: NDArray[np.float64], y: NDArray[np.float64], bounds: NDArray[np.float64]) -> Bin:
    low, high = bounds.tolist()
    return {'low': low, 'high': high, 'count': x.size, 'mae': mae(x, y), 'mse': mse(x, y)}
