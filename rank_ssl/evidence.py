"""Paired runs of several arms and seeds, and the table that compares them.

    python -m rank_ssl.evidence --config=experiments/quickstart.py --workdir=runs/demo \
        --arms=baseline,multitask --seeds=0,1

Each cell is a run of `rank_ssl.main` in WORKDIR/ARM/seed_N, resumable by itself; finished cells are
not run again. An arm is a regime, or a name with fields: `--arms='baseline,wide:margin=5;seed=3'`.
In a field {workdir} and {seed} stand for the grid's folder and the cell's seed, so that one arm can
start from another's run: `finetune:init_from={workdir}/ranking/seed_{seed}`; {fold} and {run} (the
cell's folder below its arm) are there too. `--folds=1,2,3,4,5` runs each arm on each fold and
pools their test images; `--jobs=2` runs two cells at once, each on half of the cores.
Arms of one seed share the labeled subset, the initial parameters and the order of the data.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rank_ssl import cli, plots, report
from rank_ssl.compare import Results, by_arm, compare, decimals, pooled
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.grid import (
    ARMS,
    FOLDS,
    JOBS,
    SEEDS,
    SPLIT,
    Cell,
    check_data,
    make_cells,
    metric_name,
    run_cells,
)
from rank_ssl.report.parts import row
from rank_ssl.types import Task

DEFAULT_ARMS = ('baseline', 'multitask')


def main(config: Config, workdir: pathlib.Path) -> None:
    """Runs the cells that are not finished, then prints and saves the table and the figure."""
    given = DEFAULT_ARMS if ARMS.value is None else ARMS.value
    cells = make_cells(given, SEEDS.value, workdir, FOLDS.value)
    metric = metric_name(config.task)
    run_cells(cells, config, metric, jobs=JOBS.value)
    found = [(cell, _finished(cell, config, metric)) for cell in cells]
    check_data(found, config)
    results = pooled(config.task, found)
    table = '\n\n'.join(
        [
            *settings(results),
            make_table(config.task, results),
            *folds(config.task, results),
            *quality(results),
            *filter(None, [report.signal_table(results)]),
        ]
    )
    (workdir / 'table.md').write_text(table + '\n', encoding='utf-8')
    save_figure(config.task, results, workdir)
    print(table)
    print(f'\ntable, figure and runs in {workdir}')


def save_figure(task: Task, results: Results, workdir: pathlib.Path) -> None:
    """Draws WORKDIR/paired.png: each arm's metric, seeds joined; nan where an arm lacks a seed."""
    metric = metric_name(task)
    seeds = dict.fromkeys(run.seed for run, _ in results)
    arms = {}
    for arm, runs in by_arm(results).items():
        found = {run.seed: result[metric] for run, result in runs}
        arms[arm] = [found.get(seed, np.nan) for seed in seeds]
    figure = plots.paired(arms, metric=metric, lower_is_better=task.lower_is_better)
    plots.save(figure, workdir / 'paired.png')


def settings(results: Results) -> list[str]:
    """What a table has to say of its scale: a line for each arm."""
    return [f'{arm}: {setting(runs[0][1])}' for arm, runs in by_arm(results).items()]


def setting(result: Mapping[str, Any]) -> str:
    """The scale of one run in words."""
    config = result['config']
    model, data, optim = config['model'], config['data'], config['optim']
    size = config['task']['size']
    name = f'{data["dataset"]} {data["part"]}'.strip() + report.described(data['dataset'])
    start = 'from scratch' if model['weights'] == 'none' else 'from ImageNet weights'
    if config['regime'] == 'ridge':
        training = f'{model["backbone"]} {start}, frozen, 224 px; ridge regression on its features'
        return f'{_images(name, result)}; {training}; {result["device"]}'
    ranking = f', margin {config["margin"]:g}'
    if config['regime'] == 'multitask':
        ranking += f', rank weight {config["rank_weight"]:g}'
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


def _images(name: str, result: Mapping[str, Any]) -> str:
    folds = f' in {len(result["folds"])} folds' if 'folds' in result else ''
    return (
        f'{name}{" (an incomplete copy)" if result["partial_data"] else ""}; '
        f'{result["labeled_images"]} labeled and {result["unlabeled_images"]} unlabeled images, '
        f'{result["validation_images"]} for validation, {result["test_images"]} for test{folds}'
    )


def make_table(task: Task, results: Results) -> str:
    """Markdown: each run, the mean and deviation of each arm, and the paired differences."""
    arms = by_arm(results)
    first, *others = arms
    differences = [compare(task, arms[first], arms[other]) for other in others]
    return '\n'.join([*run_rows(results), '', *(d for d in differences if d)])


def run_rows(results: Results) -> list[str]:
    """Lines of markdown: each run, and below those of an arm their mean and deviation."""
    columns = [
        name
        for split in ('test/', 'best/val/')
        for name in results[0][1]
        if name.startswith(split) and '/' not in name.removeprefix(split)
    ]
    titles = [name.removeprefix('best/').replace('/', ' ') for name in columns]
    lines = [row(['arm', 'seed', *titles, 'best step']), row(['---'] * (len(columns) + 3))]
    digits = [decimals(name) for name in columns]
    for arm, runs in by_arm(results).items():
        for run, result in runs:
            values = [f'{result[n]:.{d}f}' for n, d in zip(columns, digits, strict=True)]
            lines.append(row([arm, run.seed, *values, result['best_step']]))
        every = np.array([[result[name] for name in columns] for _, result in runs])
        deviation = every.std(0, ddof=1) if len(runs) > 1 else np.full(len(columns), np.nan)
        rows = zip(every.mean(0), deviation, digits, strict=True)
        summary = [f'{mean:.{d}f} ± {spread:.{d}f}' for mean, spread, d in rows]
        lines.append(row([f'**{arm}**', f'{len(runs)} seeds', *summary, '']))
    return lines


def folds(task: Task, results: Results) -> list[str]:
    """The table by fold; none of a grid without folds."""
    if not any('folds' in result for _, result in results):
        return []
    metric = metric_name(task)
    return [report.by_fold(results, metric, digits=decimals(metric))]


def quality(results: Results) -> list[str]:
    """The paper's tables of quality, beside its numbers; none for another task."""
    prefix = 'test/' if SPLIT.value == 'test' else 'best/val/'
    if f'{prefix}srocc' not in results[0][1]:
        return []
    tables = [report.table1(results, prefix=prefix)]
    if any(name.startswith(f'{prefix}srocc/') for name in results[0][1]):
        tables += [report.by_kind_table(results, name, prefix=prefix) for name in ('srocc', 'lcc')]
    return tables


def _finished(cell: Cell, base: Config, metric: str) -> dict[str, Any]:
    result = cell.result(base, metric)
    if result is None:
        raise UserError(f'{cell.folder} holds no finished run: start the same command again')
    return result


if __name__ == '__main__':
    cli.start(main, program='rank_ssl.evidence')
