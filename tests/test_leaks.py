"""Memory does not grow with the steps of a run, nor with the examples of an evaluation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 4.0  # MB between the means of the second and of the last quarter


def growth(samples: list[float]) -> float:
    """The mean of the last quarter less that of the second, MB; the first one warms up."""
    quarter = len(samples) // 4
    return float(np.mean(samples[-quarter:]) - np.mean(samples[quarter : 2 * quarter]))


def measured(steps: int, examples: int, *leaks: int, every: int) -> list[dict[str, float]]:
    """Growth over a run and over an evaluation, for each number of bytes that a step leaks.

    The run validates and saves every so many steps.
    """
    numbers = map(str, (steps, examples, every, *leaks))
    command = [sys.executable, ROOT / 'tests' / 'resident.py', *numbers]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(len(samples) >= 40 for parts in found for samples in parts.values())
    return [{name: growth(samples) for name, samples in parts.items()} for parts in found]


@pytest.mark.slow
def test_memory_stays_flat_and_a_made_leak_is_found():
    # Of 200 kB at each of 120 steps half, 12 MB, lie between the two quarters.
    flat, leaky = measured(120, 480, 0, 200_000, every=120)
    assert max(flat.values()) < TOLERANCE < min(leaky.values()), (flat, leaky)


@pytest.mark.slow
def test_memory_stays_flat_over_1000_steps_100_saves_and_a_long_evaluation(record_property):
    # What saves hold on to grows for their first 30 or so: the first quarter has to have them.
    (flat,) = measured(1000, 10_000, 0, every=10)
    record_property('measured', ', '.join(f'{n} {mb:+.2f} MB' for n, mb in flat.items()))
    assert max(flat.values()) < TOLERANCE, flat


def test_growth_of_made_samples():
    rng = np.random.default_rng(0)
    flat = 500 + rng.normal(size=100)
    warm = flat + np.minimum(np.arange(100), 20)
    assert abs(growth(list(flat))) < 1 and abs(growth(list(warm))) < 1
    assert growth(list(flat + 0.1 * np.arange(100))) == pytest.approx(5, abs=1)
