"""What a run has to name so that somebody can run it again, and whether a second run is the same.

reproduce.json stands in every workdir from the start of a run; its parameters' hash is filled in
at the end.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax

from rank_ssl import checkpoint, jobs, logs, manifest, restore
from rank_ssl.changes import since
from rank_ssl.config import Config
from rank_ssl.data import Splits
from rank_ssl.errors import UserError
from rank_ssl.results import PACKAGES

NAME = 'reproduce.json'
CURE = (
    'restore it from a copy, or delete it: a run that goes on is then noted as from here on, and '
    'one that has ended cannot be run again'
)
# What bit-equal parameters are promised for, by the words that a difference is told in.
NEEDED = {
    'versions': 'other versions',
    'device': 'another device',
    'devices': 'another topology',
    'processes': 'another topology',
    'cores': 'another topology',
    'xla_flags': 'other compiler flags',
    'jax_config': 'other settings of jax',
    'data_fingerprint': 'other data',
    'unlabeled_fingerprint': 'other unlabeled data',
    'weights_sha256': 'other pretrained weights',
    'init_sha256': 'other parameters to start from',
    'seed': 'another seed',
}
# Settings of jax, from its JAX_... variables, that change what a step computes.
SETTINGS = (
    'jax_enable_x64', 'jax_default_prng_impl', 'jax_threefry_partitionable',
    'jax_random_seed_offset', 'jax_default_matmul_precision', 'jax_disable_jit',
    'jax_disable_most_optimizations', 'jax_optimization_level',
)  # fmt: skip
# What the values that a second run uses must be, and that in words.
SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    'params_sha256': (lambda value: isinstance(value, str), 'a hash'),
    'command': (lambda value: _list_of(str, value), 'a list of words'),
    'gone_on_with': (lambda value: _list_of(dict, value), 'a list of objects'),
}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def note(
    config: Config,
    workdir: pathlib.Path,
    splits: Splits,
    *,
    command: Sequence[str] = (),
    again: str | None = None,
) -> None:
    """Writes reproduce.json at the first start of a run, and what differs in a later one.

    `command` are the words that the config was made of; `again` is the hash of the parameters of
    the run that this one runs again.
    """
    path, begun = workdir / NAME, any(workdir.glob('**/checkpoints/[0-9]*'))
    now = {'command': list(command), 'again': again, **facts(config, splits)}
    noted = logs.read_json(path, cure=CURE) if begun else None
    if noted is None:
        logs.write_json(path, now | {'gone_on_with': [], 'params_sha256': None})
        return
    for name in ('weights_sha256', 'init_sha256'):
        if now[name] is None:
            now[name] = noted.get(name)  # a run that goes on does not read them
    free = ('command', 'again', 'git')
    changed = {n: v for n, v in now.items() if n not in free and v != _noted(noted, n, v)}
    if not since(noted.get('config') or {}, config):
        changed.pop('config', None)
    if 'config' in changed:
        # What is to be run again is what its last parameters are of.
        noted['config'], changed['config'] = changed['config'], noted['config']
    if changed:
        if changed not in noted.setdefault('gone_on_with', []):
            noted['gone_on_with'].append(changed)
        logs.write_json(path, noted)


def check_new(workdir: pathlib.Path, again: str) -> None:
    """Raises UserError where the workdir is of a run that runs nothing again, or another one."""
    noted = logs.read_json(workdir / NAME, cure='name a new folder for the second run')
    if noted is not None and noted.get('again') != again:
        raise UserError(f'--workdir={workdir} holds another run: name a new folder for the second')


def complete(workdir: pathlib.Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the hash of the final parameters; what the file then holds.

    Raises UserError for a finished run that noted nothing, by another version.
    """
    path = workdir / NAME
    noted = logs.read_json(path, cure=CURE)
    if noted is None:
        raise UserError(f'{workdir} holds a finished run without {NAME}: use another --workdir')
    noted['params_sha256'] = result.get('params_sha256')
    logs.write_json(path, noted)
    return noted


def facts(config: Config, splits: Splits) -> dict[str, Any]:
    """All that the bits of a run depend on, and the revision of the code."""
    device = jax.devices()[0]
    return {
        'config': config.to_dict(),
        'seed': config.seed,
        'versions': {'python': platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        'device': f'{device.device_kind} ({device.platform}, {_processor()})',
        'devices': jax.device_count(),
        'processes': jax.process_count(),
        # A CPU's sums are split over its threads; of an accelerator they are no part.
        'cores': len(jobs.usable_cores()) if device.platform == 'cpu' else None,
        'xla_flags': os.environ.get('XLA_FLAGS', ''),
        'jax_config': {name: jax.config.values.get(name) for name in SETTINGS},
        'data_fingerprint': splits.fingerprint,
        'unlabeled_fingerprint': splits.unlabeled_fingerprint,
        'weights_sha256': _weights_sha256(config),
        'init_sha256': _init_sha256(config),
        'git': revision(),
    }


def read(path: str) -> tuple[Config, dict[str, Any]]:
    """The config of a reproduce.json, and all of it. Raises UserError where it can't be run."""
    cure = f'name the {NAME} of a workdir'
    noted = logs.read_json(path, cure=cure)
    if noted is None:
        raise UserError(f'--reproduce={path} does not exist: {cure}')
    try:
        config = restore.from_dict(noted.get('config'))
    except UserError as error:
        raise UserError(f'--reproduce={path}: {error}') from None
    if not noted.get('params_sha256'):
        raise UserError(
            f'--reproduce={path} is of a run that has not ended: there are no parameters to '
            'compare with; go on with it first'
        )
    for name, (right, rule) in SHAPES.items():
        if name in noted and not right(noted[name]):
            text = json.dumps(noted[name])[:40]
            raise UserError(f'--reproduce={path}: {name}={text} must be {rule}: {cure}')
    return config, noted


def _list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def tell(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Prints the verdict; whether the final parameters are the same bits."""
    same, lines = verdict(first, second)
    with contextlib.suppress(BrokenPipeError):
        print('\n'.join(lines), flush=True)
    return same


def verdict(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Whether the final parameters are the same bits, and lines that say so or why not."""
    same = first['params_sha256'] == second['params_sha256']
    lines = [
        f'final parameters: {"the same bits" if same else "OTHER bits"} '
        f'({second["params_sha256"][:16]}, {first["params_sha256"][:16]} before)'
    ]
    changed = [
        f'{words}: {_words(name, first.get(name), second.get(name))}'
        for name, words in NEEDED.items()
        if _noted(first, name, second.get(name)) != second.get(name)
    ]
    lines += changed
    if first.get('git') != second.get('git'):
        lines.append(f'the code: {_words("revision", first.get("git"), second.get("git"))}')
    for changes in first.get('gone_on_with', []):
        lines.append(f'the first run was gone on with other {", ".join(sorted(changes))}')
    if not same and len(lines) == 1:
        lines.append('versions, device, topology and data are the same: this should not be')
    return same, lines


def _noted(noted: Mapping[str, Any], name: str, now: Any) -> Any:
    """What was noted; the settings of jax, which older files lack, are taken for those of now."""
    return noted.get(name, now if name == 'jax_config' else None)


def _words(name: str, first: Any, second: Any) -> str:
    """Both values; of dicts only what differs."""
    if isinstance(first, dict) and isinstance(second, dict):
        names = sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n))
        return ', '.join(f'{n} {first.get(n)} before, now {second.get(n)}' for n in names)
    return f'{name} {first} before, now {second}'


def revision() -> dict[str, Any] | None:
    """The revision of the code and whether files of it are changed; None outside a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ['git', '-C', str(ROOT), *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    try:
        if pathlib.Path(git('rev-parse', '--show-toplevel')).resolve() != ROOT:
            return None  # installed into somebody else's repository
        changed = bool(git('status', '--porcelain', '--', 'rank_ssl', 'data_prep', 'experiments'))
        return {'revision': git('rev-parse', 'HEAD'), 'changed': changed}
    except OSError:
        return None


def _init_sha256(config: Config) -> str | None:
    """What the parameters that a run starts from are hashed to; None for those of no run."""
    folder = pathlib.Path(config.init_from)
    meta = checkpoint.of_run(folder) if config.init_from else None
    if meta is None:
        return None
    # It holds the hash of every file.
    path = folder / 'best' / str(meta['best']['step']) / manifest.NAME
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _processor() -> str:
    """The processor's name: what XLA compiles for on a CPU."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        return next(ln.partition(':')[2].strip() for ln in lines if ln.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _weights_sha256(config: Config) -> str | None:
    """The hash of the pretrained weights' file; None from scratch, and where the file is gone."""
    try:
        path = config.model.weights_path()
    except UserError:
        return None
    if path is None:
        return None
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
