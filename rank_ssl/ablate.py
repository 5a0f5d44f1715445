"""The paper's ablations: the arms of a table, run as a grid, beside the paper's numbers.

    python -m rank_ssl.ablate --config=experiments/crowd_shtech.py:evidence --workdir=runs/table5 \
        --seeds=3 --jobs=2 --config.data.groups=2

Tables: `table1` (image quality: regimes and samplers), `table3` (image quality: distortion types
that are ranked and types that are not), `table5` (counting: from the plain baseline to multi-task).
`--arms=baseline,multitask` runs some of its arms, `--seeds=3` is 0,1,2 (`--seeds=7,` the seed 7
alone), `--folds=1,2,3,4,5` each fold of a data set that has them, `--jobs=2` two cells at once.
Finished cells are not run again; `--only_table` runs none and tabulates what there is. table.md,
table.json and paired.png in the workdir hold the results.
"""

import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from rank_ssl import arms as ablations
from rank_ssl import cli, evidence, logs, report
from rank_ssl.arms import TABLES, Table
from rank_ssl.compare import Difference, Results, by_arm, decimals, difference, pooled
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
from rank_ssl.report.parts import head, row
from rank_ssl.unseen import unseen_types

TABLE = flags.DEFINE_string('table', None, 'table1 (default), table3: quality; table5: counting.')
ONLY_TABLE = flags.DEFINE_boolean('only_table', False, 'Run nothing: tabulate what is finished.')

Differ = Callable[[str, str], Difference | None]


def main(config: Config, workdir: pathlib.Path) -> None:
    """Runs the cells that are not finished, then prints and saves tables, numbers and figure."""
    name = ablations.chosen(config, TABLE.value)
    arms = chosen_arms(name, config)
    cells = make_cells(
        [f'{arm}:{fields}' for arm, fields in arms.items()],
        counted_seeds(SEEDS.value),
        workdir,
        FOLDS.value,
    )
    metric = metric_name(config.task)
    if not ONLY_TABLE.value:
        run_cells(cells, config, metric, jobs=JOBS.value)
    results, missing = finished(cells, config, metric)
    if not results:
        raise UserError(f'{workdir} holds no finished run of {name}: leave --only_table out')
    differ = differences(config, results, TABLES[name].metric)
    text = '\n\n'.join(
        [
            *evidence.settings(results),
            forwards_table(arms, cells, config),
            *paper_tables(name, config, results),
            '\n'.join(evidence.run_rows(results)),
            *filter(None, [report.signal_table(results)]),
            paired_text(list(by_arm(results)), differ),
            claims_text(TABLES[name], results, differ),
            *missing,
        ]
    )
    (workdir / 'table.md').write_text(text + '\n', encoding='utf-8')
    logs.write_json(
        workdir / 'table.json', numbers(name, arms, cells, config, results, missing, differ)
    )
    evidence.save_figure(config.task, results, workdir)
    print(text)
    print(f'\ntable, numbers, figure and runs in {workdir}')


def chosen_arms(name: str, config: Config) -> dict[str, str]:
    """The table's arms that --arms names, all by default. Raises UserError for one it has not."""
    # A schedule that was typed is what is wanted, however short the run.
    keep = any('config.hard_every' in word for word in cli.typed_fields(sys.argv[1:]))
    arms = TABLES[name].arms(config, keep)
    wanted = list(arms) if ARMS.value is None else ARMS.value
    for arm in wanted:
        if arm not in arms:
            raise UserError(f'--arms={arm} is no arm of {name}: use {", ".join(arms)}')
        if '/ranking/' in arms[arm] and 'ranking' not in wanted:
            raise UserError(f'--arms={arm} starts from the run of ranking: add ranking')
    if len(set(wanted)) < len(wanted) or not wanted:
        raise UserError(f'--arms={",".join(wanted)}: give at least one, and each name once')
    return {arm: fields for arm, fields in arms.items() if arm in wanted}


def counted_seeds(given: Sequence[str]) -> list[str]:
    """The seeds: a single number says how many, a list which; '7,' is a list."""
    if len(given) != 1:
        return [seed for seed in given if seed]
    (count,) = given
    if not count.isdecimal() or not int(count):
        raise UserError(f'--seeds={count} must be how many, 1 or more, or which: use 3 or 0,1,2')
    return [str(seed) for seed in range(int(count))]


def finished(cells: Sequence[Cell], config: Config, metric: str) -> tuple[Results, list[str]]:
    """The finished runs, arm by arm, folds as one, and in words which are missing.

    Of an arm and seed that lacks a fold no fold is taken. Raises UserError where they are of other
    data.
    """
    found = [(cell, cell.result(config, metric)) for cell in cells]
    check_data([(cell, result) for cell, result in found if result is not None], config)
    lacking = [cell for cell, result in found if result is None]
    holes = {(cell.arm, cell.seed) for cell in lacking}
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    whole = [
        (cell, result)
        for cell, result in sorted(found, key=lambda pair: arms.index(pair[0].arm))
        if result is not None and (cell.arm, cell.seed) not in holes
    ]
    missing = []
    if lacking:
        names = '; '.join(cell.name for cell in lacking)
        cure = ' (--folds of those that are finished tabulates them)' if lacking[0].fold else ''
        missing.append(f'Missing, {len(lacking)} of {len(cells)} runs{cure}: {names}')
    return pooled(config.task, whole), missing


def differences(config: Config, results: Results, metric: str) -> Differ:
    """The function that gives `other - one` of two arms, None where no seed has both."""
    runs, made = by_arm(results), dict[tuple[str, str], Difference | None]()

    def differ(one: str, other: str) -> Difference | None:
        if (one, other) not in made:
            seeds = [{run.seed for run, _ in runs.get(arm, [])} for arm in (one, other)]
            both = seeds[0] & seeds[1]
            made[one, other] = (
                difference(config.task, runs[one], runs[other], name=metric) if both else None
            )
        return made[one, other]

    return differ


def forwards(cell: Cell, config: Config) -> list[int]:
    """Images that pass the network in a step, groups x (ranked + labeled), of each stage."""
    return [s.groups * (s.ranked + s.labeled) for s in cell.made(config).stages()]


def forwards_table(arms: dict[str, str], cells: Sequence[Cell], config: Config) -> str:
    """What each arm is, its steps and its forwards per step, and where these differ."""
    lines = head(['arm', 'forwards per step', 'steps', 'fields'])
    equal: dict[str, list[str]] = {}
    for arm, fields in arms.items():
        cell = next(cell for cell in cells if cell.arm == arm)
        count = ', then '.join(map(str, forwards(cell, config)))
        steps = ', then '.join(str(stage.steps) for stage in cell.made(config).stages())
        lines.append(row([arm, count, steps, fields.replace(';', ' ')]))
        equal.setdefault(count, []).append(arm)
    if len(equal) == 1:
        said = 'Forwards per step are the same for all arms.'
    else:
        parts = (f'{count} of {", ".join(names)}' for count, names in equal.items())
        said = f'Forwards per step differ: {"; ".join(parts)}.'
    return '\n'.join([*lines, '', said])


def paper_tables(name: str, config: Config, results: Results) -> list[str]:
    """The table in the paper's form; for quality also by distortion type."""
    metric = metric_name(config.task)
    if name == 'table5':
        return [report.by_fold(results, metric, digits=decimals(metric))]
    found = unseen_types(config.task, results) if name == 'table3' and SPLIT.value == 'test' else []
    tables = [report.table3(results, [unseen for unseen, _ in found])] if found else []
    tables += ['\n'.join(words for _, words in found)] if found else []
    return [*tables, *evidence.folds(config.task, results), *evidence.quality(results)]


def paired_text(arms: Sequence[str], differ: Differ) -> str:
    """Every arm against the first, and multi-task against its other samplers."""
    return '\n'.join(['**Paired differences**', '', *(f'- {d}' for d in paired(arms, differ))])


def paired(arms: Sequence[str], differ: Differ) -> list[Difference]:
    """Those of the differences that there are."""
    pairs = [(arms[0], arm) for arm in arms[1:]]
    pairs += [(f'multitask_{sampler}', 'multitask') for sampler in ('random', 'hard')]
    found = (differ(*pair) for pair in dict.fromkeys(pairs))
    return [one for one in found if one]


def claims(table: Table, results: Results, differ: Differ) -> list[dict[str, Any]]:
    """Each order of two arms that the paper's numbers have, and whether ours is the same."""
    found = []
    for better, worse in table.claims:
        ours = differ(worse, better)
        if ours is None:
            continue
        paper = table.paper[better] - table.paper[worse]
        product = ours.mean * paper
        order = 'no number' if math.isnan(product) else 'the other order'
        found.append(
            {
                'better': better,
                'worse': worse,
                'paper': round(paper, 4),
                'ours': ours.mean,
                'interval': ours.interval,
                'order': 'the same order' if product > 0 else order,
                'decided': ours.decided,
            }
        )
    return found


def claims_text(table: Table, results: Results, differ: Differ) -> str:
    """A line for each order that the paper claims, then in one line where it does not come out."""
    found = claims(table, results, differ)
    data = results[0][1]['config']['data']
    here = f'{data["dataset"]} {data["part"]}'.strip()
    lines = [f"**The paper's order by {table.metric.upper()}** on {table.source}, ours on {here}"]
    digits, failing = decimals(table.metric), []
    for claim in found:
        verdict = f'{claim["order"]}, {"decided" if claim["decided"] else "not decided"}'
        name = f'{claim["better"]} better than {claim["worse"]}'
        low, high = claim['interval'] or (math.nan, math.nan)
        lines.append(
            f'- {name}: paper {claim["paper"]:+.{digits}f}, ours {claim["ours"]:+.{digits}f} '
            f'[{low:+.{digits}f}, {high:+.{digits}f}]: {verdict}'
        )
        if claim['order'] != 'the same order':
            failing.append(f'{name} ({verdict})')
    if not found:
        return f'{lines[0]}: no two arms of it are here'
    decided = sum(c['decided'] for c in found if c['order'] == 'the same order')
    score = f'The same order in {len(found) - len(failing)} of {len(found)}, {decided} decided'
    last = f"{score}; the paper's does not come out for: {'; '.join(failing)}"
    return '\n'.join([lines[0], '', *lines[1:], '', f'{last if failing else score}.'])


def numbers(
    name: str,
    arms: dict[str, str],
    cells: Sequence[Cell],
    config: Config,
    results: Results,
    missing: Sequence[str],
    differ: Differ,
) -> dict[str, Any]:
    """What table.json holds."""
    found: dict[str, Any] = {}
    for arm, runs in by_arm(results).items():
        cell = next(cell for cell in cells if cell.arm == arm)
        metrics = [key for key in runs[0][1] if key.startswith(('test/', 'best/val/'))]
        found[arm] = {
            'fields': arms[arm],
            'forwards_per_step': forwards(cell, config),
            'paper': TABLES[name].paper.get(arm),
            'seeds': {
                str(run.seed): {key: result.get(key) for key in metrics} for run, result in runs
            },
            'mean': {key: np.mean([r.get(key, math.nan) for _, r in runs]) for key in metrics},
            'deviation': {
                key: np.std([r.get(key, math.nan) for _, r in runs], ddof=1) for key in metrics
            }
            if len(runs) > 1
            else None,
        }
    return {
        'table': name,
        'data': results[0][1]['config']['data'],
        'metric': TABLES[name].metric,
        'arms': found,
        'differences': [d.to_dict() for d in paired(list(found), differ)],
        'claims': claims(TABLES[name], results, differ),
        'missing': list(missing),
    }


if __name__ == '__main__':
    cli.start(main, program='rank_ssl.ablate')
