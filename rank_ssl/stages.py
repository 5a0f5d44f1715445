"""The stages of a run: each trains from where its workdir left it, and leaves its results."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rank_ssl import checkpoint, logs, results, train
from rank_ssl.changes import EVALUATION, since
from rank_ssl.config import Config
from rank_ssl.data import Splits
from rank_ssl.errors import UserError
from rank_ssl.progress import say


class Finished(NamedTuple):
    """A run after its last step, and what its result.json holds."""

    run: train.Run
    result: dict[str, Any]


def run_stages(
    config: Config,
    workdir: pathlib.Path,
    splits: Splits,
    *,
    accepted: Callable[[], None] = lambda: None,
) -> Finished:
    """The last stage of a config; the ones before it are run in folders of the workdir (3.2).

    `accepted` is called when a run has been made that the workdir and the weights allow, before it
    trains.
    """
    *before, last = config.stages() if config.mode == 'train' else [config]
    for stage in before:
        folder = workdir / stage.regime
        last = dataclasses.replace(last, init_from=str(folder))
        if checkpoint.saved_steps(workdir / 'checkpoints'):
            continue  # the last stage has begun: what it began from stays as it was
        say(f'stage {stage.regime} in {folder}')
        folder.mkdir(exist_ok=True)
        run_stage(stage, folder, splits, accepted=accepted)
    return run_stage(last, workdir, splits, accepted=accepted)


def run_stage(
    config: Config,
    workdir: pathlib.Path,
    splits: Splits,
    *,
    accepted: Callable[[], None] = lambda: None,
) -> Finished:
    """One regime from its first step, or from where its workdir left it, to its results."""
    if jax.process_index() == 0:
        checkpoint.clean(workdir)
    this = train.create_run(config, workdir, splits)
    step = this.start
    if step is not None:
        say(f'resumed from step {step}')
    elif config.mode == 'evaluate':
        raise UserError(f'--workdir={workdir} holds no run to evaluate: config.mode=train first')
    if config.mode == 'train':
        if step is not None and step > config.steps:
            raise UserError(
                f'config.steps={config.steps} is below the {step} steps that --workdir={workdir} '
                f'has taken: use {step} or more, or another --workdir'
            )
        if step == config.steps and (done := finished(config, workdir, step)):
            say(f'nothing to do: step {step} of {config.steps} is reached')
            return Finished(this, done)
        if jax.process_index() == 0:
            logs.write_json(workdir / 'config.json', config.to_dict())
        accepted()
        train.train(this)
    sha256 = checkpoint.params_sha256(this.state.params)
    train.restore_best(this)
    return Finished(this, results.finish(this, params_sha256=sha256))


def finished(config: Config, workdir: pathlib.Path, step: int) -> dict[str, Any] | None:
    """The result.json of that step, where there is one with all that the config asks for.

    One without its figures is none. Raises UserError for a damaged one.
    """
    result = logs.read_result(workdir) or {}
    tested = any(name.startswith('test/') for name in result)
    # An evaluation with other settings than the run's own may have written it.
    other = set(EVALUATION).intersection(since(result.get('config', {}), config))
    whole = tested >= config.evaluate_test and 'figures_failed' not in result and not other
    return result if result.get('steps') == step and whole else None
