"""What each pair sampler has learned after so many forwards: ranking alone, on drawn crowds."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rank_ssl.config import SAMPLERS, Config, Model, Optim
from rank_ssl.data import EVALUATE, Batches, Splits, counter_rng, load_splits, prepare
from rank_ssl.models.build import build_network, initial_params
from rank_ssl.models.network import Network, make_apply
from rank_ssl.optimizer import make_optimizer
from rank_ssl.ranking import certainty, pairwise_hinge_loss
from rank_ssl.step import create_state, step_of
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch, TrainState

PROBE_SEED = 2**31  # no run has it


@dataclasses.dataclass(frozen=True)
class Setting:
    """The runs: one for each sampler and seed."""

    size: int = 48  # px
    levels: int = 5  # K
    groups: int = 4
    width: float = 0.25  # of a vgg8
    rate: float = 2e-4
    steps: int = 120
    every: int = 5  # steps between two looks at the probe
    seeds: int = 3
    sets: int = 40  # ranked sets of the probe
    tiny: int = 0  # so many tiny training images, for tests; 0 = all drawn scenes


FULL = Setting(size=96, steps=1000, every=25, seeds=5, sets=80)


def measure(setting: Setting) -> dict[str, Any]:
    """Mean hinge and share of pairs in order, over all pairs of the probe, [seeds][looks] each.

    The probe is the same ranked sets of test images for all; runs of one seed start from the same
    parameters and forward the same number of images a step.
    """
    config = make_config(setting, 'all', 0)
    network, _ = build_network(config)
    look = _probe(config, make_apply(network))
    with tempfile.TemporaryDirectory() as folder:
        splits = load_splits(config, *prepare(config, folder))
        probe = probe_sets(config, splits, setting.sets)
        taken = {
            name: np.array(_runs(setting, name, splits, network, lambda p: look(p, *probe)))
            for name in SAMPLERS
        }
    looks = np.arange(0, setting.steps + 1, setting.every)
    found: dict[str, Any] = {
        'levels': setting.levels,
        'forwards': (looks * config.groups * config.ranked).tolist(),
        'loss': {name: curve[..., 0].tolist() for name, curve in taken.items()},
        'accuracy': {name: curve[..., 1].tolist() for name, curve in taken.items()},
    }
    found['ratios'] = {name: forwards_ratio(found, name) for name in SAMPLERS if name != 'all'}
    for line in lines(setting, found):
        print(line)
    return found


def make_config(setting: Setting, sampler: str, seed: int) -> Config:
    """Ranking alone on drawn scenes; hard mining takes all pairs from 4/5 of the run on."""
    task = Crowd(size=setting.size, levels=setting.levels, head_std=0.01)
    config = Config(task=task, regime='ranking', sampler=sampler, seed=seed, reduction='mean')
    config.model = Model(backbone='vgg8', width=setting.width, weights='none')
    config.optim = Optim(name='adam', rate=setting.rate, head_rate=1.0, schedule='constant')
    config.data.groups, config.data.unlabeled_labeled = setting.groups, True
    config.data.tiny = setting.tiny
    config.margin, config.steps = 1.0, setting.steps
    pairs = setting.levels * (setting.levels - 1) // 2
    grows = pairs - setting.levels // 2
    config.hard_every = max(1, setting.steps * 4 // 5 // max(grows, 1))
    config.check()
    return config


def probe_sets(config: Config, splits: Splits, sets: int) -> tuple[jax.Array, jax.Array]:
    """Ranked sets of test images, one each: u8[S, K, H, W, 3] and their phi f32[S, K]."""
    made = [
        config.task.ranked_set(
            counter_rng(PROBE_SEED, EVALUATE, 0, n), splits.test[n % len(splits.test)]
        )
        for n in range(sets)
    ]
    return jnp.stack([one.images for one in made]), jnp.stack([one.phi for one in made])


def forwards_ratio(found: dict[str, Any], name: str) -> list[float]:
    """Forwards of a sampler over ours to the lowest probe loss that both reach, for each seed.

    nan where that is the loss before the first step.
    """
    forwards = np.array(found['forwards'], float)
    ratios = []
    for ours, other in zip(found['loss']['all'], found['loss'][name], strict=True):
        level = max(min(ours), min(other))
        own, theirs = (reached(forwards, np.array(curve), level) for curve in (ours, other))
        ratios.append(theirs / own if own else np.nan)
    return ratios


def reached(forwards: np.ndarray, loss: np.ndarray, level: float) -> float:
    """Forwards after which a curve is first at or below a level, between two looks linearly."""
    at = int(np.argmax(loss <= level))
    if at == 0:
        return 0.0
    share = (loss[at - 1] - level) / (loss[at - 1] - loss[at])
    return float(forwards[at - 1] + share * (forwards[at] - forwards[at - 1]))


def lines(setting: Setting, found: dict[str, Any]) -> list[str]:
    """What `measure` found, as text."""
    text = [
        '',
        f'probe over all pairs of {setting.sets} held-out ranked sets after '
        f'{found["forwards"][-1]} forwards; mean and deviation of {setting.seeds} seeds',
    ]
    for name in SAMPLERS:
        loss, right = (np.array(found[kind][name])[:, -1] for kind in ('loss', 'accuracy'))
        text.append(
            f'  {name:<7} hinge {loss.mean():.3f} +- {loss.std():.3f}, '
            f'in order {right.mean():.3f} +- {right.std():.3f}'
        )
    for name, ratios in found['ratios'].items():
        each = ', '.join(f'{ratio:.2f}' for ratio in ratios)
        text.append(
            f'  forwards of {name} over ours to the same hinge: median {np.median(ratios):.2f} '
            f'({each}); a two-branch network with all pairs: {found["levels"] - 1}'
        )
    return text


def _runs(
    setting: Setting, sampler: str, splits: Splits, network: Network, look: Callable
) -> list[list[tuple[float, float]]]:
    """What a look at the parameters gives before the first step and after every few, by seed."""
    apply_fn, size = make_apply(network), setting.size
    step_fn: Any = None
    found = []
    for seed in range(setting.seeds):
        config = make_config(setting, sampler, seed)
        init_key, step_key = jax.random.split(jax.random.key(seed))
        params = initial_params(network, None, key=init_key, size=size)
        tx = make_optimizer(config.optim, params, steps=config.steps)
        step_fn = step_fn or step_of(config, tx)
        state = create_state(apply_fn, params, tx, step_key)
        batches = Batches(config, splits, range(config.groups))
        found.append(list(_looks(setting, state, step_fn, look, batches)))
    return found


def _looks(
    setting: Setting, state: TrainState, step_fn: Callable, look: Callable, batches: Batches
) -> Iterator[tuple[float, float]]:
    yield look(state.params)
    for step in range(setting.steps):
        batch = {name: jnp.asarray(array) for name, array in batches[step].items()}
        state, _ = step_fn(state, Batch(**batch))
        if (step + 1) % setting.every == 0:
            yield look(state.params)


def _probe(config: Config, apply_fn: Callable) -> Callable[..., tuple[float, float]]:
    @jax.jit
    def look(params: Any, images: jax.Array, phi: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = jax.vmap(jax.vmap(lambda image: apply_fn(params, image)))(images)
        y = config.task.score(outputs)
        pairs = (phi[:, :, None] < phi[:, None]).sum()
        hinge = pairwise_hinge_loss(y, phi, margin=config.margin).sum() / pairs
        return hinge, certainty(y, phi).mean()

    def looked(*given: Any) -> tuple[float, float]:
        hinge, right = look(*given)
        return float(hinge), float(right)

    return looked
