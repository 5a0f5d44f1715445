"""MATLAB files up to version 7.2, read in a child process that a damaged one may crash."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import select
import subprocess
import sys
import time
from typing import Any

import numpy as np

from data_prep.source import BadFile

WORKER = pathlib.Path(__file__).with_name('mat_worker.py')
TIMEOUT = 30.0  # seconds for one file, the start of the child included
HDF5_SIGNATURE = b'\x89HDF\r\n\x1a\n'


class MatReader:
    """Reads .mat files through one long-lived child, started when needed and after a crash."""

    def __init__(self, *, timeout: float = TIMEOUT, worker: pathlib.Path = WORKER) -> None:
        self.timeout = timeout
        self.worker = worker
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MatReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child; the next `read` starts another one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def read(self, path: pathlib.Path) -> dict[str, Any]:
        """Variables by name: arrays of numbers, object arrays (cells) or of dicts (structs).

        Raises BadFile that names the path for a file that is unreadable, damaged or of version 7.3.
        """
        check_version(path)
        reply = json.loads(self._ask(path))
        if 'error' in reply:
            raise BadFile(f'{path}: not a readable MATLAB file ({reply["error"]})')
        return {name: _value(value) for name, value in reply['variables'].items()}

    def _ask(self, path: pathlib.Path) -> bytes:
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(str(path.resolve())).encode() + b'\n')
            child.stdin.flush()
            return self._reply(child.stdout.fileno(), path)
        except (BrokenPipeError, EOFError):
            code = child.wait()
            self.close()
            reason = f'signal {-code}' if code < 0 else f'exit code {code}'
            raise BadFile(f'{path}: damaged, it crashed the reading process ({reason})') from None

    def _start(self) -> subprocess.Popen[bytes]:
        # -P keeps this folder out of the child's sys.path; one thread, a small address space.
        self._child = subprocess.Popen(
            [sys.executable, '-P', str(self.worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, 'OPENBLAS_NUM_THREADS': '1', 'OMP_NUM_THREADS': '1'},
        )
        return self._child

    def _reply(self, fd: int, path: pathlib.Path) -> bytes:
        """One line from the child; EOFError where it died, BadFile where it hangs."""
        line = bytearray()
        deadline = time.monotonic() + self.timeout
        while not line.endswith(b'\n'):
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise BadFile(f'{path}: damaged, reading it took more than {self.timeout:g} s')
            part = os.read(fd, 1 << 20)
            if not part:
                raise EOFError
            line += part
        return bytes(line)


def check_version(path: pathlib.Path) -> None:
    """Raises BadFile for an unreadable file and for MATLAB 7.3 (HDF5), which scipy can't read."""
    try:
        with path.open('rb') as file:
            head = file.read(520)
    except OSError as error:
        raise BadFile(f'{path}: {error.strerror or error}') from error
    at_start, after_text = head[:8], head[512:520]
    if head.startswith(b'MATLAB 7.3') or HDF5_SIGNATURE in (at_start, after_text):
        raise BadFile(
            f"{path}: a MATLAB 7.3 (HDF5) file; save it again in MATLAB with save(name, '-v7')"
        )


def _value(value: Any) -> Any:
    """The inverse of the child's `plain`."""
    if isinstance(value, str):
        return value
    shape = tuple(value['shape'])
    if value['kind'] == 'number':
        data = base64.b64decode(value['data'])
        return np.frombuffer(data, np.dtype(value['dtype'])).reshape(shape)
    result = np.empty(len(value['items']), object)
    for i, item in enumerate(value['items']):
        nested = value['kind'] == 'struct'
        result[i] = {k: _value(v) for k, v in item.items()} if nested else _leaf(item)
    return result.reshape(shape)


def _leaf(item: Any) -> Any:
    return item if isinstance(item, str) else _value(item)


def unwrap(value: Any) -> Any:
    """What lies inside nested [1, 1] cells and structs, in which MATLAB wraps single values."""
    while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.item()
    return value


def as_points(value: Any, path: pathlib.Path) -> np.ndarray:
    """Points f64[P, 2] from a matrix; an empty one of any shape holds none. Raises BadFile."""
    array = np.asarray(unwrap(value))
    if array.size == 0:
        return np.zeros((0, 2))
    if array.dtype.kind not in 'fiu' or array.ndim != 2 or array.shape[1] != 2:
        raise BadFile(f'{path}: points have shape {list(array.shape)}, not [P, 2]')
    points = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise BadFile(f'{path}: {bad.size} points are not finite, the first is number {bad[0]}')
    return points
