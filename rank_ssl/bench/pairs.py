"""One training step of a two-branch Siamese network beside ours, and the samplers' convergence.

Theory (3.3): K images of a group make K (K - 1) / 2 pairs, so two branches forward K (K - 1) images
and ours K, K - 1 times fewer.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rank_ssl import jobs, plots
from rank_ssl.bench import samplers
from rank_ssl.bench.programs import convolutions, forwards
from rank_ssl.bench.siamese import siamese_loss
from rank_ssl.bench.timing import alternate_wall
from rank_ssl.config import Config, Model
from rank_ssl.models.build import build_network, initial_params
from rank_ssl.models.network import make_apply
from rank_ssl.models.pixels import preprocess
from rank_ssl.models.vgg import conv3x3
from rank_ssl.optimizer import make_optimizer
from rank_ssl.step import Terms, forward, make_loss
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch

TARGETS = {5: 3.8, 6: 4.7}  # K -> the least speed-up on one core of a quiet machine
ERROR = 1e-12  # of the float64 gradient, at most
MARGIN = 0.5  # near the deviation of the scores below: some pairs cost, others don't


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is timed. Gradients are compared at `exact_size`, in double the bytes."""

    size: int = 64  # px
    exact_size: int = 32  # px
    backbone: str = 'vgg8'
    width: float = 0.25
    groups: int = 8  # with few, ours alone would fit the cache
    images: tuple[int, ...] = tuple(range(2, 11))  # K
    rounds: int = 5


FULL = Setting(size=224, exact_size=64, backbone='vgg16', width=1.0, groups=1, rounds=3)

Loss = Callable[[Any, Batch, jax.Array], jax.Array]


def run(*, full: bool) -> dict[str, Any]:
    """Rows by K, and what each sampler has learned after so many forwards; on one core of a CPU."""
    # On several XLA runs the two branches, which don't need each other, side by side, and ours, a
    # single chain, leaves cores idle: the clock would tell of its scheduler, not of the work.
    own = os.sched_getaffinity(0) if hasattr(os, 'sched_setaffinity') else set()
    if own:
        os.sched_setaffinity(0, {min(own)})
    try:
        return measure(FULL if full else Setting(), samplers.FULL if full else samplers.Setting())
    finally:
        if own:
            os.sched_setaffinity(0, own)


def measure(setting: Setting, curves: samplers.Setting) -> dict[str, Any]:
    """What `run` gives, at any setting."""
    print(
        f'one step of {setting.backbone} x {setting.width:g}, {setting.groups} groups of K images '
        f'of {setting.size} px, float32, {cores()}; medians of {setting.rounds} rounds by turns\n'
        "memory: the compiled step's temporary buffers; gradient: difference over norm, float64, "
        f'{setting.exact_size} px\n'
        f'{"":14}speedup by{"":9}ms{"":13}forwards{"":13}MiB\n'
        ' K theory  clock   CPU     ours  two-br.    ours  two-br.    ours  two-br. gradient'
    )
    rows = []
    for k in setting.images:
        rows.append(_row(setting, k))
        print(line(rows[-1]), flush=True)
    found = {'setting': dataclasses.asdict(setting), 'device': jax.devices()[0].device_kind}
    return found | {'rows': rows, 'curves': samplers.measure(curves)}


def cores() -> str:
    """The cores that this process may use, in words."""
    count = len(jobs.usable_cores())
    return '1 core' if count == 1 else f'{count} cores'


def draw(found: dict[str, Any], folder: pathlib.Path) -> None:
    """Writes pairs_curves.png, the probe over the forwards, to the folder."""
    curves = {name: found['curves'][name] for name in ('forwards', 'loss', 'accuracy', 'levels')}
    plots.save(plots.convergence(**curves), folder / 'pairs_curves.png')


def _row(setting: Setting, k: int) -> dict[str, Any]:
    """Times, memory and counts of both at one K, and the distance of their gradients."""
    params, apply_fn = _network(setting, setting.size, k)
    batch = made_batch(setting.groups, k, setting.size)
    keys = jax.random.split(jax.random.key(0), (setting.groups, k))
    tx = make_optimizer(Config(task=Crowd()).optim, params, steps=1)
    given = params, tx.init(params), batch, keys
    row: dict[str, Any] = {'k': k, 'theory': k - 1}
    calls = {}
    for name, loss in losses(Crowd(), apply_fn).items():
        traced = _step(loss, tx).trace(*given)
        compiled = traced.lower().compile()
        calls[name] = functools.partial(_finish, compiled, given)
        counts = _counts(traced.jaxpr, compiled, batch, params)
        row |= {f'{what}{name}': value for what, value in counts.items()}
    taken = {name: np.median(t, 0) for name, t in alternate_wall(calls, setting.rounds).items()}
    for name, (wall, cpu) in taken.items():
        row |= {f'ms{name}': 1e3 * float(wall), f'cpu_ms{name}': 1e3 * float(cpu)}
    row['speedup'], row['cpu_speedup'] = map(float, taken['_siamese'] / taken[''])
    row['gradient_error'], row['pairs_with_a_loss'] = gradient_error(setting, k)
    return row


def _counts(traced: Any, compiled: Any, batch: Batch, params: Any) -> dict[str, float]:
    """Images that pass the compiled first layer, GFLOP, and MiB beside arguments and results.

    The GFLOP are of the traced convolutions, forward and for gradients of inputs: compiled ones may
    take another form.
    """
    kernel = params['backbone']['block1_conv1']['kernel'].shape
    pixels = batch.image.shape[2] ** 2
    square = (c for c in convolutions(traced) if c.kernel[:2] == (3, 3))
    return {
        'forwards': forwards(compiled.as_text(), kernel=kernel, pixels=pixels),
        'gflop': sum(c.flops for c in square) / 1e9,
        'memory_mib': compiled.memory_analysis().temp_size_in_bytes / 2**20,
    }


def losses(task: Any, apply_fn: Callable) -> dict[str, Loss]:
    """Ours (name '') and the two-branch network's ('_siamese') for a batch without labels."""
    ours = make_loss(task, apply_fn, rank_weight=1.0, margin=MARGIN)
    terms = Terms(jnp.float32(1), jnp.float32(1), jnp.int32(0))
    return {
        '': lambda params, batch, keys: ours(params, batch, keys, terms)[0],
        '_siamese': siamese_loss(task.score, apply_fn, margin=MARGIN),
    }


def gradient_error(setting: Setting, k: int) -> tuple[float, float]:
    """Global norm of the gradients' difference over that of the two-branch one, in float64.

    And the share of pairs that cost something, without which there is nothing to compare.
    """
    with jax.enable_x64(True):
        params, _ = _network(setting, setting.exact_size, k)
        params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        apply_fn = functools.partial(_density, setting, k)
        batch = made_batch(setting.groups, k, setting.exact_size)
        keys = jnp.zeros((setting.groups, k))
        of = losses(_Exact(), apply_fn)
        ours, theirs = (jax.jit(jax.grad(of[name]))(params, batch, keys) for name in of)
        gap = optax.tree.norm(jax.tree.map(jnp.subtract, ours, theirs))
        y = forward(apply_fn, params, batch.image, keys).sum((-2, -1))
        first, second = np.triu_indices(k, 1)
        active = (y[:, first] - y[:, second] + MARGIN > 0).mean()
        return float(gap / optax.tree.norm(theirs)), float(active)


class _Exact(Crowd):
    """Crowd counting whose score keeps the precision of the map."""

    def score(self, output: jax.Array) -> jax.Array:
        return output.sum((-2, -1))


def _density(setting: Setting, k: int, params: Any, image: jax.Array, **_: Any) -> jax.Array:
    """The network's density map in float64; the head of training computes in float32."""
    network, _loaded = build_network(_config(setting, setting.exact_size, k))
    backbone = network.backbone.clone(dtype=jnp.float64)
    x: Any = backbone.apply({'params': params['backbone']}, preprocess(image, network.pixels))
    return (conv3x3(x, params['head']['kernel']) + params['head']['bias'])[..., 0]


def _config(setting: Setting, size: int, k: int) -> Config:
    config = Config(task=Crowd(size=size, levels=k, head_std=0.1))
    config.model = Model(backbone=setting.backbone, width=setting.width, weights='none')
    return config


def _network(setting: Setting, size: int, k: int) -> tuple[Any, Callable]:
    network, _ = build_network(_config(setting, size, k))
    params = initial_params(network, None, key=jax.random.key(0), size=size)
    return params, make_apply(network)


def made_batch(groups: int, k: int, size: int) -> Batch:
    """Groups of K random images in a total order, and no labels."""
    rng = np.random.default_rng(k)
    made = {
        'image': rng.integers(0, 256, (groups, k, size, size, 3), np.uint8),
        'phi': np.arange(k, dtype=np.float32)[None].repeat(groups, 0),
        'segments': np.zeros((groups, k), np.int32),
        'ranked_where': np.ones((groups, k), bool),
        'target': np.zeros((groups, 0, size // 16, size // 16), np.float32),
        'labeled_where': np.zeros((groups, 0), bool),
    }
    return Batch(**{name: jnp.asarray(array) for name, array in made.items()})


def _step(loss: Loss, tx: optax.GradientTransformation) -> Any:
    def step(params: Any, opt_state: Any, batch: Batch, keys: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, batch, keys)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return jax.jit(step)


def _finish(compiled: Callable, given: tuple[Any, ...]) -> None:
    jax.block_until_ready(compiled(*given))


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    mark = _mark(row['speedup'], TARGETS.get(row['k'], 0))
    wrong = '' if row['gradient_error'] <= ERROR else f', more than {ERROR:g}'
    return (
        f'{row["k"]:>2} {row["theory"]:>6} {row["speedup"]:>6.2f} {row["cpu_speedup"]:>5.2f} '
        f'{row["ms"]:>8.1f} {row["ms_siamese"]:>8.1f} {row["forwards"]:>7} '
        f'{row["forwards_siamese"]:>8} {row["memory_mib"]:>7.1f} '
        f'{row["memory_mib_siamese"]:>8.1f} {row["gradient_error"]:>8.1e}{mark}{wrong}'
    )


def _mark(speedup: float, target: float) -> str:
    return '' if speedup >= target else f', target {target:g}: missed'
