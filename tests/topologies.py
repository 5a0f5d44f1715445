"""Starts runs and scripts on other topologies: virtual devices, and two processes as one."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def start(script: Path, devices: int, *arguments: str) -> subprocess.Popen:
    """The script on so many virtual devices of the CPU."""
    flags = f'--xla_force_host_platform_device_count={devices}'
    environment = {**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        env={**environment, 'JAX_PLATFORMS': 'cpu'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def facts(process: subprocess.Popen) -> dict:
    """What it has printed when it has ended well."""
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def facts_of_two(script: Path, *, devices: int) -> list[dict]:
    """The facts of two processes that work as one, started with PROCESSES NUMBER PORT."""
    port = str(_free_port())
    both = [start(script, devices, '2', number, port) for number in ('0', '1')]
    return [facts(process) for process in both]


def start_run(experiment: str, workdir: Path, *fields: str) -> subprocess.Popen[str]:
    """rank_ssl.main on an experiment."""
    words = [f'--config=experiments/{experiment}', f'--workdir={workdir}', *fields]
    return subprocess.Popen(
        [sys.executable, '-m', 'rank_ssl.main', *words],
        cwd=ROOT,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(experiment: str, workdir: Path, *fields: str) -> list[subprocess.Popen[str]]:
    """The same as two processes that work as one."""
    shared = ['--distributed', f'--coordinator=localhost:{_free_port()}', '--processes=2']
    return [
        start_run(experiment, workdir, *fields, *shared, f'--process={number}') for number in (0, 1)
    ]


def ended(running: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """The exit code of each and what it has said on stderr."""
    try:
        told = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, words) for process, words in zip(running, told, strict=True)]


def wait_until(running: list[subprocess.Popen[str]], reached: Callable[[], bool]) -> None:
    """Returns when `reached()`; fails where that does not come."""
    limit = time.monotonic() + 240
    while not reached():
        if time.monotonic() > limit or running[0].poll() is not None:
            for process in running:  # they might never end
                process.kill()
            pytest.fail(f'not reached: {ended(running)}')
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        return probe.getsockname()[1]
