"""One training step of the density net beside torch's (channels_last), in one run.

Both regress the same maps from the same weights and images with SGD and momentum. Each lives in a
process of its own, which steps when it is told to: the machine's noise meets both alike, and the
memory of each is its own.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rank_ssl.bench.stepper import Setting
from rank_ssl.errors import UserError

TARGET, MEMORY_TARGET = 0.90, 1.5  # of torch's images/s, at least; of its memory, at most
COMPARED = 5  # steps whose losses are compared
ROOT = pathlib.Path(__file__).resolve().parents[2]
# Dense bfloat16 FLOP/s of a GPU, by a part of its name.
PEAKS = {'H200': 989e12, 'H100': 989e12, 'A100': 312e12, 'L4': 121e12, 'RTX 3090': 71e12}


def run(*, full: bool) -> dict[str, Any]:
    """Images/s, share of the matmul ceiling and memory of both, and how far their losses part."""
    return measure(Setting(), rounds=20 if full else 8)


def measure(setting: Setting, *, rounds: int) -> dict[str, Any]:
    """Prints and returns `run`'s numbers; 'torch' is None where it is not installed."""
    names = ['ours'] + ['torch'] * (importlib.util.find_spec('torch') is not None)
    children: dict[str, Child] = {}
    try:
        for name in names:
            children[name] = Child(name, setting)
        found = _alternate(children, rounds)
    finally:
        for child in children.values():
            child.close()
    result = summary(found, setting)
    print('\n'.join(lines(result)), flush=True)
    return result


class Child:
    """A process that holds one framework's training state and answers one command after another."""

    def __init__(self, name: str, setting: Setting) -> None:
        """Starts it and waits until it has compiled; `start` says what it runs on."""
        self.name = name
        words = [sys.executable, '-m', 'rank_ssl.bench.stepper', name]
        # On a GPU two processes share the memory: jax must not take three quarters at once.
        env = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
        env['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), env.get('PYTHONPATH')]))
        self.process = subprocess.Popen(
            [*words, json.dumps(dataclasses.asdict(setting))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self.start = self._answer()

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to 'step', 'matmul' or 'memory'."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + '\n')
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise UserError(
                f'the process of {self.name} ended with {code}: its message is above; '
                'free memory, or mend its installation'
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def _alternate(children: Mapping[str, Child], rounds: int) -> dict[str, dict[str, Any]]:
    """What each child said: its start, its steps in turn with the others', matmul and memory."""
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
    matmul: dict[str, list[float]] = {name: [] for name in children}
    for _ in range(rounds + 1):  # the first step fills caches and pools
        for name, child in children.items():
            steps[name].append(child.ask('step'))
            matmul[name].append(child.ask('matmul')['flops'])
    return {
        name: {
            **child.start,
            'seconds': [step['seconds'] for step in steps[name][1:]],
            'losses': [step['loss'] for step in steps[name]],
            'matmul': max(matmul[name]),
            **child.ask('memory'),
        }
        for name, child in children.items()
    }


def summary(found: Mapping[str, Mapping[str, Any]], setting: Setting) -> dict[str, Any]:
    """The numbers to report, of what each child said."""
    ceiling = max(row['matmul'] for row in found.values())
    seconds = {name: np.array(row['seconds']) for name, row in found.items()}
    result: dict[str, Any] = {
        'setting': dataclasses.asdict(setting),
        'threads': found['ours']['threads'],
        'device': found['ours']['device'],
        'dtype': found['ours']['dtype'],
        'gflop_per_image': setting.flops / 1e9,
        'ceiling_gflops': ceiling / 1e9,
        'torch': None,
        'ratio': None,
    }
    for name, row in found.items():
        rate = setting.batch / float(np.median(seconds[name]))
        result[name] = rate
        result[f'{name}_seconds'] = row['seconds']
        result[f'{name}_share'] = rate * setting.flops / ceiling
        result[f'{name}_memory'] = row['peak'] - row['start']
        result[f'{name}_losses'] = row['losses']
        result[f'{name}_device'] = row['device']
    peak = next((v for key, v in PEAKS.items() if key in result['device']), None)
    result['mfu'] = peak and result['ours'] * setting.flops / peak
    if 'torch' in found:
        result['ratio'] = float(np.median(seconds['torch'] / seconds['ours']))
        result['memory_ratio'] = result['ours_memory'] / result['torch_memory']
        pairs = zip(result['ours_losses'], result['torch_losses'], strict=True)
        gaps = [abs(a - b) / abs(b) for a, b in pairs]
        result['loss_gap'] = max(gaps[:COMPARED])
    return result


def lines(result: Mapping[str, Any]) -> list[str]:
    """The numbers as text."""
    setting = Setting(**result['setting'])
    text = [
        f'a training step of {setting.backbone} and a density head, {setting.side} px, batch '
        f'{setting.batch}, {result["dtype"]}, on {result["device"]}, {result["threads"]} threads',
        f'matmul ceiling {result["ceiling_gflops"]:,.0f} GFLOP/s; '
        f'{result["gflop_per_image"]:.1f} GFLOP per image',
        f'  {"":<8}{"images/s":>10}{"s/step":>10}{"of ceiling":>12}{"memory MB":>12}',
    ]
    for name in ('ours', 'torch'):
        if result[name] is None:
            text.append(f'  {name:<8}{"not installed":>10} (pip install "rank_ssl[bench]")')
            continue
        text.append(
            f'  {name:<8}{result[name]:>10.2f}{setting.batch / result[name]:>10.2f}'
            f'{result[f"{name}_share"]:>12.0%}{result[f"{name}_memory"] / 1e6:>12,.0f}'
        )
    if result['mfu'] is not None:
        text.append(f'  model FLOPs utilisation {result["mfu"]:.1%}')
    return [*text, *_compared(result)] if result['torch'] is not None else text


def _compared(result: Mapping[str, Any]) -> Sequence[str]:
    ratio, memory = result['ratio'], result['memory_ratio']
    on_cpu = result['ours_device'].startswith('cpu')
    marks = [
        f', target {TARGET:.2f}' + (': missed' if ratio < TARGET else ''),
        f', at most {MEMORY_TARGET:.1f}' + (': missed' if memory > MEMORY_TARGET else ''),
    ]
    speed, size = marks if on_cpu else ('', '')
    return [
        f'  ours / torch: images/s {ratio:.2f}{speed}; memory {memory:.2f}{size}',
        f'  losses of the first {COMPARED} steps differ by {result["loss_gap"]:.1e} at most: '
        + ', '.join(f'{loss:.5g}' for loss in result['ours_losses'][:COMPARED]),
    ]
