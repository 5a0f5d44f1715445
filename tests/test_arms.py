"""The arms of the ablation tables, and the paper's claims of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rank_ssl import report
from rank_ssl.arms import COUNTS, TABLES, chosen, types_of
from rank_ssl.config import Config, Model, Optim, Pretrain
from rank_ssl.errors import UserError
from rank_ssl.ops.distortions import NUMBERS
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA
from tests.made_runs import CROWD, QUALITY, cells_of


def made_of(config: Config, table: str) -> dict[str, Config]:
    """Each arm's config."""
    return {cell.arm: cell.made(config) for cell in cells_of(config, table, Path('/w'), ('4',))}


def test_the_arms_of_table_1_are_the_papers():
    made = made_of(QUALITY, 'table1')
    assert {name: (c.regime, c.sampler) for name, c in made.items()} == {
        'baseline': ('baseline', 'all'),
        'ranking': ('ranking', 'all'),
        'finetune_random': ('finetune', 'random'),
        'finetune_hard': ('finetune', 'hard'),
        'finetune': ('finetune', 'all'),
        'multitask_random': ('multitask', 'random'),
        'multitask_hard': ('multitask', 'hard'),
        'multitask': ('multitask', 'all'),
    }
    starts = {name: c.init_from for name, c in made.items() if c.init_from}
    assert starts == {'finetune': '/w/ranking/seed_4'}
    for config in made.values():
        config.check()


def test_the_arms_of_table_5_are_the_papers_and_a_control():
    task = Crowd(patch_min=48, patch_max=192)
    config = dataclasses.replace(CROWD, task=task, model=Model(weights='v.npz', frozen_blocks=3))
    made = made_of(config, 'table5')
    assert list(made) == [
        'baseline_scratch', 'baseline_single', 'baseline', 'baseline_equal', 'finetune',
        'multitask_random', 'multitask_hard', 'multitask',
    ]  # fmt: skip
    models = {name: (c.model.weights, c.model.frozen_blocks) for name, c in made.items()}
    assert models.pop('baseline_scratch') == ('none', 0)
    assert set(models.values()) == {('v.npz', 3)}
    patches = {name: (c.task.patch_min, c.task.patch_max) for name, c in made.items()}
    assert patches.pop('baseline_single') == (96, 96)
    assert set(patches.values()) == {(48, 192)}
    assert {name: c.regime for name, c in made.items() if c.regime != 'baseline'} == {
        'finetune': 'finetune', 'multitask_random': 'multitask', 'multitask_hard': 'multitask',
        'multitask': 'multitask',
    }  # fmt: skip
    equal, ours = made['baseline_equal'], made['multitask']
    assert equal.groups * (equal.ranked + equal.labeled) == ours.groups * (
        ours.ranked + ours.labeled
    )
    for config in made.values():
        config.check()


def test_table_3_ranks_the_types_in_the_order_of_their_numbers():
    made = made_of(QUALITY, 'table3')
    ranked = {name: c.task.chains.split(',') for name, c in made.items() if name != 'baseline'}
    counted = {name: len({NUMBERS[chain] for chain in found}) for name, found in ranked.items()}
    assert counted == {'types_7': 7, 'types_11': 11, 'types_15': 15, 'types_all': 17} == COUNTS
    assert ranked['types_7'] == [
        'white_noise', 'colour_noise', 'high_frequency_noise', 'impulse_noise',
        'quantization_noise', 'gaussian_blur', 'denoising',
    ]  # fmt: skip
    assert ranked['types_15'] == list(NUMBERS)[:17] and ranked['types_all'] == list(NUMBERS)
    assert types_of(13)[-3:] == ['blockwise', 'mean_shift', 'contrast']
    for config in made.values():
        config.check()


@pytest.mark.parametrize('steps, every, pretrain, hard, first', [
    (100, 5000, 0, 10, 10),
    (10_000, 5000, 0, 5000, 5000),
    (9_999, 5000, 0, 999, 999),
    (5, 5000, 0, 1, 1),
    (100, 50, 0, 50, 50),
    (100, 5000, 400, 10, 40),
])  # fmt: skip
def test_hard_mining_grows_ten_times_in_a_short_run(steps, every, pretrain, hard, first):
    config = dataclasses.replace(
        QUALITY, steps=steps, hard_every=every, pretrain=Pretrain(steps=pretrain)
    )
    made = made_of(config, 'table1')
    assert (made['multitask_hard'].hard_every, made['finetune_hard'].hard_every) == (hard, first)


def test_fine_tuning_starts_from_a_run_like_its_own_first_stage():
    config = dataclasses.replace(QUALITY, pretrain=Pretrain(steps=40, rate=3e-5))
    made = made_of(config, 'table1')
    first = made['finetune_random'].stages()[0]
    assert (first.steps, first.optim.rate) == (40, 3e-5)
    ranking = made['ranking']
    assert (ranking.steps, ranking.optim.rate, ranking.regime) == (40, 3e-5, first.regime)
    plain = made_of(QUALITY, 'table1')['ranking']
    assert (plain.steps, plain.optim) == (100, Optim())


def test_what_the_user_sets_for_all_leaves_each_arm_what_it_is():
    config = dataclasses.replace(
        CROWD, sampler='hard', regime='ranking', margin=3.0, model=Model(weights='none')
    )
    made = made_of(config, 'table5')
    assert {c.margin for c in made.values()} == {3.0}
    assert [made[n].sampler for n in ('finetune', 'multitask', 'multitask_random')] == [
        'all', 'all', 'random',
    ]  # fmt: skip
    assert made['baseline'].regime == 'baseline'


@pytest.mark.parametrize('table', TABLES)
def test_the_claims_are_in_the_papers_numbers(table):
    found = TABLES[table]
    lower = found.metric == 'mae'
    made = found.arms(CROWD if lower else QUALITY, False)
    for better, worse in found.claims:
        assert (found.paper[better] < found.paper[worse]) == lower, (better, worse)
        assert {better, worse} <= set(made)
    assert len(set(found.claims)) == len(found.claims)


def test_the_papers_folds_have_their_mean():
    for arm, (*folds, mean) in report.TABLE5.items():
        # Its last row's splits, as printed, have the mean 279.75.
        error = 0.16 if arm == 'multitask' else 0.011
        assert np.mean(folds) == pytest.approx(mean, abs=error), arm


def test_the_default_table_is_the_tasks():
    assert (chosen(QUALITY, None), chosen(CROWD, None)) == ('table1', 'table5')
    assert chosen(QUALITY, 'table3') == 'table3'


@dataclasses.dataclass
class Other(Crowd):
    """A task of one's own."""


@pytest.mark.parametrize('config, name, message', [
    (CROWD, 'table1', '--table=table1 is about IQA, config.task is Crowd: use table5'),
    (QUALITY, 'table5', '--table=table5 is about Crowd, config.task is IQA: use table1, table3'),
    (QUALITY, 'table9', '--table=table9 is no table, config.task is IQA: use table1, table3'),
    (dataclasses.replace(QUALITY, task=IQA(ladder='live')), 'table3',
     "--table=table3 ranks parts of TID2013's ladder, config.task.ladder=live: use config.task."),
    (dataclasses.replace(CROWD, task=Other()), None, 'config.task is Other, which no table of '),
])  # fmt: skip
def test_a_table_that_is_none_of_the_task_is_told(config, name, message):
    with pytest.raises(UserError) as caught:
        chosen(config, name)
    assert str(caught.value).startswith(message)
