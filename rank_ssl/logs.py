"""What a run writes down while it runs: metrics.jsonl, TensorBoard scalars, a progress line.

JSON has no NaN and no infinity: such a number is written as null, and `read_metrics` reads null as
NaN. Files that are replaced as a whole are replaced in one step, so a killed run leaves the old
file or the new one and never half of either.
"""

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, TextIO

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from rank_ssl.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays as lists, paths as text, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, 'tolist'):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], size: int | None = None) -> Iterator[None]:
    """Writes in here that fail raise a UserError with the path, the bytes where known, the cure."""
    try:
        yield
    except OSError as error:
        what = '' if size is None else f' {size} bytes'
        full = error.errno in FULL
        cure = 'free disk space' if full else 'make its folder one that can be written to'
        raise UserError(
            f'{path}: cannot write{what} ({error.strerror or error}): {cure} and start the same '
            'command again'
        ) from error


def _write_all(file: BinaryIO, data: bytes) -> None:
    """All of the bytes, on disk when this returns; the file has no buffer of its own."""
    rest = memoryview(data)
    while rest:  # a disk that fills up takes a part and says nothing
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    # A workdir has one owner, who finds by its name what a killed one left (checkpoint.clean).
    temporary = path.with_name(f'.{path.name}.partial')
    with writing(path, len(data)):
        try:
            with open(temporary, 'wb', buffering=0) as file:
                _write_all(file, data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """The object as an indented JSON file, put in place in one step."""
    text = json.dumps(_plain(obj), indent=2, allow_nan=False)
    _replace(Path(path), f'{text}\n'.encode())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """The text as a file, put in place in one step."""
    _replace(Path(path), text.encode())


def read_json(path: str | os.PathLike[str], *, cure: str) -> dict[str, Any] | None:
    """The object that a JSON file holds; None where there is no file.

    Raises UserError, which ends in `cure`, where it cannot be read or holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        fault = ' '.join(str(getattr(error, 'strerror', None) or error).split())
        raise UserError(f'{path} cannot be read ({fault}): {cure}') from error
    if not isinstance(found, dict):
        raise UserError(f'{path} holds no JSON object: {cure}')
    return found


def read_result(workdir: Path) -> dict[str, Any] | None:
    """A run's result.json; None where it has not ended. Raises UserError for a damaged one."""
    return read_json(workdir / 'result.json', cure='delete it, and the same command makes it again')


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, null as NaN; a last line cut off by a killed run is left out.

    Raises UserError for any other line that is not a JSON object with a `step`.
    """
    rows = []
    for number, line in enumerate(_whole_lines(Path(path)), 1):
        row = _parse(line)
        if row is None:
            raise UserError(f'{path}, line {number} is not a JSON object with a step; remove it')
        rows.append({key: math.nan if value is None else value for key, value in row.items()})
    return rows


def _whole_lines(path: Path) -> list[bytes]:
    """The lines that end in a newline: a killed run may leave the start of one more."""
    return path.read_bytes().split(b'\n')[:-1]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get('step'), int) else None


def _kept_lines(path: Path, resume_step: int) -> list[bytes]:
    rows = [(line, _parse(line)) for line in _whole_lines(path)]
    return [line for line, row in rows if row is not None and row['step'] <= resume_step]


def write_last(path: str | os.PathLike[str], step: int, metrics: Mapping[str, Any]) -> None:
    """One line at the end of metrics.jsonl; an older one of the same names goes."""
    if not metrics:
        return
    row = {'step': int(step), **_plain(metrics)}
    whole = _whole_lines(Path(path)) if Path(path).exists() else []
    lines = [line for line in whole if set(_parse(line) or {}) != set(row)]
    lines.append(json.dumps(row, allow_nan=False).encode())
    _replace(Path(path), b''.join(line + b'\n' for line in lines))


class MetricsLog:
    """metrics.jsonl and tensorboard/ of a workdir: one JSON object a line, `step` first.

    A run that resumes from `resume_step` drops the lines of later steps, which it is about to write
    again; a fresh run (None) starts with an empty file. So no step stands twice.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, resume_step: int | None) -> None:
        folder = Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / 'metrics.jsonl'
        last = -1 if resume_step is None else resume_step
        if path.exists():
            _replace(path, b''.join(line + b'\n' for line in _kept_lines(path, last)))
        self._path = path
        with writing(path):
            self._file = path.open('ab', buffering=0)
        self._events = folder / 'tensorboard'
        with writing(self._events):
            self._events.mkdir(exist_ok=True)
            # Not SummaryWriter: where the disk is full its thread ends, and its queue fills up and
            # is waited for without end.
            self._board = EventsWriter(str(self._events / 'events'))
        # TensorBoard hides what earlier event files say of this and later steps.
        self._add_event(step=last + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One line, on disk when this returns; TensorBoard gets the numbers that are finite.

        Raises UserError where the disk is full.
        """
        row = {'step': int(step), **_plain(metrics)}
        data = f'{json.dumps(row, allow_nan=False)}\n'.encode()
        with writing(self._path, len(data)):
            _write_all(self._file, data)
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != 'step' and isinstance(value, (int, float))
        ]
        self._add_event(step=int(step), summary=Summary(value=values))

    def _add_event(self, **fields: Any) -> None:
        event = Event(wall_time=time.time(), **fields)
        with writing(self._events, event.ByteSize()):
            self._board.write_event(event)
            self._board.flush()

    def close(self) -> None:
        """Both files closed; closing twice is allowed."""
        if not self._file.closed:
            self._file.close()
            # All was written before, or has failed and said so.
            with contextlib.suppress(OSError):
                self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
