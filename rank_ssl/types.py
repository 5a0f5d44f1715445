"""The Task protocol and the arrays that travel between data, network and loss.

A task is one regression problem: how a photo becomes images of known order, how a labeled photo
becomes an input and its target, what the network's last layer is, and how its output is scored.
Everything else (data, train step, evaluation, checkpoints) knows a task only through this file.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import flax.struct
import jax
import numpy as np
import optax

from rank_ssl.errors import UserError

# One example of a prepared data set: 'image' u8[H, W, 3] (decoded), 'id' str, 'index' int (its
# place in the records read), and the data set's own annotations, e.g. 'points' f32[P, 2] in px, or
# what a ladder store keeps beside the image, as bytes.
Record = Mapping[str, Any]


class RankedSet(NamedTuple):
    """K images of one source of known (partial) order, h(x; phi_1) .. h(x; phi_K) (eq. 3)."""

    images: np.ndarray  # u8[K, H, W, 3]
    phi: np.ndarray  # f32[K], larger phi means larger f
    segments: np.ndarray  # i32[K], items of different segments are not comparable


class Labeled(NamedTuple):
    """One labeled input and its regression target."""

    image: np.ndarray  # u8[H, W, 3]
    target: np.ndarray  # f32, the shape of the network's output


class Batch(NamedTuple):
    """One mini-batch: G groups of K ranked images followed by R labeled ones.

    G is sharded over devices, so that the pairs of one group never leave their device. A group
    that only pads G to a multiple of the devices has both masks False: it weighs nothing.
    """

    image: jax.Array  # u8[G, K + R, H, W, 3]
    phi: jax.Array  # f32[G, K]
    segments: jax.Array  # i32[G, K]
    ranked_where: jax.Array  # bool[G, K]
    target: jax.Array  # f32[G, R, ...]
    labeled_where: jax.Array  # bool[G, R]


class Views(NamedTuple):
    """What one example is evaluated on; its prediction is the mean of its views' scores."""

    images: np.ndarray  # u8[V, H, W, 3], of the size that `view_shape` promised


class Prediction(NamedTuple):
    """An evaluated example that a task may draw."""

    id: str
    image: np.ndarray  # u8[H, W, 3], the first view
    output: np.ndarray  # the network's output for the first view
    predicted: float
    record: Record


class TrainState(flax.struct.PyTreeNode):
    """All that changes while training; `apply_fn(params, image, *, valid, key)` sees one image."""

    step: jax.Array  # i32[], updates asked for so far, skipped ones included
    params: Any
    opt_state: optax.OptState
    key: jax.Array  # typed key: the root of every random draw inside the step
    skipped: jax.Array  # i32[], updates skipped because of a non-finite gradient
    bad_in_a_row: jax.Array  # i32[], how many of them came last, one after another
    worst_in_a_row: jax.Array  # i32[], the most that came one after another so far
    last_bad_step: jax.Array  # i32[], step, from 1, of the last update skipped; 0 for none
    apply_fn: Callable = flax.struct.field(pytree_node=False)


@runtime_checkable
class Task(Protocol):
    """One image regression problem. A dataclass of its own settings, used as a value.

    `rng` is a NumPy Generator made for this one example from (seed, stream, step, index);
    nothing else is random. Images are u8[H, W, 3] in RGB.
    """

    size: int  # side of the network's square input, px
    unit: str  # of scores and labels, for tables and figures
    best: str  # the metric that selects the best checkpoint
    lower_is_better: bool  # of that metric

    @property
    def levels(self) -> int:
        """K, images in a ranked set; a plain field will do."""

    def check(self) -> None:
        """Raises UserError where a setting is out of its range."""

    def head(self) -> nn.Module:
        """The layers after the backbone, for one image: features [h, w, C] -> output."""

    def stride(self) -> int | None:
        """The backbone's stride in px that targets are made for; None where any will do."""

    def ranked_set(self, rng: np.random.Generator, record: Record) -> RankedSet:
        """h(x; phi) for K values of phi (eq. 3)."""

    def labeled(self, rng: np.random.Generator, record: Record) -> Labeled:
        """One training input of a labeled record, with its target."""

    def target_shape(self) -> tuple[int, ...]:
        """The shape of one target."""

    def score(self, output: Any) -> jax.Array:
        """The scalar f that is ranked and reported. Output [..., *] -> f32 [...]."""

    def loss(self, output: Any, target: jax.Array) -> jax.Array:
        """Unreduced regression loss of each image. [..., *], [..., *] -> f32 [...]."""

    def label(self, record: Record) -> float:
        """The true value of a record, in `unit`."""

    def published(self, record: Record, value: float) -> float:
        """A label or prediction in the data set's own scale and direction, for a person to read."""

    def view_shape(self, height: int, width: int) -> tuple[int, int]:
        """The (H, W) of the views of an image of this size, multiples of the stride."""

    def views(self, rng: np.random.Generator, record: Record) -> Views:
        """The inputs that a record is evaluated on."""

    def metrics(
        self, predicted: np.ndarray, true: np.ndarray, records: Sequence[Record] = ()
    ) -> dict[str, float]:
        """The field's metrics over a split. f64[N], f64[N] -> name: value.

        `records` are the N records without their images, for metrics by their annotations; without
        them the metrics over all are given alone.
        """

    def columns(self, record: Record) -> dict[str, Any]:
        """What predictions.csv says of a record beside id, true and predicted."""

    def figures(
        self,
        predictions: Sequence[Prediction],
        predicted: np.ndarray,
        true: np.ndarray,
        records: Sequence[Record],
    ) -> dict[str, Any]:
        """Figures of an evaluation, by file name without suffix; `records` as in `metrics`."""

    def ranked_figure(self, rng: np.random.Generator, record: Record) -> Any:
        """A figure of one ranked set beside its source."""


@runtime_checkable
class ActiveTask(Task, Protocol):
    """A task whose certainty can be measured on images without a label (3.4, Algorithm 1)."""

    def unit_of(self, record: Record) -> str:
        """The name of what is labeled together with this record: its id, or that of its group."""

    def certainty_set(self, rng: np.random.Generator, records: Sequence[Record]) -> RankedSet:
        """Images of one unit, whose records these are, of a known (partial) order (eq. 15)."""


def active_task(task: Task) -> ActiveTask:
    """The task as one that can be asked. Raises UserError for another."""
    if not isinstance(task, ActiveTask):
        raise UserError(
            f'the task {type(task).__name__} has no unit_of and no certainty_set, which active '
            'learning reads: write them, as rank_ssl/types.py says'
        )
    return task
