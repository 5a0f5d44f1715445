"""Metrics against closed forms, eq. 18-19, SciPy and simulated data."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rank_ssl import metrics, ranking

SEEDS = st.integers(0, 2**32)


@settings(max_examples=60)
@given(SEEDS, st.integers(2, 40), st.sampled_from([1e-9, 1.0, 1e200]), st.booleans())
def test_correlations_equal_scipy(seed, n, scale, ties):
    rng = np.random.default_rng(seed)
    pred, target = rng.integers(0, 4, (2, n)) if ties else rng.normal(size=(2, n))
    assume(np.ptp(pred) > 0 and np.ptp(target) > 0)
    pred = pred * scale
    want = scipy.stats.pearsonr(pred, target).statistic
    np.testing.assert_allclose(metrics.lcc(pred, target), want, atol=1e-13)
    want = scipy.stats.spearmanr(pred, target).statistic
    np.testing.assert_allclose(metrics.srocc(pred, target), want, atol=1e-13)


@settings(max_examples=40)
@given(SEEDS, st.integers(2, 40))
def test_srocc_without_ties_is_equation_19(seed, n):
    pred, target = np.random.default_rng(seed).normal(size=(2, n))
    v, p = (np.argsort(np.argsort(x)) + 1 for x in (target, pred))
    want = 1 - 6 * np.sum((v - p) ** 2) / (n * (n**2 - 1))
    np.testing.assert_allclose(metrics.srocc(pred, target), want, atol=1e-12)


def test_correlations_by_hand():
    # Centred: (-1, 0, 1) and (-2, 1, 1); 3 / sqrt(2 * 6).
    assert metrics.lcc([1, 2, 3], [0, 3, 3]) == pytest.approx(3 / np.sqrt(12), abs=1e-15)
    # Ranks (1, 2, 3) and (1, 2.5, 2.5): centred (-1.5, .75, .75); 2.25 / sqrt(2 * 3.375).
    assert metrics.srocc([1, 2, 3], [0, 3, 3]) == pytest.approx(2.25 / np.sqrt(6.75), abs=1e-15)
    assert metrics.srocc([1, 2, 3, 4], [1, 10, 100, 1e9]) == 1
    assert metrics.srocc([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert -1 <= metrics.lcc(np.arange(7) * 0.1, np.arange(7) * 0.3) <= 1


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('metric', [metrics.lcc, metrics.srocc])
def test_constant_or_empty_input_has_no_correlation(metric):
    constant = [0.1] * 7  # their mean is not 0.1 to the last bit
    assert np.isnan(metric(constant, range(7)))
    assert np.isnan(metric(range(7), constant))
    assert np.isnan(metric([1.0], [2.0]))
    assert np.isnan(metric([], []))


@pytest.mark.filterwarnings('error')
def test_errors_by_hand():
    pred, target = [10.0, 0.0, 5.0, 7.0], [13.0, 4.0, 5.0, 7.0]
    assert metrics.mae(pred, target) == (3 + 4) / 4
    assert metrics.mse(pred, target) == 5 / 2  # the root of (9 + 16) / 4
    assert type(metrics.mse(np.array(pred, np.float32), target)) is float
    assert np.isnan(metrics.mae([], [])) and np.isnan(metrics.mse([], []))


def test_sums_are_kept_in_float64():
    target = np.full(1000, 1e8, np.float32)
    assert metrics.mae(target, target.astype(np.float64) + 0.25) == 0.25
    assert metrics.mse(target, target.astype(np.float64) + 0.25) == 0.25


def loop_accuracy(scores, phi, segments):
    hits = [
        scores[i] < scores[j]
        for i in range(len(phi))
        for j in range(len(phi))
        if segments[i] == segments[j] and phi[i] < phi[j]
    ]
    return np.mean(hits) if hits else np.nan


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 15), st.integers(1, 4))
def test_ordered_pair_accuracy_equals_a_loop(seed, n, chains):
    rng = np.random.default_rng(seed)
    scores, phi = rng.integers(0, 4, (2, n))
    segments = rng.integers(0, chains, n)
    got = metrics.ordered_pair_accuracy(scores, phi, segments)
    np.testing.assert_equal(got, loop_accuracy(scores, phi, segments))
    names = np.array(['lena', 'boat', 'sea', 'house'])[segments]
    np.testing.assert_equal(metrics.ordered_pair_accuracy(scores, phi, names), got)
    np.testing.assert_equal(
        metrics.ordered_pair_accuracy(scores, phi), loop_accuracy(scores, phi, np.zeros(n))
    )


def test_ordered_pair_accuracy_is_the_certainty_of_the_flat_form():
    rng = np.random.default_rng(0)
    scores, phi = rng.normal(size=200), rng.integers(0, 5, 200)
    segments = rng.integers(0, 30, 200)
    want = ranking.certainty(scores, phi, segments=segments)
    assert metrics.ordered_pair_accuracy(scores, phi, segments) == pytest.approx(float(want))


@pytest.mark.filterwarnings('error')
def test_bins_are_half_open_and_the_last_one_is_closed():
    rows = metrics.by_bin([1, 10, 13, 96, 90], [0, 10, 10, 100, 100], [0, 10, 50, 100])
    assert rows[0] == {'low': 0, 'high': 10, 'count': 1, 'mae': 1, 'mse': 1}
    assert rows[1] == {'low': 10, 'high': 50, 'count': 2, 'mae': 1.5, 'mse': np.sqrt(4.5)}
    assert rows[2] == {'low': 50, 'high': 100, 'count': 2, 'mae': 7, 'mse': np.sqrt(58)}
    empty, full = metrics.by_bin([5.0], [4.0], [-np.inf, 0, np.inf])
    assert empty['count'] == 0 and np.isnan(empty['mae']) and np.isnan(empty['mse'])
    assert full['count'] == 1 and full['high'] == np.inf


@settings(max_examples=30)
@given(SEEDS, st.lists(st.integers(1, 99), max_size=4, unique=True))
def test_bins_together_are_the_whole_set(seed, inner):
    pred, target = np.random.default_rng(seed).integers(0, 101, (2, 50))
    rows = metrics.by_bin(pred, target, [0, *sorted(inner), 100])
    rows = [row for row in rows if row['count']]
    counts = np.array([row['count'] for row in rows])
    assert counts.sum() == 50
    assert counts @ [r['mae'] for r in rows] / 50 == pytest.approx(metrics.mae(pred, target))
    root = np.sqrt(counts @ [r['mse'] ** 2 for r in rows] / 50)
    assert root == pytest.approx(metrics.mse(pred, target))


def test_bins_that_miss_a_target_are_refused():
    with pytest.raises(ValueError, match=r'2 of 3 targets lie outside \[10, 100\]; widen'):
        metrics.by_bin([1, 2, 3], [5, 50, 500], [10, 100])
    for edges in ([10], [10, 10], [20, 10], [[1, 2]], [0, np.nan]):
        with pytest.raises(ValueError, match='at least two ascending'):
            metrics.by_bin([1], [15], edges)


@pytest.mark.filterwarnings('error')
def test_kinds_by_hand():
    # Of 'a' the images 0, 2 and 4: (1, 2, 3) against (0, 3, 3), as above; 'b' is constant.
    pred, target = (
        [1.0, 5.0, 2.0, 5.0, 3.0, 5.0, 8.0, 9.0],
        [0.0, 1.0, 3.0, 2.0, 3.0, 3.0, 1.0, 2.0],
    )
    found = metrics.by_kind(pred, target, ['a', 'b', 'a', 'b', 'a', 'b', 'c', 'c'])
    assert list(found) == ['a', 'b', 'c']
    assert found['a']['lcc'] == pytest.approx(3 / np.sqrt(12), abs=1e-15)
    assert found['a']['srocc'] == pytest.approx(2.25 / np.sqrt(6.75), abs=1e-15)
    assert [row['count'] for row in found.values()] == [3, 3, 2]
    for kind in 'bc':  # two images would correlate perfectly, whatever their scores
        assert np.isnan([found[kind]['lcc'], found[kind]['srocc']]).all()


@settings(max_examples=20)
@given(SEEDS)
def test_each_kind_is_the_metric_of_its_images_in_any_order(seed):
    rng = np.random.default_rng(seed)
    pred, target = rng.normal(size=(2, 40)).astype(np.float32)
    kinds = rng.choice(['jpeg', 'white_noise', ''], 40)
    found = metrics.by_kind(pred, target, kinds.tolist())
    assert list(found) == ['jpeg', 'white_noise']
    for kind, row in found.items():
        some = kinds == kind
        assert row == {
            'lcc': metrics.lcc(pred[some], target[some]),
            'srocc': metrics.srocc(pred[some], target[some]),
            'count': some.sum(),
        }
    order = rng.permutation(40)
    again = metrics.by_kind(pred[order], target[order], kinds[order])
    for kind, row in again.items():
        np.testing.assert_allclose([*row.values()], [*found[kind].values()], atol=1e-12)


def test_kinds_of_another_length_or_none():
    with pytest.raises(ValueError, match=r'kinds \(2,\) and pred \(3,\) must be of one length'):
        metrics.by_kind([1, 2, 3], [1, 2, 3], ['a', 'b'])
    assert metrics.by_kind([], [], []) == metrics.by_kind([1, 2], [1, 2], ['', '']) == {}


def test_bootstrap_interval_equals_scipy():
    values = np.random.default_rng(1).exponential(size=40)
    for statistic, level in ((np.mean, 0.95), (np.median, 0.8)):
        got = metrics.bootstrap_interval(
            values, rng=np.random.default_rng(2), level=level, statistic=statistic
        )
        want = scipy.stats.bootstrap(
            (values,),
            statistic,
            n_resamples=10_000,
            confidence_level=level,
            method='percentile',
            rng=np.random.default_rng(3),
        ).confidence_interval
        np.testing.assert_allclose(got, want, atol=0.02)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(4)
    intervals = np.array(
        [
            metrics.bootstrap_interval(rng.normal(7, 2, 50), rng=rng, level=0.8, draws=200)
            for _ in range(400)
        ]
    )
    covered = np.mean((intervals[:, 0] <= 7) & (intervals[:, 1] >= 7))
    assert 0.72 <= covered <= 0.86  # .78 expected at n = 50, standard error .02


def test_bootstrap_interval_takes_pairs_and_repeats_itself():
    rng = np.random.default_rng(5)
    target = rng.normal(size=60)
    pairs = np.stack([target + rng.normal(size=60), target], 1)

    def interval(seed):
        return metrics.bootstrap_interval(
            pairs,
            rng=np.random.default_rng(seed),
            draws=500,
            statistic=lambda v: metrics.srocc(v[:, 0], v[:, 1]),
        )

    assert interval(6) == interval(6) != interval(7)
    low, high = interval(6)
    assert low < metrics.srocc(pairs[:, 0], pairs[:, 1]) < high
    # A constant paired difference is known exactly, however widely the arms scatter.
    constant = metrics.bootstrap_interval([2.0] * 5, rng=rng, draws=50)
    assert constant == (2.0, 2.0)


def test_bootstrap_interval_of_one_value_is_unknown():
    assert np.isnan(metrics.bootstrap_interval([3.0], rng=np.random.default_rng(0))).all()


@pytest.mark.parametrize('options', [{'level': 1.0}, {'level': 95}, {'draws': 0}])
def test_bootstrap_interval_refuses_bad_options(options):
    with pytest.raises(ValueError, match=r'level must be in \(0, 1\), draws at least 1'):
        metrics.bootstrap_interval([1.0, 2.0], rng=np.random.default_rng(0), **options)


def test_bootstrap_interval_refuses_bad_values():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r'values \(0,\) must be \[N, ...\] with N > 0'):
        metrics.bootstrap_interval([], rng=rng)
    with pytest.raises(ValueError, match='values holds 1 non-finite of 2 values'):
        metrics.bootstrap_interval([1.0, np.nan], rng=rng)


@pytest.mark.parametrize(
    'metric',
    [
        metrics.lcc,
        metrics.srocc,
        metrics.mae,
        metrics.mse,
        metrics.ordered_pair_accuracy,
        lambda x, y: metrics.by_bin(x, y, [0, 10]),
        lambda x, y: metrics.by_kind(x, y, ['a'] * len(x)),
    ],
)
def test_bad_vectors_are_refused_with_shapes_and_counts(metric):
    with pytest.raises(ValueError, match=r'\(3,\) and \w+ \(2,\) must be vectors of one length'):
        metric([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r'\(3, 1\) and \w+ \(3,\) must be vectors'):
        metric(np.ones((3, 1)), np.ones(3))
    with pytest.raises(ValueError, match='holds 2 non-finite of 3 values'):
        metric([1, np.nan, np.inf], [1, 2, 3])
    with pytest.raises(ValueError, match='holds 1 non-finite of 3 values'):
        metric([1, 2, 3], [1, 2, np.nan])


def test_segments_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r'segments \(2,\) and scores \(3,\)'):
        metrics.ordered_pair_accuracy([1, 2, 3], [1, 2, 3], [0, 1])
