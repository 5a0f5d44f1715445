"""A run's config.json becomes the Config that wrote it; what cannot is one line with its cure."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_ssl import logs, restore
from rank_ssl.config import Config, Optim
from rank_ssl.errors import UserError
from rank_ssl.tasks import IQA, Crowd

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in ROOT.glob('experiments/[a-z]*.py'))
BASE = Config(task=Crowd(size=64), optim=Optim(name='adam'))


def leaves(part, name='config'):
    """Every field that holds no other fields, with its dotted name."""
    for field in dataclasses.fields(part):
        value, path = getattr(part, field.name), f'{name}.{field.name}'
        if dataclasses.is_dataclass(value):
            yield path, type(value)
            yield from leaves(value, path)
        else:
            yield path, value


@pytest.mark.parametrize('arguments', ['', 'smoke'])
@pytest.mark.parametrize('name', NAMES)
def test_every_experiment_comes_back_field_by_field(tmp_path, name, arguments):
    config = importlib.import_module(f'experiments.{name}').get_config(arguments)
    logs.write_json(tmp_path / 'config.json', config.to_dict())
    made = restore.config_of(tmp_path)
    assert list(leaves(made)) == list(leaves(config)) and made == config
    assert made.to_dict() == config.to_dict()


def test_all_experiments_are_looked_at():
    assert {'quickstart', 'active_quickstart', 'iqa_live', 'crowd_shtech'} <= set(NAMES)


@given(
    rate=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(),
    folder=st.text(),
    quality=st.booleans(),
)
def test_any_values_come_back(rate, seed, folder, quality):
    config = Config(task=IQA(chains=folder) if quality else Crowd(), seed=seed)
    config.optim.rate, config.data.manual_dir = rate, folder
    assert restore.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_the_dict_holds_is_left_as_it_is():
    noted = BASE.to_dict()
    restore.from_dict(noted)
    assert noted == BASE.to_dict()


def test_missing_fields_take_their_defaults():
    noted = BASE.to_dict()
    del noted['active'], noted['optim']['momentum'], noted['task']['asked'], noted['first_step']
    assert restore.from_dict(noted) == BASE


MISTAKES = {
    'unknown': (
        {'optim': {'raet': 1}, 'task': {'class': 'Crowd', 'depth': 2}},
        'optim.raet, task.depth: fields that this version has not: use the version that wrote it, '
        'or give --config=FILE.py',
    ),
    'one': ({'sedd': 1, 'task': {'class': 'IQA'}}, 'sedd: a field that this version has not: '),
    'class': (
        {'task': {'class': 'Age', 'size': 3}},
        'its task is Age, which is none of rank_ssl.tasks (Crowd, IQA): give --config=FILE.py',
    ),
    'no class': ({'task': {'size': 3}}, 'its task is None, which is none of'),
    'no task': ({'seed': 3}, 'there is no task in it, so it is no config of a run: give'),
    'no dict': ([1], 'there is no task in it'),
    'a part': (
        {'optim': 3, 'task': {'class': 'Crowd'}},
        'config.optim=3 must hold fields: give --config=FILE.py',
    ),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_what_is_no_config_of_this_version_is_named(tmp_path, name):
    noted, message = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        restore.from_dict(noted)
    assert str(caught.value).startswith(message)
    logs.write_json(tmp_path / 'config.json', noted)
    with pytest.raises(UserError) as named:
        restore.config_of(tmp_path)
    path, cure = tmp_path / 'config.json', 'restore it from a copy, or give --config=FILE.py'
    found = f'{path}: {caught.value}'
    if not isinstance(noted, dict):
        found = f'{path} holds no JSON object: {cure}'
    assert str(named.value) == found


@pytest.mark.parametrize('data', [b'', b'{"seed": 1', b'\xff\xfe{}', None])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, data):
    path = tmp_path / 'config.json'
    path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        restore.config_of(tmp_path)
    message = str(caught.value)
    assert message.startswith(f'{path} cannot be read (') and '\n' not in message
    assert message.endswith(': restore it from a copy, or give --config=FILE.py')


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(UserError) as caught:
        restore.config_of(tmp_path)
    assert str(caught.value) == (
        f'--workdir={tmp_path} holds no config.json: name the --workdir of a run of rank_ssl.main'
    )
