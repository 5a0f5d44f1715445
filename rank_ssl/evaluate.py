"""Predictions on whole splits, with a bounded number of compiled shapes."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rank_ssl.data import Examples
from rank_ssl.parallel import over_groups, process_groups, replicated, to_devices
from rank_ssl.shared import shared
from rank_ssl.types import Prediction, Record, Task

MAX_SHAPES = 8
Shape = tuple[int, int]


class Source(Protocol):
    """Examples that a sweep forwards: each a dict whose 'views' are Views, V the same in all."""

    def shapes(self) -> list[Shape]:
        """(H, W) of each example's views."""

    def read(self, places: Sequence[int], threads: int) -> Iterator[dict[str, Any]]:
        """The examples at these places in this order, read ahead by threads."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A split's predictions in the order of its records, and its metrics."""

    records: list[Record]  # without their images
    true: np.ndarray  # f64[N], in the task's unit
    predicted: np.ndarray  # f64[N]
    metrics: dict[str, float]  # nan where a prediction is not finite
    drawn: list[Prediction]  # the examples kept for figures

    def write_csv(self, path: pathlib.Path, task: Task) -> None:
        """Writes one line an example: id, true, predicted, and the task's own columns."""
        rows = []
        for record, *values in zip(self.records, self.true, self.predicted, strict=True):
            true, predicted = (f'{task.published(record, float(v)):.6g}' for v in values)
            row = {'id': record['id'], 'true': true, 'predicted': predicted}
            rows.append(row | task.columns(record))
        with open(path, 'w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def buckets(shapes: Sequence[Shape], *, limit: int = MAX_SHAPES) -> list[Shape]:
    """At most `limit` shapes such that each of `shapes` fits into one, with little area added.

    Greedy: the two buckets whose common bounding shape adds the fewest pixels over all their
    images become one, until few enough are left.
    """
    count: dict[Shape, int] = {}
    for shape in shapes:
        count[shape] = count.get(shape, 0) + 1

    while len(count) > limit:
        a, b = _cheapest(count)
        # No third bucket has the merged shape: going into that one would have been cheaper.
        count[max(a[0], b[0]), max(a[1], b[1])] = count.pop(a) + count.pop(b)
    return sorted(count)


def _cheapest(count: dict[Shape, int]) -> tuple[Shape, Shape]:
    """The two shapes whose common bounding shape adds the fewest pixels over all their images."""
    shapes = sorted(count)
    height, width = np.array(shapes, np.int64).T
    area = np.maximum.outer(height, height) * np.maximum.outer(width, width)
    added = np.array([count[shape] for shape in shapes]) * (area - height * width)
    added += added.T
    np.fill_diagonal(added, np.iinfo(np.int64).max)
    a, b = np.unravel_index(added.argmin(), added.shape)
    return shapes[a], shapes[b]


def schedule(
    shapes: Sequence[Shape], chosen: Sequence[Shape], batch: int
) -> list[tuple[Shape, list[int]]]:
    """Which examples are computed together, `(bucket, places)`, at most `batch` of one bucket.

    Each goes to the smallest bucket that holds it. It depends on shapes alone, so every process of
    a run computes the same one.
    """
    members: dict[Shape, list[int]] = {}
    for place, (height, width) in enumerate(shapes):
        fits = [b for b in chosen if b[0] >= height and b[1] >= width]
        members.setdefault(min(fits, key=lambda b: b[0] * b[1]), []).append(place)
    return [
        (bucket, places[start : start + batch])
        for bucket, places in sorted(members.items())
        for start in range(0, len(places), batch)
    ]


def tiled(apply_fn: Callable, side: int) -> Callable:
    """`apply_fn` on tiles of side x side px, each padded at its border as a training input is.

    Of an image whose sides are multiples of `side` it gives the map joined from those of its tiles.
    """

    def apply(params: Any, image: jax.Array, *, valid: jax.Array) -> jax.Array:
        rows, columns = image.shape[0] // side, image.shape[1] // side
        tiles = image.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        corners = side * jnp.stack(jnp.mgrid[:rows, :columns], -1)

        def one(tile: jax.Array, corner: jax.Array) -> jax.Array:
            return apply_fn(params, tile, valid=jnp.clip(valid - corner, 0, side))

        maps = jax.vmap(jax.vmap(one))(tiles, corners)
        height, width = maps.shape[2:]
        return maps.swapaxes(1, 2).reshape(rows * height, columns * width)

    return apply


class Seen(NamedTuple):
    """A batch of a sweep: examples of one bucket with what was made of them."""

    places: list[int]  # of the examples
    rows: dict[int, dict[str, Any]]  # by row of `outputs`, those that this process has read
    bucket: Shape
    outputs: Any  # leading axis: the batch, its first `len(places)` rows are the examples'


class Sweep:
    """Forwards the views of examples with at most eight compiled shapes.

    `function(params, images [B, V, H, W, 3], valid [B, 2])` makes arrays with a leading axis B.
    `shapes` are those of all that will be forwarded; one call alone may do without. Sides of a
    bucket are multiples of `tile`.
    """

    def __init__(
        self,
        function: Callable,
        mesh: Mesh,
        *,
        batch: int = 1,
        threads: int = 2,
        shapes: Sequence[Shape] = (),
        tile: int = 0,
    ) -> None:
        self._mesh, self._threads, self._tile = mesh, threads, tile or 1
        self._buckets = self._made_buckets(shapes)
        self._batch = batch * mesh.devices.size
        self._shapes: set[tuple[int, ...]] = set()
        whole, split = replicated(mesh), over_groups(mesh)
        self._forward = jax.jit(function, in_shardings=(whole, split, split), out_shardings=whole)

    @property
    def compiled_shapes(self) -> int:
        """How many shapes have been compiled so far."""
        return len(self._shapes)

    def __call__(self, params: Any, examples: Source) -> Iterator[Seen]:
        """What is made of all examples, batch by batch in the order of their buckets."""
        shapes = examples.shapes()
        plan = schedule(shapes, self._buckets or self._made_buckets(shapes), self._batch)
        rows = process_groups(self._batch, self._mesh)
        for (bucket, places), read in zip(plan, self._read(examples, plan, rows), strict=True):
            image, valid = _padded(read, bucket, len(rows))
            self._shapes.add(image.shape)
            outputs = self._forward(params, *to_devices((image, valid), self._mesh))
            mine = {row: one for row, one in zip(rows, read, strict=False) if row < len(places)}
            yield Seen(places, mine, bucket, outputs)

    def _made_buckets(self, shapes: Sequence[Shape]) -> list[Shape]:
        tile = self._tile
        return buckets([(-(-h // tile) * tile, -(-w // tile) * tile) for h, w in shapes])

    def _read(
        self, examples: Source, plan: list[tuple[Shape, list[int]]], rows: range
    ) -> Iterator[list[dict[str, Any]]]:
        """This process's examples of each batch of the plan, read ahead."""
        # A process without a row of its own reads one all the same: it needs the number of views.
        mine = [
            [places[row] for row in rows if row < len(places)] or places[:1] for _, places in plan
        ]
        stream = examples.read([place for places in mine for place in places], self._threads)
        for places in mine:
            yield [next(stream) for _ in places]


class Evaluator:
    """Evaluates splits of one task; options as of `Sweep`.

    With `tile`, an image is forwarded in squares of that side, px, and its map joined from theirs.
    """

    def __init__(self, task: Task, apply_fn: Callable, mesh: Mesh, **options: Any) -> None:
        self._task = task
        self._sweep = Sweep(_predict(task, apply_fn, options.get('tile', 0)), mesh, **options)

    @property
    def compiled_shapes(self) -> int:
        """How many shapes have been compiled so far."""
        return self._sweep.compiled_shapes

    def __call__(
        self,
        params: Any,
        examples: Examples,
        *,
        draw: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation:
        """The predictions of all examples; the first `draw` are kept with their images."""
        predicted, drawn = self.predictions(params, examples, draw=draw, progress=progress)
        records = examples.annotations
        true = np.array([self._task.label(record) for record in records])
        return Evaluation(
            records=records,
            true=true,
            predicted=predicted,
            metrics=self._metrics(predicted, true, records),
            drawn=drawn,
        )

    def predictions(
        self,
        params: Any,
        examples: Examples,
        *,
        draw: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[np.ndarray, list[Prediction]]:
        """f of all examples, which need no label, f64[N]; the first `draw` with their images."""
        shapes = examples.shapes()
        predicted = np.full(len(shapes), np.nan)
        drawn: dict[int, Prediction] = {}
        done = 0
        for places, read, bucket, (score, outputs) in self._sweep(params, examples):
            predicted[places] = np.asarray(score, np.float64).mean(1)[: len(places)]
            for row, example in read.items():
                if places[row] < draw:
                    drawn[places[row]] = self._drawn(
                        example, outputs, row, predicted[places[row]], shapes[places[row]], bucket
                    )
            done += len(places)
            progress(done, len(shapes))
        return predicted, [drawn[place] for place in sorted(drawn)]

    def _metrics(
        self, predicted: np.ndarray, true: np.ndarray, records: list[Record]
    ) -> dict[str, float]:
        if np.isfinite(predicted).all():
            return self._task.metrics(predicted, true, records)
        # Parameters that have grown too large: the names, and no number.
        return dict.fromkeys(self._task.metrics(true, true, records), math.nan)

    def _drawn(
        self,
        example: dict[str, Any],
        outputs: Any,
        row: int,
        predicted: float,
        shape: Shape,
        bucket: Shape,
    ) -> Prediction:
        output = np.asarray(jax.device_get(outputs)[row], np.float32)
        if output.ndim >= 2:  # a map: without the cells that only fill the bucket
            height = output.shape[0] * shape[0] // bucket[0]
            output = output[:height, : output.shape[1] * shape[1] // bucket[1]]
        return Prediction(
            id=example['record']['id'],
            image=example['views'].images[0],
            output=output,
            predicted=float(predicted),
            record=example['record'],
        )


@shared
def _predict(task: Task, apply_fn: Callable, tile: int) -> Callable:
    """predict(params, images, valid) -> the score of each view, and the output for the first."""
    forward = tiled(apply_fn, tile) if tile else apply_fn

    def predict(params: Any, image: jax.Array, valid: jax.Array) -> tuple[jax.Array, Any]:
        def one(image: jax.Array, valid: jax.Array) -> Any:
            return forward(params, image, valid=valid)

        outputs = jax.vmap(jax.vmap(one, (0, None)))(image, valid)
        first = jax.tree.map(lambda x: x[:, 0], outputs)
        return task.score(outputs).astype(jnp.float32), first

    return predict


def _padded(read: list[dict[str, Any]], bucket: Shape, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """u8[rows, V, H, W, 3] and the valid (height, width) of each row; rows to spare are zeros."""
    image = np.zeros((rows, len(read[0]['views'].images), *bucket, 3), np.uint8)
    valid = np.tile(np.asarray(bucket, np.int32), (rows, 1))
    for row, example in enumerate(read):
        height, width = example['views'].images.shape[1:3]
        image[row, :, :height, :width] = example['views'].images
        valid[row] = height, width
    return image, valid
