"""A grid's cells: which there are, what is run again, and in what order."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from absl import flags

from rank_ssl import grid, jobs
from rank_ssl.changes import differences
from rank_ssl.config import Config, Data, Model, Optim
from rank_ssl.errors import UserError
from rank_ssl.grid import Cell, check_data, make_cells, run_cells
from rank_ssl.tasks.crowd import Crowd
from tests.made_runs import BASE, TRUE, finish, made_cell


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    """Flags at their defaults, and a command line."""
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(sys, 'argv', ['evidence.py', '--config=exp.py'])


@pytest.fixture
def started(monkeypatch):
    """The jobs that `run_cells` asks for; none is run."""
    found = []
    monkeypatch.setattr(jobs.Crew, 'run', lambda crew, asked: found.extend(asked))
    return found


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
    assert found(steps=11) is None
    assert found('test/lcc') is None
    assert math.isnan(found('test/srocc')['test/srocc'])
    short = Cell('short', 0, cell.folder, (*cell.fields, '--config.steps=10'))
    assert found(of=short, steps=99) is not None
    assert found(of=Cell('none', 0, tmp_path / 'none', ())) is None


@pytest.mark.parametrize('lost', [['config'], ['steps'], ['device', 'config']])
def test_a_result_that_lacks_what_tables_read_is_told(tmp_path, lost):
    cell, result = made_cell(tmp_path, 'baseline', 0, np.ones(8))
    path = cell.folder / 'result.json'
    path.write_text(json.dumps({n: v for n, v in result.items() if n not in lost}))
    with pytest.raises(UserError) as caught:
        cell.result(BASE, 'test/mae')
    assert str(caught.value) == (
        f'{path} is damaged, it lacks {", ".join(lost)}: delete it, and the same command makes it '
        'again'
    )


def test_a_run_of_more_steps_than_asked_for_is_refused(tmp_path):
    cell, _ = made_cell(tmp_path, 'baseline', 0, np.ones(8))
    with pytest.raises(UserError) as caught:
        cell.result(dataclasses.replace(BASE, steps=4), 'test/mae')
    assert str(caught.value) == (
        f'{cell.folder} holds a run of 10 steps, more than the 4 asked for: use another --workdir '
        'or ask for 10'
    )
    ridge, _ = made_cell(tmp_path, 'ridge', 0, np.ones(8))
    assert ridge.result(dataclasses.replace(BASE, steps=4), 'test/mae') is not None


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
    ({'margin': 3.0, 'seed': 9, 'reduction': 'mean'}, 'config.margin 0.0, now 3.0; '),
])  # fmt: skip
def test_a_finished_cell_of_another_config_is_refused(tmp_path, now, words):
    cell, _ = made_cell(tmp_path, 'baseline', 0, np.ones(8))
    with pytest.raises(UserError) as caught:
        cell.result(dataclasses.replace(BASE, **now), 'test/mae')
    assert str(caught.value).startswith(f'{cell.folder} holds another run ({words}')
    assert str(caught.value).endswith('): use another --workdir')


@pytest.mark.parametrize('arm, refused', [('multitask', True), ('baseline', False)])
def test_the_weight_of_ranking_matters_where_there_are_two_losses(tmp_path, arm, refused):
    cell, _ = made_cell(tmp_path, arm, 0, np.ones(8))
    now = dataclasses.replace(BASE, rank_weight=2.0)
    if refused:
        with pytest.raises(UserError, match='config.rank_weight 1.0, now 2.0'):
            cell.result(now, 'test/mae')
    else:
        assert cell.result(now, 'test/mae') is not None


def test_how_a_cell_was_run_may_differ(tmp_path):
    cell, result = made_cell(tmp_path, 'baseline', 0, np.ones(8))
    now = {'log_every': 3, 'keep': 1, 'evaluate_test': False, 'data': Data(threads=7)}
    assert cell.result(dataclasses.replace(BASE, **now), 'test/mae') is not None
    # A result from before there was a field is of its default.
    del result['config']['margin'], result['config']['task']['eval_side']
    (cell.folder / 'result.json').write_text(json.dumps(result))
    assert cell.result(BASE, 'test/mae') is not None
    with pytest.raises(UserError, match='config.margin 0.0, now 3.0'):
        cell.result(dataclasses.replace(BASE, margin=3.0), 'test/mae')


def test_a_field_of_an_arm_may_name_the_grids_folder_and_the_seed(tmp_path):
    arms = ['ranking', 'tuned:init_from={workdir}/ranking/seed_{seed}']
    cells = make_cells(arms, ['3'], tmp_path)
    assert cells[1].fields == (f'--config.init_from={cells[0].folder}',)


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


def test_finished_cells_are_not_run_again(tmp_path, monkeypatch, started):
    cells = make_cells(['baseline', 'multitask'], ['0', '1'], tmp_path)
    made_cell(tmp_path, 'multitask', 0, np.ones(8))
    made_cell(tmp_path, 'baseline', 1, np.ones(8), steps=9)
    argv = ['evidence.py', '--config', 'exp.py:A', '--config.steps', '10', '--arms=baseline',
            '--noconfig.evaluate_test', '-config.margin=2', '--workdir=w',
            '--config.model.remat']  # fmt: skip
    monkeypatch.setattr(sys, 'argv', argv)
    run_cells(cells, BASE, 'test/mae')
    shared = ['--config.steps', '10', '--noconfig.evaluate_test', '-config.margin=2',
              '--config.model.remat']  # fmt: skip
    left = [cells[0], cells[2], cells[3]]
    assert [list(job.command) for job in started] == [c.command('exp.py:A', shared) for c in left]
    assert [(job.number, job.name) for job in started] == [
        (1, 'baseline, seed 0'), (3, 'baseline, seed 1'), (4, 'multitask, seed 1'),
    ]  # fmt: skip
    assert [job.log for job in started] == [cell.folder / 'log.txt' for cell in left]


def on_data(workdir, arm, fingerprint, *, seed='0', fold='1'):
    """A finished cell that was run on the data of that fingerprint."""
    (cell,) = make_cells([arm], [seed], workdir, [fold])
    return cell, finish(cell, BASE, TRUE, data_fingerprint=fingerprint)


@pytest.mark.parametrize('arm', ['multitask', 'wide:margin=5', 'more:data.groups=9'])
def test_finished_cells_of_other_data_are_refused_before_any_runs(tmp_path, started, arm):
    one, other = on_data(tmp_path, 'baseline', 'aaaa')[0], on_data(tmp_path, arm, 'bbbb')[0]
    left = make_cells(['ranking'], ['0'], tmp_path, ['1'])
    with pytest.raises(UserError) as caught:
        run_cells([*left, one, other], BASE, 'test/mae')
    assert str(caught.value) == (
        f'{one.folder} and {other.folder} were run on other data (data_fingerprint aaaa and bbbb): '
        'move the one whose data are not wanted away, and the same command runs it again'
    )
    assert started == []


def test_cells_that_ask_for_other_images_have_other_data(tmp_path):
    found = [
        on_data(tmp_path, 'baseline', 'aaaa'),
        on_data(tmp_path, 'multitask', 'aaaa'),
        on_data(tmp_path, 'baseline', 'bbbb', seed='1'),
        on_data(tmp_path, 'baseline', 'cccc', fold='2'),
        on_data(tmp_path, 'few:data.labels=3', 'dddd'),
        on_data(tmp_path, 'here:data.manual_dir=/here', 'eeee'),
        made_cell(tmp_path, 'baseline', 0, np.ones(8)),  # of a version that noted none
    ]
    check_data(found, BASE)
    (cell, result), *_ = found
    with pytest.raises(UserError, match='data_fingerprint aaaa and ffff'):
        check_data([*found, (cell, {**result, 'data_fingerprint': 'ffff'})], BASE)


def test_validation_runs_leave_the_test_split_alone(tmp_path, monkeypatch, started):
    monkeypatch.setattr(flags.FLAGS['compare'], 'value', 'val')
    run_cells(make_cells(['baseline'], ['0'], tmp_path), BASE, 'best/val/mae')
    assert '--config.evaluate_test=false' in started[0].command


def test_the_jobs_share_the_cores_and_are_told_by_their_number(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(grid, 'core_shares', lambda count: asked.append(count) or [[]])
    monkeypatch.setattr(
        grid, 'Crew', lambda shares, **named: asked.append(named) or jobs.Crew(shares, **named)
    )
    monkeypatch.setattr(jobs.Crew, 'run', lambda crew, given: None)
    run_cells(make_cells(['baseline'], ['0', '1', '2'], tmp_path), BASE, 'test/mae', jobs=3)
    assert asked == [3, {'noun': 'cell', 'total': 3}]


def test_an_arm_that_cannot_work_is_told_before_any_runs(tmp_path, started):
    one = Config(task=Crowd(), data=Data(groups=1), model=Model(weights='none'))
    cells = make_cells(['baseline', 'pairs:sampler=random'], ['0'], tmp_path)
    with pytest.raises(UserError, match='^arm pairs: config.sampler=random pairs the 1 x 5 ranked'):
        run_cells(cells, one, 'test/mae')
    assert started == []


def test_a_grid_with_folds(tmp_path):
    arms = ['ranking', 'tuned:init_from={workdir}/ranking/{run};margin={fold}']
    cells = make_cells(arms, ['0', '1'], tmp_path, ['1', '02'])
    assert [(cell.arm, cell.seed, cell.fold) for cell in cells] == [
        ('ranking', 0, 1), ('tuned', 0, 1), ('ranking', 0, 2), ('tuned', 0, 2),
        ('ranking', 1, 1), ('tuned', 1, 1), ('ranking', 1, 2), ('tuned', 1, 2),
    ]  # fmt: skip
    last = cells[-1]
    assert last.folder == tmp_path / 'tuned' / 'fold_2' / 'seed_1'
    ranking = tmp_path / 'ranking' / 'fold_2' / 'seed_1'
    assert last.fields == (f'--config.init_from={ranking}', '--config.margin=2')
    assert last.command('a.py', [])[-3:] == [
        '--config.data.fold=2', '--config.seed=1', f'--workdir={last.folder}',
    ]  # fmt: skip
    assert last.made(BASE).data.fold == 2 and BASE.data.fold == 0
    assert last.name == 'tuned, seed 1, fold 2'


@pytest.mark.parametrize('folds, message', [
    (['0'], '--folds=0 must be whole numbers, 1 or greater; use 1,2,3,4,5'),
    (['x'], '--folds=x must be whole numbers'),
    (['-1'], '--folds=-1 must be whole numbers'),
    (['1', '01'], '--arms=baseline --seeds=0 --folds=1,01: give at least one of each, and'),
])  # fmt: skip
def test_folds_that_are_none(tmp_path, folds, message):
    with pytest.raises(UserError) as caught:
        make_cells(['baseline'], ['0'], tmp_path, folds)
    assert str(caught.value).startswith(message)


def test_the_run_of_a_cell_without_folds_is_its_seed(tmp_path):
    (cell,) = make_cells(['tuned:init_from={workdir}/ranking/{run}'], ['3'], tmp_path)
    assert cell.fields == (f'--config.init_from={tmp_path}/ranking/seed_3',)


def test_a_cell_waits_for_the_one_that_it_starts_from(tmp_path, started):
    arms = ['tuned:init_from={workdir}/ranking/{run}', 'ranking',
            'deep:init_from={workdir}/tuned/{run}/ranking']  # fmt: skip
    cells = make_cells(arms, ['1', '10'], tmp_path)
    run_cells(cells, BASE, 'test/mae')
    assert [sorted(job.after) for job in started] == [[2], [], [1], [5], [], [4]]
    tuned, ranking, *_ = cells
    assert tuned.starts_from(ranking) and not tuned.starts_from(cells[4])
    itself = dataclasses.replace(ranking, fields=(f'--config.init_from={ranking.folder}/x',))
    assert not itself.starts_from(ranking)


def test_a_cell_that_starts_from_a_finished_one_waits_for_none(tmp_path, started):
    cells = make_cells(['ranking', 'tuned:init_from={workdir}/ranking/{run}'], ['1'], tmp_path)
    made_cell(tmp_path, 'ranking', 1, np.ones(8))
    run_cells(cells, BASE, 'test/mae')
    assert [(job.number, job.after) for job in started] == [(2, frozenset())]
