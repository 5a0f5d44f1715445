"""Training from a config: a run is made, resumed and trained."""

import contextlib
import functools
import pathlib
import sys
from typing import Any

import jax

from rank_ssl import checkpoint, logs, parallel
from rank_ssl.config import HARMLESS, Config, differences
from rank_ssl.data import Batches, BatchIterator, Splits
from rank_ssl.errors import UserError
from rank_ssl.evaluate import Evaluator
from rank_ssl.loop import Loop, Run, stop_signals
from rank_ssl.models.build import build_network, initial_params
from rank_ssl.models.network import make_apply
from rank_ssl.optimizer import make_optimizer
from rank_ssl.step import create_state, make_train_step

__all__ = ['Run', 'create_run', 'make_train_step', 'restore_best', 'resume', 'train']


def create_run(config: Config, workdir: pathlib.Path, splits: Splits) -> Run:
    """The run before its first step. Raises UserError where network or weights don't fit."""
    network, loaded = build_network(config)
    mesh = parallel.make_mesh()
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    params = initial_params(network, loaded, key=init_key, size=config.task.size)
    tx = make_optimizer(
        config.optim, params, steps=config.steps, frozen_blocks=config.model.frozen_blocks
    )
    apply_fn = make_apply(network)
    state = create_state(apply_fn, params, tx, step_key)
    evaluator = Evaluator(
        config.task, apply_fn, mesh, batch=config.eval_batch, threads=config.data.threads
    )
    return Run(config, workdir, splits, mesh, tx, parallel.replicate(state, mesh), evaluator)


def resume(run: Run) -> int | None:
    """Brings a run to its newest whole checkpoint; the step it stands at, None for a fresh start.

    Raises UserError where the checkpoint is of a config that differs in more than how it is run.
    """
    check = functools.partial(_check_same_run, run)
    found = checkpoint.restore(run.workdir / 'checkpoints', run.state, check=check)
    if found is None:
        return None
    step, state, meta = found
    run.state = parallel.replicate(state, run.mesh)
    run.best, run.last, run.seconds = meta['best'], meta['last'], meta['seconds']
    run.images = meta['images']
    run.position = meta['data_position']
    return step


def restore_best(run: Run) -> int:
    """Puts the best parameters by validation into the run's state; the step they are from."""
    found = checkpoint.restore(run.workdir / 'best', {'params': run.state.params})
    if found is None:
        raise UserError(
            f'{run.workdir / "best"} holds no checkpoint: train first (config.mode=train)'
        )
    step, tree, meta = found
    run.best = meta['best']
    run.state = run.state.replace(params=parallel.replicate(tree['params'], run.mesh))
    return step


def train(run: Run, *, start: int) -> None:
    """Takes the steps from `start` to config.steps; validates, saves and logs as the config says.

    Raises Stopped after a SIGTERM or SIGINT (the state is saved first; a second SIGINT ends at
    once), and UserError after `max_bad_steps` non-finite gradients in a row.
    """
    config = run.config
    padded, parts = parallel.layout(config.data.groups, run.mesh.devices.size, config.accumulate)
    batches = Batches(config, run.splits, parallel.process_groups(padded, run.mesh))
    step_fn = make_train_step(
        config.task,
        run.tx,
        rank_weight=config.rank_weight,
        margin=config.margin,
        reduction=config.reduction,
        mesh=run.mesh,
        parts=parts,
    )
    first = jax.process_index() == 0
    if first:
        checkpoint.clean(run.workdir / 'best')
    with contextlib.ExitStack() as stack:
        log = logs.MetricsLog(run.workdir, resume_step=start or None) if first else None
        saver = checkpoint.Saver(run.workdir / 'checkpoints', keep=config.keep)
        loop = Loop(
            run,
            batches,
            iterator=BatchIterator(batches, config.data, start=run.position.get('next_step', 0)),
            saver=saver,
            progress=logs.Progress(config.steps, start=start),
            log=log,
        )
        for tool in (loop.iterator, saver, loop.progress, *([log] if log else ())):
            stack.callback(tool.close)
        loop.steps(step_fn, start, stack.enter_context(stop_signals()))


def _check_same_run(run: Run, meta: dict[str, Any]) -> None:
    changed = differences(meta['config'], run.config.to_dict())
    words = [f'config.{name} from {old} to {new}' for name, (old, new) in changed.items()]
    refused = [word for name, word in zip(changed, words, strict=True) if name not in HARMLESS]
    if refused:
        raise UserError(
            f'--workdir={run.workdir} holds a run of another config, {"; ".join(refused)}: '
            'use its config to go on, or another --workdir'
        )
    if meta['data_fingerprint'] != run.splits.fingerprint:
        raise UserError(
            f'--workdir={run.workdir} was trained on other data (fingerprint '
            f'{meta["data_fingerprint"]}, now {run.splits.fingerprint}): restore that data, or use '
            'another --workdir'
        )
    for word in words:
        print(f'changed since the last start: {word}', file=sys.stderr)
