"""Starts a script that prints its facts, as JSON in its last line, on other topologies."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

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
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = str(probe.getsockname()[1])
    both = [start(script, devices, '2', number, port) for number in ('0', '1')]
    return [facts(process) for process in both]
