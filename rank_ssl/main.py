"""Runs an experiment: `python -m rank_ssl.main --config=experiments/NAME.py --workdir=DIR`.

Exit codes: 0 done (also where nothing was left to do), 2 a mistake that one line explains, 128 plus
the signal's number after SIGTERM or SIGINT, when the state has been saved.
"""

import contextlib
import json
import pathlib
import sys
from typing import Any

import jax

from rank_ssl import checkpoint, cli, logs
from rank_ssl.config import Config


def main(config: Config, workdir: pathlib.Path) -> None:
    """Runs config.mode in the workdir and prints the result."""
    first = jax.process_index() == 0
    with checkpoint.lock(workdir) if first else contextlib.nullcontext():
        result = run(config, workdir)
    if first:
        print_result(result, workdir)


def run(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains and evaluates, or evaluates alone; what result.json holds. Data before weights."""
    # Slow imports wait until flags and fields are known to be right.
    from rank_ssl import data, results, train

    splits = data.load_splits(config, *data.prepare(config, str(workdir)))
    if splits.partial:
        print('the copy of the data set is incomplete: results say so', file=sys.stderr)
    this = train.create_run(config, workdir, splits)
    step = train.resume(this)
    if step is not None:
        print(f'resumed from step {step}', file=sys.stderr)
    if config.mode == 'train':
        if step is not None and step >= config.steps and (workdir / 'result.json').exists():
            print(f'nothing to do: step {step} of {config.steps} is reached', file=sys.stderr)
            return json.loads((workdir / 'result.json').read_text())
        logs.write_json(workdir / 'config.json', config.to_dict())
        train.train(this, start=step or 0)
    sha256 = checkpoint.params_sha256(this.state.params)
    best_step = train.restore_best(this)
    return results.finish(this, params_sha256=sha256, best_step=best_step)


def print_result(result: dict[str, Any], workdir: pathlib.Path) -> None:
    """The metrics of a run and where the rest is, on stdout."""
    groups = ('test/', 'best/', 'final/')
    lines = [f'{n} {v:.4g}' for n, v in result.items() if n.startswith(groups)]
    with contextlib.suppress(BrokenPipeError):
        print('\n'.join([*lines, f'results in {workdir}']), flush=True)


if __name__ == '__main__':
    cli.start(main, program='rank_ssl.main')
