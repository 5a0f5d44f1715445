"""Paired runs: the grid, what is run again, and the table's arithmetic in closed form."""

import csv
import dataclasses
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from rank_ssl import evidence
from rank_ssl.config import REGIMES, Config, Data, Optim, differences
from rank_ssl.errors import UserError
from rank_ssl.evidence import Cell, Values, compare, interval, make_cells, make_table, settings
from rank_ssl.tasks.crowd import Crowd

ROOT = Path(__file__).resolve().parent.parent
TASK = Crowd()
BASE = Config(task=TASK, steps=10)
TRUE = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0])


@pytest.fixture(autouse=True)
def split(monkeypatch):
    """Sets --compare; 'test' unless a test calls it."""
    flags.FLAGS.mark_as_parsed()

    def choose(name: str) -> None:
        monkeypatch.setattr(flags.FLAGS['compare'], 'value', name)

    choose('test')
    return choose


def made_cell(workdir: Path, arm: str, seed: int, errors, **result) -> tuple[Cell, dict]:
    """A finished cell whose predictions are off by `errors`, with the result they give."""
    fields = (f'--config.regime={arm}',) if arm in REGIMES else ('--config.margin=2',)
    cell = Cell(arm, seed, workdir / arm / f'seed_{seed}', fields)
    cell.folder.mkdir(parents=True)
    predicted = TRUE + np.asarray(errors, float)
    rows = zip(TRUE, predicted, strict=True)
    with open(cell.folder / 'predictions.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['id', 'true', 'predicted'])
        writer.writerows((f'image{i}', t, p) for i, (t, p) in enumerate(rows))
    metrics = {f'test/{name}': value for name, value in TASK.metrics(predicted, TRUE).items()}
    facts = {'labeled_images': 4, 'unlabeled_images': 2, 'validation_images': 3,
             'test_images': len(TRUE), 'partial_data': False, 'device': '1 x cpu'}  # fmt: skip
    whole = {'steps': 10, 'best_step': 4, **metrics, 'best/val/mae': 7.0, **facts,
             'config': cell.config(BASE), **result}  # fmt: skip
    (cell.folder / 'result.json').write_text(json.dumps(whole))
    return cell, whole


def told_interval(text: str) -> tuple[float, float]:
    low, high = text.partition('[')[2].partition(']')[0].split(',')
    return float(low), float(high)


def test_the_grid_goes_seed_by_seed(tmp_path):
    cells = make_cells(['baseline', 'multitask'], ['0', '3'], tmp_path)
    assert [(cell.arm, cell.seed) for cell in cells] == [
        ('baseline', 0), ('multitask', 0), ('baseline', 3), ('multitask', 3),
    ]  # fmt: skip
    assert cells[2].folder == tmp_path / 'baseline' / 'seed_3'
    assert cells[2].fields == ('--config.regime=baseline',)


def test_arms_with_fields(tmp_path):
    arms = ['wide:margin=5;rank_weight=.3', 'baseline:optim.rate=3e-4']
    wide, baseline = make_cells(arms, ['1'], tmp_path)
    assert (wide.arm, wide.fields) == ('wide', ('--config.margin=5', '--config.rank_weight=.3'))
    assert baseline.fields == ('--config.regime=baseline', '--config.optim.rate=3e-4')
    assert wide.command('exp.py:A', ['--config.steps=5', '--config.seed=9']) == [
        *(sys.executable, '-m', 'rank_ssl.main', '--config=exp.py:A'),
        *('--config.steps=5', '--config.seed=9', '--config.margin=5', '--config.rank_weight=.3'),
        *('--config.seed=1', f'--workdir={tmp_path / "wide" / "seed_1"}'),
    ]


@pytest.mark.parametrize('arms, seeds, message', [
    (['wide'], ['0'], '--arms=wide is no regime (multitask, baseline, ranking, finetune, ridge)'),
    (['wide:margin'], ['0'], '--arms=wide:margin is no arm: use a regime or NAME:field=value;'),
    (['a/b:margin=1'], ['0'], '--arms=a/b:margin=1 is no arm'),
    (['..:margin=1'], ['0'], '--arms=..:margin=1 is no arm'),
    ([''], ['0'], '--arms= is no arm'),
    (['baseline'], ['-1'], '--seeds=-1 must be whole numbers, 0 or greater; use 0,1,2'),
    (['baseline'], ['x'], '--seeds=x must be'),
    (['baseline'], [], '--arms=baseline --seeds=: give at least one of each'),
    ([], ['0'], '--arms= --seeds=0: give at least one of each'),
    (['baseline'], ['0', '00'], '--arms=baseline --seeds=0,00: give at least one of each, and'),
    (['a:margin=1', 'a:margin=2'], ['0'], 'and each name once'),
])  # fmt: skip
def test_arms_and_seeds_that_are_none(tmp_path, arms, seeds, message):
    with pytest.raises(UserError) as caught:
        make_cells(arms, seeds, tmp_path)
    assert str(caught.value).startswith(message) or str(caught.value).endswith(message)


def test_a_cell_is_finished_when_it_has_its_steps_and_the_metric(tmp_path):
    cell, result = made_cell(tmp_path, 'baseline', 0, np.ones(8), **{'test/srocc': None})

    def found(metric: str = 'test/mae', *, of: Cell = cell, **fields) -> dict | None:
        return of.result(dataclasses.replace(BASE, **fields), metric)

    assert found()['best_step'] == result['best_step']
    assert found(steps=8) is not None and found(steps=11) is None
    assert found('test/lcc') is None
    assert math.isnan(found('test/srocc')['test/srocc'])
    short = Cell('short', 0, cell.folder, (*cell.fields, '--config.steps=9'))
    assert found(of=short, steps=99) is not None
    assert found(of=Cell('none', 0, tmp_path / 'none', ())) is None


def test_a_cells_config_has_its_fields_with_their_types(tmp_path):
    fields = ('--config.margin=5', '--config.steps=7', '--config.evaluate_test=False',
              '--config.model.remat=true', '--config.optim.name=adam',
              '--config.task.eval_side=64', '--config.data.unlabeled_dirs=a b,c=d')  # fmt: skip
    found = Cell('x', 3, tmp_path, fields).config(BASE)
    expected = {'margin': (0.0, 5.0), 'steps': (10, 7), 'evaluate_test': (True, False),
                'model.remat': (BASE.model.remat, True), 'optim.name': ('sgd', 'adam'),
                'task.eval_side': (0, 64), 'data.unlabeled_dirs': ('', 'a b,c=d'),
                'seed': (0, 3)}  # fmt: skip
    changed = differences(BASE.to_dict(), found)
    assert changed == {name: pair for name, pair in expected.items() if pair[0] != pair[1]}
    for name, (_, value) in changed.items():
        assert type(value) is type(expected[name][1]), name
    assert BASE.steps == 10 and BASE.optim.name == 'sgd'


@pytest.mark.parametrize('field', ['marign=5', 'optim.raet=1', 'steps=ten', 'opt.rate=1'])
def test_an_arms_field_that_is_none_is_told(tmp_path, field):
    cell = Cell('x', 0, tmp_path, (f'--config.{field}',))
    with pytest.raises(UserError, match=f'--config.{field} of --arms=x is no field of the config'):
        cell.config(BASE)


@pytest.mark.parametrize('now, words', [
    ({'margin': 3.0}, 'config.margin 0.0, now 3.0'),
    ({'optim': Optim(rate=0.5)}, 'config.optim.rate 1e-06, now 0.5'),
    ({'data': Data(test_stride=2)}, 'config.data.test_stride 1, now 2'),
    ({'task': Crowd(eval_side=64)}, 'config.task.eval_side 0, now 64'),
    ({'rank_weight': 2.0, 'seed': 9, 'reduction': 'mean'}, 'config.rank_weight 1.0, now 2.0; '),
])  # fmt: skip
def test_a_finished_cell_of_another_config_is_refused(tmp_path, now, words):
    cell, _ = made_cell(tmp_path, 'baseline', 0, np.ones(8))
    with pytest.raises(UserError) as caught:
        cell.result(dataclasses.replace(BASE, **now), 'test/mae')
    assert str(caught.value).startswith(f'{cell.folder} holds another run ({words}')
    assert str(caught.value).endswith('): use another --workdir')


def test_how_a_cell_was_run_may_differ(tmp_path):
    cell, result = made_cell(tmp_path, 'baseline', 0, np.ones(8))
    now = {'log_every': 3, 'keep': 1, 'evaluate_test': False, 'data': Data(threads=7)}
    assert cell.result(dataclasses.replace(BASE, **now), 'test/mae') is not None
    # A result from before there was a field is of its default.
    del result['config']['margin'], result['config']['task']['eval_side']
    (cell.folder / 'result.json').write_text(json.dumps(result))
    assert cell.result(BASE, 'test/mae') is not None


def test_finished_cells_are_not_run_again(tmp_path, monkeypatch, capsys):
    cells = make_cells(['baseline', 'multitask'], ['0', '1'], tmp_path)
    made_cell(tmp_path, 'multitask', 0, np.ones(8))
    made_cell(tmp_path, 'baseline', 1, np.ones(8), steps=9)
    started = []

    def run(command, **options):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, 'run', run)
    argv = ['evidence.py', '--config', 'exp.py:A', '--config.steps', '10', '--arms=baseline',
            '--noconfig.evaluate_test', '-config.margin=2', '--workdir=w',
            '--config.model.remat']  # fmt: skip
    monkeypatch.setattr(sys, 'argv', argv)
    evidence.run_cells(cells, BASE, 'test/mae')
    shared = ['--config.steps', '10', '--noconfig.evaluate_test', '-config.margin=2',
              '--config.model.remat']  # fmt: skip
    left = [cells[0], cells[2], cells[3]]
    assert started == [cell.command('exp.py:A', shared) for cell in left]
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(' (ETA')[0] for line in told] == [
        '== cell 1/4: baseline, seed 0',
        '== cell 3/4: baseline, seed 1',
        '== cell 4/4: multitask, seed 1',
    ]


def test_validation_runs_leave_the_test_split_alone(tmp_path, monkeypatch, split):
    split('val')
    started = []
    monkeypatch.setattr(
        subprocess, 'run', lambda c, **o: started.append(c) or subprocess.CompletedProcess(c, 0)
    )
    monkeypatch.setattr(sys, 'argv', ['evidence.py', '--config=exp.py'])
    evidence.run_cells(make_cells(['baseline'], ['0'], tmp_path), BASE, 'best/val/mae')
    assert '--config.evaluate_test=false' in started[0]


def test_a_cell_that_fails_ends_the_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(
        subprocess, 'run', lambda command, **options: subprocess.CompletedProcess(command, 2)
    )
    monkeypatch.setattr(sys, 'argv', ['evidence.py', '--config=exp.py'])
    cells = make_cells(['baseline', 'multitask'], ['5'], tmp_path)
    with pytest.raises(UserError, match='cell baseline, seed 5 ended with exit code 2: mend what'):
        evidence.run_cells(cells, BASE, 'test/mae')


def test_the_difference_of_arms_in_closed_form(tmp_path):
    """Each error of the second arm is 2 smaller, so each resample's mean difference is -2."""
    one = [made_cell(tmp_path, 'baseline', s, 5 + np.arange(8.0)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, 3 + np.arange(8.0)) for s in (0, 1)]
    text = compare(TASK, one, other)
    assert text == (
        'multitask - baseline: test/mae -2.00 (by seed -2.00, -2.00); 95 % over 2 seeds and 8 test '
        'images [-2.00, -2.00]: decided'
    )


def test_the_interval_holds_the_mean_of_the_seeds(tmp_path):
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 4, (2, 3, 8))
    one = [made_cell(tmp_path, 'baseline', s, errors[0, s]) for s in range(3)]
    other = [made_cell(tmp_path, 'multitask', s, errors[1, s]) for s in range(3)]
    text = compare(TASK, one, other)
    differences = np.abs(errors[1]) - np.abs(errors[0])
    low, high = told_interval(text)
    assert f'test/mae {differences.mean():+.2f} (by seed ' in text
    assert low < differences.mean() < high
    # Seeds and images are drawn, each with replacement, and the images are the same for all seeds.
    rng = np.random.default_rng(1)
    draws = [(rng.integers(3, size=3), rng.integers(8, size=8)) for _ in range(20_000)]
    means = [differences[np.ix_(seeds, places)].mean() for seeds, places in draws]
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), atol=0.15)
    assert ('not decidable at this scale' in text) == (low <= 0 <= high)
    assert compare(TASK, one, other) == text


def pairs_of(*differences: float) -> list:
    """For each seed, an arm that errs by 9 and one whose errors differ by so much."""
    ids = np.arange(len(TRUE))
    arms = [(TRUE + 9, TRUE + 9 + difference) for difference in differences]
    return [tuple(Values(TRUE, predicted, ids, ids) for predicted in pair) for pair in arms]


def test_seeds_that_disagree_decide_nothing():
    """Of two seeds both, one or none are drawn twice: -1, 1 and 3 in 1/4, 1/2 and 1/4 of draws."""
    assert interval(TASK, pairs_of(3.0, -1.0)) == (-1.0, 3.0)
    low, high = interval(TASK, pairs_of(-1.0, -2.0, -3.0))
    assert -3 <= low < -2.6 and -1.4 < high <= -1


def test_one_seed_or_a_number_that_is_not_finite_decides_nothing():
    for pairs in (pairs_of(-1.0), pairs_of(-1.0, math.nan), pairs_of(math.inf, -1.0), []):
        assert all(math.isnan(bound) for bound in interval(TASK, pairs))


def test_identical_arms_differ_by_nothing(tmp_path):
    one = [made_cell(tmp_path, 'baseline', s, np.arange(8.0)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, np.arange(8.0)) for s in (0, 1)]
    assert compare(TASK, one, other) == (
        'multitask - baseline: test/mae +0.00 (by seed +0.00, +0.00); 95 % over 2 seeds and 8 test '
        'images [+0.00, +0.00]: not decidable at this scale'
    )


def test_one_seed_alone_is_not_decidable(tmp_path):
    one = [made_cell(tmp_path, 'baseline', 0, np.full(8, 9.0))]
    other = [made_cell(tmp_path, 'multitask', 0, np.ones(8))]
    text = compare(TASK, one, other)
    assert 'test/mae -8.00 (by seed -8.00)' in text
    assert text.endswith(' 8 test images [+nan, +nan]: not decidable at this scale')


def test_on_validation_the_seeds_alone_are_compared(tmp_path, split):
    split('val')
    one = [made_cell(tmp_path, 'a', s, np.ones(8), **{'best/val/mae': 5.0 + s}) for s in (0, 1)]
    other = [made_cell(tmp_path, 'b', s, np.ones(8), **{'best/val/mae': 4.0}) for s in (0, 1)]
    assert compare(TASK, one, other) == 'b - a: best/val/mae -1.50 (by seed -1.00, -2.00)'


def test_the_table(tmp_path):
    cells = [
        made_cell(tmp_path, 'baseline', 0, np.full(8, 3.0), **{'best/val/mae': 6.0}),
        made_cell(tmp_path, 'multitask', 0, np.full(8, 1.0)),
        made_cell(tmp_path, 'baseline', 1, np.full(8, 5.0), **{'best/val/mae': 8.0}),
        made_cell(tmp_path, 'multitask', 1, np.full(8, 2.0), best_step=8),
    ]
    assert make_table(TASK, cells).splitlines() == [
        '| arm | seed | test mae | test mse | val mae | best step |',
        '| --- | --- | --- | --- | --- | --- |',
        '| baseline | 0 | 3.00 | 3.00 | 6.00 | 4 |',
        '| baseline | 1 | 5.00 | 5.00 | 8.00 | 4 |',
        '| **baseline** | 2 seeds | 4.00 ± 1.41 | 4.00 ± 1.41 | 7.00 ± 1.41 |  |',
        '| multitask | 0 | 1.00 | 1.00 | 7.00 | 4 |',
        '| multitask | 1 | 2.00 | 2.00 | 7.00 | 8 |',
        '| **multitask** | 2 seeds | 1.50 ± 0.71 | 1.50 ± 0.71 | 7.00 ± 0.00 |  |',
        '',
        'multitask - baseline: test/mae -2.50 (by seed -2.00, -3.00); 95 % over 2 seeds and 8 test '
        'images [-3.00, -2.00]: decided',
    ]


def test_a_table_of_one_arm_and_one_seed(tmp_path):
    lines = make_table(TASK, [made_cell(tmp_path, 'baseline', 0, np.ones(8))]).splitlines()
    assert lines[-1] == '| **baseline** | 1 seeds | 1.00 ± nan | 1.00 ± nan | 7.00 ± nan |  |'


def test_the_program_from_finished_cells(tmp_path, monkeypatch, capsys):
    for arm, error in (('baseline', 3.0), ('multitask', 1.0)):
        made_cell(tmp_path, arm, 0, np.full(8, error))
    for flag, value in (('arms', ['baseline', 'multitask']), ('seeds', ['0'])):
        monkeypatch.setattr(flags.FLAGS[flag], 'value', value)
    monkeypatch.setattr(sys, 'argv', ['evidence.py', '--config=exp.py'])
    evidence.main(BASE, tmp_path)
    table = (tmp_path / 'table.md').read_text()
    for arm, line in zip(('baseline', 'multitask'), table.split('\n\n'), strict=False):
        assert line.startswith(f'{arm}: synthetic_crowd; ')
        for words in ('4 labeled', '8 for test', '224 px', '10 steps', '1 x cpu'):
            assert words in line
    assert 'multitask - baseline: test/mae -2.00' in table
    assert capsys.readouterr().out == f'{table}\ntable, figure and runs in {tmp_path}\n'
    assert (tmp_path / 'paired.png').stat().st_size > 2000


def test_the_settings_of_each_arm_are_those_of_its_results(tmp_path):
    cells = [
        made_cell(tmp_path, arm, s, np.ones(8)) for s in (0, 1) for arm in ('wide', 'baseline')
    ]
    for cell, result in cells:
        result['config'] |= {'steps': 77, 'rank_weight': 0.5}
        result['config']['optim'] |= {'name': 'adam', 'rate': 3e-4}
        result['config']['data'] |= {'dataset': 'shanghaitech', 'part': 'part_B'}
        result['config']['model'] |= {'weights': 'none', 'width': 0.25}
        result['labeled_images'] = 30 if cell.arm == 'wide' else 31
        result['partial_data'] = cell.arm == 'wide'
    shared = '2 unlabeled images, 3 for validation, 8 for test; vgg16 of width 0.25 from scratch, '
    scale = '224 px; 77 steps of adam at 0.0003, reduction paper'
    frozen = f'{BASE.model.frozen_blocks} blocks frozen, '
    wide, baseline = settings(cells)
    assert wide == (
        f'wide: shanghaitech part_B (an incomplete copy); 30 labeled and {shared}{frozen}{scale}, '
        'margin 2, rank weight 0.5; 1 x cpu'
    )
    assert baseline == (
        f'baseline: shanghaitech part_B; 31 labeled and {shared}{frozen}{scale}; 1 x cpu'
    )


def test_a_run_that_ends_without_its_result_is_told(tmp_path, monkeypatch):
    for flag, value in (('arms', ['baseline']), ('seeds', ['0'])):
        monkeypatch.setattr(flags.FLAGS[flag], 'value', value)
    monkeypatch.setattr(sys, 'argv', ['evidence.py', '--config=exp.py'])
    monkeypatch.setattr(subprocess, 'run', lambda c, **o: subprocess.CompletedProcess(c, 0))
    folder = tmp_path / 'baseline' / 'seed_0'
    with pytest.raises(UserError, match=f'{folder} holds no finished run: start the same command'):
        evidence.main(BASE, tmp_path)


@pytest.mark.slow
def test_the_grid_as_a_command(tmp_path):
    command = [
        *(sys.executable, '-m', 'rank_ssl.evidence', '--config=experiments/quickstart.py:smoke'),
        *('--arms=baseline,far:margin=5', '--seeds=0', f'--workdir={tmp_path}'),
    ]
    for cells in (2, 0):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count('== cell ') == cells
        assert 'far - baseline: test/mae ' in done.stdout
    config = json.loads((tmp_path / 'far' / 'seed_0' / 'config.json').read_text())
    assert (config['regime'], config['margin']) == ('multitask', 5)


def made_quality(workdir: Path, arm: str, seed: int, srocc: float) -> tuple[Cell, dict]:
    """A finished cell of image quality whose types score `srocc` and a tenth less."""
    cell, result = made_cell(workdir, arm, seed, np.arange(8.0))
    found = {'test/lcc': srocc, 'test/srocc': srocc}
    for name, kind, less in itertools.product(('lcc', 'srocc'), ('jpeg', 'white_noise'), (0.1,)):
        found[f'test/{name}/{kind}'] = srocc - less * (kind == 'jpeg')
    config = {**result['config'], 'data': {**result['config']['data'], 'dataset': 'tid2013_kodak'}}
    return cell, {**result, **found, 'config': config}


def test_quality_has_the_tables_of_the_paper(tmp_path):
    results = [made_quality(tmp_path, 'baseline', seed, 0.5 + seed / 5) for seed in (0, 1)]
    one, *by_kind = evidence.quality(results)
    assert '0.600' in one and '0.141' in one and '.612' in one
    assert all('0.500' in table and '0.600' in table for table in by_kind) and len(by_kind) == 2
    assert 're-made' in one
    columns = make_table(TASK, results).splitlines()[0]
    assert 'test srocc' in columns and 'jpeg' not in columns


def test_counting_has_no_tables_of_quality(tmp_path):
    assert evidence.quality([made_cell(tmp_path, 'baseline', 0, np.ones(8))]) == []


def test_images_of_one_reference_are_drawn_together():
    groups = np.array(['a', 'a', 'b', 'b', 'b', 'c'])
    values = Values(np.arange(6.0), np.arange(6.0), np.arange(6), groups)
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = groups[evidence._places(rng, values)]
        counts = {group: int((drawn == group).sum()) for group in 'abc'}
        assert counts['a'] % 2 == counts['b'] % 3 == 0
        assert counts['a'] // 2 + counts['b'] // 3 + counts['c'] == 3


def test_a_field_of_an_arm_may_name_the_grids_folder_and_the_seed(tmp_path):
    arms = ['ranking', 'tuned:init_from={workdir}/ranking/seed_{seed}']
    cells = make_cells(arms, ['3'], tmp_path)
    assert cells[1].fields == (f'--config.init_from={cells[0].folder}',)


def test_arms_with_other_test_images_are_not_paired(tmp_path):
    one = [made_cell(tmp_path, 'baseline', s, np.ones(8)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, np.ones(8)) for s in (0, 1)]
    path = other[1][0].folder / 'predictions.csv'
    path.write_text(path.read_text().replace('image7', 'image9'))
    assert compare(TASK, one, other).endswith('not paired: their test images are not the same')


@pytest.mark.parametrize('field', ['model.weights=/other.npz', 'init_from=/another/run'])
def test_a_cell_that_started_from_something_else_is_another_cell(tmp_path, field):
    cell, _ = made_cell(tmp_path, 'baseline', 0, np.ones(8))
    other = dataclasses.replace(cell, fields=(*cell.fields, f'--config.{field}'))
    with pytest.raises(UserError, match='holds another run'):
        other.result(BASE, 'test/mae')


def test_the_folder_of_a_first_stage_makes_no_other_cell(tmp_path):
    cell, whole = made_cell(tmp_path, 'finetune', 0, np.ones(8))
    whole['config']['init_from'] = str(cell.folder / 'ranking')
    (cell.folder / 'result.json').write_text(json.dumps(whole))
    assert cell.result(BASE, 'test/mae') is not None
