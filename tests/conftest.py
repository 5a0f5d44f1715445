"""For every test: the CPU as device, one compilation cache, the real data, runs of main."""

import contextlib
import fcntl
import functools
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

pytest_plugins = ['tests.faults_table']

# A busy machine is no fault of a test, and beside another worker any clock may stand for seconds.
settings.register_profile('any load', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('any load')


def pytest_configure(config: pytest.Config) -> None:
    # The environment, not jax.config: runs started as processes inherit it, and jax is not yet
    # imported here. A developer who sets JAX_PLATFORMS tests another device.
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    cache = getattr(config, 'cache', None)  # absent under -p no:cacheprovider
    if cache is not None:
        os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache.mkdir('jax')))
        os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder of real data sets: $RANK_SSL_DATA, else ../shared/data from the project's root."""
    named = os.environ.get('RANK_SSL_DATA')
    folder = Path(named) if named else ROOT.parent / 'shared' / 'data'
    if not folder.is_dir():
        where = f'RANK_SSL_DATA={named}' if named else '../shared/data, and RANK_SSL_DATA is unset'
        pytest.skip(f'no real data: there is no folder {where}')
    return folder.resolve()


@pytest.fixture(scope='session')
def run_main() -> Callable[..., subprocess.CompletedProcess[str]]:
    """run_main(args, env=None, timeout=300): `python -m rank_ssl.main ARGS` from the root, on CPU.

    In `env` a value of None takes the variable away. Output is text; the exit code is not checked.
    """

    def run(
        args: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str | None] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, 'JAX_PLATFORMS': 'cpu', **(env or {})}
        command = [sys.executable, '-m', 'rank_ssl.main', *map(os.fspath, args)]
        return subprocess.run(
            command,
            cwd=ROOT,
            env={name: value for name, value in variables.items() if value is not None},
            timeout=timeout,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def disk_limit() -> Iterator[Callable[[int], None]]:
    """A function that lets this process write no file longer than so many bytes, as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope='session')
def unprivileged() -> list[str]:
    """Words in front of a command by which the permissions of files hold for root as for others."""
    if os.geteuid():
        return []
    caps = '-dac_override,-dac_read_search'
    words = ['setpriv', f'--bounding-set={caps}', f'--inh-caps={caps}']
    if shutil.which('setpriv') is None or subprocess.run([*words, 'true'], check=False).returncode:
        pytest.skip('root may read and write anywhere, and cannot give that up here')
    return words


class SmokeRun(NamedTuple):
    """A finished run of an experiment's smoke form; tests share it and must not change it."""

    workdir: Path
    done: subprocess.CompletedProcess[str]
    seconds: float  # of CPU time


@pytest.fixture(scope='session')
def smoke_run(
    run_main: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], SmokeRun]:
    """smoke_run('quickstart.py:smoke'): that experiment as a command, run once for all workers.

    The workdir's name has a space and letters that are not ASCII.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base

    @functools.cache
    def run(experiment: str) -> SmokeRun:
        folder = base / 'smoke' / experiment
        workdir, ended = folder / 'essai 実験', folder / 'ended.json'
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / 'lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ended.exists():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                done = run_main([f'--config=experiments/{experiment}', f'--workdir={workdir}'])
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                ended.write_text(json.dumps([vars(done), seconds]))
        fields, seconds = json.loads(ended.read_text())
        return SmokeRun(workdir, subprocess.CompletedProcess(**fields), seconds)

    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of main.main in this process, without what takes longest: the smoke runs do all of it.

    Data are prepared in this process too, and a figure is a file of zeros in place of a picture.
    """
    from absl import flags
    from matplotlib.figure import Figure

    from data_prep import prepare
    from rank_ssl.data import records

    def prepared(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = prepare.main(list(command[command.index('data_prep.prepare') + 1 :]))
        return subprocess.CompletedProcess(command, code, out.getvalue())

    def picture(figure: Figure, path: Path, **_: Any) -> None:
        path.write_bytes(b'\x89PNG'.ljust(3000, b'\0'))

    monkeypatch.chdir(ROOT)
    flags.FLAGS.mark_as_parsed()
    here = types.SimpleNamespace(run=prepared, PIPE=subprocess.PIPE)
    monkeypatch.setattr(records, 'subprocess', here)
    monkeypatch.setattr(Figure, 'savefig', picture)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """given(name=value): sets flags of a grid, which tabulates two seeds and runs nothing."""
    import importlib

    from absl import flags

    from rank_ssl import compare

    importlib.import_module('rank_ssl.ablate')  # defines the flags
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(sys, 'argv', ['ablate.py', '--config=exp.py'])

    def choose(**values: Any) -> None:
        for name, value in values.items():
            monkeypatch.setattr(flags.FLAGS[name], 'value', value)

    choose(only_table=True, seeds=['2'])
    monkeypatch.setattr(compare, 'DRAWS', 100)
    return choose
