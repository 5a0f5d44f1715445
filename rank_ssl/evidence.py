"""Paired runs of several arms and seeds, and the table that compares them.

    python -m rank_ssl.evidence --config=experiments/quickstart.py --workdir=runs/demo \
        --arms=baseline,multitask --seeds=0,1

Each cell is a run of `rank_ssl.main` in WORKDIR/ARM/seed_N, resumable by itself; finished cells are
not run again. An arm is a regime, or a name with fields: `--arms='baseline,wide:margin=5;seed=3'`.
In a field {workdir} and {seed} stand for the grid's folder and the cell's seed, so that one arm can
start from another's run: `finetune:init_from={workdir}/ranking/seed_{seed}`.
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
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from rank_ssl import cli, logs, plots, report
from rank_ssl.config import HARMLESS, REGIMES, Config, differences
from rank_ssl.errors import UserError
from rank_ssl.types import Task

ARMS = flags.DEFINE_list('arms', ['baseline', 'multitask'], 'Regimes, or NAME:field=value;...')
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds; each arm runs with each.')
SPLIT = flags.DEFINE_enum('compare', 'test', ['test', 'val'], 'val: to choose settings by.')
DRAWS = 2000  # bootstrap draws of an interval


class Values(NamedTuple):
    """A cell's test images, [N] each."""

    true: np.ndarray
    predicted: np.ndarray
    ids: np.ndarray
    groups: np.ndarray  # images of one group are drawn together


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

    @staticmethod
    def _matters(name: str, wanted: Any) -> bool:
        """Whether a field that differs makes another run; a resumed one may do without it."""
        if name == 'init_from':
            return bool(wanted)  # else a first stage's folder stands there
        return name not in HARMLESS or name.startswith('optim.') or name == 'model.weights'

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
            if values[0] is not None and self._matters(name, values[1])
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
    table = '\n\n'.join([*settings(results), make_table(config.task, results), *quality(results)])
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
        places = {'{workdir}': str(workdir), '{seed}': str(int(seed))}
        for place, value in places.items():
            fields = [field.replace(place, value) for field in fields]
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
    size = config['task']['size']
    name = f'{data["dataset"]} {data["part"]}'.strip() + report.described(data['dataset'])
    start = 'from scratch' if model['weights'] == 'none' else 'from ImageNet weights'
    if config['regime'] == 'ridge':
        training = f'{model["backbone"]} {start}, frozen, 224 px; ridge regression on its features'
        return f'{_images(name, result)}; {training}; {result["device"]}'
    ranking = f', margin {config["margin"]:g}, rank weight {config["rank_weight"]:g}'
    return (
        f'{_images(name, result)}; {model["backbone"]} of width {model["width"]:g} {start}, '
        f'{model["frozen_blocks"]} blocks frozen, {size} px; {config["steps"]} steps of '
        f'{optim["name"]} at {optim["rate"]:g}, reduction {config["reduction"]}'
        f'{ranking if config["regime"] in ("multitask", "ranking") else _stage(config)}; '
        f'{result["device"]}'
    )


def _stage(config: dict[str, Any]) -> str:
    """The stage of ranking before the last one, in words."""
    start, first = config.get('init_from', ''), config.get('pretrain', {})
    if not start:
        return ''
    if config['regime'] != 'finetune' or pathlib.Path(start).name != 'ranking':
        return f', from the parameters of {start}'
    steps, rate = first['steps'] or config['steps'], first['rate'] or config['optim']['rate']
    return f', after {steps} steps of ranking at {rate:g}, margin {config["margin"]:g}'


def _images(name: str, result: dict[str, Any]) -> str:
    return (
        f'{name}{" (an incomplete copy)" if result["partial_data"] else ""}; '
        f'{result["labeled_images"]} labeled and {result["unlabeled_images"]} unlabeled images, '
        f'{result["validation_images"]} for validation, {result["test_images"]} for test'
    )


def make_table(task: Task, results: Sequence[tuple[Cell, dict[str, Any]]]) -> str:
    """Markdown: each run, the mean and deviation of each arm, and the paired differences."""
    columns = [
        name
        for split in ('test/', 'best/val/')
        for name in results[0][1]
        if name.startswith(split) and '/' not in name.removeprefix(split)
    ]
    titles = [name.removeprefix('best/').replace('/', ' ') for name in columns]
    lines = [_row('arm', 'seed', *titles, 'best step'), _row(*['---'] * (len(columns) + 3))]
    digits = [_digits(name) for name in columns]
    arms: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, result in results:
        arms.setdefault(cell.arm, []).append((cell, result))
    for arm, runs in arms.items():
        for cell, result in runs:
            values = [f'{result[n]:.{d}f}' for n, d in zip(columns, digits, strict=True)]
            lines.append(_row(arm, cell.seed, *values, result['best_step']))
        every = np.array([[result[name] for name in columns] for _, result in runs])
        spread = every.std(0, ddof=1) if len(runs) > 1 else np.full(len(columns), np.nan)
        rows = zip(every.mean(0), spread, digits, strict=True)
        summary = [f'{mean:.{d}f} ± {deviation:.{d}f}' for mean, deviation, d in rows]
        lines.append(_row(f'**{arm}**', f'{len(runs)} seeds', *summary, ''))
    first, *others = arms
    differences = [compare(task, arms[first], arms[other]) for other in others]
    return '\n'.join([*lines, '', *(d for d in differences if d)])


def quality(results: Sequence[tuple[Cell, dict[str, Any]]]) -> list[str]:
    """The paper's tables of quality, beside its numbers; none for another task."""
    prefix = 'test/' if SPLIT.value == 'test' else 'best/val/'
    if f'{prefix}srocc' not in results[0][1]:
        return []
    tables = [report.table1(results, prefix=prefix)]
    if any(name.startswith(f'{prefix}srocc/') for name in results[0][1]):
        tables += [report.by_kind_table(results, name, prefix=prefix) for name in ('srocc', 'lcc')]
    return tables


def compare(
    task: Task, one: Sequence[tuple[Cell, dict]], other: Sequence[tuple[Cell, dict]]
) -> str:
    """`other - one` in words: each seed's paired difference, their mean, and on test an interval.

    The interval is a bootstrap over seeds and test images, or references where images have one, the
    same draw for both arms: what other labels and other images would change. Seeds that split anew
    may share test images, which it takes as drawn apart.
    """
    names = one[0][0].arm, other[0][0].arm
    metric = _metric(task)
    by_seed = [b[1][metric] - a[1][metric] for a, b in zip(one, other, strict=True)]
    digits = _digits(metric)
    seeds = ', '.join(f'{difference:+.{digits}f}' for difference in by_seed)
    text = f'{names[1]} - {names[0]}: {metric} {np.mean(by_seed):+.{digits}f} (by seed {seeds})'
    if SPLIT.value != 'test':
        return text
    pairs = [(_predictions(a[0]), _predictions(b[0])) for a, b in zip(one, other, strict=True)]
    if not all(np.array_equal(a.ids, b.ids) for a, b in pairs):
        return f'{text}; not paired: their test images are not the same'
    low, high = interval(task, pairs)
    verdict = 'decided' if low * high > 0 else 'not decidable at this scale'
    units = len(np.unique(pairs[0][0].groups))
    images = len(pairs[0][0].true)
    what = f'{images} test images' if units == images else f'{units} references of {images} images'
    count = f'{len(pairs)} seeds and {what}{"" if _one_test(pairs) else " each"}'
    return f'{text}; 95 % over {count} [{low:+.{digits}f}, {high:+.{digits}f}]: {verdict}'


def interval(task: Task, pairs: Sequence[tuple[Values, Values]]) -> tuple[float, float]:
    """95 % of the paired difference in the task's metric.

    nan for one seed, which decides nothing, and where a prediction is not finite.
    """
    finite = all(
        np.isfinite(v).all() for pair in pairs for arm in pair for v in (arm.true, arm.predicted)
    )
    if len(pairs) < 2 or not finite:
        return math.nan, math.nan
    rng = np.random.Generator(np.random.Philox(key=0))
    one_test = _one_test(pairs)
    found = []
    for _ in range(DRAWS):
        shared = _places(rng, pairs[0][0])
        difference = []
        for a, b in (pairs[seed] for seed in rng.integers(len(pairs), size=len(pairs))):
            # Where each seed splits anew, its test images are its own.
            places = shared if one_test else _places(rng, a)
            difference.append(_value(task, b, places) - _value(task, a, places))
        found.append(np.mean(difference))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


def _one_test(pairs: Sequence[tuple[Values, Values]]) -> bool:
    """Whether all seeds are tested on the same images."""
    return all(np.array_equal(a.ids, pairs[0][0].ids) for a, _ in pairs)


def _places(rng: np.random.Generator, values: Values) -> np.ndarray:
    """A bootstrap draw of test images; those made from one reference are drawn together."""
    starts, members = np.unique(values.groups, return_inverse=True)
    drawn = rng.integers(len(starts), size=len(starts))
    if len(starts) == len(members):
        return drawn
    return np.concatenate([np.flatnonzero(members == group) for group in drawn])


def _value(task: Task, values: Values, places: np.ndarray) -> float:
    return task.metrics(values.predicted[places], values.true[places])[task.best]


def _metric(task: Task) -> str:
    return f'test/{task.best}' if SPLIT.value == 'test' else f'best/val/{task.best}'


def _predictions(cell: Cell) -> Values:
    """What a cell predicted of its test images."""
    with open(cell.folder / 'predictions.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    true, predicted = (np.array([float(row[n]) for row in rows]) for n in ('true', 'predicted'))
    ids = np.array([row['id'] for row in rows])
    # An image without a reference stands for itself.
    groups = np.array([row.get('reference') or f'id/{row["id"]}' for row in rows])
    return Values(true, predicted, ids, groups)


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


def _digits(metric: str) -> int:
    """Decimals to print: three for correlations, two for the rest."""
    return 3 if metric.rpartition('/')[2] in ('lcc', 'srocc') else 2


def _row(*cells: Any) -> str:
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'


if __name__ == '__main__':
    cli.start(main, program='rank_ssl.evidence')
