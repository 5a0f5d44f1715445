"""The curves of active learning: their mathematics in closed form, the command on made runs."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from PIL import Image

from rank_ssl import curves, report
from rank_ssl.config import Active, Config
from rank_ssl.errors import UserError
from rank_ssl.grid import Cell
from rank_ssl.report import Curve, needed, savings
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA
from tests.made_runs import TRUE, finish

ROOT = Path(__file__).resolve().parent.parent
CONFIG = Config(task=Crowd(), mode='active', steps=10, active=Active(cycles=3))
UNITS = 40

pytestmark = pytest.mark.usefixtures('given')


@pytest.mark.parametrize('values, target, lower, share', [
    ([9, 7, 4, 2], 7, True, 0.2),  # at a point
    ([9, 7, 4, 2], 6, True, 0.2 + 0.1 / 3),  # between two
    ([9, 7, 4, 2], 1, True, math.nan),
    ([9, 7, 4, 2], 9.5, True, 0.1),  # from the start
    ([9, 3, 8, 2], 4, True, 0.1 + 0.1 * 5 / 6),  # the first of three crossings
    ([9, 3, 8, 2], 2.5, True, 0.3 + 0.1 * 5.5 / 6),  # the dip at .2 is not enough
    ([3, 9, 8, 2], 3, True, 0.1),
    ([5, 5, 5, 5], 5, True, 0.1),
    ([9, 6, 6, 2], 6, True, 0.2),  # a plateau counts from its start
    ([0.1, 0.5, 0.9, 0.7], 0.7, False, 0.25),
    ([0.1, 0.5, 0.9, 0.7], 0.95, False, math.nan),
    ([9, math.nan, 5, 2], 7, True, 0.2),  # the line goes past what is not finite
    ([math.nan] * 4, 7, True, math.nan),
    ([9, 7, 4, 2], math.nan, True, math.nan),
])  # fmt: skip
def test_the_labels_that_a_curve_needs(values, target, lower, share):
    found = needed([0.1, 0.2, 0.3, 0.4], values, target, lower_is_better=lower)
    assert found == pytest.approx(share, nan_ok=True)


# XLA lets its threads take subnormal numbers for 0.
BETWEEN = st.floats(0, 10, allow_subnormal=False)


@drawn(st.lists(BETWEEN, min_size=2, max_size=8), BETWEEN)
def test_a_curve_is_as_good_as_asked_where_it_is_said_to_be_and_worse_before(values, target):
    shares = np.linspace(0.1, 1, len(values))
    found = needed(shares, values, target, lower_is_better=True)
    assert needed(shares, -np.array(values), -target, lower_is_better=False) == pytest.approx(
        found, nan_ok=True
    )
    before = shares < (math.inf if math.isnan(found) else found - 1e-9)
    assert (np.array(values)[before] > target).all()
    if not math.isnan(found):
        value = np.interp(found, shares, values)
        assert value <= target + 1e-6


def a_curve(*values, units=40, start=0.1):
    """A curve of seeds 0, 1, .. at .1, .2, .."""
    places = tuple(round(start + 0.1 * n, 6) for n in range(len(values[0])))
    found = {seed: np.array(line, float) for seed, line in enumerate(values)}
    shares = np.array(places)
    return Curve(places, shares, shares * units, units, found)


def test_what_a_rule_saves():
    random, rule = a_curve([8, 6, 4, 2]), a_curve([8, 4, 3, 1])
    first, second, third = savings(rule, random, lower_is_better=True)
    assert (first.share, first.value, first.needed) == (0.2, 4, pytest.approx(0.3))
    assert first.labels == pytest.approx(4) and first.less == pytest.approx(1 / 3)
    assert second.needed == pytest.approx(0.35) and second.labels == pytest.approx(2)
    assert math.isnan(third.needed) and math.isnan(third.labels) and math.isnan(third.less)


def test_a_rule_that_is_worse_saves_less_than_nothing():
    one, *_ = savings(a_curve([8, 9, 3]), a_curve([8, 6, 2]), lower_is_better=True)
    assert one.at_most and one.needed == 0.1 and one.labels == pytest.approx(-4)
    two, _ = savings(a_curve([8, 7, 2]), a_curve([8, 6, 2]), lower_is_better=True)
    assert not two.at_most and two.labels == pytest.approx(-2) and two.less < 0


def test_of_two_arms_the_seeds_that_both_have_are_held_together():
    random = a_curve([8, 6, 4], [80, 60, 40], [800, 600, 400])
    rule = a_curve([8, 4, 3], [80, 50, 30])
    first, _ = savings(rule, random, lower_is_better=True)
    # The means of seeds 0 and 1: 44, 33, 22, and 27 of the rule.
    assert first.value == 27 and first.needed == pytest.approx(0.2 + 0.1 * 6 / 11)
    assert first.by_seed == {0: pytest.approx(0.3), 1: pytest.approx(0.25)}
    apart = dataclasses.replace(rule, values={7: rule.values[0]})
    assert savings(apart, random, lower_is_better=True) == []


def run_arm(workdir, arm, seed, errors, *, fields=(), config=CONFIG, certain=True, **more):
    """A finished run of a rule whose predictions are off by `errors`, one a cycle."""
    fields = fields or (f'--config.active.rule={arm}',)
    cell = Cell(arm, seed, workdir / arm / f'seed_{seed}', tuple(fields))
    made = cell.made(config)
    points = []
    for cycle, error in enumerate(errors):
        folder = dataclasses.replace(cell, folder=cell.folder / f'cycle_{cycle}')
        result = finish(folder, config, TRUE + error)
        labeled = min(round(UNITS * (made.active.start + cycle * made.active.share)), UNITS)
        saturation = {
            'pool': {'mean': 0.9 + 0.01 * seed, 'ones': 0.25 + cycle / 10},
            'labeled': {'mean': 0.95, 'ones': 0.5},
        }
        last = cycle == len(errors) - 1
        points.append({
            'cycle': cycle, 'labeled_units': labeled, 'units': UNITS, 'share': labeled / UNITS,
            **{name: value for name, value in result.items() if '/' in name},
            'tied_at_cut': None if last else 0.4,
            'certainty': saturation if certain and not last else None,
        })  # fmt: skip
    whole = {**result, 'mode': 'active', 'curve': points, 'config': cell.config(config), **more}
    (cell.folder / 'result.json').write_text(json.dumps(whole))
    return cell


def run_full(workdir, seed, error):
    fields = ('mode=train', 'steps=40', 'data.labels=0', 'active.cycles=0',
              'optim.decay_every=20000')  # fmt: skip
    made = tuple(f'--config.{field}' for field in fields)
    finish(Cell('full', seed, workdir / 'full' / f'seed_{seed}', made), CONFIG, TRUE + error)


def run_grid(workdir):
    """random and certainty with two seeds, kcenter with one."""
    for seed in (0, 1):
        run_arm(workdir, 'random', seed, np.array([8, 6, 4, 2]) + seed, certain=False)
        run_arm(workdir, 'certainty', seed, np.array([8, 4, 3, 2]) + seed)
        run_full(workdir, seed, 1.0 + seed)
    run_arm(workdir, 'kcenter', 0, [8, 8.5, 5, 1], certain=False)


@pytest.fixture
def tabulated(tmp_path, given, capsys):
    """tabulated('random', 'certainty', seeds=['2']): what the command prints, and table.json."""

    def run(*arms, config=CONFIG, **flags):
        given(arms=list(arms), **flags)
        curves.main(config, tmp_path)
        printed = capsys.readouterr().out
        text = (tmp_path / 'table.md').read_text()
        assert printed == f'{text}\ntable, numbers, figure and runs in {tmp_path}\n'
        return text, json.loads((tmp_path / 'table.json').read_text())

    return run


def lines_of(text, title):
    """The lines of the table below a title."""
    return text[text.index(title) :].split('\n\n')[1].splitlines()[2:]


def test_the_tables(tmp_path, tabulated):
    run_grid(tmp_path)
    text, _ = tabulated('random', 'certainty', 'kcenter')
    assert lines_of(text, '**MAE on the test images of synthetic_crowd by labeled share**') == [
        '| 10 % | 4 | 8.50 ± 0.71 | 8.50 ± 0.71 | 8.00 |',
        '| 20 % | 8 | 6.50 ± 0.71 | 4.50 ± 0.71 | 8.50 |',
        '| 30 % | 12 | 4.50 ± 0.71 | 3.50 ± 0.71 | 5.00 |',
        '| 40 % | 16 | 2.50 ± 0.71 | 2.50 ± 0.71 | 1.00 |',
        '| mean of 4 points |  | 5.50 ± 0.71 | 4.75 ± 0.71 | 5.62 |',
    ]
    assert '| labeled | units | random, 2 seeds | certainty, 2 seeds | kcenter, 1 seed |' in text
    assert 'one training of as many steps: MAE 1.50 ± 0.71 over 2 seeds.' in text
    assert 'Missing, 1 of 8 runs: kcenter, seed 1' in text
    arms = text.split('\n\n')[:4]
    assert [line.partition(':')[0] for line in arms] == ['random', 'certainty', 'kcenter', 'full']
    assert arms[1].startswith('certainty: synthetic_crowd; 4 labeled')
    assert arms[1].endswith(
        '; 4 trainings of so many steps, each from the last parameters; rule certainty, 0.1 of 40 '
        'units at first, then 0.1 more each, 100 pairs of a unit'
    )
    assert ' 40 steps of sgd' in arms[3] and arms[3].endswith('1 x cpu')


def test_rules_are_held_against_random_seed_by_seed(tmp_path, tabulated):
    run_grid(tmp_path)
    text, numbers = tabulated('random', 'certainty', 'kcenter')
    title = (
        '**Paired differences in test/mae, rule - random**; 95 %: over 2 seeds and 8 test images'
    )
    assert lines_of(text, title) == [
        '| certainty | 10 % | +0.00 | +0.00, +0.00 | [+0.00, +0.00] | not decided |',
        '| certainty | 20 % | -2.00 | -2.00, -2.00 | [-2.00, -2.00] | decided |',
        '| certainty | 30 % | -1.00 | -1.00, -1.00 | [-1.00, -1.00] | decided |',
        '| certainty | 40 % | +0.00 | +0.00, +0.00 | [+0.00, +0.00] | not decided |',
        '| certainty | **mean** | -0.75 | -0.75, -0.75 | [-0.75, -0.75] | decided |',
        '| kcenter | 10 % | +0.00 | +0.00 |  | one seed decides nothing |',
        '| kcenter | 20 % | +2.50 | +2.50 |  | one seed decides nothing |',
        '| kcenter | 30 % | +1.00 | +1.00 |  | one seed decides nothing |',
        '| kcenter | 40 % | -1.00 | -1.00 |  | one seed decides nothing |',
        '| kcenter | **mean** | +0.62 | +0.62 |  | one seed decides nothing |',
    ]
    assert numbers['differences']['certainty'][1]['share'] == 0.2
    assert numbers['area_differences']['certainty']['by_seed'] == {'0': -0.75, '1': -0.75}
    assert numbers['area_differences']['kcenter']['interval'] == [None, None]


def test_the_labels_saved_beside_the_papers(tmp_path, tabulated):
    run_grid(tmp_path)
    text, numbers = tabulated('random', 'certainty', 'kcenter')
    assert lines_of(text, '**Labels saved**') == [
        '| certainty | 20 % | 4.50 | 30 % | 30 %, 30 % | +4.0 | +33 % |',
        '| certainty | 30 % | 3.50 | 35 % | 35 %, 35 % | +2.0 | +14 % |',
        '| certainty | 40 % | 2.50 | 40 % | 40 %, 40 % | +0.0 | +0 % |',
        '| kcenter | 20 % | 8.50 | ≤ 10 % | 10 % | -4.0 | -100 % |',
        '| kcenter | 30 % | 5.00 | 25 % | 25 % | -2.0 | -20 % |',
        '| kcenter | 40 % | 1.00 | not reached | not reached |  |  |',
    ]
    assert 'with 20 % the paper has what random needs 40 % for (Fig. 7)' in text
    assert 'Here certainty 20 % against 30 %; kcenter 20 % against ≤ 10 %.' in text
    assert numbers['savings']['certainty'][0]['needed'] == pytest.approx(0.3)
    assert numbers['savings']['kcenter'][2]['needed'] is None


def test_the_papers_claim_for_quality():
    text = report.savings_table({'certainty': []}, 'test/srocc', 3, quality=True)
    assert 'with 20 % the paper has what random needs 50 % for (Fig. 5)' in text
    assert text.endswith('Here no rule stands at 20 %.')


def test_certainty_by_cycle(tmp_path, tabulated):
    run_grid(tmp_path)
    text, numbers = tabulated('random', 'certainty', 'kcenter')
    found = lines_of(text, '**Certainty C (eq. 15) after each training**')
    assert found[0] == '| random | 0 | 10 % |  |  |  |  | 40.0% |'
    assert found[3:6] == [
        '| certainty | 0 | 10 % | 0.905 | 25.0% | 0.950 | 50.0% | 40.0% |',
        '| certainty | 1 | 20 % | 0.905 | 35.0% | 0.950 | 50.0% | 40.0% |',
        '| certainty | 2 | 30 % | 0.905 | 45.0% | 0.950 | 50.0% | 40.0% |',
    ]
    assert len(numbers['certainty']) == 9  # the last cycle asks nothing
    assert report.certainty_table([]) == ''


def test_the_figure_and_the_numbers(tmp_path, tabulated):
    run_grid(tmp_path)
    _, numbers = tabulated('random', 'certainty')
    assert Image.open(tmp_path / 'curves.png').format == 'PNG'
    random = numbers['arms']['random']
    assert random['fields'] == ['--config.active.rule=random']
    assert random['values'] == {'0': [8, 6, 4, 2], '1': [9, 7, 5, 3]}
    assert random['mean'] == [8.5, 6.5, 4.5, 2.5] and random['areas'] == {'0': 5, '1': 6}
    assert (random['shares'], random['labeled_units']) == ([0.1, 0.2, 0.3, 0.4], [4, 8, 12, 16])
    assert numbers['full'] == {'0': 1, '1': 2} and numbers['missing'] == []


def test_without_random_nothing_is_compared(tmp_path, tabulated):
    run_grid(tmp_path)
    text, numbers = tabulated('certainty', full=False)
    assert 'it takes a seed of random and of a rule' in text and 'Labels saved' not in text
    assert numbers['differences'] == {} and numbers['full'] == {} and 'All labels' not in text


def test_rules_may_be_started_one_after_another(tmp_path, given, monkeypatch):
    asked = []
    monkeypatch.setattr(curves, 'run_cells', lambda cells, *_, jobs: asked.append((cells, jobs)))
    run_grid(tmp_path)
    given(arms=['kcenter'], seeds=['1'], only_table=False, jobs=2)
    curves.main(CONFIG, tmp_path)
    ((cells, jobs),) = asked
    assert [cell.name for cell in cells] == ['kcenter, seed 0', 'full, seed 0'] and jobs == 2
    assert all(cell.result(CONFIG, 'test/mae') for cell in cells)


def test_cycles_of_other_steps_are_no_cells_of_the_grid(tmp_path, given):
    run_grid(tmp_path)
    given(arms=['random', 'certainty'], seeds=['1'], full=False)
    with pytest.raises(UserError, match='holds a run of 10 steps, more than the 9 asked for: '):
        curves.main(dataclasses.replace(CONFIG, steps=9), tmp_path)


def test_a_last_cycle_that_takes_what_is_left_is_a_point_of_its_own():
    """204 units in tenths of 20: ten trainings end at 200, one more has all."""
    shares = [20 * n / 204 for n in range(1, 11)] + [1.0]
    active = {'start': 0.1, 'share': 0.1}
    points = [{'cycle': n, 'share': share} for n, share in enumerate(shares)]
    found = report.curves.by_place({'config': {'active': active}, 'curve': points})
    assert [point['share'] for point in found.values()] == shares


def test_validation_compares_without_an_interval(tmp_path, tabulated):
    run_grid(tmp_path)
    text, numbers = tabulated('random', 'certainty', compare='val')
    assert '| certainty | **mean** | +0.00 | +0.00, +0.00 |  |  |' in text
    assert '**MAE on the validation images' in text and numbers['metric'] == 'best/val/mae'


def test_a_run_with_another_step_is_joined_where_the_shares_meet(tmp_path, tabulated):
    run_grid(tmp_path)
    fields = ('--config.active.share=0.2', '--config.active.cycles=1')
    run_arm(tmp_path, 'wide', 0, [8, 3], fields=fields)
    text, numbers = tabulated('random', 'wide:active.share=0.2;active.cycles=1', seeds=['1'])
    found = lines_of(text, '**MAE on')
    assert found[1] == '| 20 % | 8 | 6.00 |  |'
    assert found[2] == '| 30 % | 12 | 4.00 | 3.00 |'
    assert found[4] == '| mean of 2 points |  | 6.00 | 5.50 |'
    assert [one['share'] for one in numbers['differences']['wide']] == [0.1, 0.3]
    assert numbers['area_differences']['wide']['by_seed'] == {'0': -0.5}


def cell_of(workdir, config=CONFIG):
    (cell,) = (c for c in curves.curve_cells(config, workdir) if c.arm == 'certainty')
    return cell


def of_cycles(count):
    return dataclasses.replace(CONFIG, active=Active(cycles=count))


def test_a_run_that_lacks_cycles_is_not_finished(tmp_path, given):
    given(arms=['certainty'], seeds=['1'])
    run_arm(tmp_path, 'certainty', 0, [8, 4, 3, 2])
    cell = cell_of(tmp_path)
    assert cell.result(of_cycles(4), 'test/mae') is None
    assert len(cell.result(of_cycles(3), 'test/mae')['curve']) == 4
    assert len(cell.result(of_cycles(1), 'test/mae')['curve']) == 2
    assert cell.result(CONFIG, 'test/other') is None


def test_a_run_that_has_labeled_everything_is_finished(tmp_path, given):
    given(arms=['certainty'], seeds=['1'])
    config = dataclasses.replace(CONFIG, active=Active(share=0.5, cycles=9))
    run_arm(tmp_path, 'certainty', 0, [8, 4, 3], config=config)
    assert len(cell_of(tmp_path, config).result(config, 'test/mae')['curve']) == 3


def test_a_run_of_another_config_is_told(tmp_path, given):
    given(arms=['certainty'], seeds=['1'])
    run_arm(tmp_path, 'certainty', 0, [8, 4, 3, 2])
    other = dataclasses.replace(CONFIG, active=Active(cycles=3, pairs=7))
    with pytest.raises(UserError, match='holds another run .config.active.pairs 100, now 7'):
        cell_of(tmp_path).result(other, 'test/mae')


def test_damaged_predictions_of_a_cycle_are_named_with_all_that_has_to_go(tmp_path, tabulated):
    run_grid(tmp_path)
    folder = tmp_path / 'certainty' / 'seed_0'
    (folder / 'cycle_1' / 'predictions.csv').unlink()
    marks = f'{folder}/result.json and {folder}/cycle_1/result.json'
    with pytest.raises(UserError, match=f'cannot be read .*: delete {marks}, and the same command'):
        tabulated('random', 'certainty', seeds=['1'])


def test_a_point_without_a_number_leaves_a_gap(tmp_path, tabulated):
    run_grid(tmp_path)
    path = tmp_path / 'certainty' / 'seed_0' / 'result.json'
    result = json.loads(path.read_text())
    result['curve'][1]['test/mae'] = None
    path.write_text(json.dumps(result))
    text, numbers = tabulated('random', 'certainty', seeds=['1'])
    assert '| certainty | 20 % | nan | not reached |' in text
    assert numbers['savings']['certainty'][1]['needed'] == pytest.approx(0.35)


def test_the_fields_of_the_arms(tmp_path, given):
    given(arms=['random', 'certainty:active.restart=true', 'again:active.pairs=0'], seeds=['1'])
    cells = {c.arm: [f.removeprefix('--config.') for f in c.fields]
             for c in curves.curve_cells(CONFIG, tmp_path)}  # fmt: skip
    assert cells == {
        'random': ['active.rule=random'],
        'certainty': ['active.rule=certainty', 'active.restart=true'],
        'again': ['active.pairs=0'],
        'full': [
            'mode=train', 'steps=40', 'data.labels=0', 'active.cycles=0', 'optim.decay_every=20000',
        ],
    }  # fmt: skip


def test_random_and_certainty_are_the_arms_by_default(tmp_path, given):
    given(arms=None, seeds=['1'], full=False)
    assert [c.arm for c in curves.curve_cells(CONFIG, tmp_path)] == ['random', 'certainty']


@pytest.mark.parametrize('flags, message', [
    ({'arms': ['baseline']}, '--arms=baseline is no rule (certainty, graded, random, dropout, kce'),
    ({'arms': ['full']}, '--arms=full: full is the arm of all labels; use --full, --nofull'),
    ({'arms': ['random', 'random']}, '--arms=random:active.rule=random,random:active.rule=random,'),
    ({'folds': ['1', '2']}, '--folds: a curve is of one fold; use --config.data.fold=1'),
    ({'seeds': ['0']}, '--seeds=0 must be how many'),
    ({'arms': []}, '--arms= --seeds=0,1: give at least one of each'),
])  # fmt: skip
def test_a_grid_that_is_none_is_told(tmp_path, given, flags, message):
    given(**flags)
    with pytest.raises(UserError) as caught:
        curves.curve_cells(CONFIG, tmp_path)
    assert str(caught.value).startswith(message)


def test_a_config_of_one_training_is_told(tmp_path):
    config = dataclasses.replace(CONFIG, mode='train')
    with pytest.raises(UserError, match='^config.mode=train asks for no labels: use an experiment'):
        curves.curve_cells(config, tmp_path)


def test_an_empty_workdir_is_told(tmp_path, given):
    given(arms=['random'])
    with pytest.raises(UserError, match='holds no finished run of a rule: leave --only_table out'):
        curves.main(CONFIG, tmp_path)


def test_a_correlation_is_better_higher(tmp_path, tabulated):
    config = dataclasses.replace(CONFIG, task=IQA(), active=Active(cycles=1))
    for arm, last in (('random', TRUE * 0), ('certainty', TRUE)):
        noise = np.array([3, -40, 2, 9, 30, -7, 1, 0]) * 2.0
        run_arm(tmp_path, arm, 0, [noise, noise * (last == 0)], config=config)
    text, numbers = tabulated('random', 'certainty', config=config, seeds=['1'], full=False)
    assert '(Fig. 5)' in text and '| not reached |' in text
    assert (
        numbers['arms']['certainty']['mean'][1] == pytest.approx(1)
        and not numbers['lower_is_better']
    )


@pytest.mark.slow
def test_the_grid_as_a_command(tmp_path):
    command = [
        *(sys.executable, '-m', 'rank_ssl.curves', '--seeds=1', f'--workdir={tmp_path}'),
        *('--config=experiments/active_quickstart.py:smoke', '--arms=random,certainty'),
    ]
    for cells in (3, 0):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count('== cell ') == cells
    numbers = json.loads((tmp_path / 'table.json').read_text())
    assert numbers['differences']['certainty'][0]['mean'] == 0  # nothing has been chosen yet
    assert numbers['full'].keys() == {'0'} and numbers['missing'] == []
    assert (tmp_path / 'curves.png').exists()
