"""Made records, and what a small network says of their units; started as a script it prints that.

    python tests/active/made_units.py [PROCESSES NUMBER PORT]

The last line of stdout is JSON: the measures of one device and of all, or of all alone.
"""

import io
import json
import sys

import jax
import numpy as np
from PIL import Image

from rank_ssl import parallel
from rank_ssl.active.measures import Measures
from rank_ssl.config import Config, Model
from rank_ssl.data import Records, Units
from rank_ssl.models.build import build_network
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA
from tests.drawn import drawn_params


def picture(seed: int, height: int, width: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3))
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).resize((width, height)).save(file, 'PNG')
    return file.getvalue()


def crowd_records(count: int = 5) -> Records:
    """Pictures of two shapes; picture n has n persons."""
    rows = [
        {
            'image': picture(n, 64 + 16 * (n % 2), 96),
            'id': f'scene/{n}',
            'height': 64 + 16 * (n % 2),
            'width': 96,
            'points': np.zeros((n, 2), np.float32),
            'count': n,
        }
        for n in range(count)
    ]
    return Records([rows], [(0, n) for n in range(count)])


def quality_records(references: int = 2, kinds: int = 2) -> Records:
    """Five levels of each reference and kind, shuffled."""
    rows = [
        {
            'image': picture(level + 10 * kind + 100 * reference, 48, 64),
            'id': f'{reference}_{kind}_{level}',
            'reference': f'ref{reference}',
            'kind': f'kind{kind}',
            'level': level,
            'score': 5 - level,
            'lower_is_better': 0,
            'height': 48,
            'width': 64,
        }
        for reference in range(references)
        for kind in range(kinds)
        for level in range(1, 6)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return Records([rows], [(0, int(n)) for n in order])


def config_of(task) -> Config:
    """A small network from scratch for the task."""
    made = Config(task=task)
    made.model = Model(backbone='vgg8', width=0.1, weights='none')
    if isinstance(task, IQA):
        task.last = 'pool'
    made.active.draws = 3
    return made


def measured(config: Config, records: Records, devices=None) -> tuple[Measures, Units, dict]:
    """The measures of a network of drawn parameters, after 7 steps as far as draws go."""
    network, _ = build_network(config)
    params = drawn_params(network, config.task.size, head_std=config.task.head_std)
    units = Units(config.task, records)
    mesh = parallel.make_mesh(devices or jax.devices()[:1])
    params = parallel.replicate(params, mesh)
    return Measures(config, params, mesh, units, pixels='torch', step=7), units, params


def facts(devices) -> dict:
    """All measures of the crowd's units."""
    found, *_ = measured(config_of(Crowd(size=32, head_std=0.1)), crowd_records(), devices)
    return {name: getattr(found, name).tolist() for name in ('differences', 'features', 'draws')}


def main(arguments: list[str]) -> None:
    """Prints the facts of one device and of all, or of all devices of several processes."""
    if arguments:
        processes, number, port = map(int, arguments)
        jax.config.update('jax_cpu_collectives_implementation', 'gloo')
        jax.distributed.initialize(f'localhost:{port}', processes, number)
        print(json.dumps({'all': facts(jax.devices())}))
    else:
        print(json.dumps({'one': facts(jax.devices()[:1]), 'all': facts(jax.devices())}))


if __name__ == '__main__':
    main(sys.argv[1:])
