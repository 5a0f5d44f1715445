"""Two processes that train as one, as hosts of a pod do."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, '-m', 'rank_ssl.main', '--config=experiments/quickstart.py:smoke']


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('localhost', 0))
        return s.getsockname()[1]


def train_losses(workdir: Path) -> list[float]:
    rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [row['train/loss'] for row in rows if 'train/loss' in row]


def test_two_processes_give_the_losses_of_one(tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    shared = ['--distributed', f'--coordinator=localhost:{free_port()}', '--processes=2']
    starts = [[*COMMAND, f'--workdir={one}']] + [
        [*COMMAND, f'--workdir={two}', *shared, f'--process={number}'] for number in (0, 1)
    ]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    running = [
        subprocess.Popen(start, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        for start in starts
    ]
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert train_losses(two) == pytest.approx(train_losses(one), rel=1e-4)
    results = [json.loads((folder / 'result.json').read_text()) for folder in (one, two)]
    assert [result['processes'] for result in results] == [1, 2]
    assert results[1]['test/mae'] == pytest.approx(results[0]['test/mae'], rel=1e-3)


def test_two_processes_read_what_the_first_has_saved_last(tmp_path):
    """The best step of a stage of ranking is its last one, saved just before it is read."""
    fields = ['--config.regime=finetune', '--config.steps=2', '--config.figure_count=0']
    shared = ['--distributed', f'--coordinator=localhost:{free_port()}', '--processes=2']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    running = [
        subprocess.Popen(
            [*COMMAND, *fields, f'--workdir={tmp_path}', *shared, f'--process={number}'],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert json.loads((tmp_path / 'result.json').read_text())['steps'] == 2
