"""What the runs of one process share: the stages and cycles of a command need the same programs."""

import contextlib
import copy
import functools
import pickle
import types
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

from jax.sharding import Mesh

P = ParamSpec('P')
T = TypeVar('T')

KEPT = 8  # results of one function; the oldest goes


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """`make`, called once for equal arguments: what it makes must depend on them alone.

    jax compiles again for every new function, however equal its code and what it closes over. So a
    function that a program is made of has to be the same one wherever the same program is meant.
    """

    @functools.lru_cache(KEPT)
    def made(args: tuple[_Value, ...], kwargs: tuple[tuple[str, _Value], ...]) -> T:
        given: dict[str, Any] = {name: value.content for name, value in kwargs}
        return make(*(value.content for value in args), **given)

    @functools.wraps(make)
    def once(*args: P.args, **kwargs: P.kwargs) -> T:
        named = tuple((name, _Value(kwargs[name])) for name in sorted(kwargs))
        return made(tuple(map(_Value, args)), named)

    return once


class _Value:
    """An argument, equal to another of its type and content.

    What may be changed later on, such as the settings of a task, is copied. What has neither a hash
    nor can be pickled is equal to nothing else.
    """

    def __init__(self, content: Any) -> None:
        self.content = content
        key: Hashable = content
        if not _fixed(content):
            key = object()
            with contextlib.suppress(Exception):  # whatever a class of a user raises
                key, self.content = pickle.dumps(content), copy.deepcopy(content)
        self._key = type(content), key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _fixed(content: Any) -> bool:
    """Whether it has a hash of what it holds, or is a function or mesh: then it never changes."""
    if isinstance(content, types.FunctionType | Mesh):
        return True
    try:
        hash(content)
    except TypeError:
        return False
    return type(content).__hash__ is not object.__hash__
