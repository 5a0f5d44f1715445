"""Two processes that train as one, as hosts of a pod do."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from rank_ssl import checkpoint
from tests.topologies import ended, start_run, start_two, wait_until

QUICK = 'quickstart.py:smoke'


def train_losses(workdir: Path) -> list[float]:
    rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [row['train/loss'] for row in rows if 'train/loss' in row]


def test_two_processes_give_the_losses_of_one(smoke_run, tmp_path):
    one, two = smoke_run(QUICK).workdir, tmp_path / 'two'
    for code, told in ended(start_two(QUICK, two)):
        assert code == 0, told
    assert train_losses(two) == pytest.approx(train_losses(one), rel=1e-4)
    results = [json.loads((folder / 'result.json').read_text()) for folder in (one, two)]
    assert [result['processes'] for result in results] == [1, 2]
    assert results[1]['test/mae'] == pytest.approx(results[0]['test/mae'], rel=1e-3)


@pytest.mark.slow
def test_two_processes_read_what_the_first_has_saved_last(tmp_path):
    """The best step of a stage of ranking is its last one, saved just before it is read."""
    fields = ['--config.regime=finetune', '--config.steps=2', '--config.figure_count=0']
    for code, told in ended(start_two(QUICK, tmp_path, *fields)):
        assert code == 0, told
    assert json.loads((tmp_path / 'result.json').read_text())['steps'] == 2


ENDLESS = ['--config.steps=100000', '--config.checkpoint_every=100000', '--config.eval_every=0']
SIGNAL = {
    'row': 2,
    'injected': 'SIGINT to the first of two processes, SIGTERM to the second',
    'outcome': 'both end the same step, the state is saved, both exit with 143 in under 30 s',
}


def stop_both(workdir: Path, process: int, number: int, *fields: str) -> int:
    """The step that two processes ended with, when one of them got a signal."""
    running = start_two(QUICK, workdir, *ENDLESS, *fields)
    log = workdir / 'metrics.jsonl'
    wait_until(running, lambda: log.exists() and len(train_losses(workdir)) >= 3)
    began = time.monotonic()
    running[process].send_signal(number)
    for code, told in ended(running):
        assert code == 128 + signal.SIGTERM, told
        assert told.endswith('SIGTERM: state saved; the same command goes on\n'), told
    assert time.monotonic() - began < 30
    (saved,) = checkpoint.saved_steps(workdir / 'checkpoints')
    assert len(train_losses(workdir)) == saved
    return saved


@pytest.mark.slow
@pytest.mark.fault(**SIGNAL)
def test_an_interrupt_of_the_first_process_ends_both_as_a_sigterm_does(tmp_path):
    stop_both(tmp_path, 0, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.fault(**SIGNAL)
@pytest.mark.fault(
    row=16,
    injected='a run of two processes, gone on with by one and by two',
    outcome='it works; the losses agree to 1e-4 (relative)',
)
def test_a_signal_to_the_second_process_ends_both_and_one_or_two_go_on(tmp_path):
    two, one = tmp_path / 'two', tmp_path / 'one'
    fields = ['--config.optim.schedule=constant', '--config.figure_count=0']
    saved = stop_both(two, 1, signal.SIGTERM, *fields)
    shutil.copytree(two, one)
    last = [*ENDLESS, f'--config.steps={saved + 3}', *fields]
    for code, told in ended([*start_two(QUICK, two, *last), start_run(QUICK, one, *last)]):
        assert code == 0 and f'resumed from step {saved}\n' in told, told
    assert len(train_losses(one)) == len(train_losses(two)) == saved + 3
    assert train_losses(one) == pytest.approx(train_losses(two), rel=1e-4)
