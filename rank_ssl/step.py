"""The training step (eq. 5, 8, 17): one forward, all pairs, one update."""

import ctypes
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.pairs import Mining, mined
from rank_ssl.parallel import make_mesh
from rank_ssl.ranking import certainty, order_sign, pairwise_hinge_loss
from rank_ssl.shared import shared
from rank_ssl.types import Batch, Task, TrainState

Metrics = dict[str, jax.Array]


def create_state(apply_fn: Callable, params: Any, tx: Any, key: jax.Array) -> TrainState:
    """The state before the first step."""
    # Arrays of their own: the step donates its input, and a buffer can be given away once.
    step, skipped, bad, worst, last_bad = (jnp.zeros((), jnp.int32) for _ in range(5))
    return TrainState(
        step=step,
        params=params,
        opt_state=jax.jit(tx.init)(params),  # one program, not one for each shape of array
        key=key,
        skipped=skipped,
        bad_in_a_row=bad,
        worst_in_a_row=worst,
        last_bad_step=last_bad,
        apply_fn=apply_fn,
    )


def forward(apply_fn: Callable, params: Any, image: jax.Array, keys: jax.Array) -> Any:
    """f of every image of the mini-batch, each forwarded once. [G, M, H, W, 3] -> [G, M, ...]."""

    def one(image: jax.Array, key: jax.Array) -> Any:
        return apply_fn(params, image, key=key)

    return jax.vmap(jax.vmap(one))(image, keys)


class Terms(NamedTuple):
    """What the sums of a step are multiplied with, and how many of its pairs are mined."""

    regression: jax.Array  # f32[]
    ranking: jax.Array  # f32[]
    hard: jax.Array  # i32[], pairs of the highest loss in each group, where there is mining


def counts(batch: Batch, mining: Mining | None = None, hard: jax.Array | int = 0) -> jax.Array:
    """Labeled images, ranked images, comparable pairs and pairs ranked, of a batch. f32[4]."""
    pairs = _pairs(batch)
    used = pairs if mining is None else mining.used(pairs, batch.phi.shape[1], jnp.asarray(hard))
    found = batch.labeled_where.sum(), batch.ranked_where.sum(), pairs.sum(), used.sum()
    return jnp.stack([jnp.asarray(count, jnp.float32) for count in found])


def normalizers(count: jax.Array, reduction: str) -> tuple[jax.Array, jax.Array]:
    """What the sums of the two losses are multiplied with, `(regression, ranking)`.

    paper: 1/N over labeled images (eq. 17) and the plain sum over pairs (eq. 8). caffe: 1/(2N), and
    1/N over ranked images, as the released layers do. mean: per image and per pair ranked.
    """
    labeled, ranked, _, pairs = jnp.maximum(count, 1)
    if reduction == 'paper':
        return 1 / labeled, jnp.float32(1)
    if reduction == 'caffe':
        return 1 / (2 * labeled), 1 / ranked
    if reduction == 'mean':
        return 1 / labeled, 1 / pairs
    raise UserError(f'config.reduction={reduction} is unknown; use paper, caffe, mean')


def make_loss(
    task: Task,
    apply_fn: Callable,
    *,
    rank_weight: float,
    margin: float,
    margin_grows: bool = False,
    mining: Mining | None = None,
) -> Callable[..., tuple[jax.Array, Metrics]]:
    """`loss(params, batch, keys, terms) -> (L, its parts)`: L = L_reg + lambda L_rank (eq. 5).

    A margin that grows is multiplied with the number of levels between the two of a pair.
    """

    def loss(params: Any, batch: Batch, keys: jax.Array, terms: Terms) -> tuple[jax.Array, Metrics]:
        outputs = forward(apply_fn, params, batch.image, keys)
        levels = batch.phi.shape[1]
        ranked = jax.tree.map(lambda x: x[:, :levels], outputs)
        labeled = jax.tree.map(lambda x: x[:, levels:], outputs)
        of_pairs = {'segments': batch.segments, 'where': batch.ranked_where}
        order = order_sign(batch.phi, **of_pairs)

        y = task.score(ranked)
        # (y_i - m r_i) - (y_j - m r_j) = y_i - y_j + m (r_j - r_i), r the levels below an item.
        x, fixed = (y - margin * (order < 0).sum(-1), 0.0) if margin_grows else (y, margin)
        weights = mined(keys[:, 0], x, order, terms.hard) if mining and levels else None
        hinge = pairwise_hinge_loss(x, batch.phi, margin=fixed, weights=weights, **of_pairs)
        error = jnp.where(batch.labeled_where, task.loss(labeled, batch.target), 0)

        regression = terms.regression * error.sum()
        ranking = terms.ranking * hinge.sum()
        total = regression + rank_weight * ranking

        in_order = jnp.nan_to_num(certainty(y, batch.phi, **of_pairs)) * _pairs(batch)
        parts = {'regression': regression, 'ranking': ranking, 'in_order': in_order.sum()}
        return total, parts

    return loss


@shared
def make_train_step(
    task: Task,
    tx: optax.GradientTransformation,
    *,
    rank_weight: float,
    margin: float,
    reduction: str = 'paper',
    margin_grows: bool = False,
    mining: Mining | None = None,
    mesh: Mesh | None = None,
    parts: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted `step(state, batch) -> (state, metrics)`: one forward, P, one update.

    Groups lie on the mesh's 'data' axis; each device forwards its own and the gradients are added
    in one all-reduce. A device may compute its groups in `parts` one after another (the same loss
    and gradient, less memory). Without `mining` all comparable pairs are ranked. A step whose loss
    or gradient is not finite leaves parameters and optimizer as they were and is counted. Metrics
    are scalars: loss, regression, ranking (both without lambda), rank_accuracy (share of comparable
    pairs in the strictly right order; nan where there is none), grad_norm.
    """
    mesh = make_mesh(jax.devices()[:1]) if mesh is None else mesh

    options: dict[str, Any] = {'margin_grows': margin_grows, 'mining': mining}

    def gradients(
        apply_fn: Callable, params: Any, batch: Batch, key: jax.Array, number: jax.Array
    ) -> tuple[Metrics, Any]:
        loss = make_loss(task, apply_fn, rank_weight=rank_weight, margin=margin, **options)
        hard = jnp.int32(0) if mining is None else mining.hard(number)
        count = jax.lax.psum(counts(batch, mining, hard), 'data')
        terms = Terms(*normalizers(count, reduction), hard)
        keys = _image_keys(key, *batch.image.shape[:2])
        (total, found), grads = _in_parts(loss, parts)(params, batch, keys, terms)
        (total, found), grads = jax.lax.psum(((total, found), grads), 'data')
        return {'loss': total, **found, 'pairs': count[2]}, grads

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        found, grads = jax.shard_map(
            functools.partial(gradients, state.apply_fn),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec('data'), PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )(state.params, batch, jax.random.fold_in(state.key, state.step), state.step)

        norm = optax.tree.norm(grads)
        accuracy = found.pop('in_order') / found.pop('pairs')
        finite = jnp.isfinite(found['loss']) & jnp.isfinite(norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = functools.partial(jax.tree.map, lambda new, old: jnp.where(finite, new, old))
        bad = jnp.where(finite, 0, 1).astype(jnp.int32)
        in_a_row = (state.bad_in_a_row + 1) * bad

        state = state.replace(
            step=state.step + 1,
            params=keep(params, state.params),
            opt_state=keep(opt_state, state.opt_state),
            skipped=state.skipped + bad,
            bad_in_a_row=in_a_row,
            worst_in_a_row=jnp.maximum(state.worst_in_a_row, in_a_row),
            last_bad_step=jnp.where(finite, state.last_bad_step, state.step + 1),
        )
        return state, {**found, 'rank_accuracy': accuracy, 'grad_norm': norm}

    return jax.jit(step, donate_argnums=0)


def step_of(
    config: Config, tx: optax.GradientTransformation, *, mesh: Mesh | None = None, parts: int = 1
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The step of a config; the rest as in `make_train_step`."""
    return make_train_step(
        config.task,
        tx,
        rank_weight=config.weight_of_ranking,
        margin=config.margin,
        reduction=config.reduction,
        margin_grows=config.margin_grows,
        mining=Mining(config.hard_every, config.hard_add) if config.sampler == 'hard' else None,
        mesh=mesh,
        parts=parts,
    )


def compiled_lean(step: Any) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted step, compiled at its first call, when what that took is given back at once.

    glibc keeps what the compiler has freed, some 400 MB of VGG-16's, below the step's own memory.
    """
    programs: list[Any] = []

    def lean(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if not programs:
            programs.append(step.lower(state, batch).compile())
            if trim := getattr(ctypes.CDLL(None), 'malloc_trim', None):
                trim(0)
        return programs[0](state, batch)

    return lean


def _pairs(batch: Batch) -> jax.Array:
    """Comparable pairs of each group. f32[G]."""
    sign = order_sign(batch.phi, segments=batch.segments, where=batch.ranked_where)
    return (sign > 0).sum((-2, -1)).astype(jnp.float32)


def _image_keys(key: jax.Array, groups: int, items: int) -> jax.Array:
    """A dropout key for each image, from its place in the whole batch: the same on any mesh."""
    first = jax.lax.axis_index('data') * groups * items
    place = first + jnp.arange(groups * items).reshape(groups, items)
    return jax.vmap(jax.vmap(functools.partial(jax.random.fold_in, key)))(place)


def _in_parts(loss: Callable, parts: int) -> Callable:
    """`jax.value_and_grad(loss)`, the groups taken in equal parts one after another and summed.

    Unrolled, since XLA runs convolutions inside a loop some eighty times slower on the CPU; the
    barrier keeps a part from starting before the one before it has freed its activations.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def summed(params: Any, batch: Batch, keys: jax.Array, terms: Terms) -> Any:
        apart = jax.tree.map(
            lambda x: x.reshape(parts, len(x) // parts, *x.shape[1:]), (batch, keys)
        )
        total: Any = None
        for part in range(parts):
            one = jax.tree.map(operator.itemgetter(part), apart)
            params, one, total = jax.lax.optimization_barrier((params, one, total))
            result = value_and_grad(params, *one, terms)
            total = result if total is None else jax.tree.map(jnp.add, total, result)
        return total

    return summed if parts > 1 else value_and_grad
