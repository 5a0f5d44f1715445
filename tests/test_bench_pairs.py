"""The bench of pairs at a tiny setting: its numbers, its curves and what the command writes."""

import dataclasses
import json
import os

import numpy as np
import pytest

from rank_ssl import bench, plots
from rank_ssl.bench import pairs, samplers, timing
from rank_ssl.config import SAMPLERS

SLOW = pytest.mark.slow  # what compiles the networks, a minute together
STEP = pairs.Setting(size=32, exact_size=16, width=0.05, groups=2, images=(3,), rounds=2)
CURVES = samplers.Setting(
    size=16, levels=3, width=0.05, groups=2, steps=4, every=2, seeds=2, sets=3, tiny=8
)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """The folder and the numbers of `python -m rank_ssl.bench pairs --json FILE`."""
    folder = tmp_path_factory.mktemp('bench')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, 'Setting', lambda: STEP)
        patch.setattr(samplers, 'Setting', lambda: CURVES)
        before = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else None
        bench.main(['pairs', '--json', str(folder / 'pairs.json')])
        if before is not None:  # else the tests after it would compute other bits on one core
            assert os.sched_getaffinity(0) == before
    return folder, json.loads((folder / 'pairs.json').read_text(encoding='utf-8'))


@SLOW
def test_rows_hold_times_counts_and_equal_gradients(written):
    _, found = written
    assert [row['k'] for row in found['rows']] == [3]
    for row in found['rows']:
        k, groups = row['k'], STEP.groups
        assert row['theory'] == k - 1
        assert row['forwards'] == groups * k
        assert row['forwards_siamese'] == groups * k * (k - 1)
        assert row['gflop_siamese'] == pytest.approx((k - 1) * row['gflop']) and row['gflop'] > 0
        assert row['gradient_error'] <= pairs.ERROR
        assert 0 < row['pairs_with_a_loss'] <= 1
        assert row['speedup'] == pytest.approx(row['ms_siamese'] / row['ms'])
        assert row['memory_mib'] > 0 and row['memory_mib_siamese'] > 0


@SLOW
def test_a_wrong_gradient_is_seen(monkeypatch):
    real = pairs.siamese_loss

    def wrong(*given, margin):
        loss = real(*given, margin=margin)
        return lambda *more: (1 + 1e-9) * loss(*more)

    monkeypatch.setattr(pairs, 'siamese_loss', wrong)
    assert pairs.gradient_error(STEP, 3)[0] == pytest.approx(1e-9, rel=1e-3)


@SLOW
def test_curves_of_all_samplers_start_at_one_loss_and_end_at_equal_forwards(written):
    _, found = written
    curves = found['curves']
    assert curves['forwards'] == [0, 2 * 2 * 3, 4 * 2 * 3]
    for kind in ('loss', 'accuracy'):
        table = np.array([curves[kind][name] for name in SAMPLERS])
        assert table.shape == (3, CURVES.seeds, 3) and np.isfinite(table).all()
        assert (table[:, :, 0] == table[0, :, 0]).all()
    loss = np.array([curves['loss'][name] for name in SAMPLERS])
    assert len({*loss[:, 0, -1]}) == 3  # they are three samplers
    assert loss[0, 0, 0] != loss[0, 1, 0]  # and two seeds
    assert {*curves['ratios']} == {'random', 'hard'}


@SLOW
def test_the_figure_lies_beside_the_numbers(written):
    folder, _ = written
    assert (folder / 'pairs_curves.png').read_bytes()[:4] == b'\x89PNG'


def test_hard_mining_takes_all_pairs_before_the_end():
    for setting in (CURVES, samplers.Setting(), samplers.FULL):
        config = samplers.make_config(setting, 'hard', 0)
        k = setting.levels
        added = config.hard_add * (setting.steps // config.hard_every)
        assert k // 2 + added >= k * (k - 1) // 2


def test_a_level_is_reached_between_two_looks():
    forwards, loss = np.array([0.0, 10, 20, 30]), np.array([1.0, 0.6, 0.8, 0.2])
    assert samplers.reached(forwards, loss, 1.0) == 0
    assert samplers.reached(forwards, loss, 0.6) == 10
    assert samplers.reached(forwards, loss, 0.8) == pytest.approx(5)
    assert samplers.reached(forwards, loss, 0.5) == pytest.approx(25)


def test_a_ratio_is_of_the_lowest_loss_that_both_reach():
    looks = [0, 10, 20, 30, 40]
    found = {
        'forwards': looks,
        'loss': {
            'all': [[1.0, 0.5, 0.4, 0.3, 0.2], [1.0, 1.1, 1.2, 1.3, 1.4]],
            'random': [[1.0, 0.9, 0.8, 0.7, 0.5], [1.0, 0.5, 0.5, 0.5, 0.5]],
        },
    }
    first, second = samplers.forwards_ratio(found, 'random')
    assert first == pytest.approx(4)
    assert np.isnan(second)
    assert samplers.forwards_ratio(found, 'all')[0] == 1


def test_alternating_calls_are_timed_by_clock_and_by_cpu(monkeypatch):
    order, clock = [], iter(range(100))
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: float(next(clock)))
    monkeypatch.setattr(timing.time, 'process_time', lambda: 2.0)
    calls = {name: lambda name=name: order.append(name) for name in 'ab'}
    taken = timing.alternate_wall(calls, 3)
    assert ''.join(order) == 'ab' * 4
    for times in taken.values():
        np.testing.assert_array_equal(times, [[1, 0]] * 3)


def test_missed_targets_are_said():
    row = dict.fromkeys(
        ('theory', 'cpu_speedup', 'ms', 'ms_siamese', 'memory_mib', 'memory_mib_siamese'), 1.0
    )
    row |= {'k': 5, 'forwards': 5, 'forwards_siamese': 20, 'theory': 4}
    good = pairs.line(row | {'speedup': 3.9, 'gradient_error': 1e-15})
    assert 'missed' not in good and 'more than' not in good
    bad = pairs.line(row | {'speedup': 3.7, 'gradient_error': 1e-11})
    assert 'target 3.8: missed' in bad and 'more than 1e-12' in bad


def test_the_figure_shows_each_sampler_and_the_two_branches():
    looks = np.array([0, 100, 200])
    curves = {name: np.array([[1.0, 0.5, 0.4], [0.9, 0.6, 0.2]]) for name in SAMPLERS}
    figure = plots.convergence(looks, curves, curves, levels=5)
    left, right = figure.axes
    for axes in (left, right):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert len(lines) == 4 and axes.get_xlim() == (0, 200)
        ours = lines['ours, all pairs']
        np.testing.assert_allclose(ours.get_ydata(), [0.95, 0.55, 0.3])
        stretched = lines['two branches, all pairs (x 4)']
        np.testing.assert_allclose(stretched.get_xdata(), 4 * looks)
        np.testing.assert_allclose(stretched.get_ydata(), ours.get_ydata())
    assert left.get_ylim() == pytest.approx((0, 1.1 * 0.6))
    assert '2 seeds' in left.get_title()


@SLOW
def test_the_setting_goes_into_the_numbers(written):
    _, found = written
    assert found['setting'] == json.loads(json.dumps(dataclasses.asdict(STEP)))
