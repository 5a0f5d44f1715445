"""Prints, as JSON, the resident memory over the steps of a run and over a long evaluation.

Run as `python resident.py STEPS EXAMPLES EVERY LEAK...`: a tiny network through the real loop,
which validates and saves every EVERY steps, then a split of so many examples, once for each LEAK:
the bytes that are kept for good at each step and at each batch of examples.
"""

import ctypes
import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import quickstart
from rank_ssl import data, main, progress, train
from rank_ssl.config import Config

SAMPLES = 100  # over each of the two parts


class Memory:
    """Samples of the resident memory in MB; `tick` is called at each step."""

    def __init__(self, ticks: int, leak: int) -> None:
        self.samples: list[float] = []
        self._every, self._leak = max(1, ticks // SAMPLES), leak
        self._count = 0
        self._kept: list[Any] = []
        self._libc = ctypes.CDLL(None)

    def tick(self, *_: Any) -> None:
        self._count += 1
        if self._leak:
            self._kept.append(np.ones(self._leak, np.uint8))
        if self._count % self._every == 0:
            gc.collect()
            # What is free already is not held: glibc gives it back only when it likes to.
            if trim := getattr(self._libc, 'malloc_trim', None):
                trim(0)
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            self.samples.append(pages * os.sysconf('SC_PAGE_SIZE') / 1e6)


def config_of(steps: int, every: int, data_dir: Path) -> Config:
    config = quickstart.get_config('smoke')
    config.steps, config.checkpoint_every, config.eval_every = steps, every, every
    config.figure_count, config.evaluate_test = 0, False
    config.eval_batch, config.data.data_dir = 4, str(data_dir)
    config.check()
    return config


def over_steps(config: Config, workdir: Path, leak: int) -> list[float]:
    memory = Memory(config.steps, leak)
    line, progress.Progress.line = progress.Progress.line, memory.tick  # type: ignore[method-assign]
    try:
        main.main(config, workdir)
    finally:
        progress.Progress.line = line  # type: ignore[method-assign]
    return memory.samples


def over_evaluation(config: Config, workdir: Path, examples: int, leak: int) -> list[float]:
    splits = data.load_splits(config, *data.prepare(config, str(workdir)))
    run = train.create_run(config, workdir, splits)
    few = splits.validation
    many = few.take([n % len(few) for n in range(examples)])
    memory = Memory(examples // config.eval_batch, leak)
    found = run.evaluator(
        run.state.params, data.Examples(many, config.task, 0), progress=memory.tick
    )
    assert len(found.predicted) == examples
    return memory.samples


def measure() -> None:
    steps, examples, every, *leaks = map(int, sys.argv[1:])
    flags.FLAGS.mark_as_parsed()
    out, sys.stdout = sys.stdout, sys.stderr  # results are printed there
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, leak in enumerate(leaks):
            workdir = Path(folder, str(number))
            config = config_of(steps, every, Path(folder, 'data'))
            workdir.mkdir()
            parts = {
                'steps': over_steps(config, workdir, leak),
                'examples': over_evaluation(config, workdir, examples, leak),
            }
            found.append(parts)
    json.dump(found, out)


if __name__ == '__main__':
    measure()
