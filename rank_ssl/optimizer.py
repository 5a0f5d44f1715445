"""The update rule as an optax transformation (6.1, 6.2 and the released solver)."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from rank_ssl.config import Optim
from rank_ssl.models.network import decay_mask, param_groups
from rank_ssl.shared import shared


def make_schedule(optim: Optim, steps: int) -> Callable:
    """Learning rate of a step: the rate, its decays and an optional linear warm-up."""
    if optim.schedule == 'step':
        rate = optax.exponential_decay(
            optim.rate, optim.decay_every, optim.decay_factor, staircase=True
        )
    elif optim.schedule == 'cosine':
        rate = optax.cosine_decay_schedule(optim.rate, max(1, steps - optim.warmup))
    else:
        rate = optax.constant_schedule(optim.rate)
    if not optim.warmup:
        return rate
    ramp = optax.linear_schedule(0.0, optim.rate, optim.warmup)
    return optax.join_schedules([ramp, rate], [optim.warmup])


def make_optimizer(
    optim: Optim, params: Any, *, steps: int, frozen_blocks: int = 0
) -> optax.GradientTransformation:
    """SGD with momentum, or Adam: own rate for new layers, decay on kernels, frozen blocks still.

    New are the head's layers but for fc6 and fc7, which have the backbone's rate. The decay is an
    L2 penalty with SGD, as in the paper's framework, and decoupled with Adam. Of `params` the names
    of the layers count.
    """
    return _of_layers(optim, jax.tree.structure(params), steps, frozen_blocks)


@shared
def _of_layers(
    optim: Optim, structure: Any, steps: int, frozen_blocks: int
) -> optax.GradientTransformation:
    params = jax.tree.unflatten(structure, range(structure.num_leaves))
    factors = {'frozen': 0.0, 'backbone': 1.0, 'head': optim.head_rate}
    groups = param_groups(params, frozen_blocks=frozen_blocks)
    scale = jax.tree.map(factors.__getitem__, groups)
    decay = optax.add_decayed_weights(optim.weight_decay, mask=decay_mask(params))
    clip = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    if optim.name == 'sgd':
        rule = [decay, optax.trace(optim.momentum)]
    else:
        rule = [optax.scale_by_adam(), decay]
    return optax.chain(
        *clip,
        *rule,
        optax.stateless(lambda updates, params=None: jax.tree.map(_times, updates, scale)),
        optax.scale_by_learning_rate(make_schedule(optim, steps)),
    )


def _times(update: jax.Array, factor: float) -> jax.Array:
    return update * factor
