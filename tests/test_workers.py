"""Worker processes that die or hang: found, told in one line, and nobody waits for them."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import absl.flags
import pytest

from rank_ssl import checkpoint, data, main, progress
from rank_ssl.config import Config
from rank_ssl.data import iterator as iterator_module
from rank_ssl.errors import UserError
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch
from tests.ended_runs import (
    CROWD,
    STEPS,
    Process,
    command,
    config_of,
    sha256_of,
    steps_of,
)

RELEASED = threading.Event()  # ends the threads that a test lets hang


@pytest.fixture(autouse=True)
def parsed_flags():
    """grain's worker processes read absl's flags, which main has parsed in a run."""
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()


class Made:
    """Batches of nothing; from step `last` on, one that is never ready."""

    def __init__(self, last: int) -> None:
        self._last = last

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, step):
        if step >= self._last:
            RELEASED.wait(600)
        return dict.fromkeys(Batch._fields)


def iterator_of(made, workers: int, silence: float = 60):
    config = Config(task=Crowd()).data
    config.workers, config.prefetch, config.silence = workers, 1, silence
    return data.BatchIterator(made, config)


def workers() -> list:
    return [one for one in multiprocessing.active_children() if one.name.startswith('grain-')]


def told(iterator) -> str:
    """The error of asking for batches until there is none."""
    with pytest.raises(UserError) as caught:
        for _ in range(20):
            next(iterator)
    iterator.close()
    assert not workers() and '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.fault(
    row=19,
    injected='kill -9 of one of two worker processes',
    outcome='an error in seconds that names the exit code; no process is left',
)
def test_a_worker_that_dies_is_told():
    iterator = iterator_of(Made(1000), workers=2)
    next(iterator)
    os.kill(workers()[0].pid, signal.SIGKILL)
    began = time.monotonic()
    assert told(iterator).startswith(
        'a worker process that makes batches has ended (exit code -9): where memory was short, '
    )
    assert time.monotonic() - began < 60


@pytest.mark.fault(
    row=19,
    injected='a worker that sleeps in its transform, a worker that is stopped (SIGSTOP)',
    outcome='an error after data.silence seconds; no process is left and nobody waits for one',
)
@pytest.mark.parametrize('how', ['asleep', pytest.param('stopped', marks=pytest.mark.slow)])
def test_a_worker_that_hangs_is_told(how):
    iterator = iterator_of(Made(2 if how == 'asleep' else 1000), workers=1)
    next(iterator)
    iterator._silence = 3.0  # from here on: a worker takes longer than that to start
    if how == 'stopped':
        os.kill(workers()[0].pid, signal.SIGSTOP)
    began = time.monotonic()
    assert told(iterator).startswith('the worker processes that make batches gave none for 3 s: ')
    assert time.monotonic() - began < 60


@pytest.mark.fault(
    row=19,
    injected='a thread that sleeps in its transform',
    outcome='an error after data.silence seconds',
)
def test_a_thread_that_hangs_is_told():
    iterator = iterator_of(Made(2), workers=0, silence=0.5)
    try:
        assert told(iterator).startswith('the threads that make batches gave none for 0.5 s: find ')
    finally:
        RELEASED.set()


class Late(Made):
    """Batches that there are none of before `ready` is set."""

    def __init__(self) -> None:
        super().__init__(last=1000)
        self.ready = threading.Event()

    def __getitem__(self, step):
        self.ready.wait(60)
        return super().__getitem__(step)


def test_a_wait_for_a_batch_ends_for_a_signal_and_goes_on_where_it_was():
    late, received = Late(), []
    iterator = iterator_of(late, workers=0)
    timer = threading.Timer(0.3, received.append, [signal.SIGTERM])
    timer.start()
    assert iterator.ask(received) is None and received
    assert iterator.ask(received) is None and iterator.position == {'next_step': 0}
    late.ready.set()
    assert isinstance(next(iterator), Batch) and iterator.position == {'next_step': 1}
    iterator.close()


@pytest.mark.fault(
    row=2,
    injected='a signal that goes to worker processes too',
    outcome='they leave SIGINT, SIGTERM and SIGHUP to their parent',
)
def test_a_worker_leaves_signals_to_its_parent(monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, 'signal', handlers.__setitem__)
    iterator_module._start_worker(0, 1)
    ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    assert handlers == dict.fromkeys(ignored, signal.SIG_IGN)


@pytest.mark.fault(
    row=19,
    injected='a run that is stopped (Ctrl-Z) for longer than data.silence while it waits',
    outcome='it goes on: that time is no silence of the threads',
)
def test_time_in_which_a_run_was_stopped_is_no_silence(monkeypatch):
    late, clock = Late(), itertools.count(0, 1000)

    def jumping() -> float:
        now = next(clock)
        if now > 6000:
            late.ready.set()
        return now

    monkeypatch.setattr(iterator_module, 'time', SimpleNamespace(monotonic=jumping))
    iterator = iterator_of(late, workers=0, silence=100)
    assert isinstance(next(iterator), Batch)
    iterator.close()


class Large(Made):
    """Batches that a pipe does not hold: one that is stopped is in the middle of one."""

    def __getitem__(self, step):
        return {name: bytes(10_000_000) for name in Batch._fields}


@pytest.mark.slow
@pytest.mark.fault(
    row=19,
    injected='kill -9 of a worker process that is sending a batch',
    outcome='an error in seconds',
)
def test_a_worker_that_dies_while_it_sends_is_told():
    iterator = iterator_of(Large(1000), workers=1)
    next(iterator)
    time.sleep(1)
    workers()[0].kill()
    began = time.monotonic()
    with pytest.raises(UserError, match='has ended .exit code -9'):
        for _ in range(5):
            next(iterator)
    iterator.close()
    assert time.monotonic() - began < 30
    assert not workers()


def test_an_error_of_the_work_itself_stays_what_it_is():
    class Broken(Made):
        def __getitem__(self, step):
            raise RuntimeError('a defect')

    iterator = iterator_of(Broken(0), workers=1)
    with pytest.raises(RuntimeError, match='a defect'):
        next(iterator)
    iterator.close()


def hung(workdir: Path, data_dir: Path, monkeypatch, *fields: str) -> Process:
    """A run that waits for the batch of its fourth step."""
    monkeypatch.setenv('HANG_AT', '4')
    python, _, _, *words = command(workdir, data_dir, STEPS)
    script = str(Path(__file__).with_name('hung_run.py'))
    return Process([python, script, *words, '--config.checkpoint_every=100', *fields], workdir)


@pytest.mark.slow
@pytest.mark.fault(
    row=2,
    injected='SIGINT, SIGTERM and SIGHUP, to all processes, while a thread or a worker sleeps',
    outcome='the last step is saved, exit codes 130, 143 and 129 in under 30 s; none is left',
)
@pytest.mark.parametrize(
    'number, workers', [(signal.SIGINT, 0), (signal.SIGTERM, 1), (signal.SIGHUP, 1)]
)
def test_a_signal_does_not_wait_for_data_that_hang(
    smoke_run, tmp_path, monkeypatch, number, workers
):
    prepared = smoke_run(CROWD).workdir / 'data'
    process = hung(tmp_path, prepared, monkeypatch, f'--config.data.workers={workers}')
    code, told = process.end(number, at=3, wait=1)
    assert code == 128 + number, told
    assert told.endswith(f'\n{number.name}: state saved; the same command goes on\n'), told
    assert checkpoint.saved_steps(tmp_path / 'checkpoints') == [3]
    assert steps_of(tmp_path, 'train/loss') == [1, 2, 3]
    assert not process.left_behind()


@pytest.mark.slow
@pytest.mark.fault(
    row=2,
    injected='a second SIGINT, while a worker sleeps and the save of the first one hangs',
    outcome='exit code 130 at once; no process is left',
)
def test_a_second_interrupt_ends_the_workers_too(smoke_run, tmp_path, monkeypatch):
    prepared = smoke_run(CROWD).workdir / 'data'
    monkeypatch.setenv('HANG_IN_SAVE', '1')
    process = hung(tmp_path, prepared, monkeypatch, '--config.data.workers=1')
    code, told = process.end(signal.SIGINT, at=3, wait=1, times=2)
    assert code == 130, told
    assert 'Traceback' not in told and 'state saved' not in told
    assert not process.left_behind()


@pytest.mark.slow
@pytest.mark.fault(
    row=19,
    injected='a thread that sleeps in its transform, in the middle of a run',
    outcome='one line after data.silence seconds, exit code 2; the process ends',
)
def test_a_run_whose_thread_hangs_ends(smoke_run, tmp_path, monkeypatch):
    prepared = smoke_run(CROWD).workdir / 'data'
    code, told = hung(tmp_path, prepared, monkeypatch, '--config.data.silence=3').wait()
    assert code == 2, told
    (line,) = [line for line in told.splitlines() if line.startswith('error: ')]
    assert line.startswith('error: the threads that make batches gave none for 3 s: find out ')
    assert 'Traceback' not in told


@pytest.mark.slow
@pytest.mark.fault(
    row=19,
    injected='kill -9 of a worker process in the middle of a run',
    outcome='the run ends with one line; the same command ends with the same bits',
)
def test_a_run_whose_worker_dies_goes_on_when_started_again(smoke_run, tmp_path, monkeypatch):
    straight = smoke_run(CROWD).workdir
    config = config_of(CROWD, data__data_dir=str(straight / 'data'), data__workers=1,
                       data__prefetch=1, figure_count=0, checkpoint_every=1)  # fmt: skip
    line = progress.Progress.line

    def kills(self, step, *values):
        line(self, step, *values)
        if step == 1:  # what is made ahead is not all
            workers()[0].kill()

    with monkeypatch.context() as patched, pytest.raises(UserError, match='has ended .exit code'):
        patched.setattr(progress.Progress, 'line', kills)
        main.main(config, tmp_path)
    assert not workers()
    assert checkpoint.saved_steps(tmp_path / 'checkpoints')[-1] < 8
    config.data.workers = 0
    main.main(config, tmp_path)
    assert sha256_of(tmp_path) == sha256_of(straight)
