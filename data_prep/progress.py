"""A progress line on stderr with rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time

INTERVAL = 10.0  # seconds between lines where stderr is not a terminal
TERMINAL_INTERVAL = 0.2


def emit(text: str, *, end: str = '\n') -> None:
    """Text on stderr, where somebody still reads it: a closed pipe ends no preparation."""
    if sys.stderr is None:  # closed from the start: print would take stdout
        return
    with contextlib.suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


class Progress:
    """Call `step()` after each example; prints at intervals, in place on a terminal."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        self.start = self.last = time.monotonic()

    def step(self) -> None:
        """Counts one example."""
        self.done += 1
        now = time.monotonic()
        due = now - self.last >= (TERMINAL_INTERVAL if self.terminal else INTERVAL)
        if due:
            self.last = now
            self._print(now)

    def _print(self, now: float) -> None:
        rate = self.done / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate
        line = f'{self.label}: {self.done}/{self.total}, {rate:.1f}/s, {left:.0f} s left'
        emit(f'\r{line}\x1b[K' if self.terminal else line, end='' if self.terminal else '\n')

    def close(self) -> None:
        """Prints the closing line: number, seconds and rate."""
        seconds = time.monotonic() - self.start
        rate = self.done / max(seconds, 1e-9)
        start, end = ('\r', '\x1b[K\n') if self.terminal else ('', '\n')
        line = f'{self.label}: {self.done} examples in {seconds:.1f} s, {rate:.1f}/s'
        emit(f'{start}{line}', end=end)
