"""Algorithm 1 as a command: what it leaves, that a kill changes nothing, what it refuses."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rank_ssl.active import acquired, cycles
from rank_ssl.errors import UserError
from tests.ended_runs import config_of, played, result_of

ROOT = Path(__file__).resolve().parents[2]
QUICK = 'active_quickstart.py:smoke'
QUALITY = 'active_iqa_tid2013_kodak.py:smoke'
SLOW = pytest.mark.slow


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


@pytest.fixture
def play(in_process, smoke_run):
    """play(workdir, **fields): the smoke form in this process; its result.json."""
    whole = smoke_run(QUICK).workdir  # its data are prepared there

    def run(workdir: Path, **fields) -> dict:
        return played(config_of(QUICK, data__data_dir=str(whole / 'data'), **fields), workdir)

    return run


def test_what_a_run_leaves(smoke_run):
    run = smoke_run(QUICK)
    assert run.done.returncode == 0, run.done.stderr
    assert_left(run.workdir, 'test/mae')
    assert (run.workdir / 'figures' / 'certainty.png').stat().st_size > 5000


def test_what_a_run_of_quality_leaves(in_process, tmp_path):
    workdir = tmp_path / 'run'
    played(config_of(QUALITY), workdir)
    assert_left(workdir, 'test/srocc')
    assert (workdir / 'figures' / 'certainty.png').exists()
    assert_trained_on_its_units(workdir)


def assert_left(workdir: Path, metric: str) -> None:
    result = result_of(workdir)
    curve = result['curve']
    assert [point['cycle'] for point in curve] == list(range(len(curve)))
    log = table(workdir / 'acquired.csv')
    labeled: set[str] = set()
    for cycle, point in enumerate(curve):
        folder = workdir / f'cycle_{cycle}'
        part = result_of(folder)
        assert part['params_sha256'] == point['params_sha256']
        assert part['labeled_images'] == point['labeled_images']
        assert part['config']['first_step'] == cycle * result['steps']
        if cycle + 1 == len(curve):
            assert not (folder / 'acquisition.csv').exists() and point['certainty'] is None
            break
        rows = table(folder / 'acquisition.csv')
        known = {row['unit'] for row in rows if row['where'] == 'labeled'}
        assert len(known) == point['labeled_units'] and len(rows) == point['units']
        assert labeled <= known
        taken = sorted((row for row in rows if int(row['chosen'])), key=lambda r: int(r['chosen']))
        assert [row['unit'] for row in taken] == [
            row['unit'] for row in log if row['cycle'] == str(cycle)
        ]
        pool = [row for row in rows if row['where'] == 'pool']
        # The least certain ones: nobody left has a smaller value.
        left = [float(row['value']) for row in pool if not int(row['chosen'])]
        values = [float(row['value']) for row in taken]
        assert values == sorted(values) and all(values[-1] <= value for value in left)
        assert all(0 <= float(row['certainty']) <= 1 for row in rows)
        certainty = np.array([float(row['certainty']) for row in pool])
        assert point['certainty']['pool']['mean'] == pytest.approx(certainty.mean())
        assert point['certainty']['pool']['ones'] == pytest.approx((certainty == 1).mean())
        labeled = known | {row['unit'] for row in taken}
    assert result[metric] is not None


def assert_trained_on_its_units(workdir: Path) -> None:
    """A cycle is trained on all records of each of its units, of quality five."""
    test = table(workdir / 'cycle_0' / 'predictions.csv')
    # An id is REFERENCE_TYPE_LEVEL, a unit REFERENCE/KIND.
    kinds = {row['id'].split('_')[1]: row['kind'] for row in test}
    rows = table(workdir / 'cycle_0' / 'acquisition.csv')
    known = {row['unit'] for row in rows if row['where'] == 'labeled'}
    chosen = {row['unit'] for row in rows if int(row['chosen'])}
    for cycle, units in enumerate((known, known | chosen)):
        folder = workdir / f'cycle_{cycle}'
        meta = json.loads(next((folder / 'best').glob('*/meta.json')).read_text())
        labeled = set(meta['labeled_ids'])
        parts = [name.split('_') for name in labeled]
        assert {f'{reference}/{kinds[number]}' for reference, number, _ in parts} == units
        assert len(labeled) == 5 * len(units) == result_of(folder)['labeled_images']
        assert meta['seen_ids'] == sorted(labeled)
        assert not labeled & {row['id'] for row in test}


def command(workdir: Path, *more: str) -> list[str]:
    config = f'--config=experiments/{QUICK}'
    return [sys.executable, '-m', 'rank_ssl.main', config, f'--workdir={workdir}', *more]


def kill_at(workdir: Path, sign: str) -> str:
    """Starts the command and kills it as soon as it says so, or a path in the workdir is there."""
    log = workdir.with_suffix('.stderr')
    with open(log, 'w') as file, subprocess.Popen(command(workdir), cwd=ROOT, stderr=file,
                          stdout=subprocess.DEVNULL, env={**os.environ, 'JAX_PLATFORMS': 'cpu'}
                          ) as process:  # fmt: skip
        end = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < end:
            if sign in log.read_text() or ('/' in sign and (workdir / sign).exists()):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        assert process.wait() == -signal.SIGKILL, log.read_text()
    return log.read_text()


@SLOW
@pytest.mark.fault(
    row=1,
    injected='kill -9 of a run of active learning',
    outcome='the same log and bits',
)
def test_kills_change_neither_the_log_nor_a_bit_of_the_parameters(smoke_run, tmp_path):
    whole = smoke_run(QUICK).workdir
    workdir = tmp_path / 'killed'
    kill_at(workdir, 'cycle_0/checkpoints/4')  # in the middle of the first training
    said = kill_at(workdir, 'cycle 0: asking')
    assert 'resumed from step ' in said
    said = kill_at(workdir, 'cycle_1/checkpoints/2')
    assert 'asking' in said
    done = subprocess.run(command(workdir), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'cycle 0 is finished' in done.stderr and 'resumed from step ' in done.stderr
    for name in ('acquired.csv', 'cycle_0/acquisition.csv', 'cycle_1/acquisition.csv'):
        assert (workdir / name).read_bytes() == (whole / name).read_bytes(), name
    assert result_of(workdir)['curve'] == result_of(whole)['curve']
    shas = [point['params_sha256'] for point in result_of(whole)['curve']]
    assert len(set(shas)) == len(shas)


@SLOW
def test_a_finished_run_says_so_and_more_cycles_go_on(play, smoke_run, tmp_path, capsys):
    whole = smoke_run(QUICK).workdir
    workdir = Path(shutil.copytree(whole, tmp_path / 'begun'))
    before = result_of(workdir)
    again = play(workdir)
    assert again['curve'] == before['curve']
    assert 'cycle 2 is finished' in capsys.readouterr().err
    fewer = play(tmp_path / 'fewer', active__cycles=1)
    assert len(fewer['curve']) == 2
    more = play(tmp_path / 'fewer', active__cycles=2)
    assert more['curve'] == before['curve']


def test_fewer_cycles_are_a_part_of_a_finished_run(play, smoke_run, tmp_path):
    workdir = Path(shutil.copytree(smoke_run(QUICK).workdir, tmp_path / 'begun'))
    whole = result_of(workdir)['curve']
    fewer = play(workdir, active__cycles=1)['curve']
    assert len(fewer) == 2 and [p['params_sha256'] for p in fewer] == [
        point['params_sha256'] for point in whole[:2]
    ]
    assert play(workdir)['curve'] == whole


def test_a_cycle_that_is_asked_again_answers_the_same(play, smoke_run, tmp_path):
    """Its checkpoints are gone, and so are those of the cycle that it starts from."""
    workdir = Path(shutil.copytree(smoke_run(QUICK).workdir, tmp_path / 'begun'))
    path = workdir / 'cycle_1' / 'acquisition.csv'
    before, whole = path.read_bytes(), result_of(workdir)['curve']
    path.unlink()
    assert [p['params_sha256'] for p in play(workdir)['curve']] == [
        point['params_sha256'] for point in whole
    ]
    assert path.read_bytes() == before


@pytest.mark.parametrize('rule', [
    'dropout', 'kcenter', pytest.param('random', marks=SLOW), pytest.param('graded', marks=SLOW),
])  # fmt: skip
def test_rules_of_one_seed_start_from_the_same_labels_and_parameters(
    play, smoke_run, tmp_path, rule
):
    whole = result_of(smoke_run(QUICK).workdir)['curve']
    curve = play(tmp_path / rule, active__rule=rule, active__cycles=1)['curve']
    assert curve[0]['params_sha256'] == whole[0]['params_sha256']
    assert curve[0]['labeled_units'] == whole[0]['labeled_units']
    assert (curve[0]['certainty'] is None) == (rule != 'graded')
    rows = table(tmp_path / rule / 'cycle_0' / 'acquisition.csv')
    first = table(smoke_run(QUICK).workdir / 'cycle_0' / 'acquisition.csv')
    assert [row['where'] for row in rows] == [row['where'] for row in first]


@SLOW
def test_a_restart_begins_each_training_anew(play, tmp_path):
    again = play(tmp_path / 'again', active__restart=True, active__cycles=1)
    assert json.loads((tmp_path / 'again/cycle_1/config.json').read_text())['init_from'] == ''
    on = play(tmp_path / 'on', active__cycles=1)
    assert json.loads((tmp_path / 'on/cycle_1/config.json').read_text())['init_from'] == str(
        tmp_path / 'on' / 'cycle_0'
    )
    assert again['curve'][0]['params_sha256'] == on['curve'][0]['params_sha256']
    assert again['curve'][1]['params_sha256'] != on['curve'][1]['params_sha256']
    assert again['curve'][1]['labeled_units'] == on['curve'][1]['labeled_units']


@SLOW
def test_it_ends_where_all_are_labeled(play, tmp_path):
    fields = {'active__start': 0.5, 'active__share': 0.5, 'active__cycles': 5, 'steps': 2}
    result = play(tmp_path / 'all', active__rule='random', **fields)
    assert [point['share'] for point in result['curve']] == [0.5, 1.0]
    # Of a training on all labels the last point has the size.
    assert result['curve'][-1]['labeled_images'] == result['curve'][-1]['units']


def damaged(workdir: Path, name: str, change) -> None:
    path = workdir / name
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    'fields, change, message',
    [
        (
            {'active__rule': 'random'},
            None,
            'cycles of another config, config.active.rule from certainty to random: use its',
        ),
        ({'steps': 9}, None, 'cycles of another config, config.steps from 8 to 9: use its config'),
        ({'seed': 1}, None, 'config.seed from 0 to 1'),
        ({'optim__rate': 0.5}, None, 'config.optim.rate from '),
        ({'eval_every': 1}, None, 'config.eval_every from 4 to 1'),
        ({'evaluate_test': False}, None, 'config.evaluate_test from True to False'),
        ({}, lambda text: text.replace('labeled', 'pool', 1), 'is of other units or of other lab'),
        ({}, lambda text: text.replace('chosen', 'choosen', 1), 'acquisition.csv is damaged ('),
        ({}, lambda text: text.splitlines()[0], 'is of other units or of other labels: delete it'),
    ],
)
def test_a_workdir_of_another_run_is_refused(play, smoke_run, tmp_path, fields, change, message):
    workdir = Path(shutil.copytree(smoke_run(QUICK).workdir, tmp_path / 'begun'))
    if change:
        damaged(workdir, 'cycle_0/acquisition.csv', change)
    with pytest.raises(UserError) as caught:
        play(workdir, **fields)
    assert message in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('kind, name', [
    ('labels', 'data_fingerprint'), ('unlabeled images', 'unlabeled_fingerprint'),
])  # fmt: skip
def test_a_cycle_on_other_data_is_refused(tmp_path, kind, name):
    config = config_of(QUICK)
    now = {'data_fingerprint': 'f', 'unlabeled_fingerprint': 'u'}
    splits = SimpleNamespace(fingerprint='f', unlabeled_fingerprint='u')
    found = {'steps': config.steps, 'test/mae': 1.0, 'config': config.to_dict(), **now}
    path = tmp_path / 'result.json'
    for written in (found, {n: v for n, v in found.items() if n != 'unlabeled_fingerprint'}):
        path.write_text(json.dumps(written))
        assert cycles._finished(config, tmp_path, splits) == written
    path.write_text(json.dumps({**found, name: 'x'}))
    with pytest.raises(UserError, match=f'was trained on other {kind}: restore them, or use anoth'):
        cycles._finished(config, tmp_path, splits)


@pytest.mark.parametrize('restart', [False, True])
def test_weights_are_fixed_where_each_cycle_starts_from_them(tmp_path, restart):
    config = config_of(QUICK, active__restart=restart)
    cycles._check_workdir(config, tmp_path)
    config.model.weights = 'moved.npz'
    if restart:
        with pytest.raises(UserError, match='config.model.weights from none to moved.npz'):
            cycles._check_workdir(config, tmp_path)
    else:
        cycles._check_workdir(config, tmp_path)


@pytest.mark.parametrize('name', sorted(cycles.FIXED - {'mode'}))
def test_what_a_plain_run_may_change_is_fixed_in_cycles(tmp_path, name):
    config = config_of(QUICK)
    cycles._check_workdir(config, tmp_path)
    value = config.get(name)
    other = {bool: not value, str: 'x'}.get(type(value), value if value == 'x' else 77)
    with pytest.raises(UserError, match=f'config.{name} from {value} to {other}'):
        cycles._check_workdir(config_of(QUICK, **{name.replace('.', '__'): other}), tmp_path)


@pytest.mark.fault(
    row=1,
    injected='a kill while the checkpoints of a cycle that is done are deleted',
    outcome='the next start deletes what is left of them',
)
def test_only_the_last_cycle_keeps_its_checkpoints(tmp_path):
    folders = [tmp_path / f'cycle_{n}' / 'checkpoints' for n in range(3)]
    for folder in folders:
        (folder / '4').mkdir(parents=True)
        (folder / '.2.partial').mkdir()
    for cycle in range(3):
        cycles._forget(tmp_path, cycle)
    assert [sorted(p.name for p in folder.iterdir()) for folder in folders] == [
        [], [], ['.2.partial', '4'],
    ]  # fmt: skip


def test_labels_that_were_changed_are_found(play, smoke_run, tmp_path):
    """Another unit in place of one that was chosen: cycle 1 was not trained on it."""
    workdir = Path(shutil.copytree(smoke_run(QUICK).workdir, tmp_path / 'begun'))
    path = workdir / 'cycle_0' / 'acquisition.csv'
    rows = table(path)
    one = next(row for row in rows if int(row['chosen']))
    other = next(row for row in rows if row['where'] == 'pool' and not int(row['chosen']))
    one['chosen'], other['chosen'] = other['chosen'], one['chosen']
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(UserError, match='of other units or of other labels|on other labels'):
        play(workdir)


def test_an_acquisition_reads_back_as_it_was():
    made = acquired.Acquired(
        names=['a', 'b', 'c', 'd'],
        pool=np.array([True, False, True, True]),
        certainty=np.array([1 / 3, 1.0, np.nan, 0.1 + 0.2]),
        values=np.array([1 / 3, np.nan, 0.0, -1e-9]),
        taken=np.array([3, 0]),
    )
    back = acquired.Acquired.of_rows([{k: str(v) for k, v in row.items()} for row in made.rows()])
    assert back.names == made.names and back.taken.tolist() == [3, 0]
    for name in ('pool', 'certainty', 'values'):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))


@pytest.mark.parametrize('share, units, count', [(0.1, 270, 27), (0.1, 5, 1), (1.0, 5, 5)])
def test_units_of_a_share(share, units, count):
    assert cycles.added(units, share) == count
