"""Prints, as JSON, facts of the training step on 1, 2 and 4 virtual devices (a process of its own).

Started by test_step.py with XLA_FLAGS set before jax is imported.
"""

import json
import re

import jax
import numpy as np
import optax

from rank_ssl import parallel
from rank_ssl.models import make_network
from rank_ssl.models.network import make_apply
from rank_ssl.step import create_state, make_train_step
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch
from tests.drawn import drawn_params, norm, two_layer_params, two_layers

TASK = Crowd(size=32)


def batch_of(groups: int, rows: range) -> Batch:
    """Groups 0..groups-1 of a made data set; rows beyond them are padding."""
    rng = np.random.default_rng(0)
    made = Batch(
        image=rng.integers(0, 256, (groups, 5, 32, 32, 3)).astype(np.uint8),
        phi=np.tile([3.0, 2.0, 1.0], (groups, 1)).astype(np.float32),
        segments=np.zeros((groups, 3), np.int32),
        ranked_where=np.ones((groups, 3), bool),
        target=rng.random((groups, 2, 2, 2)).astype(np.float32),
        labeled_where=np.ones((groups, 2), bool),
    )
    extra = len(rows) - groups
    return Batch(*(np.concatenate([x, np.zeros((extra, *x.shape[1:]), x.dtype)]) for x in made))


def deep():
    """apply and parameters of a deep VGG."""
    network = make_network(
        backbone='vgg16', width=0.1, blocks=5, last_pool=False, frozen_blocks=0,
        dtype='float32', remat=False, pixels='torch', head=TASK.head(),
    )  # fmt: skip
    return make_apply(network), drawn_params(network, 32)


def one_step(devices: int, groups: int, apply_fn, params):
    """The step of a network on so many devices: its compiled text, gradient and loss."""
    mesh = parallel.make_mesh(jax.devices()[:devices])
    tx = optax.sgd(1.0)
    state = create_state(apply_fn, params, tx, jax.random.key(1))
    state = parallel.replicate(state, mesh)
    padded, _ = parallel.layout(groups, devices)
    batch = parallel.to_devices(batch_of(groups, range(padded)), mesh)
    step = make_train_step(TASK, tx, rank_weight=0.1, margin=1.0, reduction='mean', mesh=mesh)
    step = step.lower(state, batch).compile()
    text = step.as_text()
    state, metrics = step(state, batch)
    gradient = jax.tree.map(lambda old, new: old - np.asarray(new), params, state.params)
    return text, gradient, float(metrics['loss'])


def main() -> None:
    """Prints the facts."""
    # What padding does to the loss is no matter of depth, which takes long to compile.
    shallow, network = (two_layers, two_layer_params()), deep()
    losses = [one_step(devices, 5, *shallow)[2] for devices in (1, 2, 4)]
    facts: dict = {'5 groups': losses}
    gradients = {}
    for devices in (1, 4):
        text, gradients[devices], loss = one_step(devices, 8, *network)
        facts[str(devices)] = {
            'loss': loss,
            'all_reduces': len(re.findall(r' all-reduce(?:-start)?\(', text)),
            'moves': len(
                re.findall(r' (?:all-gather|all-to-all|collective-permute)[\w-]*\(', text)
            ),
        }
    gap = jax.tree.map(np.subtract, gradients[1], gradients[4])
    facts['gradient_gap'] = norm(gap) / norm(gradients[1])
    print(json.dumps(facts))


if __name__ == '__main__':
    main()
