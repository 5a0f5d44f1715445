"""The Config of a run again, from what it noted of itself."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from rank_ssl import logs, tasks
from rank_ssl.config import Config
from rank_ssl.errors import UserError

CURE = 'give --config=FILE.py'


def config_of(workdir: pathlib.Path) -> Config:
    """The Config that a run's workdir holds. Raises UserError where it holds none that can be."""
    path = workdir / 'config.json'
    noted = logs.read_json(path, cure=f'restore it from a copy, or {CURE}')
    if noted is None:
        raise UserError(
            f'--workdir={workdir} holds no config.json: name the --workdir of a run of '
            'rank_ssl.main'
        )
    try:
        return from_dict(noted)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None


def command_of(workdir: pathlib.Path) -> list[str]:
    """The words of the command line that a run's config was made of, as far as it noted them."""
    noted = logs.read_json(workdir / 'reproduce.json', cure=CURE) or {}
    words = noted.get('command')
    return list(map(str, words)) if words else ['--config=EXPERIMENT.py']


def from_dict(noted: Any) -> Config:
    """The Config whose `to_dict` this is; fields that it lacks take their defaults.

    The task is the class of its name in rank_ssl.tasks. Raises UserError for another one, and for
    fields that there are not: those of another version.
    """
    if not isinstance(noted, dict) or not isinstance(noted.get('task'), dict):
        raise UserError(f'there is no task in it, so it is no config of a run: {CURE}')
    fields, name = dict(noted['task']), noted['task'].get('class')
    if name not in tasks.__all__:
        known = ', '.join(sorted(tasks.__all__))
        raise UserError(f'its task is {name}, which is none of rank_ssl.tasks ({known}): {CURE}')
    del fields['class']
    found: list[str] = []
    task = _made(getattr(tasks, name), fields, 'task', found)
    made = _made(Config, {**noted, 'task': task}, '', found)
    if found:
        word = 'fields' if len(found) > 1 else 'a field'
        raise UserError(
            f'{", ".join(sorted(found))}: {word} that this version has not: use the version that '
            f'wrote it, or {CURE}'
        )
    return made


def _made(kind: Any, noted: Mapping[str, Any], name: str, unknown: list[str]) -> Any:
    """A dataclass of these fields; names of others are added to `unknown`."""
    known = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in noted.items():
        path = f'{name}.{key}' if name else key
        if key not in known:
            unknown.append(path)
        elif dataclasses.is_dataclass(known[key].type):
            if not isinstance(value, dict):
                raise UserError(f'config.{path}={value!r} must hold fields: {CURE}')
            values[key] = _made(known[key].type, value, path, unknown)
        else:
            values[key] = value
    return kind(**values)
