"""Which comparable pairs of a group are ranked: all (3.3), or those that hard mining takes (6.1.1).

Masks are bool [..., K, K] and symmetric, as the `weights` of `ranking.pairwise_hinge_loss`. Random
pairs need none: they are groups of two images, made as data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Mining(NamedTuple):
    """Hard mining's schedule: K // 2 random pairs of a group, and ever more of the highest loss."""

    every: int  # steps between additions; 5,000 in the paper (6.1.1)
    add: int  # pairs of a group that each of them adds

    def hard(self, step: Array) -> Array:
        """How many pairs of the highest loss a group has at a step. i32[]."""
        return self.add * (step // self.every)

    def used(self, pairs: Array, items: int, hard: Array) -> Array:
        """How many pairs of a group are ranked, of those that are comparable. Shape of `pairs`."""
        return jnp.minimum(pairs, items // 2 + hard)


def mined(keys: Array, scores: Array, order: Array, hard: Array) -> Array:
    """K // 2 comparable pairs at random, and of the others `hard` of the highest loss.

    `keys` [...] draw the first, `order` is `order_sign(...)` of the scores [..., K]. Fewer are
    taken where there are no more.
    """
    items = scores.shape[-1]
    draw = jnp.vectorize(lambda key: jax.random.uniform(key, (items, items)), signature='()->(k,k)')
    drawn = first_pairs(draw(keys), order, items // 2)
    # The hinge grows with y_i - y_j whatever the margin, and this orders pairs without a loss too.
    y = jax.lax.stop_gradient(scores)
    others = jnp.where(drawn, 0, order)
    return drawn | first_pairs(y[..., :, None] - y[..., None, :], others, hard)


def first_pairs(priority: Array, order: Array, count: Array | int) -> Array:
    """The `count` comparable pairs phi_i < phi_j whose priority [..., i, j] is the largest."""
    comparable = order > 0
    flat = jnp.where(comparable, -priority, jnp.inf).reshape(*order.shape[:-2], -1)
    place = jnp.argsort(jnp.argsort(flat)).reshape(order.shape)
    taken = comparable & (place < count)
    return taken | jnp.swapaxes(taken, -2, -1)
