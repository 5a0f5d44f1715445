"""Ranking maths on the last axis (sections 3.1-3.4): which pairs are ordered, what they cost.

Items lie on the last axis, leading axes are a batch; K items take O(K^2) per batch row. Arguments
of one call share the last axis, their leading axes broadcast; anything else is a `ValueError`.
A larger `phi` means that f has to be larger. Two items are comparable when their `phi` differ,
their `segments` (one integer per chain: source image x kind of transform) agree and `where`
keeps both. A nan in `phi` compares with nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def order_sign(
    phi: ArrayLike, *, segments: ArrayLike | None = None, where: ArrayLike | None = None
) -> Array:
    """Signs l_ij (eq. 14): 1 where phi_i < phi_j, -1 where phi_i > phi_j, else 0. [..., K, K].

    The result is int8. 0 means not comparable: equal phi (the diagonal too), another segment, or
    an item that `where` leaves out.
    """
    levels, chains, kept = _aligned(phi=phi, segments=segments, where=where)
    rows, columns = levels[..., :, None], levels[..., None, :]
    order = (rows < columns).astype(jnp.int8) - (rows > columns).astype(jnp.int8)
    if chains is not None:
        order = jnp.where(chains[..., :, None] == chains[..., None, :], order, 0)
    if kept is not None:
        kept = kept.astype(bool)
        order = jnp.where(kept[..., :, None] & kept[..., None, :], order, 0)
    return order


def pairwise_hinge_loss(
    scores: ArrayLike,
    phi: ArrayLike,
    *,
    margin: ArrayLike,
    segments: ArrayLike | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Array:
    """Sum of max(0, y_i - y_j + margin) over comparable pairs phi_i < phi_j (eq. 8). [...].

    Its backward pass is P (eq. 10-13): d loss / d scores = `hinge_matrix(...).sum(-1)`; nothing
    else gets a gradient. `margin` is a scalar in the unit of the scores, `weights` [..., K, K] (0
    or more, symmetric) multiply the pairs. Without a pair the loss and its gradient are 0, whatever
    the items left out hold. 16-bit scores are compared and summed in float32.
    """
    y, *rest = _aligned(scores=scores, phi=phi, segments=segments, where=where)
    return _hinge_sum(_floating(y), *rest, _scalar(margin), _pairwise(weights, y))


def hinge_matrix(
    scores: ArrayLike,
    phi: ArrayLike,
    *,
    margin: ArrayLike,
    segments: ArrayLike | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Array:
    """Matrix P (eq. 12-13): l_ij where l_ij (y_i - y_j) + margin > 0, else 0. [..., K, K].

    P is antisymmetric, and the sum of its row i is the gradient of `pairwise_hinge_loss` in y_i:
    an active pair i < j pulls y_i down (P_ij = 1) and pushes y_j up (P_ji = -1). Both are 0 on
    the kink itself, and multiplied with the pair's weight where there are `weights`.
    """
    y, order = _scores_and_order(scores, phi, segments, where)
    active = _hinge_argument(y, order, _scalar(margin)) > 0
    return _weighted(jnp.where(active, order, 0), _pairwise(weights, y)).astype(y.dtype)


def certainty(
    scores: ArrayLike,
    phi: ArrayLike,
    *,
    segments: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """Share C of comparable pairs phi_i < phi_j with y_i < y_j, strictly (eq. 15). [...].

    0 <= C <= 1; nan where no pair is comparable.
    """
    y, order = _scores_and_order(scores, phi, segments, where)
    right = (order > 0) & (y[..., :, None] < y[..., None, :])
    share = right.sum((-2, -1)) / (order > 0).sum((-2, -1))  # 0 / 0 is the nan promised above
    return share.astype(y.dtype)


def _total_hinge(
    scores: Array,
    phi: Array,
    segments: Array | None,
    where: Array | None,
    margin: Array,
    weights: Array | None,
) -> Array:
    order = order_sign(phi, segments=segments, where=where)
    hinge = jax.nn.relu(_hinge_argument(scores, order, margin))
    total = _weighted(jnp.where(order > 0, hinge, 0), weights).sum((-2, -1))
    return total.astype(scores.dtype)


def _forward(*items: Any) -> tuple[Array, tuple[Any, ...]]:
    # The items are kept for the way back, not the pairs: O(K) memory per row between the passes.
    return _total_hinge(*items), items


def _backward(saved: tuple[Any, ...], g: Array) -> tuple[Array, None, None, None, None, None]:
    scores, phi, segments, where, margin, weights = saved
    p = hinge_matrix(scores, phi, margin=margin, segments=segments, where=where, weights=weights)
    return g[..., None] * p.sum(-1), None, None, None, None, None


_hinge_sum = jax.custom_vjp(_total_hinge)
_hinge_sum.defvjp(_forward, _backward)


def _hinge_argument(scores: Array, order: Array, margin: Array) -> Array:
    """l_ij (y_i - y_j) + margin, in float32 at least; meaningless where l_ij = 0. [..., K, K]."""
    dtype = jnp.promote_types(scores.dtype, jnp.float32)
    y = scores.astype(dtype)
    return order * (y[..., :, None] - y[..., None, :]) + margin.astype(dtype)


def _scores_and_order(
    scores: ArrayLike, phi: ArrayLike, segments: ArrayLike | None, where: ArrayLike | None
) -> tuple[Array, Array]:
    y, levels, chains, kept = _aligned(scores=scores, phi=phi, segments=segments, where=where)
    return _floating(y), order_sign(levels, segments=chains, where=kept)


def _aligned(**arrays: ArrayLike | None) -> list[Any]:
    """The arrays in one common shape [..., K]; None stays None."""
    given = {name: jnp.asarray(array) for name, array in arrays.items() if array is not None}
    shapes = [array.shape for array in given.values()]
    try:
        # A last axis of 1 must not stretch: scores [M, 1] against phi [M] is a forgotten squeeze.
        if not all(shapes) or len({shape[-1] for shape in shapes}) > 1:
            raise ValueError
        common = jnp.broadcast_shapes(*shapes)
    except ValueError:
        listed = ', '.join(f'{name} {array.shape}' for name, array in given.items())
        raise ValueError(f'{listed} must be [..., K] with one K and equal leading axes') from None
    return [jnp.broadcast_to(given[n], common) if n in given else None for n in arrays]


def _pairwise(weights: ArrayLike | None, scores: Array) -> Array | None:
    if weights is None:
        return None
    given, wanted = jnp.asarray(weights), (*scores.shape, scores.shape[-1])
    if given.shape != wanted:
        raise ValueError(f'weights {given.shape} and scores {scores.shape} must be {wanted}')
    return given


def _weighted(pairs: Array, weights: Array | None) -> Array:
    return pairs if weights is None else pairs * weights


def _scalar(margin: ArrayLike) -> Array:
    scalar = jnp.asarray(margin)
    if scalar.ndim:
        raise ValueError(f'margin {scalar.shape} must be a scalar; map over it with jax.vmap')
    return scalar


def _floating(scores: Array) -> Array:
    return scores if jnp.issubdtype(scores.dtype, jnp.floating) else scores.astype(float)
