"""Paired runs of several arms and seeds, and the table that compares them.

    python -m rank_ssl.evidence --config=experiments/quickstart.py --workdir=runs/demo \
        --arms=baseline,multitask --seeds=0,1

Each cell is a run of `rank_ssl.main` in WORKDIR/ARM/seed_N, resumable by itself; finished cells are
not run again. An arm is a regime, or a name with fields: `--arms='baseline,wide:margin=5;seed=3'`.
Arms of one seed share the labeled subset, the initial parameters and the order of the data.
"""

import copy
import csv
import dataclasses
import itertools
import json
import math
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from rank_ssl import cli, logs, plots
from rank_ssl.config import HARMLESS, REGIMES, Config, differences
from rank_ssl.errors import UserError
from rank_ssl.types import Task

ARMS = flags.DEFINE_list('arms', ['baseline', 'multitask'], 'Regimes, or NAME:field=value;...')
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds; each arm runs with each.')
SPLIT = flags.DEFINE_enum('compare', 'test', ['test', 'val'], 'val: to choose settings by.')
DRAWS = 2000  # bootstrap draws of an interval
Values = tuple[np.ndarray, np.ndarray]  # true and predicted, f64[N] each


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    arm: str
    seed: int
    folder: pathlib.Path
    fields: tuple[str, ...]  # --config.FIELD=VALUE of the arm

    def command(self, config: str, shared: Sequence[str]) -> list[str]:
        """The command that runs it, or goes on with it."""
        program = [sys.executable, '-m', 'rank_ssl.main', f'--config={config}', *shared]
        return [*program, *self.fields, f'--config.seed={self.seed}', f'--workdir={self.folder}']

    def config(self, base: Config) -> dict[str, Any]:
        """Its configuration, as config.json holds it."""
        made = copy.deepcopy(base)
        for field in (*self.fields, f'--config.seed={self.seed}'):
            path, _, text = field.removeprefix('--config.').partition('=')
            parent, _, name = path.rpartition('.')
            try:
                holder = made.get(parent) if parent else made
                kind = type(getattr(holder, name))
                value = text.lower() in ('true', '1') if kind is bool else kind(text)
            except (AttributeError, ValueError):
                raise UserError(
                    f'{field} of --arms={self.arm} is no field of the config, or of another type: '
                    'mend it'
                ) from None
            setattr(holder, name, value)
        return made.to_dict()

    def result(self, base: Config, metric: str) -> dict[str, Any] | None:
        """Its result.json, null as nan; None where it has not taken its steps, or lacks the metric.

        Raises UserError where the result is of another config.
        """
        path = self.folder / 'result.json'
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        result: dict[str, Any] = {n: math.nan if v is None else v for n, v in found.items()}
        wanted = self.config(base)
        other = {
            name: values
            for name, values in differences(result['config'], wanted).items()
            # A field that the run's version did not have is at its default.
            if values[0] is not None and (name not in HARMLESS or name.startswith('optim.'))
        }
        if other:
            words = '; '.join(f'config.{name} {a}, now {b}' for name, (a, b) in other.items())
            raise UserError(f'{self.folder} holds another run ({words}): use another --workdir')
        return result if result['steps'] >= wanted['steps'] and metric in result else None


def main(config: Config, workdir: pathlib.Path) -> None:
    """Runs the cells that are not finished, then prints and saves the table and the figure."""
    cells = make_cells(ARMS.value, SEEDS.value, workdir)
    metric = _metric(config.task)
    run_cells(cells, config, metric)
    results = [(cell, _finished(cell, config, metric)) for cell in cells]
    table = '\n\n'.join([*settings(results), make_table(config.task, results)])
    (workdir / 'table.md').write_text(table + '\n', encoding='utf-8')
    arms: dict[str, list[float]] = {}
    for cell, result in results:
        arms.setdefault(cell.arm, []).append(result[metric])
    lower = config.task.lower_is_better
    plots.save(plots.paired(arms, metric=metric, lower_is_better=lower), workdir / 'paired.png')
    print(table)
    print(f'\ntable, figure and runs in {workdir}')


def make_cells(arms: Sequence[str], seeds: Sequence[str], workdir: pathlib.Path) -> list[Cell]:
    """The grid, seed by seed. Raises UserError for an arm or seed that is none, or stands twice."""
    cells = []
    for seed, arm in itertools.product(seeds, arms):
        name, _, text = arm.partition(':')
        fields = [f'--config.{field}' for field in text.split(';') if field]
        if not re.fullmatch(r'\w[\w.-]*', name) or not all('=' in field for field in fields):
            raise UserError(f'--arms={arm} is no arm: use a regime or NAME:field=value;field=value')
        if name in REGIMES:
            fields.insert(0, f'--config.regime={name}')
        elif not fields:
            raise UserError(f'--arms={arm} is no regime ({", ".join(REGIMES)}): give it fields')
        if not seed.isdecimal():
            raise UserError(f'--seeds={seed} must be whole numbers, 0 or greater; use 0,1,2')
        folder = workdir / name / f'seed_{int(seed)}'
        cells.append(Cell(name, int(seed), folder, tuple(fields)))
    if not cells or len({cell.folder for cell in cells}) < len(cells):
        given = f'--arms={",".join(arms)} --seeds={",".join(seeds)}'
        raise UserError(f'{given}: give at least one of each, and each name once')
    return cells


def run_cells(cells: Sequence[Cell], base: Config, metric: str) -> None:
    """Runs what is not finished, one after another. Raises UserError where a cell fails."""
    config = cli.typed(sys.argv, 'config')[0]
    shared = _fields(sys.argv[1:])
    if SPLIT.value == 'val':
        shared.append('--config.evaluate_test=false')
    times: list[float] = []
    for number, cell in enumerate(cells, 1):
        if cell.result(base, metric) is not None:
            continue
        left = (len(cells) - number + 1) * float(np.mean(times)) if times else float('nan')
        head = f'== cell {number}/{len(cells)}: {cell.arm}, seed {cell.seed}'
        print(f'{head} (ETA of all {logs.format_duration(left)})', file=sys.stderr)
        began = time.perf_counter()
        done = subprocess.run(cell.command(config, shared), stdout=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - began)
        if done.returncode:
            raise UserError(
                f'cell {cell.arm}, seed {cell.seed} ended with exit code {done.returncode}: mend '
                'what it said above; the same command goes on from there'
            )


def settings(results: Sequence[tuple[Cell, dict[str, Any]]]) -> list[str]:
    """What a table has to say of its scale: a line for each arm."""
    first_of_arm = {cell.arm: result for cell, result in reversed(results)}
    return [f'{arm}: {setting(result)}' for arm, result in reversed(first_of_arm.items())]


def setting(result: dict[str, Any]) -> str:
    """The scale of one run in words."""
    config = result['config']
    model, data, optim = config['model'], config['data'], config['optim']
    name = f'{data["dataset"]} {data["part"]}'.strip()
    start = 'from scratch' if model['weights'] == 'none' else 'from ImageNet weights'
    ranking = f', margin {config["margin"]:g}, rank weight {config["rank_weight"]:g}'
    return (
        f'{name}{" (an incomplete copy)" if result["partial_data"] else ""}; '
        f'{result["labeled_images"]} labeled and {result["unlabeled_images"]} unlabeled images, '
        f'{result["validation_images"]} for validation, {result["test_images"]} for test; '
        f'{model["backbone"]} of width {model["width"]:g} {start}, {model["frozen_blocks"]} blocks '
        f'frozen, {config["task"]["size"]} px; {config["steps"]} steps of {optim["name"]} at '
        f'{optim["rate"]:g}, reduction {config["reduction"]}'
        f'{"" if config["regime"] == "baseline" else ranking}; {result["device"]}'
    )


def make_table(task: Task, results: Sequence[tuple[Cell, dict[str, Any]]]) -> str:
    """Markdown: each run, the mean and deviation of each arm, and the paired differences."""
    columns = [n for n in results[0][1] if n.startswith(('best/val/', 'test/'))]
    titles = [name.removeprefix('best/').replace('/', ' ') for name in columns]
    lines = [_row('arm', 'seed', *titles, 'best step'), _row(*['---'] * (len(columns) + 3))]
    arms: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, result in results:
        arms.setdefault(cell.arm, []).append((cell, result))
    for arm, runs in arms.items():
        for cell, result in runs:
            values = [f'{result[name]:.2f}' for name in columns]
            lines.append(_row(arm, cell.seed, *values, result['best_step']))
        every = np.array([[result[name] for name in columns] for _, result in runs])
        spread = every.std(0, ddof=1) if len(runs) > 1 else np.full(len(columns), np.nan)
        summary = [f'{m:.2f} ± {s:.2f}' for m, s in zip(every.mean(0), spread, strict=True)]
        lines.append(_row(f'**{arm}**', f'{len(runs)} seeds', *summary, ''))
    first, *others = arms
    differences = [compare(task, arms[first], arms[other]) for other in others]
    return '\n'.join([*lines, '', *(d for d in differences if d)])


def compare(
    task: Task, one: Sequence[tuple[Cell, dict]], other: Sequence[tuple[Cell, dict]]
) -> str:
    """`other - one` in words: each seed's paired difference, their mean, and on test an interval.

    The interval is a bootstrap over seeds and test images, the same draw for both arms: what other
    labels and other images would change.
    """
    names = one[0][0].arm, other[0][0].arm
    metric = _metric(task)
    by_seed = [b[1][metric] - a[1][metric] for a, b in zip(one, other, strict=True)]
    seeds = ', '.join(f'{difference:+.2f}' for difference in by_seed)
    text = f'{names[1]} - {names[0]}: {metric} {np.mean(by_seed):+.2f} (by seed {seeds})'
    if SPLIT.value != 'test':
        return text
    pairs = [(_predictions(a[0]), _predictions(b[0])) for a, b in zip(one, other, strict=True)]
    low, high = interval(task, pairs)
    verdict = 'decided' if low * high > 0 else 'not decidable at this scale'
    count = f'{len(pairs)} seeds and {len(pairs[0][0][0])} test images'
    return f'{text}; 95 % over {count} [{low:+.2f}, {high:+.2f}]: {verdict}'


def interval(task: Task, pairs: Sequence[tuple[Values, Values]]) -> tuple[float, float]:
    """95 % of the paired difference in the task's metric.

    nan for one seed, which decides nothing, and where a prediction is not finite.
    """
    finite = all(np.isfinite(v).all() for pair in pairs for arm in pair for v in arm)
    if len(pairs) < 2 or not finite:
        return math.nan, math.nan
    rng = np.random.Generator(np.random.Philox(key=0))
    images = len(pairs[0][0][0])
    found = []
    for _ in range(DRAWS):
        places = rng.integers(images, size=images)
        drawn = [pairs[seed] for seed in rng.integers(len(pairs), size=len(pairs))]
        found.append(np.mean([_value(task, b, places) - _value(task, a, places) for a, b in drawn]))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _value(task: Task, values: Values, places: np.ndarray) -> float:
    true, predicted = values
    return task.metrics(predicted[places], true[places])[task.best]


def _metric(task: Task) -> str:
    return f'test/{task.best}' if SPLIT.value == 'test' else f'best/val/{task.best}'


def _predictions(cell: Cell) -> Values:
    """True and predicted values of a cell's test images."""
    with open(cell.folder / 'predictions.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    return tuple(np.array([float(row[name]) for row in rows]) for name in ('true', 'predicted'))  # type: ignore[return-value]


def _finished(cell: Cell, base: Config, metric: str) -> dict[str, Any]:
    result = cell.result(base, metric)
    if result is None:
        raise UserError(f'{cell.folder} holds no finished run: start the same command again')
    return result


def _fields(argv: Sequence[str]) -> list[str]:
    """What sets fields of the config, for every cell: --config.FIELD=VALUE in any of its forms."""
    found: list[str] = []
    for word, after in itertools.pairwise([*argv, '']):
        if re.match(r'--?(no)?config\.', word):
            alone = '=' in word or re.match(r'--?[a-z]|$', after)
            found += [word] if alone else [word, after]
    return found


def _row(*cells: Any) -> str:
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'


if __name__ == '__main__':
    cli.start(main, program='rank_ssl.evidence')
