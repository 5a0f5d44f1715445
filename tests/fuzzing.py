"""Damaged files for every reader of files: each gives a result or one error in words.

    python tests/fuzzing.py --files=2000 [--reader=NAME] [--seed=0] [--out=FOLDER]

A file is read in a child process. A fault is any other exception, a child that ends, more than
5 s of CPU time (60 s where it waits), and more than 1 GB: it is printed with its seed and number,
and the bytes are kept in FOLDER.
"""

import argparse
import collections
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
READERS = ('images', 'mat', 'points', 'scores', 'npz', 'safetensors', 'checkpoint', 'config',
           'reproduce', 'metrics', 'acquisition')  # fmt: skip
SECONDS, MEGABYTES = 5.0, 1000
WAITS = 12  # times SECONDS: on a busy machine a process may have to wait
START = 240.0  # seconds for a child's imports on a busy machine
WORDS = (b'', b'0', b'-1', b'1e999', b'nan', b'9' * 400, b'9' * 5000, b'null', b'"', b'\0',
         b'\xff', b'\n', b'{}', b'[]', b'true')  # fmt: skip
EXTREMES = (b'\0', b'\xff', b'\x7f', b'\x80', b'\x01')

Rng = np.random.Generator


def flipped(rng: Rng, data: bytes, other: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        found[_place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(found)


def overwritten(rng: Rng, data: bytes, other: bytes) -> bytes:
    start, length = _place(rng, data), int(rng.integers(1, 65))
    return data[:start] + rng.bytes(length) + data[start + length :]


def cut(rng: Rng, data: bytes, other: bytes) -> bytes:
    return data[: int(rng.integers(len(data)))]


def removed(rng: Rng, data: bytes, other: bytes) -> bytes:
    start, stop = _piece(rng, data)
    return data[:start] + data[stop:]


def doubled(rng: Rng, data: bytes, other: bytes) -> bytes:
    start, stop = _piece(rng, data)
    return data[:stop] + data[start:]


def repeated(rng: Rng, data: bytes, other: bytes) -> bytes:
    """One byte thousands of times, as brackets in brackets are."""
    start = _place(rng, data)
    return data[:start] + data[start : start + 1] * int(rng.integers(2, 5000)) + data[start:]


def inserted(rng: Rng, data: bytes, other: bytes) -> bytes:
    start = _place(rng, data)
    return data[:start] + rng.bytes(int(rng.integers(1, 65))) + data[start:]


def crossed(rng: Rng, data: bytes, other: bytes) -> bytes:
    start, stop = _piece(rng, other)
    place = _place(rng, data)
    return data[:place] + other[start:stop] + data[place + int(rng.integers(2)) * (stop - start) :]


def extreme(rng: Rng, data: bytes, other: bytes) -> bytes:
    """A field of 1 to 8 bytes at its least or greatest value, in either order of bytes."""
    start, length = _place(rng, data), int(rng.choice([1, 2, 4, 8]))
    edge, rest = (EXTREMES[i] for i in rng.integers(len(EXTREMES), size=2))
    field = edge + rest * (length - 1)
    return data[:start] + field[:: rng.choice([1, -1])] + data[start + length :]


def reworded(rng: Rng, data: bytes, other: bytes) -> bytes:
    """A word of a text made another one."""
    start = stop = _place(rng, data)
    while stop < len(data) and chr(data[stop]).isalnum():
        stop += 1
    return data[:start] + WORDS[rng.integers(len(WORDS))] + data[stop:]


KINDS: tuple[Callable[[Rng, bytes, bytes], bytes], ...] = (
    flipped, overwritten, cut, removed, doubled, repeated, inserted, crossed, extreme, reworded,
)  # fmt: skip
TEXTUAL = (cut, removed, doubled, repeated, crossed, reworded)  # what mostly leaves a text


def _place(rng: Rng, data: bytes) -> int:
    """Somewhere in the data; half of the time in the first sixteenth, where headers are."""
    return int(rng.random() ** rng.choice([1, 4]) * len(data))


def _piece(rng: Rng, data: bytes) -> tuple[int, int]:
    start = _place(rng, data)
    return start, start + int(rng.integers(1, len(data) - start + 1))


def mutated(rng: Rng, whole: bytes, other: bytes) -> bytes:
    """Other bytes than `whole`, by one to three kinds of damage; `other` is another such file."""
    while True:
        data, kinds = whole, TEXTUAL if whole.isascii() and rng.integers(3) else KINDS
        for _ in range(rng.integers(1, 4)):
            data = kinds[rng.integers(len(kinds))](rng, data, other) if data else rng.bytes(3)
        if data != whole:
            return data


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children."""
    folder = Path(f'/proc/{pid}')
    try:
        fields = (folder / 'stat').read_text().rpartition(')')[2].split()
        children = (folder / 'task' / str(pid) / 'children').read_text().split()
    except OSError:
        return 0.0  # it has ended
    ticks = sum(int(field) for field in fields[11:13])
    return ticks / os.sysconf('SC_CLK_TCK') + sum(_cpu_seconds(int(child)) for child in children)


class Child:
    """The process that reads: `ask` starts another one where it ended or hung."""

    def __init__(
        self, *, seconds: float = SECONDS, megabytes: float = MEGABYTES, bare: bool = False
    ) -> None:
        self._seconds, self._megabytes = seconds, megabytes
        self._words = ['bare'] if bare else []  # for orders, which import nothing
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def make(self, reader: str, folder: Path) -> list[Path]:
        """Whole files of that reader, written into the folder."""
        reply = self._call({'make': reader, 'folder': str(folder)}, START)
        return [Path(path) for path in reply['files']]

    def ask(self, reader: str, path: Path) -> tuple[str, str]:
        """('read' | 'refused' | 'FAULT', in words) for a file."""
        if self._process is None:
            self._call({'make': reader, 'folder': ''}, START)  # imports are not of the file
        try:
            reply = self._call({'read': reader, 'path': str(path)}, WAITS * self._seconds)
        except EOFError as error:
            return 'FAULT', str(error)
        if reply['outcome'] != 'FAULT' and reply['megabytes'] > self._megabytes:
            return 'FAULT', f'it took {reply["megabytes"]:.0f} MB ({reply["words"]})'
        return reply['outcome'], reply['words']

    def _call(self, request: dict[str, str], seconds: float) -> dict[str, Any]:
        """Raises EOFError, in words, where no answer comes."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b'\n')
        process.stdin.flush()
        line, end = b'', time.monotonic() + seconds
        busy = _cpu_seconds(process.pid) + self._seconds
        while not line.endswith(b'\n'):
            if not select.select([process.stdout], [], [], 0.5)[0]:
                asked = 'read' in request
                hung = asked and _cpu_seconds(process.pid) > busy
                if hung or time.monotonic() > end:
                    self.__exit__()
                    raise EOFError(f'it took more than {self._seconds if hung else seconds:g} s')
                continue
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                code = process.wait()
                self.__exit__()
                raise EOFError(f'the process ended with {code}')
            line += part
        return json.loads(line)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
        self._process = subprocess.Popen(
            [sys.executable, ROOT / 'tests' / 'fuzz_readers.py', *self._words],
            **{'env': environment, 'cwd': ROOT, 'stderr': subprocess.DEVNULL},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self._process


@dataclasses.dataclass
class Report:
    """How the files of a reader came out."""

    reader: str
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        words = ', '.join(f'{self.counts[name]} {name}' for name in ('read', 'refused'))
        return f'{self.reader}: {self.counts.total()} files, {words}, {len(self.faults)} faults'


def fuzz(child: Child, reader: str, files: int, *, seed: int, folder: Path, out: Path) -> Report:
    """Reads so many damaged files in `folder`; those that are faults are kept in `out`."""
    report = Report(reader)
    folder.mkdir(exist_ok=True)
    whole = {path: path.read_bytes() for path in child.make(reader, folder)}
    for path, data in whole.items():
        if (found := child.ask(reader, path)) != ('read', '') and reader != 'checkpoint':
            raise ValueError(f'the whole file {path} of {len(data)} bytes gives {found}')
    paths = list(whole)
    for number in range(files):
        rng = np.random.default_rng([seed, zlib.crc32(reader.encode()), number])
        path, other = (paths[i] for i in rng.integers(len(paths), size=2))
        data = mutated(rng, whole[path], whole[other])
        path.write_bytes(data)
        outcome, words = child.ask(reader, path)
        path.write_bytes(whole[path])
        report.counts[outcome] += 1
        if outcome == 'FAULT':
            out.mkdir(parents=True, exist_ok=True)
            kept = out / f'{reader}-{seed}-{number}-{path.name}'
            kept.write_bytes(data)
            report.faults.append(f'{reader}, seed {seed}, number {number}: {words}; see {kept}')
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--files', type=int, default=2000, help='of each reader')
    parser.add_argument('--reader', choices=READERS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=ROOT / 'runs' / 'fuzzing')
    given = parser.parse_args()
    faults = 0
    for reader in [given.reader] if given.reader else READERS:
        with tempfile.TemporaryDirectory() as folder, Child() as child:
            report = fuzz(
                child, reader, given.files, seed=given.seed, folder=Path(folder), out=given.out
            )
        print('\n'.join([str(report), *report.faults]), flush=True)
        faults += len(report.faults)
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
