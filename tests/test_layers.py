"""The import direction: a module imports lower layers only, and few modules meet certain libraries.

Every import statement counts, those inside functions and under TYPE_CHECKING too. Modules of one
layer don't import one another, but for the pairs in SIBLINGS and the modules of one package (ops,
models, tasks), which may.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    ('__init__', 'errors', 'types', 'config', 'changes', 'manifest', 'shared'),
    ('ranking', 'pairs', 'metrics', 'plots', 'logs', 'progress', 'cli', 'ops', 'tables'),
    ('models', 'parallel', 'checkpoint', 'jobs', 'predictions'),
    ('tasks', 'optimizer', 'step'),
    ('data', 'evaluate', 'loop', 'train', 'restore'),
    (
        *('active', 'predict', 'export', 'bench', 'anchor', 'results', 'stages', 'reproduce'),
        *('report', 'grid', 'compare', 'evidence', 'arms', 'unseen', 'ablate', 'curves'),
    ),
    ('main',),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

# Config holds a Task; the training loop runs evaluations, and both read data. Of a grid of runs the
# cells come first, then their comparison, then the commands.
SIBLINGS = {
    ('types', 'errors'),
    ('config', 'errors'),
    ('config', 'types'),
    ('changes', 'config'),
    ('evaluate', 'data'),
    ('loop', 'data'),
    ('loop', 'evaluate'),
    ('train', 'data'),
    ('train', 'evaluate'),
    ('train', 'loop'),
    ('compare', 'grid'),
    *(('evidence', name) for name in ('compare', 'grid', 'report')),
    ('arms', 'report'),
    *(('unseen', name) for name in ('arms', 'compare', 'report')),
    *(('ablate', name) for name in ('arms', 'compare', 'evidence', 'grid', 'report', 'unseen')),
    ('anchor', 'results'),
    ('stages', 'results'),
    *(('reproduce', name) for name in ('restore', 'results')),
    *(('active', name) for name in ('stages', 'results')),
    *(('curves', name) for name in ('ablate', 'compare', 'evidence', 'grid', 'report')),
}

# Who may import a library; every other module of rank_ssl may not.
ONLY = {'tensorflow_datasets': {'data'}, 'grain': {'data'}}

# NumPy code, imported by data preparation and by workers that must start fast.
NO_JAX = {'ops', 'metrics', 'plots', 'logs', 'progress', 'tables', 'manifest'}
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax'}

PREPARATION = {'errors', 'metrics', 'ops', 'plots', 'tables'}
EXPERIMENTS = {'config', 'tasks'}


def imported(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of all that a file imports; `from a import b` gives a.b."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = '.'.join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f'{base}.{alias.name}') for alias in node.names)


def rank_ssl_fault(importer: str, top: str, module: str) -> str | None:
    """Why the module `importer` of rank_ssl may not import `module` of the package `top`."""
    if top in ('data_prep', 'experiments', 'tests'):
        return f'rank_ssl imports nothing of {top}'
    if top in ONLY and importer not in ONLY[top]:
        return f'only {", ".join(ONLY[top])} may import {top}'
    if top in JAX and importer in NO_JAX:
        return f'{importer} imports no jax'
    if top != 'rank_ssl' or module == importer:
        return None
    if module not in LAYER:
        return None if module in ('', '__version__') else f'add {module} to LAYERS'
    if LAYER[module] > LAYER[importer]:
        return f'{importer} (layer {LAYER[importer]}) is below {module} ({LAYER[module]})'
    if LAYER[module] == LAYER[importer] and (importer, module) not in SIBLINGS:
        return f'{importer} and {module} are both of layer {LAYER[importer]}'
    return None


def experiment_fault(_: str, top: str, module: str) -> str | None:
    """Why an experiment may not import it: it only builds a Config with a Task."""
    if top in sys.stdlib_module_names or top == 'experiments':
        return None
    if top == 'rank_ssl' and module in EXPERIMENTS:
        return None
    return f'an experiment imports {", ".join(sorted(EXPERIMENTS))} and the standard library only'


def preparation_fault(_: str, top: str, module: str) -> str | None:
    """Why data preparation may not import it."""
    if top == 'experiments' or (top == 'rank_ssl' and module not in PREPARATION):
        return f'data_prep imports {", ".join(sorted(PREPARATION))} of rank_ssl only'
    return None


RULES = {
    'rank_ssl': rank_ssl_fault,
    'data_prep': preparation_fault,
    'experiments': experiment_fault,
}


def faults(root: Path) -> list[str]:
    """One line for each import below `root` that breaks the direction."""
    found = []
    for folder, rule in RULES.items():
        for path in sorted((root / folder).rglob('*.py')):
            place = path.relative_to(root).as_posix()
            importer = path.relative_to(root).with_suffix('').parts[1]
            if folder == 'rank_ssl' and importer not in LAYER:
                found.append(f'{place}: add {importer} to LAYERS')
                continue
            for line, name in imported(path, root):
                top, module = (*name.split('.'), '')[:2]
                if fault := rule(importer, top, module):
                    found.append(f'{place}:{line} imports {name}: {fault}')
    return found


def test_imports_point_down():
    assert faults(ROOT) == []


def test_the_table_and_the_tree_are_looked_at():
    names = {path.relative_to(ROOT / 'rank_ssl').parts[0] for path in ROOT.glob('rank_ssl/**/*.py')}
    assert {'errors.py', 'ranking.py', 'ops', 'models'} <= names
    assert len(LAYER) == sum(map(len, LAYERS))


@pytest.mark.parametrize(
    ('path', 'code', 'fault'),
    [
        ('rank_ssl/ranking.py', 'import rank_ssl.train', 'ranking (layer 1) is below train'),
        (
            'rank_ssl/ranking.py',
            'from rank_ssl import train',
            'ranking (layer 1) is below train',
        ),
        (
            'rank_ssl/models/vgg.py',
            'from ..tasks import iqa',
            'models (layer 2) is below tasks',
        ),
        ('rank_ssl/models/a/b.py', 'from ...tasks import x', 'models (layer 2) is below tasks'),
        ('rank_ssl/errors.py', 'from . import config', 'both of layer 0'),
        ('rank_ssl/plots.py', 'def f():\n    from rank_ssl.metrics import mae', 'both of layer 1'),
        ('rank_ssl/ops/crops.py', 'import jax.numpy as jnp', 'ops imports no jax'),
        ('rank_ssl/logs.py', 'from flax import linen', 'logs imports no jax'),
        ('rank_ssl/train.py', 'import grain', 'only data may import grain'),
        ('rank_ssl/train.py', 'import tensorflow_datasets as tfds', 'only data may import'),
        ('rank_ssl/data.py', 'from data_prep import prepare', 'nothing of data_prep'),
        ('rank_ssl/__init__.py', 'from rank_ssl.ranking import certainty', '__init__ (layer 0) is'),
        ('rank_ssl/novel.py', '', 'add novel to LAYERS'),
        ('rank_ssl/train.py', 'import rank_ssl.novel', 'add novel to LAYERS'),
        ('experiments/a.py', 'import numpy', 'an experiment imports config, tasks'),
        ('experiments/a.py', 'from rank_ssl import train', 'an experiment imports config, tasks'),
        (
            'data_prep/ucsd/a.py',
            'from rank_ssl.config import Config',
            'errors, metrics, ops, plots, tables of rank_ssl only',
        ),
        (
            'data_prep/a.py',
            'import rank_ssl',
            'errors, metrics, ops, plots, tables of rank_ssl only',
        ),
    ],
)
def test_a_wrong_import_is_found(tmp_path, path, code, fault):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(code)
    (line,) = faults(tmp_path)
    assert line.startswith(path) and fault in line


@pytest.mark.parametrize(
    ('path', 'code'),
    [
        ('rank_ssl/config.py', 'from rank_ssl.types import Task'),
        ('rank_ssl/models/vgg.py', 'from . import heads\nfrom ..ranking import certainty'),
        ('rank_ssl/models/vgg.py', 'from rank_ssl.models.heads import DensityHead\nimport jax'),
        ('rank_ssl/main.py', 'import rank_ssl\nfrom rank_ssl import __version__, train'),
        ('rank_ssl/data.py', 'import grain, tensorflow_datasets'),
        ('data_prep/a/b.py', 'import grain\nfrom rank_ssl.ops import crops\nfrom .. import store'),
        ('experiments/a.py', 'import os\nfrom rank_ssl.tasks.crowd import Crowd'),
    ],
)
def test_a_right_import_is_not(tmp_path, path, code):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(code)
    assert faults(tmp_path) == []


def test_numpy_code_loads_no_jax_by_any_way():
    packages = [f'rank_ssl.{name}' for name in sorted(NO_JAX)]
    packages += [
        f'rank_ssl.ops.{path.stem}' for path in sorted(ROOT.glob('rank_ssl/ops/[a-z]*.py'))
    ]
    code = f'import sys, {", ".join(packages)}; print(sorted({JAX} & set(sys.modules)))'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ('[]', '')
