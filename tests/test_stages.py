"""Ranking then fine-tuning in one command, and runs that start from another's parameters."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rank_ssl import checkpoint, evidence, loop, stages
from rank_ssl.config import Config
from rank_ssl.errors import Stopped, UserError
from rank_ssl.tasks.crowd import Crowd
from tests.ended_runs import CROWD, config_of, played

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp('prepared'))


@pytest.fixture
def play(prepared, in_process):
    """play(workdir, regime, **fields): a run of the crowd's smoke form in this process."""

    def run(workdir: Path, regime: str, **fields) -> dict:
        shared = {'data__data_dir': prepared, 'figure_count': 0}
        return played(config_of(CROWD, regime=regime, **shared, **fields), workdir)

    return run


def best_params(workdir: Path) -> dict:
    (step,) = checkpoint.saved_steps(workdir / 'best')
    return checkpoint.load(workdir / 'best' / str(step), None)


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_finetune_is_ranking_and_then_regression_from_its_parameters(play, tmp_path):
    whole = play(tmp_path / 'whole', 'finetune', steps=4)
    first = json.loads((tmp_path / 'whole' / 'ranking' / 'result.json').read_text())
    assert (first['regime'], first['steps'], first['best_step']) == ('ranking', 4, 4)
    assert not any(name.startswith('test/') for name in first)
    ranking = play(tmp_path / 'ranking', 'ranking', steps=4, evaluate_test=False)
    assert ranking['params_sha256'] == first['params_sha256']
    by_hand = play(tmp_path / 'hand', 'finetune', steps=4, init_from=str(tmp_path / 'ranking'))
    assert by_hand['params_sha256'] == whole['params_sha256']
    base = play(tmp_path / 'base', 'baseline', steps=4)
    assert base['params_sha256'] != whole['params_sha256']


@pytest.mark.slow
@pytest.mark.parametrize('stage', ['first', 'last'])
def test_a_stop_in_either_stage_costs_nothing(play, tmp_path, monkeypatch, stage):
    whole = play(tmp_path / 'whole', 'finetune', steps=4)
    agreed, seen = loop._agreed_stop, []

    def stop(received, step):
        seen.append(step)
        return 15 if len(seen) == (3 if stage == 'first' else 7) else agreed(received, step)

    monkeypatch.setattr(loop, '_agreed_stop', stop)
    with pytest.raises(Stopped):
        play(tmp_path / 'stopped', 'finetune', steps=4)
    reached = checkpoint.newest(tmp_path / 'stopped' / 'checkpoints')
    assert (reached is None) == (stage == 'first')
    again = play(tmp_path / 'stopped', 'finetune', steps=4)
    assert again['params_sha256'] == whole['params_sha256']
    assert len(seen) == 8


def test_the_stages_have_steps_and_rates_of_their_own():
    config = Config(task=Crowd(), regime='finetune', steps=50)
    assert [(c.regime, c.steps, c.optim.rate) for c in config.stages()] == [
        ('ranking', 50, 1e-6),
        ('finetune', 50, 1e-6),
    ]
    config.pretrain.steps, config.pretrain.rate = 20, 1e-4
    first, last = config.stages()
    assert (first.steps, first.optim.rate, first.evaluate_test) == (20, 1e-4, False)
    assert (last.steps, last.optim.rate, last.evaluate_test) == (50, 1e-6, True)
    assert (first.ranked, first.labeled, last.ranked, last.labeled) == (5, 0, 0, 5)
    for regime in ('multitask', 'baseline', 'ranking'):
        assert len(Config(task=Crowd(), regime=regime).stages()) == 1


def test_ranking_alone_keeps_its_last_step_whatever_the_labels_say():
    config = Config(task=Crowd(), regime='ranking')
    assert loop.is_better(config, {'mae': 9.0}, {'mae': 1.0})
    config.regime = 'multitask'
    assert not loop.is_better(config, {'mae': 9.0}, {'mae': 1.0})


def test_there_must_be_a_run_to_start_from(play, tmp_path):
    with pytest.raises(UserError, match=r'config.init_from=.*none holds no run with a validated'):
        play(tmp_path / 'run', 'baseline', init_from=str(tmp_path / 'none'))


@pytest.mark.slow
def test_a_run_starts_from_no_run_that_has_seen_what_it_is_tested_by(play, tmp_path):
    """The validation images of another seed are partly this seed's labeled ones."""
    play(tmp_path / 'zero', 'baseline', steps=2)
    fields = {'steps': 2, 'init_from': str(tmp_path / 'zero')}
    play(tmp_path / 'same', 'baseline', **fields)
    refused = []
    for seed in (1, 2, 3, 4):
        try:
            play(tmp_path / f'{seed}', 'baseline', seed=seed, **fields)
        except UserError as error:
            refused.append(str(error))
    assert refused and all('has seen the labels of' in line for line in refused)
    # What a run has seen goes on through those that start from it.
    seen = [
        checkpoint.newest(tmp_path / n / 'checkpoints')[1]['seen_ids'] for n in ('zero', 'same')
    ]
    assert seen[0] == seen[1] and len(seen[0]) == 4


def test_a_run_that_only_ranked_may_be_started_from_with_any_seed(play, tmp_path):
    play(tmp_path / 'zero', 'ranking', steps=2, evaluate_test=False)
    assert checkpoint.newest(tmp_path / 'zero' / 'checkpoints')[1]['seen_ids'] == []
    play(tmp_path / 'other', 'baseline', steps=2, seed=1, init_from=str(tmp_path / 'zero'))


def test_a_damaged_end_of_the_first_stage_is_told(play, tmp_path):
    play(tmp_path / 'run', 'ranking', steps=4, evaluate_test=False)
    (tmp_path / 'run' / 'best' / '4' / 'meta.json').write_text('{}')
    with pytest.raises(UserError, match='best/4: meta.json was changed'):
        play(tmp_path / 'next', 'baseline', steps=2, init_from=str(tmp_path / 'run'))


def test_a_damaged_result_is_told_with_its_cure(play, tmp_path):
    first = play(tmp_path, 'baseline', steps=2)
    path = tmp_path / 'result.json'
    for content in ('', '{"steps": 2, "te', '[2]'):
        path.write_text(content)
        cure = 'delete it, and the same command makes it again'
        with pytest.raises(UserError, match=f'^{path} .*: {cure}'):
            play(tmp_path, 'baseline', steps=2)
    path.unlink()
    assert play(tmp_path, 'baseline', steps=2)['test/mae'] == first['test/mae']


@pytest.mark.slow
def test_what_a_killed_run_left_of_a_file_is_gone_in_each_stage(play, tmp_path):
    play(tmp_path, 'finetune', steps=2)
    halves = [folder / '.metrics.jsonl.partial' for folder in (tmp_path, tmp_path / 'ranking')]
    for path in (*halves, tmp_path / 'result.json'):
        path.write_text('{"st')
    (tmp_path / 'result.json').unlink()
    shutil.rmtree(tmp_path / 'checkpoints')
    play(tmp_path, 'finetune', steps=2)
    assert not any(map(Path.exists, halves))


@pytest.mark.slow
def test_the_last_stage_can_be_evaluated_alone(play, tmp_path, capsys):
    whole = play(tmp_path / 'run', 'finetune', steps=4)
    capsys.readouterr()
    again = play(tmp_path / 'run', 'finetune', steps=4, mode='evaluate')
    assert again['test/mae'] == whole['test/mae']
    assert 'init_from' not in capsys.readouterr().err


def test_a_finetuned_run_says_what_its_first_stage_ranked(play, tmp_path):
    whole = play(tmp_path / 'run', 'finetune', steps=2)
    assert whole['unlabeled_images'] > 0 and whole['labeled_images'] == 4
    first = json.loads((tmp_path / 'run' / 'ranking' / 'result.json').read_text())
    assert (first['labeled_images'], first['unlabeled_images']) == (0, whole['unlabeled_images'])
    assert 'after 2 steps of ranking at 1e-06' in evidence.setting(whole)


def test_a_stage_is_left_alone_once_the_next_has_begun(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(stages, 'run_stage', lambda config, folder, *a, **b: ran.append(folder))
    config = config_of(CROWD, regime='finetune')
    stages.run_stages(config, tmp_path, None)
    assert ran == [tmp_path / 'ranking', tmp_path]
    (tmp_path / 'checkpoints' / '2').mkdir(parents=True)
    ran.clear()
    stages.run_stages(config, tmp_path, None)
    assert ran == [tmp_path]


def test_an_anchor_is_fitted_once_and_has_no_maps(play, tmp_path, capsys):
    with pytest.raises(UserError, match='regime=ridge predicts one score .* Crowd has maps'):
        play(tmp_path / 'maps', 'ridge')
    config = config_of(
        'iqa_biq2021.py:smoke', regime='ridge', data__data_dir=str(tmp_path / 'data')
    )
    told = []
    for _ in range(2):
        played(config, tmp_path)
        told.append(capsys.readouterr())
    assert told[0].out == told[1].out and 'test/srocc' in told[0].out
    assert 'nothing to do' in told[1].err and 'nothing to do' not in told[0].err
    config.mode, config.seed = 'evaluate', 1
    with pytest.raises(UserError, match='fits and evaluates in mode train'):
        played(config, tmp_path)
