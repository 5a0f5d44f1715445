"""Mini-batches made ahead by grain's threads or workers, and what is done where these hang.

grain waits for them without end, so a thread of its own waits for grain, and whoever needs a batch
looks at that thread now and then.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import grain
import numpy as np

from rank_ssl.config import Data
from rank_ssl.data.batches import Batches
from rank_ssl.errors import UserError
from rank_ssl.types import Batch

T = TypeVar('T')

POLL = 0.2  # seconds between two looks at what a wait may end for
GRACE = 10.0  # seconds that what is told to end may take
GOES_ON = 'the same command goes on from the last checkpoint'

_busy: set[threading.Thread] = set()  # those of grain's threads that are at a batch


class BatchIterator(Iterator[Batch]):
    """Batches from step `start` on, made ahead by threads or worker processes.

    `next` and `ask` raise UserError where a worker process has died, and where no batch came for
    `data.silence` seconds. `close` ends worker processes, also those that hang; a thread that hangs
    cannot be ended, see `end_process`.
    """

    def __init__(self, batches: Batches, data: Data, *, start: int = 0) -> None:
        self._next, self._silence, self._processes = start, data.silence, data.workers > 0
        self._workers: set[Any] = set()
        self._asked: concurrent.futures.Future[dict[str, Any]] | None = None
        if data.workers:
            _start_tracker()
            dataset = grain.MapDataset.source(batches)[start:]
            read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            ahead = grain.MultiprocessingOptions(
                num_workers=data.workers, per_worker_buffer_size=data.prefetch
            )
            self._iterator = iter(dataset.to_iter_dataset(read).mp_prefetch(ahead, _start_worker))
        else:
            dataset = grain.MapDataset.source(_Noted(batches))[start:]
            read = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.prefetch)
            self._iterator = iter(dataset.to_iter_dataset(read))

    def __next__(self) -> Batch:
        made = self.ask()
        assert made is not None
        return made

    def ask(self, received: Sequence[int] = ()) -> Batch | None:
        """The next batch; None where there is none yet and `received` holds a signal, or gets one.

        After None the same batch may be asked for again.
        """
        if self._asked is None:
            self._asked = _started(next, self._iterator)
        waited, before = 0.0, time.monotonic()
        while not concurrent.futures.wait([self._asked], POLL).done:
            if received:
                return None
            if code := self._code_of_dead():
                raise _dead(code)
            # Time in which this process was stopped (Ctrl-Z) is no silence of those that work.
            waited, before = waited + min(time.monotonic() - before, 2 * POLL), time.monotonic()
            if waited > self._silence:
                raise self._silent()
        try:
            made, self._asked = self._asked.result(), None
        except RuntimeError as error:
            self._asked = None
            if 'Worker process was terminated' not in str(error):
                raise
            if received:  # by workers too that were only about to leave it to this process
                return None
            raise _dead(str(error).partition('exit code ')[2].split('.')[0]) from None
        self._next += 1
        return Batch(**made)

    def _code_of_dead(self) -> int | None:
        """The exit code of a worker that failed: grain misses one that died while it sent."""
        self._workers.update(_children())
        return next((worker.exitcode for worker in self._workers if worker.exitcode), None)

    def _silent(self) -> UserError:
        who = 'worker processes' if self._processes else 'threads'
        return UserError(
            f'the {who} that make batches gave none for {self._silence:g} s: find out what they '
            f'wait for, or raise config.data.silence where they only take long; {GOES_ON}'
        )

    @property
    def position(self) -> dict[str, int]:
        """The step whose batch comes next: all that a checkpoint has to keep.

        Batches depend on their step alone, so a run goes on with any number of workers.
        """
        return {'next_step': self._next}

    def close(self) -> None:
        """Ends threads and worker processes, in bounded time whatever they are at."""
        if self._processes:
            if self._asked is not None:
                kill_workers()  # else what hangs would be waited for once more
                concurrent.futures.wait([self._asked], 10 * POLL)
            closing = _started(self._iterator.close)
            if not concurrent.futures.wait([closing], GRACE).done:
                kill_workers()
                concurrent.futures.wait([closing], GRACE)
        else:
            self._iterator.close()


class _Noted:
    """Batches; a thread that is at one is noted."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        thread = threading.current_thread()
        _busy.add(thread)
        try:
            return self._batches[step]
        finally:
            _busy.discard(thread)


def _started(function: Callable[..., T], *arguments: Any) -> concurrent.futures.Future[T]:
    """What the function returns in a thread that keeps no process from ending."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _start_tracker() -> None:
    """Starts Python's process that frees the memory of batches which nobody takes.

    It would call them leaked, and would end with the terminal, as it heeds SIGHUP.
    """
    quiet = 'ignore:resource_tracker:UserWarning'
    if quiet not in sys.warnoptions:
        sys.warnoptions.append(quiet)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.signal(signal.SIGHUP, before)


def _start_worker(index: int, count: int) -> None:
    """First thing in a worker process: it leaves signals to its parent, and ends with it.

    A terminal's Ctrl-C goes to both, and the parent still needs what its workers make.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _children() -> list[Any]:
    return [one for one in multiprocessing.active_children() if one.name.startswith('grain-')]


def _dead(code: int | str) -> UserError:
    return UserError(
        f'a worker process that makes batches has ended (exit code {code}): where memory was '
        f'short, lower config.data.workers; {GOES_ON}'
    )


def kill_workers() -> None:
    """Ends all worker processes at once."""
    for child in _children():
        child.kill()


def end_process(code: int) -> None:
    """Ends the process at once where a thread hangs at a batch: Python would wait for it for good.

    Returns where none does, or none any more within GRACE seconds.
    """
    limit = time.monotonic() + GRACE
    while _busy and time.monotonic() < limit:
        time.sleep(0.02)
    if _busy:
        leave_at_once(code)


def leave_at_once(code: int) -> None:
    """Ends this process and its workers, whatever they are at, with that exit code."""
    kill_workers()
    for stream in (sys.stdout, sys.stderr):
        # None where it was closed.
        with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
            stream.flush()
    os._exit(code)
