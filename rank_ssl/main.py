"""Runs an experiment: `python -m rank_ssl.main --config=experiments/NAME.py --workdir=DIR`.

    python -m rank_ssl.main --reproduce=DIR/reproduce.json --workdir=NEW

runs an earlier run again, also where its data and weights lie elsewhere (cli.PLACES), and says
whether the final parameters are the same bits. Exit codes: 0 done (also where nothing was left to
do), 1 they are not, 2 a mistake that one line explains, 143 after SIGTERM, 130 after SIGINT and 129
after SIGHUP, when the state has been saved (with several processes 143 in all of them after a
signal to any), and 130 after a second SIGINT, which saves nothing.
"""

import contextlib
import math
import os
import pathlib
import sys
from typing import Any

import jax
from absl import flags
from jax.experimental import multihost_utils

from rank_ssl import checkpoint, cli
from rank_ssl.config import Config
from rank_ssl.progress import say

DISTRIBUTED = flags.DEFINE_boolean(
    'distributed', False, 'Start the same command on every host; they train as one.'
)
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0; pods know it.')
PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes; pods know it.')
PROCESS = flags.DEFINE_integer('process', None, 'The number of this process; pods know it.')
REPRODUCE = flags.DEFINE_string('reproduce', None, 'reproduce.json of a run to be run again.')


def main(config: Config, workdir: pathlib.Path) -> None:
    """Runs config.mode in the workdir and prints the result."""
    if config.deterministic:
        # Read when the first device is asked for.
        flag = '--xla_gpu_deterministic_ops=true'
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'.strip()
    if DISTRIBUTED.value:
        jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    first = jax.process_index() == 0
    with checkpoint.lock(workdir) if first else contextlib.nullcontext():
        result = run(config, workdir)
        if first:
            conclude(config, workdir, result)


def conclude(config: Config, workdir: pathlib.Path, result: dict[str, Any]) -> None:
    """Prints the result, and completes reproduce.json while the workdir is still this run's."""
    print_result(result, workdir)
    if config.mode != 'evaluate' and (REPRODUCE.value or (workdir / 'reproduce.json').exists()):
        from rank_ssl import reproduce

        noted = reproduce.complete(workdir, result)
        if REPRODUCE.value and not reproduce.tell(reproduce.read(REPRODUCE.value)[1], noted):
            sys.exit(1)


def run(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Does what config.mode says, data before weights; what result.json holds."""
    # Slow imports wait until flags and fields are known to be right.
    from rank_ssl import anchor, data, reproduce, stages, train
    from rank_ssl.active import cycles

    command, again = cli.config_words(sys.argv), None
    if REPRODUCE.value:
        first = reproduce.read(REPRODUCE.value)[1]
        command, again = first.get('command', []) + command, first['params_sha256']
        reproduce.check_new(workdir, again)
    with _first_process_first():
        prepared = data.prepare(config, str(workdir))
    splits = data.load_splits(config, *prepared)

    def note() -> None:
        if jax.process_index() == 0:
            reproduce.note(config, workdir, splits, command=command, again=again)

    if splits.partial:
        say('the copy of the data set is incomplete: results say so')
    if config.regime == 'ridge':
        if done := anchor.finished(config, workdir, splits):
            say('nothing to do: these features are fitted')
            return done
        result = anchor.run_anchor(config, workdir, splits)
        note()
        return result
    if config.mode == 'active':
        return cycles.run_cycles(config, workdir, splits, prepared, accepted=note)
    train.check_unused(workdir)
    return stages.run_stages(config, workdir, splits, accepted=note).result


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

    def config_of() -> Config:
        """That of --config, or that of the run to be run again."""
        if not REPRODUCE.value:
            return cli.CONFIG.value
        from rank_ssl import reproduce

        return reproduce.read(REPRODUCE.value)[0]

    try:
        cli.start(main, program='rank_ssl.main', instead='reproduce', config_of=config_of)
    except SystemExit as end:
        if 'rank_ssl.data' in sys.modules:
            from rank_ssl.data import end_process

            end_process(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
