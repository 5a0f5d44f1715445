"""Ranking then fine-tuning in one command, and runs that start from another's parameters."""

import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

from rank_ssl import checkpoint, loop, main
from rank_ssl.config import Config
from rank_ssl.errors import Stopped, UserError
from rank_ssl.tasks.crowd import Crowd

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp('prepared'))


@pytest.fixture
def play(prepared, monkeypatch):
    """play(workdir, regime, **fields): a run of the crowd's smoke form in this process."""
    monkeypatch.chdir(ROOT)
    flags.FLAGS.mark_as_parsed()

    def run(workdir: Path, regime: str, **fields) -> dict:
        config = importlib.import_module('experiments.crowd_shtech').get_config('smoke')
        config.regime, config.data.data_dir, config.figure_count = regime, prepared, 0
        for name, value in fields.items():
            setattr(config, name, value)
        config.check()
        workdir.mkdir(exist_ok=True)
        main.main(config, workdir)
        return json.loads((workdir / 'result.json').read_text())

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
