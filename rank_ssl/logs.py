"""What a run writes down: metrics.jsonl, TensorBoard scalars, JSON files; and reading them again.

JSON has no NaN and no infinity: such a number is written as null, and `read_metrics` reads null as
NaN. Files that are replaced as a whole are replaced in one step, so a killed run leaves the old
file or the new one and never half of either.
"""

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

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
