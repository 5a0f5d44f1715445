"""Runs of the program as processes that are ended on the way, and what a workdir then says."""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rank_ssl import checkpoint, logs, main, manifest
from rank_ssl.config import Config

ROOT = Path(__file__).resolve().parent.parent
CROWD = 'crowd_shtech.py:smoke'
STEPS = 8  # of a smoke run


def config_of(experiment: str, **fields: Any) -> Config:
    """An experiment's config with fields set; dots are written as double underscores."""
    name, _, arguments = experiment.partition('.py:')
    config = importlib.import_module(f'experiments.{name}').get_config(arguments)
    for field, value in fields.items():
        *parts, last = field.split('__')
        setattr(config.get('.'.join(parts)) if parts else config, last, value)
    return config


def result_of(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / 'result.json').read_text())


def played(config: Config, workdir: Path) -> dict[str, Any]:
    """A run in this process; its result.json. Tests that call it ask for `in_process`."""
    config.check()
    workdir.mkdir(exist_ok=True)
    main.main(config, workdir)
    return result_of(workdir)


def sha256_of(workdir: Path) -> str:
    return result_of(workdir)['params_sha256']


def steps_of(workdir: Path, key: str) -> list[int]:
    rows = logs.read_metrics(workdir / 'metrics.jsonl')
    return [row['step'] for row in rows if key in row]


def leftovers(workdir: Path) -> set[tuple[Path, int]]:
    """The folders of saves that are not whole, each with its inode: a later one is another."""
    found = set()
    for path in workdir.glob('*/.*.partial'):
        with contextlib.suppress(FileNotFoundError):
            found.add((path, path.stat().st_ino))
    return found


def assert_every_step_once(workdir: Path, steps: int = STEPS) -> None:
    assert steps_of(workdir, 'train/loss') == list(range(1, steps + 1))
    assert steps_of(workdir, 'val/mae') == list(range(4, steps + 1, 4))
    assert not leftovers(workdir)


def command(workdir: Path, data_dir: Path | str, steps: int) -> list[str]:
    """The smoke form of crowd counting that saves at every step."""
    return [
        *(sys.executable, '-m', 'rank_ssl.main', f'--config=experiments/{CROWD}'),
        *(f'--workdir={workdir}', f'--config.data.data_dir={data_dir}'),
        *('--config.checkpoint_every=1', '--config.figure_count=0', f'--config.steps={steps}'),
    ]


class Process:
    """The program as a process that is ended at a step."""

    def __init__(self, command: Sequence[str], workdir: Path) -> None:
        self._workdir = workdir
        pipes: Any = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        self._process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)

    def end(
        self, number: int, *, at: int, wait: float = 0, in_save: bool = False, times: int = 1
    ) -> tuple[int, str]:
        """Sends a signal some time after a step is logged, or after the start of a save later on.

        It goes to the process and all of its own, as a terminal's Ctrl-C. Gives the exit code and
        stderr.
        """
        try:
            self._until(lambda: self._last_step() >= at)
            if in_save:
                before = leftovers(self._workdir)
                self._until(lambda: bool(leftovers(self._workdir) - before))
            time.sleep(wait)
            for repeat in range(times):
                time.sleep(repeat)  # two of a kind that wait at once are one
                with contextlib.suppress(ProcessLookupError):  # it may be done by now
                    os.killpg(self._process.pid, number)
            _, told = self._process.communicate(timeout=30)
            return self._process.returncode, told
        finally:
            self._process.kill()

    def left_behind(self) -> bool:
        """Whether a process that it started is there 5 s after its end."""
        for _ in range(50):
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.1)
        os.killpg(self._process.pid, signal.SIGKILL)
        return True

    def wait(self) -> tuple[int, str]:
        """The exit code and stderr of a process that nobody ends."""
        try:
            _, told = self._process.communicate(timeout=240)
            return self._process.returncode, told
        finally:
            self._process.kill()

    def _until(self, condition: Any) -> None:
        limit = time.monotonic() + 300
        while not condition() and self._process.poll() is None:
            assert time.monotonic() < limit, 'the run took no step'
            time.sleep(0.001)

    def _last_step(self) -> int:
        path = self._workdir / 'metrics.jsonl'
        rows = logs.read_metrics(path) if path.exists() else []
        return max((row['step'] for row in rows), default=0)


def killed(workdir: Path, data_dir: Path | str, *, steps: int, kills: int, seed: int) -> int:
    """Starts a run and kills it, again and again, a step later each time; kills inside a save.

    Half of the instants are any, half soon after a save has begun.
    """
    rng, inside = random.Random(seed), 0
    for kill in range(kills):
        kept = leftovers(workdir)
        in_save, wait = kill % 2 == 0, rng.random()
        code, told = Process(command(workdir, data_dir, steps), workdir).end(
            signal.SIGKILL,
            at=1 + kill * (steps - 2) // kills,
            wait=wait / (100 if in_save else 4),
            in_save=in_save,
        )
        assert code in (-signal.SIGKILL, 0), told
        inside += bool(leftovers(workdir) - kept)
    return inside


def whole_checkpoints(workdir: Path) -> bool:
    """Whether each checkpoint that has a name is as it was written."""
    folder = workdir / 'checkpoints'
    return all(manifest.damage(folder / str(s)) is None for s in checkpoint.saved_steps(folder))
