"""Prints what a run of several devices or processes predicts; test_evaluate.py starts it.

    python tests/evaluate_facts.py [PROCESSES NUMBER PORT]

The last line of stdout is JSON: the facts of one device and of all, or of all alone.
"""

import io
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from rank_ssl import parallel
from rank_ssl.data import Examples, Records
from rank_ssl.evaluate import Evaluator
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Views

SHAPES = [(16, 16), (16, 32), (32, 16), (16, 32), (48, 32), (16, 32), (16, 32)]
traced: list[list[int]] = []  # the shapes that programs were made for


class TwoViews(Crowd):
    """Evaluated on an image and on a darker one."""

    def views(self, rng, record):
        view = super().views(rng, record).images
        return Views(np.concatenate([view, view // 2]))

    def score(self, output):
        traced.append(list(output.shape))
        return super().score(output)


def records(shapes) -> Records:
    """Random pictures of these shapes, (H, W) px, kept as PNG; picture n has n persons."""
    rng, rows = np.random.default_rng(0), []
    for n, (height, width) in enumerate(shapes):
        file = io.BytesIO()
        picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(picture).save(file, 'PNG')
        points = rng.uniform(0, 16, (n, 2)).astype(np.float32)
        rows.append({'image': file.getvalue(), 'id': f'made/{n}'.encode(), 'height': height,
                     'width': width, 'points': points, 'count': n})  # fmt: skip
    return Records([rows], [(0, n) for n in range(len(rows))])


def brightness(params, image, *, valid):
    """A density map: the mean of each 16 px cell times params, 0 outside the valid cells."""
    height, width = image.shape[0] // 16, image.shape[1] // 16
    cells = image.astype(jnp.float32).reshape(height, 16, width, 16, 3).mean((1, 3, 4))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    return params * jnp.where((rows < valid[0] // 16) & (columns < valid[1] // 16), cells, 0)


def predictions(devices) -> dict:
    """The facts of one mesh."""
    traced.clear()
    task = TwoViews()
    evaluator = Evaluator(task, brightness, parallel.make_mesh(devices), batch=1)
    found = evaluator(jnp.float32(2), Examples(records(SHAPES), task, 0), draw=3)
    drawn = {one.id: float(one.output.sum()) for one in found.drawn}
    return {'predicted': found.predicted.tolist(), 'drawn': drawn, 'traced': list(traced)}


def main(arguments: list[str]) -> None:
    """Prints the facts of one device and of all, or of all devices of several processes."""
    if arguments:
        processes, number, port = map(int, arguments)
        jax.config.update('jax_cpu_collectives_implementation', 'gloo')
        jax.distributed.initialize(f'localhost:{port}', processes, number)
        print(json.dumps({'all': predictions(None)}))
    else:
        print(json.dumps({'one': predictions(jax.devices()[:1]), 'all': predictions(None)}))


if __name__ == '__main__':
    main(sys.argv[1:])
