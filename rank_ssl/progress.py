"""What a person sees of long work: a line of progress with its rate and time left, and messages."""

import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np


class RateMeter:
    """Images per second, and the share of time spent waiting for data, over the last steps.

    The first step compiles: it is left out as soon as there is a second one.
    """

    def __init__(self, *, window: int = 50, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._images = 0
        self._waited = 0.0
        self._steps = 0
        # One mark more than steps: (time, images so far, seconds waited so far).
        self._marks: deque[tuple[float, int, float]] = deque(maxlen=window + 1)
        self._marks.append((clock(), 0, 0.0))

    def add(self, images: int) -> None:
        """Count a step that took this many images."""
        self._images += images
        self._steps += 1
        self._marks.append((self._clock(), self._images, self._waited))
        if self._steps == 2:
            self._marks.popleft()

    def waited(self, seconds: float) -> None:
        """Count so many seconds as waiting for data."""
        self._waited += seconds

    @property
    def images_per_second(self) -> float:
        """Images per second over the window; NaN before the first step."""
        return self._per_second(1)

    @property
    def waiting_share(self) -> float:
        """Share of the window spent waiting, 0 to 1; NaN before the first step."""
        return self._per_second(2)

    def _per_second(self, column: int) -> float:
        first, last = self._marks[0], self._marks[-1]
        seconds = last[0] - first[0]
        return (last[column] - first[column]) / seconds if seconds > 0 else math.nan


def format_duration(seconds: float) -> str:
    """The time as m:ss, h:mm:ss or `2 d 3:04:05`; `?` where it is not finite or negative."""
    if not math.isfinite(seconds) or seconds < 0:
        return '?'
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f'{days} d {hour}:{minute:02}:{second:02}'
    return f'{hour}:{minute:02}:{second:02}' if hour else f'{minute}:{second:02}'


def _item(name: str, value: Any) -> str:
    label = name.removeprefix('train/').replace('/', ' ').replace('_', ' ')
    number = float(np.asarray(value))
    return f'{label} {100 * number:.1f} %' if label == 'waiting' else f'{label} {number:.3g}'


class Progress:
    """One line on how a run of `total` steps goes: rewritten in place on a terminal only.

    A reader that goes away (`| head`, a closed terminal) does not end the run: the rest is silent.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._total = total
        self._stream = sys.stderr if stream is None else stream  # None where it was closed
        self._clock = clock
        # The last lines' (step, time): the compilation at the start soon leaves the estimate.
        self._marks: deque[tuple[int, float]] = deque([(start, clock())], maxlen=20)
        self._open_line = False

    def line(self, step: int, images_per_second: float, metrics: Mapping[str, Any]) -> None:
        """`step 120/400 | 12.3 images/s | ETA 3:20 | loss 1.23`; a metric `waiting` is a share."""
        self._marks.append((step, self._clock()))
        parts = [
            f'step {step}/{self._total}',
            f'{images_per_second:.1f} images/s',
            f'ETA {format_duration(self._seconds_left())}',
            *(_item(name, value) for name, value in metrics.items()),
        ]
        text = ' | '.join(parts)
        if self._on_terminal():
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            self._write(f'\r\x1b[K{text[: columns - 1]}')
            self._open_line = True
        else:
            self._write(f'{text}\n')

    def message(self, text: str) -> None:
        """A line that stays, above the progress line."""
        self.close()
        self._write(f'{text}\n')

    def close(self) -> None:
        """End the progress line, so that what follows starts on a new one."""
        if self._open_line:
            self._write('\n')
            self._open_line = False

    def _seconds_left(self) -> float:
        (first_step, first_time), (last_step, last_time) = self._marks[0], self._marks[-1]
        if last_step <= first_step:
            return math.nan
        return (self._total - last_step) * (last_time - first_time) / (last_step - first_step)

    def _on_terminal(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def _write(self, text: str) -> None:
        if self._stream is None or self._stream.closed:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            _discard_output(self._stream)
            self._stream = None


def say(text: str) -> None:
    """A line for a person on stderr; as with Progress, nothing ends where nobody reads it."""
    Progress(0).message(text)


def _discard_output(stream: TextIO) -> None:
    """Point a broken stream at the null device: else the next print to it fails too."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
