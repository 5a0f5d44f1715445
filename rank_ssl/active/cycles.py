"""Algorithm 1: train, ask, label, and again, each cycle a run in a folder of its own.

Every cycle's labels follow from the files of the one before, and its training is a run like any
other, so the same command goes on after a crash at any instant and comes to the same end.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rank_ssl import checkpoint, logs, plots, stages, train
from rank_ssl.active.acquired import Acquired, log, read, write_csv
from rank_ssl.active.measures import Measures
from rank_ssl.active.photos import show
from rank_ssl.active.rules import RANKING, RULES, Question, certainty_of, chosen
from rank_ssl.changes import HARMLESS, in_words, since
from rank_ssl.config import Active, Config
from rank_ssl.data import ACQUIRE, Prepared, Splits, Units, counter_rng, load_splits
from rank_ssl.errors import UserError
from rank_ssl.progress import say
from rank_ssl.results import facts

FIRST, RULE = 0, 1  # uses of the draws that are of no unit
# A plain run may go on with other ones of these; of a curve's cycles none is trained again.
FIXED = {
    'steps', 'mode', 'eval_every', 'evaluate_test', 'init_from',
    'optim.rate', 'optim.decay_every', 'optim.decay_factor',
}  # fmt: skip
NONE: dict[str, Any] = {'tied_at_cut': None, 'certainty': None}  # of a training that asks nothing


def run_cycles(
    config: Config,
    workdir: pathlib.Path,
    everything: Splits,
    prepared: tuple[Prepared, Sequence[Prepared]],
    *,
    accepted: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """T cycles and a last training; what result.json holds: the last numbers and the curve.

    `everything` are the splits with a label on every training image: who may be labeled. Raises
    UserError where the workdir holds cycles of another config or of other data. `accepted` is as in
    `stages.run_stages`.
    """
    units = Units(config.task, everything.labeled)
    _check_workdir(config, workdir)
    labeled = _first_units(config, len(units))
    curve: list[dict[str, Any]] = []
    acquired: list[Acquired] = []
    for cycle in itertools.count():
        stage = _stage(config, workdir, cycle)
        splits = load_splits(stage, *prepared, labeled_ids=units.ids(labeled))
        folder = workdir / f'cycle_{cycle}'
        result, found = _cycle(config, stage, folder, splits, units, labeled, accepted)
        _forget(workdir, cycle)
        curve.append(_point(cycle, result, labeled, units) | (found.summary() if found else NONE))
        if found is None:
            break
        acquired.append(found)
        write_csv(workdir / 'acquired.csv', log(acquired))
        labeled = np.sort(np.concatenate([labeled, found.taken]))
    return _finish(config, workdir, everything, result, curve, acquired)


def _cycle(
    config: Config,
    stage: Config,
    folder: pathlib.Path,
    splits: Splits,
    units: Units,
    labeled: np.ndarray,
    accepted: Callable[[], None],
) -> tuple[dict[str, Any], Acquired | None]:
    """Trains and asks, as far as it has not been done; the last cycle asks nothing."""
    cycle = stage.first_step // config.steps
    last = cycle == config.active.cycles or len(labeled) == len(units)
    say(f'cycle {cycle} of {config.active.cycles}: {len(labeled)} of {len(units)} units')
    known = None if last else read(folder, units, labeled)
    if (known or last) and (done := _finished(stage, folder, splits)):
        say(f'cycle {cycle} is finished')
        return done, known
    folder.mkdir(exist_ok=True)
    run, result = stages.run_stages(stage, folder, splits, accepted=accepted)
    if last:
        return result, None
    say(f'cycle {cycle}: asking {len(units)} units')
    found = _ask(config, run, units, labeled, cycle)
    write_csv(folder / 'acquisition.csv', found.rows())
    return result, found


def added(units: int, share: float) -> int:
    """The units that a share of all is, one at least."""
    return min(units, max(1, round(share * units)))


def _first_units(config: Config, units: int) -> np.ndarray:
    """The places labeled at first: a draw that no rule has a part in."""
    rng = counter_rng(config.seed, ACQUIRE, FIRST, units)
    return np.sort(rng.permutation(units)[: added(units, config.active.start)])


def _stage(config: Config, workdir: pathlib.Path, cycle: int) -> Config:
    """The training of a cycle: from the last parameters, or from the initial ones."""
    goes_on = cycle > 0 and not config.active.restart
    return dataclasses.replace(
        config,
        mode='train',
        active=Active(),  # no part of a training
        init_from=str(workdir / f'cycle_{cycle - 1}') if goes_on else config.init_from,
        first_step=cycle * config.steps,
    )


def _ask(config: Config, run: train.Run, units: Units, labeled: np.ndarray, cycle: int) -> Acquired:
    """What the rule makes of the units without a label, by the parameters that validation chose."""
    train.restore_best(run)
    step = (cycle + 1) * config.steps
    measured = Measures(
        config,
        run.state.params,
        run.mesh,
        units,
        pixels=run.pixels,
        step=step,
        progress=show(f'cycle {cycle}: asked'),
    )
    pool = np.ones(len(units), bool)
    pool[labeled] = False
    places = np.flatnonzero(pool)
    rng = counter_rng(config.seed, ACQUIRE, step, len(units) + RULE)
    count = min(len(places), added(len(units), config.active.share))
    question = Question(measured, places, labeled, count, rng)
    values = RULES[config.active.rule](question)
    table = np.full((2, len(units)), np.nan)
    table[1, places] = values
    if config.active.rule in RANKING:
        table[0] = certainty_of(measured.differences)
    return Acquired(units.names, pool, table[0], table[1], places[chosen(values, count, rng)])


def _finished(stage: Config, folder: pathlib.Path, splits: Splits) -> dict[str, Any] | None:
    """The result of a cycle that has been trained. Raises UserError where it is of another run."""
    result = stages.finished(stage, folder, stage.steps)
    kinds = {
        'labels': ('data_fingerprint', splits.fingerprint),
        'unlabeled images': ('unlabeled_fingerprint', splits.unlabeled_fingerprint),
    }
    for kind, (name, now) in kinds.items():
        if result is not None and result.get(name, now) != now:
            raise UserError(
                f'{folder} was trained on other {kind}: restore them, or use another --workdir'
            )
    return result


def _check_workdir(config: Config, workdir: pathlib.Path) -> None:
    """Notes the config in the workdir. Raises UserError where another run's is there."""
    path = workdir / 'config.json'
    free = {*HARMLESS, 'active.cycles'} - FIXED  # more cycles go on where the others ended
    if config.active.restart:
        free.remove('model.weights')  # each cycle starts from them
    known = logs.read_json(path, cure='restore it from a copy, or use another --workdir')
    if known is not None:
        changed = in_words(since(known, config))
        words = [word for name, word in changed.items() if name not in free]
        if words:
            raise UserError(
                f'--workdir={workdir} holds cycles of another config, {"; ".join(words)}: use its '
                'config to go on, or another --workdir'
            )
    if jax.process_index() == 0:
        logs.write_json(path, config.to_dict())


def _point(
    cycle: int, result: Mapping[str, Any], labeled: np.ndarray, units: Units
) -> dict[str, Any]:
    """A point of the curve."""
    metrics = {
        name: value
        for name, value in result.items()
        for split in ('test/', 'best/val/')
        if name.startswith(split) and '/' not in name.removeprefix(split)
    }
    return {
        'cycle': cycle,
        'labeled_units': len(labeled),
        'units': len(units),
        'share': len(labeled) / len(units),
        'labeled_images': result['labeled_images'],
        'params_sha256': result['params_sha256'],
        **metrics,
    }


def _finish(
    config: Config,
    workdir: pathlib.Path,
    everything: Splits,
    last: Mapping[str, Any],
    curve: list[dict[str, Any]],
    acquired: Sequence[Acquired],
) -> dict[str, Any]:
    """Writes result.json and the figure; what result.json holds."""
    shown = ('test/', 'best/', 'final/')
    result = {
        'steps': config.steps,
        'mode': 'active',
        'rule': config.active.rule,
        'curve': curve,
        **{name: value for name, value in last.items() if name.startswith(shown)},
        **{name: last[name] for name in ('best_step', 'params_sha256', 'compiled_eval_shapes')},
        **facts(config, everything),
        **{name: last[name] for name in ('labeled_images', 'unlabeled_images')},
    }
    if jax.process_index() == 0:
        panels = {
            f'after cycle {cycle}': (found.certainty[found.pool], found.certainty[~found.pool])
            for cycle, found in enumerate(acquired)
            if np.isfinite(found.certainty).any()
        }
        if panels:
            figure = plots.certainty_histograms(panels)
            plots.save(figure, workdir / 'figures' / 'certainty.png')
        logs.write_json(workdir / 'result.json', result)  # last: it marks a finished run
    return result


def _forget(workdir: pathlib.Path, cycle: int) -> None:
    """Frees the optimizer's state of the cycle before; its best parameters stay."""
    if cycle and jax.process_index() == 0:
        folder = workdir / f'cycle_{cycle - 1}' / 'checkpoints'
        checkpoint.clean(folder)  # of one that was killed here
        checkpoint.discard(folder, checkpoint.saved_steps(folder))
