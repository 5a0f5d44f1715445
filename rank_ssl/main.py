"""Runs an experiment: `python -m rank_ssl.main --config=experiments/NAME.py --workdir=DIR`.

Exit codes: 0 done (also where nothing was left to do), 2 a mistake that one line explains, 128 plus
the signal's number after SIGTERM or SIGINT, when the state has been saved.
"""

import contextlib
import math
import pathlib
from typing import Any

import jax
from absl import flags
from jax.experimental import multihost_utils

from rank_ssl import checkpoint, cli, logs
from rank_ssl.config import Config

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
    """Does what config.mode says, data before weights; what result.json holds."""
    # Slow imports wait until flags and fields are known to be right.
    from rank_ssl import active, anchor, data, stages

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
    if config.mode == 'active':
        return active.run_cycles(config, workdir, splits, prepared)
    return stages.run_stages(config, workdir, splits).result


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
