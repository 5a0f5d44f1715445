"""Runs an experiment: `python -m rank_ssl.main --config=experiments/NAME.py --workdir=DIR`.

Exit codes: 0 done (also where nothing was left to do), 2 a mistake that one line explains, 128 plus
the signal's number after SIGTERM or SIGINT, when the state has been saved.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
from typing import Any

import jax
from absl import flags
from jax.experimental import multihost_utils

from rank_ssl import checkpoint, cli, logs
from rank_ssl.config import Config
from rank_ssl.errors import UserError

DISTRIBUTED = flags.DEFINE_boolean(
    'distributed', False, 'Start the same command on every host; they train as one.'
)
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0; pods know it.')
PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes; pods know it.')
PROCESS = flags.DEFINE_integer('process', None, 'The number of this process; pods know it.')


def main(config: Config, workdir: pathlib.Path) -> None:
    """Runs config.mode in the workdir and prints the result."""
    if DISTRIBUTED.value:
        jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    first = jax.process_index() == 0
    with checkpoint.lock(workdir) if first else contextlib.nullcontext():
        result = run(config, workdir)
    if first:
        print_result(result, workdir)


def run(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains and evaluates, or evaluates alone; what result.json holds. Data before weights."""
    # Slow imports wait until flags and fields are known to be right.
    from rank_ssl import anchor, data

    say = logs.Progress(config.steps).message
    with _first_process_first():
        prepared = data.prepare(config, str(workdir))
    splits = data.load_splits(config, *prepared)
    if splits.partial:
        say('the copy of the data set is incomplete: results say so')
    if config.regime == 'ridge':
        if done := anchor.finished(config, workdir, splits):
            say('nothing to do: these features are fitted')
            return done
        return anchor.run_anchor(config, workdir, splits)
    *before, last = config.stages() if config.mode == 'train' else [config]
    for stage in before:
        folder = workdir / stage.regime
        last = dataclasses.replace(last, init_from=str(folder))
        if checkpoint.saved_steps(workdir / 'checkpoints'):
            continue  # the last stage has begun: what it began from stays as it was
        say(f'stage {stage.regime} in {folder}')
        folder.mkdir(exist_ok=True)
        run_stage(stage, folder, splits)
    return run_stage(last, workdir, splits)


def run_stage(config: Config, workdir: pathlib.Path, splits: Any) -> dict[str, Any]:
    """One regime from its first step, or from where its workdir left it, to its results."""
    from rank_ssl import results, train

    say = logs.Progress(config.steps).message
    this = train.create_run(config, workdir, splits)
    step = this.start
    if step is not None:
        say(f'resumed from step {step}')
    elif config.mode == 'evaluate':
        raise UserError(f'--workdir={workdir} holds no run to evaluate: config.mode=train first')
    if config.mode == 'train':
        if step is not None and step >= config.steps and (done := finished(config, workdir, step)):
            say(f'nothing to do: step {step} of {config.steps} is reached')
            return done
        if jax.process_index() == 0:
            logs.write_json(workdir / 'config.json', config.to_dict())
        train.train(this)
    sha256 = checkpoint.params_sha256(this.state.params)
    train.restore_best(this)
    return results.finish(this, params_sha256=sha256)


def finished(config: Config, workdir: pathlib.Path, step: int) -> dict[str, Any] | None:
    """The result.json of that step, where there is one with all that the config asks for."""
    path = workdir / 'result.json'
    result = json.loads(path.read_text()) if path.exists() else {}
    tested = any(name.startswith('test/') for name in result)
    return result if result.get('steps') == step and tested >= config.evaluate_test else None


def print_result(result: dict[str, Any], workdir: pathlib.Path) -> None:
    """The metrics of a run and where the rest is, on stdout."""
    groups = ('test/', 'best/', 'final/')
    # result.json has null for nan.
    shown = {n: math.nan if v is None else v for n, v in result.items() if n.startswith(groups)}
    lines = [f'{name} {value:.4g}' for name, value in shown.items()]
    with contextlib.suppress(BrokenPipeError):
        print('\n'.join([*lines, f'results in {workdir}']), flush=True)


@contextlib.contextmanager
def _first_process_first() -> Any:
    """The other processes wait here for the first: what it prepares on a shared disk they find."""
    others = jax.process_index() > 0
    if others:
        multihost_utils.sync_global_devices('prepared')
    try:
        yield
    finally:
        # Also where the first one fails: the others then find out for themselves.
        if not others and jax.process_count() > 1:
            multihost_utils.sync_global_devices('prepared')


if __name__ == '__main__':
    cli.start(main, program='rank_ssl.main')
