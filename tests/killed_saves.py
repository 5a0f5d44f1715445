"""Saves a checkpoint again and again, each time in a process that dies at another system call.

Run as `python killed_saves.py WHOLE OUT`: WHOLE is a folder with the checkpoints 1 and 2. For each
n = 1, 2, ... a copy of it, OUT/n, gets checkpoint 3 and is pruned to two, but the process dies when
it makes the n-th call that changes the disk. In the last copy all of it was done.
"""

import itertools
import os
import pathlib
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from rank_ssl import checkpoint

CALLS = ('mkdir', 'rename', 'replace', 'fsync', 'unlink', 'rmdir')
DIED, WHOLE = 9, 0


def dies_at(number: int) -> None:
    """From here on the process ends, without any clean-up, at its n-th call of CALLS."""
    lock, count = threading.Lock(), itertools.count(1)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **options: Any) -> Any:
            with lock:
                if next(count) == number:
                    os._exit(DIED)
            return call(*args, **options)

        return instead

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def save(folder: pathlib.Path) -> None:
    saver = checkpoint.Saver(folder, keep=2)
    saver.save(3, {'value': np.full(1000, 3.0)}, {'number': 3})
    saver.close()


def main() -> None:
    whole, out = map(pathlib.Path, sys.argv[1:])
    for number in itertools.count(1):
        folder = out / str(number)
        shutil.copytree(whole, folder)
        # No computation has begun here, so that a fork is safe.
        child = os.fork()
        if child == 0:
            dies_at(number)
            save(folder)
            os._exit(WHOLE)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code not in (DIED, WHOLE):
            raise SystemExit(f'the save that should die at call {number} ended with {code}')
        if code == WHOLE:
            return


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    main()
