"""Programs are made once for equal arguments, and anew for any other."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
import pytest

from rank_ssl import parallel
from rank_ssl.config import Optim
from rank_ssl.models import make_network
from rank_ssl.models.network import make_apply
from rank_ssl.optimizer import make_optimizer
from rank_ssl.shared import KEPT, shared
from rank_ssl.step import make_train_step
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA
from tests.ended_runs import config_of, played


@dataclasses.dataclass
class Setting:
    side: int = 4
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Other(Setting):
    """The same content, another class."""


class Closed:
    """Of a class of its own, with a hash by identity, and no way to copy it."""

    def __reduce__(self) -> Any:
        raise RuntimeError('no copy')


class Plain:
    """No dataclass: its hash says nothing of what it holds."""

    def __init__(self, side: int) -> None:
        self.side = side


@shared
def made(*args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: (args, kwargs)


def area(side: int) -> int:
    return side**2


@pytest.mark.parametrize('make', [
    lambda: 1, lambda: None, lambda: 'a', lambda: [1, 2], lambda: {'a': 1}, lambda: Setting(3),
    lambda: Plain(3), lambda: Crowd(size=64), lambda: area, parallel.make_mesh,
    lambda: jax.tree.structure({'a': 1}), lambda: Crowd().head(),
])  # fmt: skip
def test_equal_arguments_give_the_same_thing(make):
    assert made(make(), b=make(), a=1) is made(make(), a=1, b=make())


@pytest.mark.parametrize('one, other', [
    (1, 2), (1, 1.0), (1, True), ([1], [1.0]), ([1], (1,)), (Setting(3), Setting(4)),
    (Setting(), Other()), (Setting(names=['a']), Setting(names=['b'])), (Plain(3), Plain(4)),
    (Crowd(size=64), Crowd(size=32)), (Crowd(), IQA()), (Closed(), Closed()),
    (lambda: 1, lambda: 1), (functools.partial(area, 1), functools.partial(area, 2)),
    (optax.sgd(1.0), optax.sgd(1.0)), (Crowd().head(), IQA().head()),
])  # fmt: skip
def test_other_arguments_give_another(one, other):
    assert made(one) is not made(other) and made(a=one) is not made(a=other)
    assert made(a=one) is not made(b=one)


@pytest.mark.parametrize('setting', [Setting(3), Plain(3)])
def test_what_is_changed_later_is_another_argument_and_changes_nothing_made(setting):
    first = made(setting)
    setting.side = 5
    ((kept,), _), ((now,), _) = first(), made(setting)()
    assert (kept.side, now.side) == (3, 5)


def test_what_cannot_be_copied_is_handed_on():
    closed = Closed()
    assert made(closed)() == ((closed,), {})


def test_the_oldest_goes():
    first = made('first')
    for number in range(KEPT):
        made(number)
    assert made('first') is not first


def network_of(**options):
    return make_network(**{
        'backbone': 'vgg8', 'width': 0.1, 'blocks': 5, 'last_pool': False, 'frozen_blocks': 0,
        'dtype': 'float32', 'remat': False, 'pixels': 'torch', 'head': Crowd().head(), **options,
    })  # fmt: skip


def test_the_parts_of_a_program_are_the_same_where_all_they_are_made_of_is():
    apply_fn = make_apply(network_of())
    assert apply_fn is make_apply(network_of())
    for options in ({'width': 0.2}, {'pixels': 'caffe'}, {'frozen_blocks': 1}, {'remat': True}):
        assert apply_fn is not make_apply(network_of(**options))

    def optimizer(rate: float = 1.0, names: str = 'ab', **options: int):
        params = {'backbone': {n: {'kernel': 1.0} for n in names}}
        return make_optimizer(Optim(rate=rate), params, **{'steps': 3, **options})

    tx = optimizer()
    assert tx is optimizer()
    for options in ({'rate': 2.0}, {'names': 'ac'}, {'steps': 4}, {'frozen_blocks': 1}):
        assert tx is not optimizer(**options)

    def step(task: Any = None, **options: Any):
        return make_train_step(
            task or Crowd(size=32), tx, **{'rank_weight': 1.0, 'margin': 0.5, **options}
        )

    assert step() is step()
    assert step() is not step(Crowd(size=64)) and step() is not step(margin=1.0)
    assert step() is not step(parts=2) and step() is not step(reduction='mean')


@contextlib.contextmanager
def compiling() -> Iterator[list[str]]:
    """The names of the functions that are compiled meanwhile."""
    names: list[str] = []

    def note(event: str, seconds: float, **about: Any) -> None:
        if 'backend_compile' in event:
            names.append(about['fun_name'])

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_a_second_run_compiles_nothing(in_process, tmp_path):
    """As the cycles of active learning are: another seed, other folders, the same programs."""
    with compiling() as names:
        jax.jit(lambda x: x + 1)(1.0)
    assert names == ['jit(<lambda>)']  # as jax tells it
    shas, compiled = [], []
    data = {'data__data_dir': str(tmp_path / 'data'), 'figure_count': 0}
    for number in range(3):
        config = config_of('crowd_shtech.py:smoke', seed=number % 2, **data)
        with compiling() as names:
            shas.append(played(config, tmp_path / f'{number}')['params_sha256'])
        compiled.append(list(names))
    assert compiled[1:] == [[], []]
    assert shas[0] == shas[2] != shas[1]
