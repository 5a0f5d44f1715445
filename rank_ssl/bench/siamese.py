"""The two-branch Siamese network (3.2), the reference that one forward per image is measured by."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rank_ssl.ranking import order_sign
from rank_ssl.step import forward
from rank_ssl.types import Batch


def siamese_loss(
    score: Callable[[Any], jax.Array], apply_fn: Callable, *, margin: float
) -> Callable[[Any, Batch, jax.Array], jax.Array]:
    """`loss(params, batch, keys)`: sum of max(0, y_i - y_j + margin) over pairs (eq. 4). f32[].

    The same sum as `pairwise_hinge_loss` over all groups, but the images of the K (K - 1) / 2
    pairs of a group are gathered before the network: two branches of shared weights forward
    K (K - 1) images. Pairs that are not comparable pass too and weigh nothing. An image has the
    same key in each pair.
    """

    def loss(params: Any, batch: Batch, keys: jax.Array) -> jax.Array:
        first, second = np.triu_indices(batch.phi.shape[1], 1)
        left, right = (
            score(forward(apply_fn, params, batch.image[:, branch], keys[:, branch]))
            for branch in (first, second)
        )
        order = order_sign(batch.phi, segments=batch.segments, where=batch.ranked_where)
        sign = order[:, first, second]
        hinge = jax.nn.relu(sign * (left - right) + margin)
        return jnp.where(sign != 0, hinge, 0).sum()

    return loss
