"""The child of fuzzing.py: writes whole files of each reader, and reads what became of them.

A JSON object a line comes in, {make, folder} or {read, path}, and one goes out.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import resource
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rank_ssl.errors import UserError
from tests import fuzz_files

ROOM = 4 << 30  # bytes of address space above what the imports took: the machine lives on


def read_image(path: Path) -> None:
    from rank_ssl.ops import images

    try:
        found = images.decode(path.read_bytes())
    except images.ImageError as error:
        raise UserError(str(error)) from None
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size


@functools.cache
def _annotations() -> Any:
    from data_prep.shanghaitech.source import ShanghaitechSource

    return ShanghaitechSource('part_A', None)


def read_mat(path: Path) -> None:
    from data_prep.source import BadFile

    try:
        points, count = _annotations()._annotation(path)
    except BadFile as error:
        raise UserError(str(error)) from None
    assert points.dtype == np.float64 and points.shape[1:] == (2,) and np.isfinite(points).all()
    assert count is None or isinstance(count, float)


def read_points(path: Path) -> None:
    from data_prep.points_folder import table

    names = {*(f'{n}.jpg' for n in fuzz_files.NAMES), 'e, f.jpg'}
    found = table.load(path, names)
    assert found and found.keys() <= names
    assert all(np.isfinite(points).all() for points in found.values())


def read_scores(path: Path) -> None:
    from data_prep.image_scores import source

    entries, scale = source.load(path)
    assert all(scale.low <= entry.label.score <= scale.high for entry in entries)


def read_weights(path: Path) -> None:
    from rank_ssl.models.weights import load_backbone

    found, _ = load_backbone(path, layout=(1,) * 5, width=1, blocks=1)
    kernel, bias = found['block1_conv1']['kernel'], found['block1_conv1']['bias']
    assert kernel.shape == (3, 3, 3, 64) and kernel.dtype == bias.dtype == np.float32
    assert np.isfinite(kernel).all() and np.isfinite(bias).all()


def read_checkpoint(path: Path) -> None:
    from rank_ssl import checkpoint, manifest

    folder = next(parent for parent in path.parents if parent.name == '2').parent
    fault = manifest.damage(folder / '2')
    assert fault is not None, 'a changed file was accepted'
    with contextlib.redirect_stderr(io.StringIO()):
        assert checkpoint.newest(folder) == (1, {'n': 1})
    raise UserError(fault)


def read_config(path: Path) -> None:
    from rank_ssl import restore

    restore.config_of(path.parent).check()


def read_reproduce(path: Path) -> None:
    from rank_ssl import reproduce

    config, noted = reproduce.read(str(path))
    config.check()
    reproduce.verdict(noted, fuzz_files.noted())


def read_metrics(path: Path) -> None:
    from rank_ssl import logs

    assert all(isinstance(row['step'], int) for row in logs.read_metrics(path))


def read_acquisition(path: Path) -> None:
    from rank_ssl.active.acquired import read

    found = read(path.parent, types.SimpleNamespace(names=fuzz_files.NAMES), np.array([1]))  # type: ignore
    assert found is not None and found.names == fuzz_files.NAMES and len(found.taken)
    assert set(found.taken.tolist()) <= {0, 2, 3} and len(set(found.taken)) == len(found.taken)
    found.summary()


def read_order(path: Path) -> None:
    """Does what the file says: how the faults are found that no file of a reader brings about."""
    word = path.read_text()
    if word == 'raise':
        raise KeyError('a')
    if word == 'lines':
        raise UserError('one\ntwo')
    if word == 'end':
        os.kill(os.getpid(), 11)
    while word == 'spin':
        pass
    if word == 'sleep':
        time.sleep(30)
    if word == 'fill':
        np.ones(1 << 24)  # 128 MiB


@dataclasses.dataclass(frozen=True)
class Reader:
    write: Callable[[Path], list[Path]]
    read: Callable[[Path], None]
    lines: bool = False  # whether an error may have lines below the first


READERS = {
    'images': Reader(fuzz_files.images, read_image),
    'mat': Reader(fuzz_files.mat, read_mat),
    'points': Reader(fuzz_files.points, read_points, lines=True),
    'scores': Reader(fuzz_files.scores, read_scores, lines=True),
    'npz': Reader(fuzz_files.npz, read_weights),
    'safetensors': Reader(fuzz_files.safetensors, read_weights),
    'checkpoint': Reader(fuzz_files.checkpoint, read_checkpoint),
    'config': Reader(fuzz_files.config, read_config),
    'reproduce': Reader(fuzz_files.reproduce, read_reproduce),
    'metrics': Reader(fuzz_files.metrics, read_metrics),
    'acquisition': Reader(fuzz_files.acquisition, read_acquisition),
    'order': Reader(lambda folder: [], read_order),
}


def outcome(reader: Reader, path: Path) -> tuple[str, str]:
    try:
        reader.read(path)
    except UserError as error:
        words = str(error)
        # A table's faults follow below one another, each with its place.
        whole = all(ln.startswith((str(path), 'and ')) for ln in words.split('\n'))
        if words and ('\n' not in words or (reader.lines and whole)):
            return 'refused', words[:300]
        return 'FAULT', f'an error of other lines: {words[:300]!r}'
    except BaseException as error:
        return 'FAULT', f'{type(error).__name__}: {error}'[:300]
    return 'read', ''


def _megabytes(pid: int | str = 'self') -> float:
    """The most memory that a process has had, since `_forget` where that works."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
        return float(next(ln.split()[1] for ln in lines if ln.startswith('VmHWM'))) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forget() -> None:
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def _taken(name: str, path: Path) -> tuple[tuple[str, str], float]:
    _forget()
    before = _megabytes()
    found = outcome(READERS[name], path)
    taken = _megabytes() - before
    mats = _annotations()._mats if name == 'mat' else None
    child = mats and mats._child
    return found, max(taken, _megabytes(child.pid) if child else 0)


def answer(request: dict[str, str]) -> dict[str, Any]:
    if name := request.get('make'):
        if request['folder']:
            return {'files': [str(path) for path in READERS[name].write(Path(request['folder']))]}
        return {'files': []}
    found, megabytes = _taken(request['read'], Path(request['path']))
    return {'outcome': found[0], 'words': found[1], 'megabytes': megabytes}


def main() -> None:
    warnings.simplefilter('ignore')
    if 'bare' not in sys.argv:  # so that no file's memory or time has imports in it
        import jax  # noqa: F401

        import rank_ssl.active.cycles
        import rank_ssl.models.weights
        import rank_ssl.ops.images  # noqa: F401

    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what a reader prints is no reply
    for line in sys.stdin:
        replies.write(json.dumps(answer(json.loads(line))) + '\n')
        replies.flush()


if __name__ == '__main__':
    main()
