"""Worker processes that die or hang: found, told in one line, and nobody waits for them."""

import multiprocessing
import os
import signal
import time

import absl.flags
import pytest

from rank_ssl import checkpoint, data, logs, main
from rank_ssl.config import Config
from rank_ssl.data import batches as batches_module
from rank_ssl.errors import UserError
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch
from tests.ended_runs import CROWD, config_of, sha256_of


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
            time.sleep(600)
        return dict.fromkeys(Batch._fields)


def iterator_of(made, workers: int):
    config = Config(task=Crowd()).data
    config.workers, config.prefetch = workers, 1
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
    outcome='an error after SILENCE seconds; no process is left and nobody waits for one',
)
@pytest.mark.parametrize('how', ['asleep', 'stopped'])
def test_a_worker_that_hangs_is_told(monkeypatch, how):
    iterator = iterator_of(Made(2 if how == 'asleep' else 1000), workers=1)
    next(iterator)
    monkeypatch.setattr(batches_module, 'SILENCE', 3.0)
    if how == 'stopped':
        os.kill(workers()[0].pid, signal.SIGSTOP)
    began = time.monotonic()
    assert told(iterator).startswith('the worker processes that make batches gave none for 3 s: ')
    assert time.monotonic() - began < 60


def test_an_error_of_the_work_itself_stays_what_it_is():
    class Broken(Made):
        def __getitem__(self, step):
            raise RuntimeError('a defect')

    iterator = iterator_of(Broken(0), workers=1)
    with pytest.raises(RuntimeError, match='a defect'):
        next(iterator)
    iterator.close()


@pytest.mark.fault(
    row=19,
    injected='kill -9 of a worker process in the middle of a run',
    outcome='the run ends with one line; the same command ends with the same bits',
)
def test_a_run_whose_worker_dies_goes_on_when_started_again(smoke_run, tmp_path, monkeypatch):
    straight = smoke_run(CROWD).workdir
    config = config_of(CROWD, data__data_dir=str(straight / 'data'), data__workers=1,
                       data__prefetch=1, figure_count=0, checkpoint_every=1)  # fmt: skip
    line = logs.Progress.line

    def kills(self, step, *values):
        line(self, step, *values)
        if step == 1:  # what is made ahead is not all
            workers()[0].kill()

    with monkeypatch.context() as patched, pytest.raises(UserError, match='has ended .exit code'):
        patched.setattr(logs.Progress, 'line', kills)
        main.main(config, tmp_path)
    assert not workers()
    assert checkpoint.saved_steps(tmp_path / 'checkpoints')[-1] < 8
    config.data.workers = 0
    main.main(config, tmp_path)
    assert sha256_of(tmp_path) == sha256_of(straight)
