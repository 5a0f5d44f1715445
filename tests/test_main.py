"""Whole runs: what they leave behind, and that nothing that ends one changes its result.

Most are short runs in this process, one after another, of the smoke form of an experiment. Those
that are killed, or see other devices, are processes of their own.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from absl import flags

from rank_ssl import checkpoint, data, logs, loop, main, manifest, results
from rank_ssl.errors import UserError
from tests.ended_runs import (
    CROWD,
    STEPS,
    Process,
    assert_every_step_once,
    command,
    config_of,
    played,
    result_of,
    sha256_of,
    steps_of,
)

ROOT = Path(__file__).resolve().parent.parent
QUICK = 'quickstart.py:smoke'


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> str:
    """Where the short runs keep their prepared data: made once."""
    return str(tmp_path_factory.mktemp('prepared'))


@pytest.fixture
def play(prepared, in_process):
    """play(workdir, experiment, **fields): a run in this process; its result.json."""

    def run(workdir: Path, experiment: str = CROWD, **fields) -> dict:
        shared = {'data__data_dir': prepared, 'figure_count': 0}
        return played(config_of(experiment, **{**shared, **fields}), workdir)

    return run


@pytest.fixture
def begun(smoke_run, tmp_path) -> Path:
    """A copy of a finished smoke run of crowd counting, to go on with."""
    return Path(shutil.copytree(smoke_run(CROWD).workdir, tmp_path / 'begun'))


@pytest.fixture(scope='module')
def longer(prepared, tmp_path_factory) -> Path:
    """A run of half as many steps again, uninterrupted."""
    workdir = tmp_path_factory.mktemp('longer')
    flags.FLAGS.mark_as_parsed()
    fields = {'data__data_dir': prepared, 'figure_count': 0, 'steps': STEPS + 4}
    main.main(config_of(CROWD, **fields), workdir)
    return workdir


def best_steps(workdir: Path) -> list[int]:
    """Steps in best/: those that the kept checkpoints name."""
    metas = [(workdir / 'checkpoints').glob('*/meta.json'), (workdir / 'best').glob('*/meta.json')]
    kept, best = ([json.loads(path.read_text())['best'] for path in paths] for paths in metas)
    named = sorted({one['step'] for one in kept if one})
    assert checkpoint.saved_steps(workdir / 'best') == named
    assert all(one in kept for one in best)
    return named


def rows_with(workdir: Path, key: str) -> list[dict]:
    return [row for row in logs.read_metrics(workdir / 'metrics.jsonl') if key in row]


def rows_of_test(workdir: Path) -> list[dict]:
    rows = logs.read_metrics(workdir / 'metrics.jsonl')
    return [row for row in rows if any(name.startswith('test/') for name in row)]


def params_of(workdir: Path, step: int) -> list[np.ndarray]:
    """The final parameters as they were saved, in path order."""
    path = workdir / 'checkpoints' / str(step) / 'arrays'
    with ocp.StandardCheckpointer() as checkpointer:
        arrays = checkpointer.restore(path.absolute())
    return [np.asarray(arrays[name]) for name in sorted(arrays) if name.startswith('params/')]


# What a run leaves behind.


@pytest.mark.fault(
    row=20,
    injected='spaces and letters beyond ASCII in --workdir',
    outcome='it works',
)
@pytest.mark.parametrize(
    'experiment',
    [QUICK, CROWD, pytest.param('crowd_shtech.py:B,smoke', marks=pytest.mark.slow)],
)
def test_a_smoke_run(smoke_run, experiment):
    run = smoke_run(experiment)
    assert run.done.returncode == 0, run.done.stderr
    assert run.seconds < 40  # of CPU time: below 25 seconds on two cores
    workdir, result = run.workdir, result_of(run.workdir)
    assert result['steps'] == STEPS and re.fullmatch('[0-9a-f]{64}', result['params_sha256'])
    for name in ('test/mae', 'test/mse', 'best/val/mae', 'final/val/mae', 'images_per_second'):
        assert np.isfinite(result[name]), name
    expected = {'regime': 'multitask', 'seed': 0, 'skipped_steps': 0, 'labeled_images': 4,
                'validation_images': 2, 'unlabeled_images': 2, 'test_images': 4,
                'processes': 1}  # fmt: skip
    assert expected.items() <= result.items()
    assert result['device'].endswith('(cpu)') and result['seconds'] > 0
    assert result['versions']['jax'] == jax.__version__
    assert result['partial_data'] == experiment.startswith('crowd')
    config = config_of(experiment)
    assert json.loads((workdir / 'config.json').read_text()) == config.to_dict()
    assert run.done.stdout.endswith(f'results in {workdir}\n')
    assert f'test/mae {result["test/mae"]:.4g}\n' in run.done.stdout


def test_the_log_of_a_smoke_run(smoke_run):
    workdir = smoke_run(QUICK).workdir
    assert_every_step_once(workdir)
    rows = logs.read_metrics(workdir / 'metrics.jsonl')
    train = [row for row in rows if 'train/loss' in row]
    for row in train:
        parts = row['train/regression'] + 1.0 * row['train/ranking']
        assert row['train/loss'] == pytest.approx(parts, rel=1e-5)
        assert 0 <= row['train/rank_accuracy'] <= 1 and row['train/skipped'] == 0
        assert row['train/grad_norm'] > 0 and 0 <= row['train/data_wait'] <= 1
    maes = {row['step']: row['val/mae'] for row in rows if 'val/mae' in row}
    result = result_of(workdir)
    assert result['best/val/mae'] == min(maes.values()) == maes[result['best_step']]
    assert result['final/val/mae'] == maes[STEPS]
    tested = {name: result[name] for name in ('test/mae', 'test/mse')}
    assert rows_of_test(workdir) == [rows[-1]] == [{'step': STEPS, **tested}]
    assert [path.name for path in (workdir / 'tensorboard').iterdir()]


def test_the_files_of_a_smoke_run(smoke_run):
    workdir = smoke_run(QUICK).workdir
    result = result_of(workdir)
    kept = checkpoint.saved_steps(workdir / 'checkpoints')
    assert kept == [6, 8] and 8 // config_of(QUICK).checkpoint_every >= 4
    assert best_steps(workdir)[-1] == result['best_step']
    names = {path.name for path in (workdir / 'figures').iterdir()}
    assert {'curves.png', 'ranked_set.png', 'counts.png', 'density.png'} <= names
    for name in names:
        content = (workdir / 'figures' / name).read_bytes()
        assert content.startswith(b'\x89PNG') and len(content) > 2000
    lines = (workdir / 'predictions.csv').read_text().splitlines()
    assert lines[0] == 'id,true,predicted' and len(lines) == 1 + result['test_images']
    errors = [abs(float(t) - float(p)) for _, t, p in (line.split(',') for line in lines[1:])]
    assert np.mean(errors) == pytest.approx(result['test/mae'], rel=1e-4)


@pytest.mark.parametrize('regime, shown, absent', [
    ('baseline', 'train/regression', 'train/ranking'),
    pytest.param('ranking', 'train/ranking', 'train/regression', marks=pytest.mark.slow),
])  # fmt: skip
def test_the_other_regimes(play, tmp_path, regime, shown, absent):
    result = play(tmp_path, regime=regime, steps=2, eval_every=0)
    rows = logs.read_metrics(tmp_path / 'metrics.jsonl')
    assert [row['step'] for row in rows if shown in row] == [1, 2]
    assert not [row for row in rows if absent in row]
    assert result['regime'] == regime and np.isfinite(result['test/mae'])
    assert ('unlabeled_images', 2 if regime == 'ranking' else 0) in result.items()
    assert (tmp_path / 'figures' / 'ranked_set.png').exists() == (regime == 'ranking')


def test_the_best_checkpoint_can_be_evaluated_alone(play, begun, capsys):
    before = result_of(begun)
    for name in ('result.json', 'predictions.csv'):
        (begun / name).unlink()
    after = play(begun, mode='evaluate')
    same = ('test/mae', 'test/mse', 'params_sha256', 'steps', 'best_step', 'best/val/mae',
            'final/val/mae', 'seconds', 'images_per_second')  # fmt: skip
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert (begun / 'predictions.csv').exists()
    assert_every_step_once(begun)
    assert len(rows_of_test(begun)) == 1


def test_a_run_is_evaluated_on_other_images_and_sizes_and_trained_on_its_own(play, begun):
    before = result_of(begun)
    other = {'data__test_stride': 2, 'task__eval_side': 48}
    after = play(begun, mode='evaluate', **other)
    assert after['test_images'] == 2 and before['test_images'] == 4
    assert len((begun / 'predictions.csv').read_text().splitlines()) == 1 + 2
    assert after['test/mae'] != before['test/mae'] and len(rows_of_test(begun)) == 1
    assert rows_of_test(begun)[0]['test/mae'] == after['test/mae']
    for field, value in (('task__eval_side', 48), ('data__test_stride', 2)):
        name = field.replace('__', '.')
        with pytest.raises(UserError, match=f'holds a run of another config, config.{name} from '):
            play(begun, **{field: value}, steps=STEPS + 4)
    with pytest.raises(UserError, match='config.optim.name from sgd to adam'):
        play(begun, mode='evaluate', optim__name='adam')


def test_an_evaluation_with_other_settings_is_not_the_result_of_the_run(play, begun):
    before = result_of(begun)
    assert play(begun, mode='evaluate', data__test_stride=2)['test_images'] == 2
    after = play(begun)
    assert (after['test/mae'], after['test_images']) == (before['test/mae'], 4)


@pytest.mark.fault(
    row=5,
    injected='fewer steps than a run has taken',
    outcome='refused with both numbers; not a file is touched',
)
def test_fewer_steps_than_were_taken_are_refused(play, begun):
    assert refused(play, begun, steps=STEPS - 1) == (
        f'config.steps={STEPS - 1} is below the {STEPS} steps that --workdir={begun} has taken: '
        f'use {STEPS} or more, or another --workdir'
    )


@pytest.mark.fault(
    row=4,
    injected='the folder checkpoints of a finished run deleted',
    outcome='refused with the cure, to train and to evaluate; not a file is touched',
)
def test_a_finished_run_without_its_checkpoints_is_not_begun_again(play, begun):
    shutil.rmtree(begun / 'checkpoints')
    for fields in ({}, {'mode': 'evaluate'}, {'steps': STEPS + 4}):
        assert refused(play, begun, **fields) == (
            f'--workdir={begun} holds a finished run without a checkpoint: restore its folder '
            'checkpoints from a copy, or use another --workdir'
        )


@pytest.mark.fault(
    row=4,
    injected='the best parameters of a run that goes on damaged, then deleted',
    outcome='told before its steps; deleted, the best step is chosen again',
)
def test_damaged_best_parameters_are_told_before_the_steps_that_are_left(play, begun, capsys):
    step = result_of(begun)['best_step']
    assert step < STEPS
    path = begun / 'best' / str(step)
    (path / 'meta.json').write_text('{}')
    more = {'steps': STEPS + 1, 'eval_every': 0, 'optim__rate': 1e-30}
    with pytest.raises(UserError) as caught:
        play(begun, **more)
    assert str(caught.value) == (
        f'{path}: meta.json was changed: restore it from a copy, or delete {begun / "best"}: the '
        f'best step is then chosen again, from step {STEPS} on'
    )
    assert steps_of(begun, 'train/loss')[-1] == STEPS
    shutil.rmtree(begun / 'best')
    after = play(begun, **more)
    assert f'{path} is gone: the best step is chosen again, from step {STEPS} on' in (
        capsys.readouterr().err
    )
    # At such a rate the step after is as good, and the first of two stays the best.
    assert after['best_step'] == STEPS and after['best/val/mae'] == after['final/val/mae']
    assert checkpoint.saved_steps(begun / 'best') == [STEPS]


def test_a_run_stopped_before_its_first_validation_cannot_be_evaluated(play, begun, capsys):
    shutil.rmtree(begun / 'best')
    shutil.rmtree(begun / 'checkpoints' / '8')
    path = begun / 'checkpoints' / '6' / 'meta.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'best': {}, 'last': {}}))
    manifest.write(path.parent)
    with pytest.raises(UserError, match='was stopped before its first validation: go on with'):
        play(begun, mode='evaluate')
    assert np.isfinite(play(begun)['test/mae'])


def test_a_figure_that_fails_costs_no_result(play, tmp_path, monkeypatch, capsys):
    def fails(*arguments):
        raise RuntimeError('no figure')

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match='no figure'):
        patched.setattr(results, 'draw', fails)
        play(tmp_path, steps=1)
    first = result_of(tmp_path)
    assert np.isfinite(first['test/mae']) and len(rows_of_test(tmp_path)) == 1
    assert first['figures_failed'] == 'RuntimeError: no figure'
    # The next start draws them, and the one after has nothing to do.
    again = play(tmp_path, steps=1)
    assert 'nothing to do' not in capsys.readouterr().err
    assert again == {name: value for name, value in first.items() if name != 'figures_failed'}
    assert (tmp_path / 'figures' / 'curves.png').exists() and len(rows_of_test(tmp_path)) == 1
    assert play(tmp_path, steps=1) == again and 'nothing to do' in capsys.readouterr().err


# The parameters that are reported.


@pytest.mark.parametrize('mode', [pytest.param('train', marks=pytest.mark.slow), 'evaluate'])
def test_a_run_that_goes_on_reads_no_weights_and_keeps_its_pixels(play, begun, mode):
    path = begun / 'checkpoints' / '8' / 'meta.json'
    meta = json.loads(path.read_text())
    assert meta['pixels'] == 'torch'
    # As if it had begun from weights that expect these.
    path.write_text(json.dumps(meta | {'pixels': 'caffe'}))
    manifest.write(path.parent)
    mae = result_of(begun)['test/mae']
    after = play(begun, mode=mode, steps=STEPS + 1, model__weights='/nonexistent')
    if mode == 'train':
        assert after['steps'] == STEPS + 1
        meta = json.loads((begun / 'checkpoints' / '9' / 'meta.json').read_text())
        assert meta['pixels'] == 'caffe'
    else:
        assert after['test/mae'] != mae and after['best_step'] == meta['best']['step']


def test_the_best_of_steps_that_are_taken_again_is_gone(play, begun, smoke_run):
    (stray,) = [*(begun / 'best').iterdir()][-1:]
    shutil.copytree(stray, begun / 'best' / '999')
    (begun / 'checkpoints' / '8' / 'meta.json').unlink()
    result = play(begun, figure_count=1)
    straight = result_of(smoke_run(CROWD).workdir)
    same = ('best_step', 'test/mae', 'best/val/mae')
    assert [result[name] for name in same] == [straight[name] for name in same]
    assert best_steps(begun)[-1] == result['best_step']


def test_a_stray_best_step_is_not_evaluated(play, begun):
    before = result_of(begun)
    shutil.copytree(begun / 'checkpoints' / '6', begun / 'best' / '999')
    after = play(begun, mode='evaluate')
    assert (after['best_step'], after['test/mae']) == (before['best_step'], before['test/mae'])


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_leaves_nothing_to_the_next(play, begun, tmp_path):
    for name in ('checkpoints', 'result.json'):
        (begun / name).rename(tmp_path / name)
    shutil.copytree(tmp_path / 'checkpoints' / '8', begun / 'best' / '7')
    # No step beyond the second save, which waits for the first one.
    rows = [row for row in logs.read_metrics(begun / 'metrics.jsonl') if row['step'] <= 4]
    (begun / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    fields = {'seed': 1, 'steps': 4, 'eval_every': 2}
    after, fresh = (play(workdir, **fields) for workdir in (begun, tmp_path / 'fresh'))
    same = ('params_sha256', 'best_step', 'test/mae', 'best/val/mae')
    assert [after[name] for name in same] == [fresh[name] for name in same]
    assert after['best_step'] in (2, 4) and best_steps(begun)[-1] == after['best_step']


def test_there_has_to_be_a_run_to_evaluate(play, tmp_path):
    with pytest.raises(UserError, match=f'--workdir={tmp_path} holds no run to evaluate'):
        play(tmp_path, mode='evaluate')
    assert not (tmp_path / 'result.json').exists()


def test_without_the_test_split_validation_is_predicted(play, tmp_path, capsys):
    result = play(tmp_path, steps=1, evaluate_test=False)
    assert not [name for name in result if name.startswith('test/')]
    assert len((tmp_path / 'predictions.csv').read_text().splitlines()) == 1 + 2
    again = play(tmp_path, steps=1, evaluate_test=True)
    assert np.isfinite(again['test/mae']) and 'nothing to do' not in capsys.readouterr().err


# A run that is started again.


def contents(workdir: Path) -> dict[str, str]:
    return {
        str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in workdir.rglob('*')
        if path.is_file() and path.name != '.lock'
    }


def refused(play, workdir: Path, **fields) -> str:
    """What a refused start is told; it touches no file of the workdir."""
    before = contents(workdir)
    with pytest.raises(UserError) as caught:
        play(workdir, **fields)
    assert contents(workdir) == before
    return str(caught.value)


@pytest.mark.fault(
    row=18,
    injected='the command of a finished run',
    outcome='exit code 0, nothing to do, not a file is touched',
)
def test_a_finished_run_has_nothing_to_do(run_main, begun):
    before = contents(begun)
    done = run_main([f'--config=experiments/{CROWD}', f'--workdir={begun}'])
    assert done.returncode == 0
    assert done.stderr.endswith(f'nothing to do: step {STEPS} of {STEPS} is reached\n')
    assert f'test/mae {result_of(begun)["test/mae"]:.4g}\n' in done.stdout
    assert contents(begun) == before


@pytest.mark.fault(
    row=5,
    injected='more steps, another log_every',
    outcome='logged; the end has the bits of a run that never stopped',
)
def test_a_run_that_goes_on_equals_one_that_never_stopped(play, begun, longer, capsys):
    for left in ('best/.2.partial', 'checkpoints/.9.partial'):  # by a process that was killed
        (begun / left / 'arrays').mkdir(parents=True)
    play(begun, steps=STEPS + 4, log_every=1)
    told = capsys.readouterr().err
    assert f'resumed from step {STEPS}\n' in told
    assert f'changed since the last start: config.steps from {STEPS} to {STEPS + 4}\n' in told
    assert sha256_of(begun) == sha256_of(longer)
    same = ('test/mae', 'best_step', 'best/val/mae', 'final/val/mae', 'steps')
    assert [result_of(begun)[name] for name in same] == [result_of(longer)[name] for name in same]
    assert_every_step_once(begun, STEPS + 4)
    assert [row['step'] for row in rows_of_test(begun)] == [STEPS + 4]
    assert best_steps(begun) == best_steps(longer)


def test_a_result_of_fewer_steps_is_not_the_result(play, begun, longer, tmp_path):
    copy = Path(shutil.copytree(longer, tmp_path / 'copy'))
    shutil.copy(begun / 'result.json', copy / 'result.json')
    assert play(copy, steps=STEPS + 4)['steps'] == STEPS + 4
    assert sha256_of(copy) == sha256_of(longer)


@pytest.mark.fault(
    row=4,
    injected='a file of the newest checkpoint changed between two starts',
    outcome='it goes on from the step before and ends with the same bits',
)
def test_a_run_goes_on_from_the_step_before_a_damaged_one(play, begun, smoke_run, capsys):
    (begun / 'checkpoints' / '8' / 'meta.json').write_text('{}')
    (begun / 'result.json').unlink()
    play(begun)
    told = capsys.readouterr().err
    assert 'checkpoints/8: meta.json was changed; going back to the checkpoint before' in told
    assert 'resumed from step 6\n' in told
    assert sha256_of(begun) == sha256_of(smoke_run(CROWD).workdir)
    assert_every_step_once(begun)


@pytest.mark.fault(
    row=4,
    injected='a file of each checkpoint deleted between two starts',
    outcome='an error, never a fresh start',
)
def test_damaged_checkpoints_alone_are_an_error(play, begun):
    for step in (6, 8):
        (begun / 'checkpoints' / str(step) / 'meta.json').unlink()
    with pytest.raises(UserError, match='none of the checkpoints 6, 8 is whole'):
        play(begun)


@pytest.mark.fault(
    row=5,
    injected='another seed, width, optimizer and scale',
    outcome='refused with the difference; not a file is touched',
)
@pytest.mark.parametrize('fields, difference', [
    ({'seed': 1}, 'config.seed from 0 to 1'),
    ({'model__width': 0.2}, 'config.model.width from 0.1 to 0.2'),
    ({'optim__name': 'adam', 'steps': 20}, 'config.optim.name from sgd to adam'),
    ({'task__scale': 0.5}, 'config.task.scale from 0.75 to 0.5'),
])  # fmt: skip
def test_another_config_is_refused_with_the_difference(play, begun, fields, difference):
    assert refused(play, begun, **fields) == (
        f'--workdir={begun} holds a run of another config, {difference}: use its config to go on, '
        'or another --workdir'
    )


@pytest.mark.fault(
    row=5,
    injected='a run of a version that did not have some fields yet',
    outcome='they were at their defaults: the same config goes on, another is refused',
)
def test_a_run_of_an_older_version_goes_on(play, begun):
    for path in begun.glob('checkpoints/*/meta.json'):
        meta = json.loads(path.read_text())
        del meta['config']['margin'], meta['config']['task']['asked'], meta['config']['active']
        path.write_text(json.dumps(meta))
        manifest.write(path.parent)
    assert play(begun) == result_of(begun)
    with pytest.raises(UserError, match='of another config, config.margin from 0.0 to 3.0: use'):
        play(begun, margin=3.0)


@pytest.mark.fault(
    row=5,
    injected='other data of the same name',
    outcome='refused with both fingerprints',
)
def test_other_data_are_refused(play, begun, monkeypatch):
    load = data.load_splits
    monkeypatch.setattr(
        data, 'load_splits', lambda *a: load(*a).__class__(**{**vars(load(*a)), 'fingerprint': 'x'})
    )
    with pytest.raises(UserError, match='was trained on other data .fingerprint .*, now x.: '):
        play(begun)


@pytest.mark.fault(
    row=14,
    injected='a run on a workdir that is locked',
    outcome='refused with the pid of the owner',
)
def test_a_workdir_in_use_is_refused(play, begun):
    with (
        checkpoint.lock(begun),
        pytest.raises(UserError, match=f'--workdir={begun} is in use by pid {os.getpid()} on '),
    ):
        play(begun)


def test_a_result_is_told_while_the_workdir_is_still_held(tmp_path, monkeypatch, in_process):
    def told(*arguments):
        with pytest.raises(UserError, match='is in use by pid'), checkpoint.lock(tmp_path):
            pass

    monkeypatch.setattr(main, 'run', lambda *a: {})
    monkeypatch.setattr(main, 'conclude', told)
    main.main(config_of(CROWD), tmp_path)
    with checkpoint.lock(tmp_path):
        pass


def test_determinism_is_asked_of_xla_beside_what_was_asked_before(
    tmp_path, monkeypatch, in_process
):
    flags = []
    monkeypatch.setenv('XLA_FLAGS', '--xla_some=1')
    monkeypatch.setattr(main, 'run', lambda *a: flags.append(os.environ['XLA_FLAGS']) or {})
    for asked in (False, True):
        main.main(config_of(CROWD, deterministic=asked), tmp_path)
    assert flags == ['--xla_some=1', '--xla_some=1 --xla_gpu_deterministic_ops=true']


# A run that is ended.


@pytest.mark.fault(
    row=2,
    injected='SIGTERM to a run and its worker process, then SIGINT to the run that goes on',
    outcome='the step ends, its state is saved, exit codes 143 and 130 in under 30 s; '
    'the end has the bits of a run that never stopped',
)
def test_signals_save_the_state(play, prepared, longer, tmp_path):
    steps = STEPS + 4
    for number, name, at in ((signal.SIGTERM, 'SIGTERM', 2), (signal.SIGINT, 'SIGINT', 5)):
        words = [*command(tmp_path, prepared, steps), '--config.data.workers=1']
        code, told = Process(words, tmp_path).end(number, at=at)
        assert code == 128 + number, told
        assert told.endswith(f'\n{name}: state saved; the same command goes on\n'), told
        assert 'Traceback' not in told
        saved = checkpoint.saved_steps(tmp_path / 'checkpoints')[-1]
        assert at <= saved == steps_of(tmp_path, 'train/loss')[-1] < steps
    play(tmp_path, steps=steps)
    assert sha256_of(tmp_path) == sha256_of(longer)
    assert_every_step_once(tmp_path, steps)


def test_only_an_interrupt_after_another_signal_ends_the_process(monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    left = []
    monkeypatch.setattr(loop, 'leave_at_once', left.append)
    with loop.stop_signals() as received:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM] * 2 and not left
        os.kill(os.getpid(), signal.SIGINT)
        assert left == [130]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.fault(
    row=2,
    injected='SIGHUP (the terminal is closed), with and without nohup',
    outcome='as SIGTERM, or ignored as before',
)
@pytest.mark.parametrize('before', [signal.SIG_DFL, signal.SIG_IGN])
def test_a_closed_terminal_is_a_signal_to_stop_but_for_nohup(before):
    old = signal.signal(signal.SIGHUP, before)
    try:
        with loop.stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == ([] if before == signal.SIG_IGN else [signal.SIGHUP])
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, old)


@pytest.mark.slow
@pytest.mark.fault(
    row=21,
    injected='stdout and stderr into a pipe that is closed after a step, as by head',
    outcome='the run goes on to its end, exit code 0',
)
def test_a_run_whose_output_nobody_reads_any_more_goes_on(prepared, tmp_path):
    """As with `2>&1 | head -4`: both streams lead into a pipe that is closed on the way."""
    command = [
        *(sys.executable, '-m', 'rank_ssl.main', f'--config=experiments/{CROWD}'),
        *(f'--workdir={tmp_path}', f'--config.data.data_dir={prepared}', '--config.steps=3'),
    ]
    pipe = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True}
    with subprocess.Popen(command, cwd=ROOT, **pipe) as process:
        assert any(line.startswith('step 1/3') for line in process.stdout)
    assert process.returncode == 0
    assert result_of(tmp_path)['steps'] == 3


@pytest.mark.slow
@pytest.mark.fault(
    row=21,
    injected='stdout and stderr into a pipe that nobody reads, to a run that goes on with another '
    'log_every and from the checkpoint before a damaged one',
    outcome='the run goes on to its end, exit code 0',
)
def test_a_run_goes_on_whose_first_words_nobody_reads(begun):
    (begun / 'checkpoints' / '8' / 'meta.json').write_text('{}')
    (begun / 'result.json').unlink()
    words = [f'--config=experiments/{CROWD}', f'--workdir={begun}', '--config.log_every=1']
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, '-m', 'rank_ssl.main', *words, '--config.figure_count=0']
        done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=writer, timeout=300)
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert result_of(begun)['steps'] == STEPS
    assert_every_step_once(begun)


@pytest.mark.fault(
    row=3,
    injected='RLIMIT_FSIZE in the middle of a run',
    outcome='an error with path and bytes; with room again the end has the bits of an '
    'uninterrupted run',
)
# orbax's threads outlive the loop that they report to.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_run_goes_on_when_the_disk_has_room_again(play, begun, longer, disk_limit):
    before = checkpoint.saved_steps(begun / 'checkpoints')
    disk_limit(50_000)
    with pytest.raises(UserError, match='cannot save [0-9]+ bytes .File too large.: free disk'):
        play(begun, steps=STEPS + 4)
    disk_limit(resource.RLIM_INFINITY)
    assert checkpoint.saved_steps(begun / 'checkpoints') == before
    assert manifest.damage(begun / 'checkpoints' / str(STEPS)) is None
    play(begun, steps=STEPS + 4)
    assert sha256_of(begun) == sha256_of(longer)
    assert_every_step_once(begun, STEPS + 4)


@pytest.mark.fault(
    row=6,
    injected='gradients that overflow from a step on',
    outcome='stopped with the step and its examples; the last good checkpoint is kept',
)
def test_gradients_that_stay_non_finite_end_the_run(play, tmp_path, capsys):
    fields = {'optim__rate': 1e30, 'checkpoint_every': 1, 'max_bad_steps': 2, 'eval_every': 0}
    with pytest.raises(UserError) as caught:
        play(tmp_path, **fields)
    found = re.fullmatch(
        r'2 non-finite gradients in a row, the last one at step (\d) \(its examples: (.*)\): lower '
        r'config.optim.rate=1e\+30 or set config.optim.clip_norm; the last checkpoint is kept',
        str(caught.value),
    )
    assert found, caught.value
    stopped, ids = int(found[1]), found[2].split(', ')
    folder = tmp_path / 'checkpoints'
    kept = checkpoint.saved_steps(folder)[-1]
    assert kept == stopped - 1 and manifest.damage(folder / str(kept)) is None
    meta = json.loads((folder / str(kept) / 'meta.json').read_text())
    config = config_of(CROWD)
    assert len(ids) == config.data.groups * (1 + config.labeled) and all(ids)
    assert set(meta['labeled_ids']) & set(ids)
    assert all(np.isfinite(p).all() for p in params_of(tmp_path, kept))
    skipped = [row['train/skipped'] for row in logs.read_metrics(tmp_path / 'metrics.jsonl')]
    assert skipped == sorted(skipped) and skipped[-2:] == [1, 2]


@pytest.mark.fault(
    row=6,
    injected='bad gradients between two log lines',
    outcome='stopped at the next one; nothing bad is saved',
)
def test_a_row_of_bad_gradients_between_log_lines_ends_the_run(play, tmp_path):
    fields = {'optim__rate': 1e30, 'max_bad_steps': 2, 'eval_every': 0}
    found = r'[3-7] non-finite gradients in a row, the last one at step 8 .its examples: '
    with pytest.raises(UserError, match=found):
        play(tmp_path, log_every=100, checkpoint_every=100, **fields)
    assert checkpoint.saved_steps(tmp_path / 'checkpoints') == []


def test_a_validation_that_overflows_has_no_numbers_and_no_traceback(play, tmp_path, capsys):
    result = play(tmp_path, optim__rate=1e30, steps=2, eval_every=1, figure_count=2)
    names = ('test/mae', 'test/mse', 'best/val/mae', 'final/val/mse')
    assert [result[name] for name in names] == [None] * 4 and result['best_step'] in (1, 2)
    assert capsys.readouterr().out.startswith('test/mae nan\n')
    assert all(np.isnan(row['val/mae']) for row in rows_with(tmp_path, 'val/mae'))
    (tested,) = rows_of_test(tmp_path)
    assert tested['step'] == 2 and np.isnan(tested['test/mae'])
    lines = (tmp_path / 'predictions.csv').read_text().splitlines()
    assert len(lines) == 1 + 4 and not any(np.isfinite(float(ln.split(',')[2])) for ln in lines[1:])
    names = {path.name for path in (tmp_path / 'figures').iterdir()}
    assert {'curves.png', 'ranked_set.png'} <= names and 'counts.png' not in names


@pytest.mark.fault(
    row=6,
    injected='parameters that overflow',
    outcome='an error that names the array; each saved step is finite',
)
def test_parameters_that_overflow_are_never_saved(play, tmp_path):
    with pytest.raises(UserError, match=r'checkpoints/\d: .* is not finite, so it is not saved'):
        play(tmp_path, optim__rate=1e38, optim__clip_norm=0.0, checkpoint_every=1, eval_every=0)
    for step in checkpoint.saved_steps(tmp_path / 'checkpoints'):
        assert all(np.isfinite(p).all() for p in params_of(tmp_path, step))


# Other numbers of devices.


def on_devices(run_main, count: int, workdir: Path, prepared: str, *fields: str):
    flag = f'--xla_force_host_platform_device_count={count}'
    command = [f'--config=experiments/{CROWD}', f'--workdir={workdir}', '--config.figure_count=0']
    return run_main(
        [*command, f'--config.data.data_dir={prepared}', *fields], env={'XLA_FLAGS': flag}
    )


@pytest.mark.slow
@pytest.mark.fault(
    row=16,
    injected='1, then 8, then 1 virtual devices',
    outcome='each step once; parameters within 1e-4 (relative) of a run on one device',
)
def test_a_run_goes_on_with_eight_devices_and_then_with_one(
    run_main, play, prepared, begun, longer
):
    (begun / 'result.json').unlink()
    fields = f'--config.steps={STEPS + 2}'
    done = on_devices(run_main, 8, begun, prepared, fields)
    assert done.returncode == 0, done.stderr
    assert f'resumed from step {STEPS}\n' in done.stderr
    assert result_of(begun)['device'].startswith('8 x ')
    result = play(begun, steps=STEPS + 4)
    assert result['device'].startswith('1 x ')
    assert steps_of(begun, 'train/loss') == list(range(1, STEPS + 5))
    found, expected = (params_of(w, STEPS + 4) for w in (begun, longer))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_five_groups_on_four_devices(run_main, play, prepared, tmp_path):
    one, four = tmp_path / 'one', tmp_path / 'four'
    fields = ('--config.data.groups=5', '--config.steps=2', '--config.eval_every=0')
    done = on_devices(run_main, 4, four, prepared, *fields)
    assert done.returncode == 0, done.stderr
    play(one, data__groups=5, steps=2, eval_every=0)
    rows = [logs.read_metrics(workdir / 'metrics.jsonl') for workdir in (one, four)]
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        for name in ('train/loss', 'train/ranking', 'train/rank_accuracy', 'val/mae'):
            if name in a:
                assert a[name] == pytest.approx(b[name], rel=1e-4), name
