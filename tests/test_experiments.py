"""Every experiment: it builds with each of its arguments, names its command, and runs."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from rank_ssl.config import Config
from rank_ssl.errors import UserError
from tests.ended_runs import played, result_of

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / 'experiments').glob('[!_]*.py'))


def module(name: str) -> ModuleType:
    return importlib.import_module(f'experiments.{name}')


def variants() -> list[tuple[str, str]]:
    texts = {name: module(name).ARGUMENTS for name in NAMES}
    alone = [(name, text) for name in NAMES for text in ('', *texts[name])]
    return alone + [(name, f'{text},smoke') for name in NAMES for text in texts[name][:-1]]


def test_there_are_experiments():
    assert {'quickstart', 'crowd_shtech'} <= set(NAMES)


@pytest.mark.parametrize('name, text', variants())
def test_each_argument_builds_a_valid_run(name, text):
    config = module(name).get_config(text)
    assert isinstance(config, Config)
    config.check()
    # A new one each time: fields set on one must not show in the next.
    config.steps += 1
    assert module(name).get_config(text).steps == config.steps - 1


@pytest.mark.parametrize('name', NAMES)
def test_each_argument_changes_the_run_and_is_told(name):
    plain, docstring = module(name).get_config().to_dict(), module(name).__doc__
    for argument in module(name).ARGUMENTS:
        assert argument in docstring
        same = module(name).get_config(argument).to_dict() == plain
        assert same == (f'{argument} (default)' in docstring), argument


@pytest.mark.parametrize('name', NAMES)
def test_an_argument_that_is_none_is_refused(name):
    with pytest.raises(UserError, match=f'{name}.py:smok is no argument of {name}.py; use '):
        module(name).get_config('smok')


@pytest.mark.parametrize('name', NAMES)
def test_the_docstring_holds_the_command(name):
    docstring = module(name).__doc__
    assert f'\n    python -m rank_ssl.main --config=experiments/{name}.py' in docstring
    assert '--workdir=runs/' in docstring


@pytest.mark.parametrize('name', NAMES)
def test_a_smoke_run_needs_neither_data_nor_weights(name, monkeypatch):
    monkeypatch.delenv('RANK_SSL_DATA', raising=False)
    config = module(name).get_config('smoke')
    assert config.model.weights_path() is None
    assert config.data.tiny > 0 and not config.data.unlabeled_dirs
    assert config.log_every == 1 and config.steps // config.checkpoint_every >= 4
    assert config.keep >= 2


# Beside them another experiment of the same task runs as a command, which takes twice as long.
IN_PROCESS = (
    'active_crowd_shtech',
    'active_iqa_tid2013_kodak',
    'crowd_ucf_cc_50',
    'iqa_biq2021',
    'iqa_tid2013',
    'iqa_tid2013_kodak',
)


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.slow] * (n in IN_PROCESS)) for n in NAMES]
)
def test_the_smoke_run(smoke_run, name):
    run = smoke_run(f'{name}.py:smoke')
    assert run.done.returncode == 0, run.done.stderr
    assert_ended(name, result_of(run.workdir))


# That of active learning of quality is run so in active/test_cycles.py, which reads all it leaves.
@pytest.mark.parametrize('name', sorted({*IN_PROCESS} - {'active_iqa_tid2013_kodak'}))
def test_the_smoke_run_in_this_process(in_process, tmp_path, name):
    assert_ended(name, played(module(name).get_config('smoke'), tmp_path / 'run'))


def assert_ended(name: str, result: dict) -> None:
    config = module(name).get_config('smoke')
    assert result['steps'] == config.steps
    assert f'test/{config.task.best}' in result


def test_both_parts_of_shanghaitech_are_refused():
    with pytest.raises(UserError, match='crowd_shtech.py:A,B names 2 parts: give one'):
        importlib.import_module('experiments.crowd_shtech').get_config('B,A')
