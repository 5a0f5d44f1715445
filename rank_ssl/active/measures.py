"""What a network says of units without a label: score differences, features, dropout draws."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from rank_ssl.config import Config
from rank_ssl.data import ACQUIRE, CertaintySets, Units
from rank_ssl.evaluate import Sweep, tiled
from rank_ssl.models.build import build_network
from rank_ssl.models.network import Network, Params, make_apply
from rank_ssl.shared import shared
from rank_ssl.types import Task


class Measures:
    """Measures of all units of a run, each computed when it is first asked for. [N, ...].

    `step` counts the updates so far: together with the seed it draws crops, pairs and dropout.
    `progress(done, total)` is called as units, or their records, are forwarded.
    """

    def __init__(
        self,
        config: Config,
        params: Params,
        mesh: Mesh,
        units: Units,
        *,
        pixels: str,
        step: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._config, self._params, self._mesh = config, params, mesh
        self._units, self._step, self._progress = units, step, progress
        self._network, _ = build_network(config, pixels=pixels)

    def __len__(self) -> int:
        return len(self._units)

    @functools.cached_property
    def differences(self) -> np.ndarray:
        """y_j - y_i of K pairs phi_i < phi_j of each unit, f32[N, K]; nan where it has fewer.

        Every image of a unit is forwarded once, whatever the number of its pairs.
        """
        config, task = self._config, self._config.task
        scores = _scores(task, make_apply(self._network))
        sweep = Sweep(scores, self._mesh, threads=config.data.threads)
        found: dict[int, np.ndarray] = {}
        done = 0
        # Units of as many records have as many images.
        for size in sorted({len(rows) for rows in self._units.rows}):
            places = [n for n, rows in enumerate(self._units.rows) if len(rows) == size]
            sets = CertaintySets(
                task,
                self._units,
                places,
                seed=config.seed,
                step=self._step,
                pairs=config.active.pairs,
            )
            for seen in sweep(self._params, sets):
                y = np.asarray(seen.outputs, np.float32)
                for row, example in seen.rows.items():
                    i, j = example['pairs'].T
                    found[places[seen.places[row]]] = y[row][j] - y[row][i]
                done += len(seen.places)
                self._progress(done, len(self))
        return _whole(found, len(self))

    @functools.cached_property
    def features(self) -> np.ndarray:
        """The backbone's channels, their mean over cells, views and records. f32[N, C]."""
        network = self._network

        def mean(params: Params, image: jax.Array, valid: jax.Array) -> jax.Array:
            made = _features(network, params, image, valid)
            cells = (valid // network.backbone.stride).prod()  # beyond them are zeros
            return made.astype(jnp.float32).sum((0, 1)) / jnp.maximum(cells, 1)

        return self._of_views(mean)

    @functools.cached_property
    def draws(self) -> np.ndarray:
        """The score with `active.draws` draws of dropout, mean over views and records. f32[N, M].

        The draws are the same in all views, as one network's would be.
        """
        active, task = self._config.active, self._config.task
        key = jax.random.fold_in(jax.random.key(self._config.seed), ACQUIRE)
        keys = jax.random.split(jax.random.fold_in(key, self._step), active.draws)
        tile = self._config.eval_tile

        def score(params: Params, image: jax.Array, valid: jax.Array, key: jax.Array) -> jax.Array:
            one = functools.partial(dropped, self._network, key, active.dropout)
            forward = tiled(one, tile) if tile else one
            return task.score(forward(params, image, valid=valid))

        def scores(params: Params, image: jax.Array, valid: jax.Array) -> jax.Array:
            return jax.vmap(score, (None, None, None, 0))(params, image, valid, keys)

        return self._of_views(scores, tile=tile)

    def _of_views(self, function: Callable, *, tile: int = 0) -> np.ndarray:
        """The mean of `function(params, image, valid)` over each unit's views. f32[N, D]."""
        config = self._config

        def mean(params: Params, images: jax.Array, valid: jax.Array) -> jax.Array:
            def one(image: jax.Array, valid: jax.Array) -> jax.Array:
                return function(params, image, valid)

            return jax.vmap(jax.vmap(one, (0, None)))(images, valid).astype(jnp.float32).mean(1)

        examples = self._units.examples(config.task, config.seed)
        sweep = Sweep(
            mean, self._mesh, batch=config.eval_batch, threads=config.data.threads, tile=tile
        )
        found: dict[int, np.ndarray] = {}
        for seen in sweep(self._params, examples):
            values = np.asarray(seen.outputs)[: len(seen.places)]
            found |= dict(zip(seen.places, values, strict=True))
            self._progress(len(found), len(examples))
        return np.stack([np.mean([found[row] for row in rows], 0) for rows in self._units.rows])


@shared
def _scores(task: Task, apply_fn: Callable) -> Callable:
    """scores(params, images [B, V, H, W, 3], valid) -> f32[B, V], of images of the input's size."""

    def scores(params: Params, images: jax.Array, valid: jax.Array) -> jax.Array:
        return task.score(jax.vmap(jax.vmap(functools.partial(apply_fn, params)))(images))

    return scores


def dropped(
    network: Network,
    key: jax.Array,
    rate: float,
    params: Params,
    image: jax.Array,
    *,
    valid: jax.Array | None = None,
) -> Any:
    """The head's output with its own dropout on; one without has channels of its input dropped."""
    features = _features(network, params, image, valid)
    if not getattr(network.head, 'dropout', 0):
        kept = jax.random.bernoulli(key, 1 - rate, features.shape[-1:])
        features = jnp.where(kept, features / (1 - rate), 0).astype(features.dtype)
    return network.apply(
        {'params': params},
        features,
        valid=valid,
        train=True,
        rngs={'dropout': key},
        method=Network.output,
    )


def _features(
    network: Network, params: Params, image: jax.Array, valid: jax.Array | None
) -> jax.Array:
    made = network.apply({'params': params}, image, valid=valid, method=Network.features)
    return jnp.asarray(made)


def _whole(found: dict[int, np.ndarray], units: int) -> np.ndarray:
    """Rows of all units, those of other processes too, nan where a row is shorter. [N, K]."""
    width = max(map(len, found.values()), default=0)
    if jax.process_count() > 1:
        width = int(multihost_utils.process_allgather(np.array(width)).max())
    table = np.full((units, width), np.nan, np.float32)
    for place, values in found.items():
        table[place, : len(values)] = values
    if jax.process_count() > 1:
        # Each process has the rows that it has read.
        everywhere = multihost_utils.process_allgather(table)
        table = np.where(np.isnan(everywhere).all(0), np.nan, np.nanmax(everywhere, 0))
    return table
