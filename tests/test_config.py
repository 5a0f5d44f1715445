"""The configuration: every rule of check(), and that the source says what each field is."""

import ast
import dataclasses
import inspect
import json

import pytest

from rank_ssl import config as configs
from rank_ssl.config import (
    Active,
    Config,
    Data,
    Model,
    Optim,
    Pretrain,
    arguments,
)
from rank_ssl.errors import UserError
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA

# Field, values that it must refuse, and the rule that the message has to name.
ABOVE_ZERO = [
    'steps', 'accumulate', 'eval_batch', 'checkpoint_every', 'keep', 'log_every', 'max_bad_steps',
    'hard_every', 'hard_add', 'data.groups', 'data.labeled_per_group', 'data.threads',
    'data.test_stride', 'data.prefetch', 'data.silence', 'optim.decay_every', 'optim.rate',
    'optim.head_rate', 'optim.decay_factor', 'model.width',
    'active.start', 'active.share', 'active.draws',
]  # fmt: skip
FROM_ZERO = [
    'seed', 'eval_every', 'rank_weight', 'margin', 'figure_count', 'data.labels', 'data.fold',
    'data.workers',
    'data.tiny', 'optim.momentum', 'optim.weight_decay', 'optim.clip_norm', 'optim.warmup',
    'model.frozen_blocks', 'pretrain.steps', 'pretrain.rate', 'eval_tile',
    'first_step', 'active.cycles', 'active.pairs', 'active.dropout',
]  # fmt: skip
CHOICES = {
    'mode': 'train, evaluate, active',
    'regime': 'multitask, baseline, ranking, finetune, ridge',
    'reduction': 'paper, caffe, mean',
    'sampler': 'all, random, hard',
    'active.rule': 'certainty, graded, random, dropout, kcenter',
    'optim.name': 'sgd, adam',
    'optim.schedule': 'step, cosine, constant',
    'data.on_bad': 'error, skip',
}


def made(**fields) -> Config:
    """The default run with some fields set, dots written as double underscores."""
    config = Config(task=Crowd())
    for name, value in fields.items():
        put(config, name.replace('__', '.'), value)
    return config


def put(config: Config, path: str, value) -> None:
    *parts, last = path.split('.')
    setattr(config.get('.'.join(parts)) if parts else config, last, value)


def refusal(config: Config) -> str:
    with pytest.raises(UserError) as caught:
        config.check()
    message = str(caught.value)
    assert '\n' not in message
    return message


def fields_of(part, prefix: str = ''):
    """Dotted name, type and value of every field of a config but its task's."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, Crowd):
            yield from fields_of(value, f'{prefix}{field.name}.')
        elif field.name != 'task':
            yield f'{prefix}{field.name}', field.type, value


def test_the_defaults_are_a_valid_run():
    made().check()


@pytest.mark.parametrize('field', ABOVE_ZERO)
def test_numbers_that_must_be_positive(field):
    kind = type(made().get(field))
    for bad in (kind(0), kind(-1)):
        config = made()
        put(config, field, bad)
        assert refusal(config) == f'config.{field}={bad} must be greater than 0 and finite'


@pytest.mark.parametrize('field', FROM_ZERO)
def test_numbers_that_must_not_be_negative(field):
    kind = type(made().get(field))
    config = made()
    put(config, field, kind(-1))
    assert refusal(config) == f'config.{field}={kind(-1)} must be 0 or greater and finite'
    put(config, field, kind(0))
    config.check()


def test_every_number_has_a_rule():
    numbers = {name for name, kind, _ in fields_of(made()) if kind in (int, float)}
    between = {
        'data.validation',
        'data.test_share',
        'model.blocks',
    }  # the second is checked with the backbone
    assert numbers - between == set(ABOVE_ZERO) | set(FROM_ZERO)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize('field', ['optim.rate', 'margin', 'rank_weight', 'model.width'])
def test_numbers_that_are_not_finite(field, bad):
    config = made()
    put(config, field, bad)
    assert refusal(config).startswith(f'config.{field}={bad} must be ')


@pytest.mark.parametrize('field', ['seed', 'optim.rate', 'task.size'])
@pytest.mark.parametrize('bad', [10**400, -(2**63)])
def test_whole_numbers_that_nothing_can_hold(field, bad):
    config = made()
    put(config, field, bad)
    assert refusal(config) == f'config.{field}={str(bad)[:25]}... must be below 2**63 in size'


@pytest.mark.parametrize('field, allowed', CHOICES.items())
def test_choices(field, allowed):
    config = made(data__groups=6)  # an even number of images, which any sampler takes
    put(config, field, 'trian')
    assert refusal(config) == f'config.{field}=trian is unknown; use {allowed}'
    for word in allowed.split(', '):
        put(config, field, word)
        config.check()


@pytest.mark.parametrize(
    'fields, message',
    [
        ({'seed': 2**32}, 'config.seed=4294967296 must be below 2**32'),
        ({'active__share': 1.5}, 'config.active.share=1.5 is a share, 1 at most; use 0.1'),
        ({'active__dropout': 1.0}, 'config.active.dropout=1.0 must be below 1; use 0.2'),
        (
            {'mode': 'active', 'data__labels': 5},
            'config.data.labels=5 fixes the labels, config.mode=active chooses them: use 0 and ',
        ),
        (
            {'mode': 'active', 'regime': 'ridge'},
            'config.regime=ridge trains on no label, config.mode=active chooses labels to train',
        ),
        ({'eval_tile': 40}, 'config.eval_tile=40 px must be a multiple of the stride 16; use '),
        (
            {'eval_tile': 96, 'task': IQA(size=96)},
            'config.eval_tile=96 joins maps, and the output of the task IQA is none; use 0',
        ),
        ({'optim__momentum': 1.0}, 'config.optim.momentum=1.0 must be below 1; use 0.9'),
        ({'data__validation': 0.0}, 'config.data.validation=0.0 must lie between 0 and 1'),
        ({'data__validation': 1.0}, 'use 0.1'),
        ({'task': 'crowd'}, "config.task='crowd' is not a task: build one of rank_ssl.tasks"),
        ({'task': Crowd(levels=1)}, 'config.task.levels=1 makes no pair to rank; use 5'),
    ],
)
def test_other_rules(fields, message):
    assert message in refusal(made(**fields))


@pytest.mark.parametrize(
    'field, wrong, kind',
    [
        ('steps', '3', 'int'),
        ('steps', 2.5, 'int'),
        ('steps', True, 'int'),
        ('steps', None, 'int'),
        ('margin', '1', 'float'),
        ('evaluate_test', 1, 'bool'),
        ('regime', None, 'str'),
        ('data.part', 3, 'str'),
        ('data.unlabeled_dirs', ('photos',), 'str'),
        ('task.size', '224', 'int'),
        ('task.cell', 16.0, 'int'),
        ('task.scale', None, 'float'),
        ('task.unit', 3, 'str'),
        ('optim', None, 'Optim'),
        ('model', Optim(), 'Model'),
    ],
)
def test_a_value_of_another_type_from_an_experiment_file(field, wrong, kind):
    config = made()
    put(config, field, wrong)
    message = refusal(config)
    assert message.startswith(f'config.{field}=') and message.endswith(f' must be of type {kind}')


def test_an_int_will_do_for_a_float():
    made(margin=1, optim__rate=1, task__sigma=15).check()


@dataclasses.dataclass(slots=True)
class Wide(Crowd):
    """A task with more kinds of fields, as `from __future__ import annotations` leaves them."""

    stains: 'tuple[str, ...]' = ()
    depth: int | None = None
    rings: 'int' = 3
    limits: tuple[float, float] = (0.0, 1.0)


def test_a_tasks_own_fields_may_be_of_other_kinds():
    made(task=Wide(stains=('x',), depth=2)).check()
    assert refusal(made(task=Wide(rings='3'))) == "config.task.rings='3' must be of type int"


def test_a_field_that_does_not_exist_is_an_error_where_it_is_written():
    for part, name in ((made(), 'step'), (Optim(), 'learning_rate'), (Data(), 'label')):
        with pytest.raises(AttributeError):
            setattr(part, name, 1)


@pytest.mark.parametrize('regime, ranked, labeled', [
    ('multitask', 5, 3), ('baseline', 0, 3), ('ranking', 5, 0),
])  # fmt: skip
def test_images_of_a_group_by_regime(regime, ranked, labeled):
    config = made(regime=regime, data__labeled_per_group=3)
    assert (config.ranked, config.labeled) == (ranked, labeled)


@pytest.mark.parametrize('sampler, levels, layout', [
    ('all', 5, (4, 5, 3)), ('hard', 5, (4, 5, 3)), ('random', 6, (4, 6, 3)),
    ('random', 5, (2, 10, 6)),
])  # fmt: skip
def test_random_pairs_of_odd_levels_join_two_groups(sampler, levels, layout):
    config = made(sampler=sampler, data__groups=4, data__labeled_per_group=3, task__levels=levels)
    config.check()
    assert (config.groups, config.ranked, config.labeled) == layout
    baseline = made(sampler=sampler, regime='baseline', data__groups=4, data__labeled_per_group=3)
    assert (baseline.groups, baseline.ranked, baseline.labeled) == (4, 0, 3)


def test_an_odd_number_of_ranked_images_makes_no_pairs():
    rule = '5 x 5 ranked images of a mini-batch, an odd number: use config.data.groups=6'
    assert rule in refusal(made(sampler='random'))
    made(sampler='random', regime='baseline').check()
    made(sampler='hard').check()


def test_to_dict_is_json_and_holds_every_field():
    plain = made(data__unlabeled_dirs='a,b').to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain['task'] == {'class': 'Crowd', **dataclasses.asdict(Crowd())}
    assert plain['data']['unlabeled_dirs'] == 'a,b'
    assert plain.keys() == {field.name for field in dataclasses.fields(Config)}


def test_arguments_of_an_experiment():
    options = {'allowed': ('A', 'B', 'smoke'), 'experiment': '/some/crowd.py'}
    assert arguments('', **options) == set()
    assert arguments('B,smoke', **options) == arguments(' smoke , B,', **options) == {'B', 'smoke'}
    with pytest.raises(UserError) as caught:
        arguments('B,smok', **options)
    assert str(caught.value) == 'crowd.py:smok is no argument of crowd.py; use A, B, smoke'


def test_weights_none_is_from_scratch(monkeypatch):
    monkeypatch.delenv('RANK_SSL_DATA', raising=False)
    assert Model(weights='none').weights_path() is None


def test_weights_that_are_named(tmp_path):
    file = tmp_path / 'vgg.npz'
    with pytest.raises(UserError, match=f'config.model.weights={file} does not exist: name an npz'):
        Model(weights=str(file)).weights_path()
    file.touch()
    assert Model(weights=str(file)).weights_path() == str(file)
    with pytest.raises(UserError, match='does not exist'):
        Model(weights=str(tmp_path)).weights_path()


def test_weights_by_default_lie_below_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv('RANK_SSL_DATA', raising=False)
    with pytest.raises(UserError, match=r'config.model.weights is not set and \$RANK_SSL_DATA'):
        Model().weights_path()
    monkeypatch.setenv('RANK_SSL_DATA', str(tmp_path))
    file = tmp_path / configs.DEFAULT_WEIGHTS
    with pytest.raises(UserError, match=f'config.model.weights={file} does not exist'):
        Model().weights_path()
    file.parent.mkdir()
    file.touch()
    assert Model().weights_path() == str(file)


@pytest.mark.parametrize('part', [Model, Data, Optim, Pretrain, Active, Config])
def test_every_field_says_what_it_is(part):
    source = inspect.getsource(part)
    lines = source.splitlines()
    body = ast.parse(source).body[0].body
    fields = [node for node in body if isinstance(node, ast.AnnAssign)]
    assert len(fields) == len(dataclasses.fields(part))
    # The task and the groups of fields: their classes have docstrings.
    plain = {'task', 'model', 'data', 'optim', 'pretrain', 'active'}
    bare = {f.target.id for f in fields if '  # ' not in lines[f.end_lineno - 1]}
    assert bare <= plain


@pytest.mark.parametrize('regime, weight', [('multitask', 0.3), ('ranking', 1.0)])
def test_one_loss_alone_is_not_weighed(regime, weight):
    assert made(regime=regime, rank_weight=0.3).weight_of_ranking == weight
