"""Checkpoints that a crash cannot spoil: written aside, hashed, renamed; verified on reading.

A checkpoint is a folder STEP with `arrays/` (orbax), `meta.json` (data position, best metric,
labeled ids, ...) and `manifest.json` (SHA-256 of every file). It is written as `.STEP.partial` in
the background and renamed when whole, so a folder with a number for a name is a whole one, or one
that was damaged later: then the manifest tells and the step before is used.
"""

import concurrent.futures
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rank_ssl import manifest
from rank_ssl.errors import UserError
from rank_ssl.progress import say

Meta = dict[str, Any]
NOT_A_FOLDER = (FileExistsError, NotADirectoryError)


def save(folder: pathlib.Path, step: int, tree: Any, meta: Meta) -> None:
    """Writes the checkpoint `folder/STEP` whole or not at all; an older one of that step goes.

    Of several processes, all of which hold the same arrays, the first one writes. Raises UserError
    where an array is not finite, and where the disk is full.
    """
    target, partial = folder / str(step), folder / f'.{step}.partial'
    arrays = {name: np.asarray(_key_data(leaf)) for name, leaf in _by_path(tree).items()}
    for name, array in arrays.items():
        if jax.dtypes.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise UserError(
                f'{target}: {name} is not finite, so it is not saved: lower config.optim.rate or '
                'set config.optim.clip_norm; older checkpoints are kept'
            )
    need = sum(array.nbytes for array in arrays.values())
    if jax.process_index() > 0:
        return
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        if shutil.disk_usage(partial).free < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with _checkpointer() as checkpointer:
            checkpointer.save((partial / 'arrays').absolute(), arrays)
        (partial / 'meta.json').write_text(json.dumps(meta, indent=1, sort_keys=True))
        manifest.write(partial)
        _remove(target)
        partial.rename(target)
        manifest.sync(folder)
    except (OSError, ValueError) as error:
        _remove(partial)
        cure = f'make {folder} a folder' if isinstance(error, NOT_A_FOLDER) else 'free disk space'
        raise UserError(
            f'{target}: cannot save {need} bytes ({_reason(error)}): {cure} and start the same '
            'command again; older checkpoints are whole'
        ) from error


def restore_step(folder: pathlib.Path, step: int, like: Any) -> Any:
    """The tree of that step. Raises UserError where it is not there or not whole."""
    path = folder / str(step)
    if fault := manifest.damage(path):
        raise UserError(f'{path}: {fault}: restore it from a copy, or train again')
    return load(path, like)


def newest(folder: pathlib.Path) -> tuple[int, Meta] | None:
    """Step and meta of the newest whole checkpoint, every file of which has been verified.

    None where the folder holds no checkpoint at all. A damaged one is named on stderr and the one
    before it taken. Raises UserError where there are checkpoints and none is whole.
    """
    steps = saved_steps(folder)
    for step in reversed(steps):
        path = folder / str(step)
        fault = manifest.damage(path)
        if fault is None:
            return step, json.loads((path / 'meta.json').read_text())
        say(f'{path}: {fault}; going back to the checkpoint before')
    if steps:
        raise UserError(
            f'{folder}: none of the checkpoints {", ".join(map(str, steps))} is whole: '
            'restore the folder from a copy, or delete it to start again'
        )
    return None


def of_run(workdir: pathlib.Path) -> Meta | None:
    """What a run's newest checkpoint says of it, or its best one where no other was kept.

    None for a run without a validated step. Raises UserError as `newest`.
    """
    found = newest(workdir / 'checkpoints') or newest(workdir / 'best')
    return found[1] if found and found[1]['best'] else None


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Steps that have a folder, whole or not, in rising order."""
    if not folder.is_dir():
        return []
    names = {p.name for p in folder.iterdir() if p.is_dir()}
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def prune(folder: pathlib.Path, keep: int, *, newest: int, strays: Collection[int] = ()) -> None:
    """Deletes all but the `keep` newest checkpoints up to step `newest`.

    A folder of a later step is a damaged or a stray one: it is left alone and counts for nothing,
    as are the `strays`, which were that before this run came so far.
    """
    counted = [step for step in saved_steps(folder) if step <= newest and step not in strays]
    discard(folder, counted[:-keep])


def discard(folder: pathlib.Path, steps: Iterable[int]) -> None:
    """Deletes the checkpoints of these steps."""
    for step in steps:
        # Renamed first: a kill in the middle leaves no folder that looks whole.
        doomed = folder / f'.{step}.partial'
        (folder / str(step)).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def prune_best(best: pathlib.Path, folder: pathlib.Path, *, newest: int) -> None:
    """Deletes the steps of `best`, up to `newest`, that no checkpoint in `folder` names its best.

    So whichever of them a run goes on from, its best parameters are there.
    """
    named = set()
    for step in saved_steps(folder):
        try:
            meta = json.loads((folder / str(step) / 'meta.json').read_text())
            named.add(meta['best'].get('step'))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # a damaged one: what it named cannot be known
    discard(best, [step for step in saved_steps(best) if step <= newest and step not in named])


def clean(folder: pathlib.Path) -> None:
    """Removes what a killed process has not written to its end: saves and single files."""
    for path in folder.glob('.*.partial') if folder.is_dir() else ():
        _remove(path)


def _remove(path: pathlib.Path) -> None:
    """A folder, or a file that stands in the place of one."""
    if path.is_file() or path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


class Saver:
    """Saves in the background, one at a time; an error comes up at the next call.

    `start` is the step that the run goes on from: what is there of later ones is not whole.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        keep: int,
        best: pathlib.Path | None = None,
        start: int | None = None,
    ) -> None:
        self._folder, self._keep, self._best = folder, keep, best
        self._strays = {s for s in saved_steps(folder) if start is not None and s > start}
        self._executor = concurrent.futures.ThreadPoolExecutor(1)
        self._pending: concurrent.futures.Future | None = None
        if jax.process_index() == 0:
            clean(folder)

    def save(self, step: int, tree: Any, meta: Meta) -> None:
        """Copies the tree to the host, and writes it while the caller goes on."""
        self.wait()
        # The step donates its buffers, so the copy is made here.
        copied = jax.tree.map(_to_host, tree)
        self._pending = self._executor.submit(self._write, step, copied, meta)

    def check(self) -> None:
        """Raises what the last save has raised, without waiting for one that is still written."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises what it raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Waits for the last save and ends the thread."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def _write(self, step: int, tree: Any, meta: Meta) -> None:
        save(self._folder, step, tree, meta)
        self._strays.discard(step)
        if jax.process_index() == 0:
            prune(self._folder, self._keep, newest=step, strays=self._strays)
            if self._best is not None:
                prune_best(self._best, self._folder, newest=step)


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the workdir for this process. Raises UserError, naming the owner, where it is held.

    The lock is the operating system's: it ends with its owner, however that dies. What a dead one
    was writing there is removed. Raises UserError too where the lock can't be opened.
    """
    path = workdir / '.lock'
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, 'a+', encoding='utf-8'))
        except OSError as error:
            raise UserError(
                f'{path} cannot be opened ({error.strerror}): where it is of another user, name '
                'another --workdir'
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or 'another process'
            raise UserError(
                f'--workdir={workdir} is in use by {owner}: wait for it, or use another folder'
            ) from None
        except OSError as error:
            raise UserError(
                f'{path} cannot be locked ({error.strerror}): name a --workdir on a file system '
                'that knows locks'
            ) from error
        file.truncate(0)
        file.write(f'pid {os.getpid()} on {socket.gethostname()}')
        file.flush()
        clean(workdir)
        yield


def params_sha256(params: Any) -> str:
    """SHA-256 over the parameters' bytes in sorted path order."""
    digest = hashlib.sha256()
    for name, array in sorted(_by_path(params).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(_to_host(array)).tobytes())
    return digest.hexdigest()


def _to_host(leaf: Any) -> np.ndarray:
    return np.array(_key_data(leaf))


def _reason(error: Exception) -> str:
    """What the operating system said; tensorstore passes it on as text in a ValueError."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else getattr(error, 'strerror', None) or str(error)


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves by their path: a plain dict survives changes in optax's state classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _checkpointer() -> ocp.StandardCheckpointer:
    """One that waits for no other process: its barriers would meet the training step's."""
    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f'process_{here}'
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def load(path: pathlib.Path, like: Any) -> Any:
    """The arrays of a verified checkpoint, as a tree shaped like the given one.

    Raises UserError where the checkpoint holds other arrays than `like`.
    """
    wanted = {
        name: jax.ShapeDtypeStruct(host.shape, host.dtype)
        for name, leaf in _by_path(like).items()
        for host in [jax.eval_shape(_key_data, leaf)]
    }
    with _checkpointer() as checkpointer:
        saved = checkpointer.metadata((path / 'arrays').absolute()).item_metadata.tree
        _same_arrays(path, _described(saved), _described(wanted))
        host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        targets = {
            name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=host)
            for name, a in wanted.items()
        }
        arrays = checkpointer.restore((path / 'arrays').absolute(), targets)

    def placed(leaf_path: Any, leaf: Any) -> Any:
        array = arrays[jax.tree_util.keystr(leaf_path, simple=True, separator='/')]
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(array)
        return array

    return jax.tree_util.tree_map_with_path(placed, like)


def _same_arrays(path: pathlib.Path, saved: dict, wanted: dict) -> None:
    # orbax would cast another dtype without a word.
    for name in sorted(saved.keys() | wanted.keys()):
        have, want = saved.get(name), wanted.get(name)
        if have != want:
            raise UserError(
                f'{path}: {name} is {_named(have)} in the checkpoint and {_named(want)} in this '
                'run: use the config it was trained with, or another --workdir'
            )


def _described(arrays: dict) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (tuple(a.shape), np.dtype(a.dtype)) for name, a in arrays.items()}


def _named(array: tuple | None) -> str:
    return 'absent' if array is None else f'{array[1].name}{list(array[0])}'


def _key_data(leaf: Any) -> Any:
    return (
        jax.random.key_data(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    )
