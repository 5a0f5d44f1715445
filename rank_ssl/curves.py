"""Active learning's curves: a grid of acquisition rules and seeds, its tables and figure.

    python -m rank_ssl.curves --config=experiments/active_crowd_shtech.py:evidence --seeds=3 \
        --arms=random,certainty --workdir=runs/curves --jobs=2

An arm is a rule of config.active.rule, or a name with fields: 'again:active.restart=true'. Cells
of one seed share splits, first labels and initial parameters. The arm `full` is one training on
all labels with as many steps as all cycles together; --nofull leaves it out. `--seeds=3` is 0,1,2.
Finished cells are not run again, so that other rules may be added with fewer seeds; `--only_table`
runs none and tabulates what there is. table.md, table.json and curves.png hold the results (Fig. 5
and 7 of the paper).
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from absl import flags

from rank_ssl import cli, evidence, logs, plots, report
from rank_ssl.ablate import ONLY_TABLE, counted_seeds, finished
from rank_ssl.compare import (
    Difference,
    Pooled,
    Results,
    by_arm,
    decimals,
    difference,
    drawn_from,
    interval,
)
from rank_ssl.config import RULES, Config
from rank_ssl.errors import UserError
from rank_ssl.grid import ARMS, FOLDS, JOBS, SEEDS, SPLIT, Cell, make_cells, metric_name, run_cells
from rank_ssl.predictions import Values, predictions
from rank_ssl.report.curves import RANDOM, by_place, common
from rank_ssl.report.parts import head, row
from rank_ssl.types import Task

FULL = flags.DEFINE_boolean('full', True, 'One arm more, trained on all labels at once.')
DEFAULT_ARMS = (RANDOM, 'certainty')
ALL = 'full'  # the arm of all labels


class CurveCell(Cell):
    """A run of active learning, or of one training on all labels."""

    @staticmethod
    def _matters(name: str, wanted: Any, regime: str) -> bool:
        # With more cycles a run goes on.
        return name != 'active.cycles' and Cell._matters(name, wanted, regime)

    def result(self, base: Config, metric: str) -> dict[str, Any] | None:
        """As of any cell; None, too, where points of its curve are missing, or their metric."""
        found, made = super().result(base, metric), self.made(base)
        if found is None or made.mode != 'active':
            return found
        curve = found.get('curve', [])[: made.active.cycles + 1]
        whole = len(curve) > made.active.cycles or (
            curve and curve[-1]['labeled_units'] == curve[-1]['units']
        )
        if not whole or any(metric not in point for point in curve):
            return None
        points = [
            {n: math.nan if v is None and '/' in n else v for n, v in point.items()}
            for point in curve
        ]
        return {**found, 'curve': points}


class Found(NamedTuple):
    """What the tables are made of."""

    curves: dict[str, report.Curve]
    full: Results
    differences: dict[str, dict[float, Difference]]  # arm - random at each place
    areas: dict[str, Difference]  # in the mean over the places that both have
    savings: dict[str, list[report.Saving]]
    certainty: list[dict[str, Any]]


def main(config: Config, workdir: pathlib.Path) -> None:
    """Runs the cells that are not finished, then prints and saves table, numbers and figure."""
    cells, metric = curve_cells(config, workdir), metric_name(config.task)
    if not ONLY_TABLE.value:
        run_cells(cells, config, metric, jobs=JOBS.value)
    results, missing = finished(cells, config, metric)
    active = [(cell, result) for cell, result in results if 'curve' in result]
    if not active:
        raise UserError(f'{workdir} holds no finished run of a rule: leave --only_table out')
    found = measured(config.task, active, [pair for pair in results if pair not in active])
    text = '\n\n'.join([*settings(results), *tables(config.task, active, found), *missing])
    (workdir / 'table.md').write_text(text + '\n', encoding='utf-8')
    logs.write_json(workdir / 'table.json', numbers(config, cells, active, found, missing))
    figure = plots.label_curves(
        {arm: (curve.shares, curve.table()) for arm, curve in found.curves.items()},
        metric=metric,
        lower_is_better=config.task.lower_is_better,
        full=[result[metric] for _, result in found.full],
    )
    plots.save(figure, workdir / 'curves.png')
    print(text)
    print(f'\ntable, numbers, figure and runs in {workdir}')


def curve_cells(config: Config, workdir: pathlib.Path) -> list[CurveCell]:
    """The grid. Raises UserError for arms, seeds or a config that are none of active learning."""
    if config.mode != 'active':
        raise UserError(
            f'config.mode={config.mode} asks for no labels: use an experiment of active learning, '
            'such as experiments/active_crowd_shtech.py'
        )
    if FOLDS.value:
        raise UserError('--folds: a curve is of one fold; use --config.data.fold=1')
    arms = [_with_rule(arm) for arm in (DEFAULT_ARMS if ARMS.value is None else ARMS.value)]
    if FULL.value and arms:
        # Cycles are no part of it but for its steps: with more of them it goes on.
        trainings, optim = config.active.cycles + 1, config.optim
        fields = [f'mode=train;steps={trainings * config.steps}', 'data.labels=0;active.cycles=0']
        if optim.schedule == 'step':
            # Its rate falls over all of its steps as theirs does over those of each training.
            fields.append(f'optim.decay_every={trainings * optim.decay_every}')
        arms.append(f'{ALL}:{";".join(fields)}')
    made = make_cells(arms, counted_seeds(SEEDS.value), workdir)
    return [CurveCell(cell.arm, cell.seed, cell.folder, cell.fields) for cell in made]


def _with_rule(arm: str) -> str:
    """The arm with the field of its rule, where its name is one."""
    name, _, fields = arm.partition(':')
    if name == ALL:
        raise UserError(f'--arms={arm}: {ALL} is the arm of all labels; use --full, --nofull')
    if name in RULES and 'active.rule=' not in fields:
        return f'{name}:' + ';'.join(filter(None, [f'active.rule={name}', fields]))
    if not fields:
        raise UserError(f'--arms={arm} is no rule ({", ".join(RULES)}): use one, or give it fields')
    return arm


def measured(task: Task, active: Results, full: Results) -> Found:
    """Everything that the tables show."""
    arms, metric = by_arm(active), metric_name(task)
    curves = {arm: report.curve_of(runs, metric) for arm, runs in arms.items()}
    pairs = {
        arm: (arms[RANDOM], runs)
        for arm, runs in arms.items()
        if arm != RANDOM
        and curves.get(RANDOM)
        and curves[RANDOM].values.keys() & curves[arm].values
    }
    savings = {
        arm: report.savings(curves[arm], curves[RANDOM], lower_is_better=task.lower_is_better)
        for arm in pairs
    }
    differences = {arm: at_places(task, *pair) for arm, pair in pairs.items()}
    areas = {arm: of_areas(task, *pair) for arm, pair in pairs.items()}
    return Found(curves, full, differences, areas, savings, report.certainty_rows(arms))


def at_place(results: Results, place: float) -> Results:
    """Each run's point at a place, as a run of its own."""
    found = []
    for run, result in results:
        point = by_place(result)[place]
        folders = tuple(folder / f'cycle_{point["cycle"]}' for folder in run.folders)
        found.append((Pooled(run.arm, run.seed, folders), point))
    return found


def at_places(task: Task, one: Results, other: Results) -> dict[float, Difference]:
    """`other - one` at each place that all runs have."""
    places = common(*(by_place(result) for _, result in (*one, *other)))
    return {p: difference(task, at_place(one, p), at_place(other, p)) for p in places}


class _Mean:
    """The mean of the task's metric over the columns of the predictions: a curve's area."""

    def __init__(self, task: Task) -> None:
        self.best, self._task = task.best, task

    def metrics(self, predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
        every = [self._task.metrics(column, true)[self.best] for column in predicted.T]
        return {self.best: report.area(every)}


def of_areas(task: Task, one: Results, other: Results) -> Difference:
    """`other - one` in the mean over the places that all runs have, drawn as that of one place."""
    metric = metric_name(task)
    a, b = report.curve_of(one, metric), report.curve_of(other, metric)
    places = common(a.places, b.places)
    seeds = [seed for seed in a.values if seed in b.values]
    means = [{s: report.area(v) for s, v in curve.at(places).values.items()} for curve in (a, b)]
    by_seed = {seed: means[1][seed] - means[0][seed] for seed in seeds}
    made = Difference(one[0][0].arm, other[0][0].arm, metric, by_seed)
    if SPLIT.value != 'test':
        return made
    first, second = stacked(one, places), stacked(other, places)
    pairs = [(first[seed], second[seed]) for seed in seeds]
    if not all(np.array_equal(x.ids, y.ids) for x, y in pairs):
        return dataclasses.replace(made, over='not paired: their test images are not the same')
    bounds = interval(cast(Task, _Mean(task)), pairs)
    return dataclasses.replace(made, interval=bounds, over=drawn_from(pairs))


def stacked(results: Results, places: Sequence[float]) -> dict[int, Values]:
    """Of each seed its test images, what it predicted of them at each place in a column."""
    found: dict[int, list[Values]] = {}
    for place in places:
        for run, _ in at_place(results, place):
            found.setdefault(run.seed, []).append(predictions(run))
    return {
        seed: values[0]._replace(predicted=np.stack([v.predicted for v in values], -1))
        for seed, values in found.items()
    }


def settings(results: Results) -> list[str]:
    """What the tables have to say of their scale: a line for each arm."""
    return [
        f'{arm}: {evidence.setting(runs[0][1])}{_cycles(runs[0][1])}'
        for arm, runs in by_arm(results).items()
    ]


def _cycles(result: Mapping[str, Any]) -> str:
    """The cycles of one run in words; '' of a training on all labels."""
    if 'curve' not in result:
        return ''
    active, units = result['config']['active'], result['curve'][0]['units']
    start = 'initial' if active['restart'] else 'last'
    pairs = f'{active["pairs"]} pairs' if active['pairs'] else 'all pairs'
    return (
        f'; {len(result["curve"])} trainings of so many steps, each from the {start} parameters; '
        f'rule {active["rule"]}, {active["start"]:.3g} of {units} units at first, then '
        f'{active["share"]:.3g} more each, {pairs} of a unit'
    )


def tables(task: Task, active: Results, found: Found) -> list[str]:
    """The tables as markdown."""
    metric, digits = metric_name(task), decimals(task.best)
    quality = any(name.endswith('/srocc') for name in active[0][1])
    full = [result[metric] for _, result in found.full]
    made = [report.curves_table(found.curves, full, active, metric, digits)]
    if found.savings:
        made.append(differences_table(found))
        made.append(report.savings_table(found.savings, metric, digits, quality=quality))
    else:
        made.append(
            f'No differences and no labels saved: it takes a seed of {RANDOM} and of a rule.'
        )
    return [*made, *filter(None, [report.certainty_table(found.certainty)])]


def differences_table(found: Found) -> str:
    """Every rule against random at each place, and in the mean over places."""
    lines = head(['rule', 'labeled', 'difference', 'by seed', '95 %', 'verdict'])
    for arm, by in found.differences.items():
        curve, mean = found.curves[arm], found.areas[arm]
        named = [(f'{100 * curve.at([p]).shares[0]:.3g} %', one) for p, one in by.items()]
        for name, one in (*named, ('**mean**', mean)):
            digits = decimals(one.metric)
            seeds = ', '.join(f'{value:+.{digits}f}' for value in one.by_seed.values())
            lines.append(row([arm, name, f'{one.mean:+.{digits}f}', seeds, *_verdict(one)]))
    drawn = next((f'; 95 %: over {a.over}' for a in found.areas.values() if a.interval), '')
    title = f'**Paired differences in {one.metric}, rule - {RANDOM}**{drawn}'
    return '\n'.join([title, '', *lines])


def _verdict(one: Difference) -> tuple[str, str]:
    if one.interval is None:
        return '', one.over
    if len(one.by_seed) < 2:
        return '', 'one seed decides nothing'
    return one.bounds, 'decided' if one.decided else 'not decided'


def numbers(
    config: Config, cells: Sequence[Cell], active: Results, found: Found, missing: Sequence[str]
) -> dict[str, Any]:
    """What table.json holds."""
    fields = {cell.arm: cell.fields for cell in cells}
    return {
        'metric': metric_name(config.task),
        'lower_is_better': config.task.lower_is_better,
        'data': active[0][1]['config']['data'],
        'arms': {
            arm: {'fields': fields[arm], **curve.to_dict()} for arm, curve in found.curves.items()
        },
        'full': {run.seed: result[metric_name(config.task)] for run, result in found.full},
        'differences': {
            arm: [{'share': place, **one.to_dict()} for place, one in by.items()]
            for arm, by in found.differences.items()
        },
        'area_differences': {arm: one.to_dict() for arm, one in found.areas.items()},
        'savings': {arm: [one.to_dict() for one in rows] for arm, rows in found.savings.items()},
        'certainty': found.certainty,
        'missing': list(missing),
    }


if __name__ == '__main__':
    cli.start(main, program='rank_ssl.curves')
