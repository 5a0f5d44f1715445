"""Commands that run at once, each on its own share of this process's cores."""

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rank_ssl.errors import Stopped, UserError
from rank_ssl.progress import format_duration, say

POLL = 0.1  # s between two looks at what runs
STOP = 60.0  # s that a command has to save its state in when all are stopped
# One that was still starting, or was killed, has saved nothing since.
STOPPED = 'its runs were stopped; the same command goes on with each from its last checkpoint'


@dataclasses.dataclass(frozen=True)
class Job:
    """One command."""

    number: int
    name: str
    command: tuple[str, ...]
    log: pathlib.Path  # takes its stderr where several run at once; else that is the terminal's
    after: frozenset[int] = frozenset()  # the numbers of those that have to be done before


def usable_cores() -> list[int]:
    """The cores that this process may use; all of the machine where the system does not tell."""
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_shares(jobs: int) -> list[list[int]]:
    """The cores of each of the jobs that run at once; none named where one has them all.

    Raises UserError where there are fewer cores than `jobs`.
    """
    pins, cores = hasattr(os, 'sched_setaffinity'), usable_cores()
    if not 1 <= jobs <= len(cores):
        raise UserError(
            f'--jobs={jobs} must lie between 1 and the {len(cores)} cores that this process may '
            f'use; use {min(max(jobs, 1), len(cores))}'
        )
    if jobs == 1 or not pins:
        return [[] for _ in range(jobs)]
    return [share.tolist() for share in np.array_split(cores, jobs)]


@dataclasses.dataclass
class _Child:
    job: Job
    process: subprocess.Popen
    began: float  # s


class Crew:
    """Runs jobs in their order, at most one on each share of the cores, and tells how far it is."""

    def __init__(self, shares: Sequence[Sequence[int]], *, noun: str, total: int) -> None:
        self._shares, self._noun, self._total = shares, noun, total
        self._running: dict[int, _Child] = {}  # by the number of their share
        self._times: list[float] = []  # s

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs all of them; a job waits for those among them that it comes after.

        Raises UserError where one fails: none is started after it, and those that run end first.
        """
        with _termination():
            try:
                self._work(list(jobs))
            finally:
                self._stop()

    def _work(self, waiting: list[Job]) -> None:
        failed: list[_Child] = []
        while self._running or (waiting and not failed):
            while not failed and len(self._running) < len(self._shares):
                job = self._next(waiting)
                if job is None:
                    break
                waiting.remove(job)
                self._start(job, len(waiting))
            if not self._running:
                names = '; '.join(job.name for job in waiting)
                raise UserError(
                    f'{names}: each starts from a {self._noun} that waits for it: mend --arms'
                )
            time.sleep(POLL)
            failed += self._ended(len(waiting))
        if failed:
            raise UserError(self._failure(failed))

    def _next(self, waiting: Sequence[Job]) -> Job | None:
        """The first that comes after no unfinished one."""
        unfinished = {job.number for job in waiting}
        unfinished |= {child.job.number for child in self._running.values()}
        return next((job for job in waiting if not job.after & unfinished), None)

    def _start(self, job: Job, waiting: int) -> None:
        share = next(n for n in range(len(self._shares)) if n not in self._running)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_signals_held())
            stack.enter_context(_pinned(self._shares[share]))
            stderr = None
            if len(self._shares) > 1:
                job.log.parent.mkdir(parents=True, exist_ok=True)
                stderr = stack.enter_context(open(job.log, 'ab'))
            process = subprocess.Popen(job.command, stdout=subprocess.DEVNULL, stderr=stderr)
            self._running[share] = child = _Child(job, process, time.perf_counter())
        self._say(child, ' started' if len(self._shares) > 1 else '', waiting)

    def _ended(self, waiting: int) -> list[_Child]:
        """Takes note of what has ended; those that failed."""
        failed = []
        for share, child in list(self._running.items()):
            code = child.process.poll()
            if code is None:
                continue
            del self._running[share]
            seconds = time.perf_counter() - child.began
            if code:
                failed.append(child)
            else:
                self._times.append(seconds)
            if len(self._shares) > 1:
                how = 'failed after' if code else 'done in'
                self._say(child, f' {how} {format_duration(seconds)}', waiting)
        return failed

    def _say(self, child: _Child, what: str, waiting: int) -> None:
        mean = float(np.mean(self._times)) if self._times else math.nan
        now = time.perf_counter()
        left = waiting * mean
        left += sum(max(mean - (now - other.began), 0) for other in self._running.values())
        eta = format_duration(left / len(self._shares) if self._times else math.nan)
        head = f'== {self._noun} {child.job.number}/{self._total}: {child.job.name}'
        say(f'{head}{what} (ETA of all {eta})')

    def _failure(self, failed: Sequence[_Child]) -> str:
        first, *others = failed
        also = f' (and {"; ".join(child.job.name for child in others)})' if others else ''
        where = 'above' if len(self._shares) == 1 else f'in {first.job.log}'
        return (
            f'{self._noun} {first.job.name} ended with exit code {first.process.returncode}{also}: '
            f'mend what it said {where}; the same command goes on from there'
        )

    def _stop(self) -> None:
        """Ends what runs, which saves its state; what takes longer than STOP is killed.

        So it is, too, at a SIGINT in here; a SIGTERM changes nothing any more.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        processes = [child.process for child in self._running.values()]
        for process in processes:
            process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                for process in processes:
                    process.wait(STOP)
        finally:
            for process in processes:
                process.kill()


@contextlib.contextmanager
def _pinned(cores: Sequence[int]) -> Iterator[None]:
    """A process started in here has these cores: it takes them over from this thread."""
    if not cores:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM come when what is in here is done.

    A child that is started meanwhile would be known to nobody, and go on alone.
    """
    came: list[int] = []
    known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in known.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)


@contextlib.contextmanager
def _termination() -> Iterator[None]:
    """SIGTERM ends what is in here as Ctrl-C does: by an exception. A second one does nothing."""

    def end(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Stopped(number, STOPPED)

    old = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
