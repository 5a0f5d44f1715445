"""The ablation tables as data: their arms as fields of a config, and what the paper claims of them.

A claim is (better, worse) in the paper's numbers.
"""

import dataclasses
from collections.abc import Callable

from rank_ssl import report
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.ops.distortions import NUMBERS

Arms = dict[str, str]  # name -> field=value;field=value
Claims = tuple[tuple[str, str], ...]

TYPES = sorted(set(NUMBERS.values()))  # TID2013's numbers of the 17 types that are made


@dataclasses.dataclass(frozen=True)
class Table:
    """An ablation of the paper."""

    task: str  # the class of task it is about
    arms: Callable[[Config, bool], Arms]  # the bool: whether hard mining keeps its schedule
    metric: str  # that the claims are about
    source: str  # the data set of the paper's numbers
    paper: dict[str, float]
    claims: Claims


def chosen(config: Config, name: str | None) -> str:
    """The table of that name, or the task's first. Raises UserError where it is of another task."""
    task = type(config.task).__name__
    fitting = [key for key, table in TABLES.items() if table.task == task]
    if not fitting:
        raise UserError(
            f'config.task is {task}, which no table of the paper is about: use IQA, Crowd'
        )
    if name is None:
        return fitting[0]
    if name not in fitting:
        what = f'is about {TABLES[name].task}' if name in TABLES else 'is no table'
        raise UserError(f'--table={name} {what}, config.task is {task}: use {", ".join(fitting)}')
    ladder = getattr(config.task, 'ladder', '')
    if name == 'table3' and ladder != 'tid2013':
        raise UserError(
            f"--table=table3 ranks parts of TID2013's ladder, config.task.ladder={ladder}: use "
            'config.task.ladder=tid2013'
        )
    return name


def types_of(count: int) -> list[str]:
    """The first `count` types in the order of TID2013's numbers: the paper names none of them."""
    return [report.TID2013[int(number) - 1] for number in TYPES[:count]]


def _chains(count: int) -> str:
    """Their chains: two of a type with two directions."""
    return ','.join(chain for chain, number in NUMBERS.items() if number in TYPES[:count])


COUNTS = {'types_7': 7, 'types_11': 11, 'types_15': 15, 'types_all': len(TYPES)}


def _hard(config: Config, keep: bool, *, steps: int = 0) -> str:
    """Hard mining whose schedule fits the run: it ranks more pairs ten times."""
    taken = steps or config.steps
    short = not keep and taken < 2 * config.hard_every
    return 'sampler=hard' + (f';hard_every={max(taken // 10, 1)}' if short else '')


def _multitask(config: Config, keep: bool) -> Arms:
    return {
        'multitask_random': 'regime=multitask;sampler=random',
        'multitask_hard': f'regime=multitask;{_hard(config, keep)}',
        'multitask': 'regime=multitask;sampler=all',
    }


def _table1(config: Config, keep: bool) -> Arms:
    first = ['regime=ranking', 'sampler=all']
    # Fine-tuning starts from this run: it is the first stage, with its rate and steps.
    if config.pretrain.rate:
        first.append(f'optim.rate={config.pretrain.rate!r}')
    if config.pretrain.steps:
        first.append(f'steps={config.pretrain.steps}')
    hard = _hard(config, keep, steps=config.pretrain.steps)
    return {
        'baseline': 'regime=baseline',
        'ranking': ';'.join(first),
        'finetune_random': 'regime=finetune;sampler=random',
        'finetune_hard': f'regime=finetune;{hard}',
        'finetune': 'regime=finetune;sampler=all;init_from={workdir}/ranking/{run}',
        **_multitask(config, keep),
    }


def _table3(config: Config, keep: bool) -> Arms:
    ranked = 'regime=multitask;sampler=all;task.chains='
    return {
        'baseline': 'regime=baseline',
        **{name: ranked + _chains(count) for name, count in COUNTS.items()},
    }


def _table5(config: Config, keep: bool) -> Arms:
    task = config.task
    low, high = getattr(task, 'patch_min', 1), getattr(task, 'patch_max', 1)
    side = round((low * high) ** 0.5)
    labeled = config.data.labeled_per_group + task.levels
    return {
        'baseline_scratch': 'regime=baseline;model.weights=none;model.frozen_blocks=0',
        'baseline_single': f'regime=baseline;task.patch_min={side};task.patch_max={side}',
        'baseline': 'regime=baseline',
        # Not in the paper: as many forwards as multi-task, all of them of labeled images.
        'baseline_equal': f'regime=baseline;data.labeled_per_group={labeled}',
        'finetune': 'regime=finetune;sampler=all',
        **_multitask(config, keep),
    }


_SAMPLERS: Claims = (
    ('multitask_hard', 'multitask_random'),
    ('multitask', 'multitask_random'),
    ('multitask', 'multitask_hard'),
)
_TABLE1: Claims = (
    ('ranking', 'baseline'),
    ('finetune_random', 'baseline'),
    ('finetune_hard', 'finetune_random'),
    ('finetune', 'finetune_random'),
    ('finetune', 'finetune_hard'),
    *_SAMPLERS,
    ('multitask', 'finetune'),
    ('multitask', 'baseline'),
)
_TABLE5: Claims = (
    ('baseline_single', 'baseline_scratch'),
    ('baseline', 'baseline_single'),
    ('baseline', 'finetune'),
    ('multitask_random', 'baseline'),
    *_SAMPLERS,
    ('multitask', 'finetune'),
    ('multitask', 'baseline'),
)
_TABLE3: Claims = (
    ('types_7', 'baseline'),
    ('types_11', 'types_7'),
    ('types_15', 'types_11'),
    ('types_all', 'types_15'),
    ('types_all', 'baseline'),
)

_QUALITY = report.PAPER['tid2013', 'srocc']
TABLES = {
    'table1': Table(
        task='IQA',
        arms=_table1,
        metric='srocc',
        source='TID2013',
        paper={
            arm: _QUALITY[report.known_as(arm)]['all']
            for arm in dict.fromkeys(name for claim in _TABLE1 for name in claim)
        },
        claims=_TABLE1,
    ),
    'table3': Table(
        task='IQA',
        arms=_table3,
        metric='lcc',
        source='TID2013',
        paper={arm: whole for arm, (whole, *_) in report.TABLE3.items()},
        claims=_TABLE3,
    ),
    'table5': Table(
        task='Crowd',
        arms=_table5,
        metric='mae',
        source='UCF_CC_50',
        paper={arm: numbers[-1] for arm, numbers in report.TABLE5.items()},
        claims=_TABLE5,
    ),
}
