"""Differences of configs, those of other versions of the program, and which of them may be."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_ssl.changes import EVALUATION, HARMLESS, differences, in_words, since
from rank_ssl.config import Config, Optim
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA

BASE = Config(task=Crowd())


def names_of(part, prefix=''):
    """Dotted names of all fields of a config."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            yield from names_of(value, f'{prefix}{field.name}.')
        else:
            yield f'{prefix}{field.name}'


def without(noted, path):
    """What a version that does not know the field, or the group of fields, would have noted."""
    noted = copy.deepcopy(noted)
    *parts, last = path.split('.')
    place = noted
    for part in parts:
        place = place[part]
    del place[last]
    return noted


def test_differences_name_each_field_with_both_values():
    other = dataclasses.replace(BASE, seed=3, optim=Optim(rate=0.5), task=Crowd(size=64))
    one, other = BASE.to_dict(), other.to_dict()
    assert differences(one, one) == {}
    assert differences(one, other) == {
        'optim.rate': (1e-6, 0.5),
        'seed': (0, 3),
        'task.size': (224, 64),
    }
    # What one of them lacks.
    assert differences({'a': {'b': 1}}, {'a': {}}) == {'a.b': (1, None)}
    assert differences({}, {'a': {'b': 1}}) == {'a': (None, {'b': 1})}


NESTED = st.recursive(
    st.integers(0, 3) | st.text(max_size=2),
    lambda values: st.dictionaries(st.sampled_from('abcd'), values, max_size=4),
)
FIELDS = st.dictionaries(st.sampled_from('abcd'), NESTED, max_size=4)


@given(FIELDS, FIELDS)
def test_differences_are_what_turns_one_config_into_the_other(old, new):
    found = differences(old, new)
    turned = copy.deepcopy(old)
    for path, (before, after) in found.items():
        *parts, last = path.split('.')
        place = turned
        for part in parts:
            place = place[part]
        assert place.pop(last, None) == before != after
        if after is not None:
            place[last] = after
    assert turned == new
    assert differences(new, old) == {path: (b, a) for path, (a, b) in found.items()}


@pytest.mark.parametrize('path', [*names_of(BASE), 'model', 'optim', 'active'])
def test_a_field_that_a_version_did_not_have_was_at_its_default(path):
    noted = without(BASE.to_dict(), path)
    as_it_was = copy.deepcopy(noted)
    assert since(noted, BASE) == {}
    assert noted == as_it_was


def test_a_new_field_that_is_not_at_its_default_differs():
    now = dataclasses.replace(BASE, margin=2.0, optim=Optim(momentum=0.5), task=IQA(features=64))
    noted = dataclasses.replace(BASE, task=IQA()).to_dict()
    for path in ('margin', 'optim.momentum', 'task.features'):
        noted = without(noted, path)
    assert in_words(since(noted, now)) == {
        'margin': 'config.margin from 0.0 to 2.0',
        'optim.momentum': 'config.optim.momentum from 0.9 to 0.5',
        'task.features': 'config.task.features from 4096 to 64',
    }


def test_a_field_that_this_version_does_not_have_differs():
    noted = BASE.to_dict()
    noted['optim']['nesterov'] = True
    assert since(noted, BASE) == {'optim.nesterov': (True, None)}


@pytest.mark.parametrize('noted', [{}, {'task': None}, {'task': {}}, {'task': 3, 'model': []}])
def test_what_is_no_config_differs_from_any(noted):
    assert 'task' in {name.partition('.')[0] for name in since(noted, BASE)}


def test_the_task_of_another_class_differs():
    assert since(dataclasses.replace(BASE, task=IQA()).to_dict(), BASE)['task.class'] == (
        'IQA', 'Crowd'
    )  # fmt: skip


def test_a_tasks_own_field_may_be_what_json_does_not_know():
    @dataclasses.dataclass
    class Sized(Crowd):
        sides: tuple[int, ...] = (32, 64)

    config = dataclasses.replace(BASE, task=Sized())
    assert since(json.loads(json.dumps(config.to_dict())), config) == {}
    assert since(without(config.to_dict(), 'task.sides'), config) == {}


def test_harmless_fields_exist():
    tasks = (Crowd(), IQA())
    names = [name for task in tasks for name in names_of(dataclasses.replace(BASE, task=task))]
    assert set(HARMLESS + EVALUATION) <= set(names)
    assert len(set(HARMLESS + EVALUATION)) == len(HARMLESS + EVALUATION)


def test_fields_that_change_what_was_trained_are_not_harmless():
    """Each of them by name: a field that is added has to be thought about."""
    decisive = {
        *('active', 'deterministic', 'first_step', 'pretrain', 'seed'),
        *(f'data.{name}' for name in (
            'allow_partial', 'dataset', 'fold', 'groups', 'labeled_per_group', 'labels', 'part',
            'test_share', 'tiny', 'unlabeled_dirs', 'unlabeled_labeled', 'unlabeled_rest',
            'unlabeled_set', 'validation')),
        *(f'model.{name}' for name in (
            'backbone', 'blocks', 'dtype', 'frozen_blocks', 'last_pool', 'pixels', 'width')),
        *(f'optim.{name}' for name in (
            'clip_norm', 'head_rate', 'momentum', 'name', 'schedule', 'warmup', 'weight_decay')),
    }  # fmt: skip
    groups = ('active.', 'pretrain.')
    names = {name.partition('.')[0] if name.startswith(groups) else name for name in names_of(BASE)}
    assert {n for n in names if not n.startswith('task.')} - {*HARMLESS, *EVALUATION} == decisive
