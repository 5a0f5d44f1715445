"""Process CPU time of calls that alternate, so that a shared machine's noise meets all alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def alternate(
    calls: Mapping[str, Callable[[], Any]], *, rounds: int, seconds: float
) -> dict[str, np.ndarray]:
    """Seconds of CPU time of one call, float64 [rounds] for each name.

    In a round each call is repeated for about `seconds`, at least once. CPU time of all threads
    counts, so a call that starts threads gains nothing by them.
    """
    repeats = {}
    for name, call in calls.items():
        call()  # the first one fills caches
        repeats[name] = max(1, round(seconds / max(cpu_seconds(call), 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(cpu_seconds(call, repeats[name]))
    return {name: np.array(values) for name, values in taken.items()}


def cpu_seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Seconds of CPU time of one of `repeats` calls."""
    began = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - began) / repeats


def alternate_wall(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of one call by the clock and of CPU time, float64 [rounds, 2] for each name.

    For calls that use all cores and wait for their result.
    """
    for call in calls.values():
        call()  # the first one fills caches
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: np.array(values) for name, values in taken.items()}
