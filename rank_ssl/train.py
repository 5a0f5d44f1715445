"""Training from a config: a run is made, resumed and trained."""

import contextlib
import math
import pathlib
from typing import Any

import jax
from jax.experimental import multihost_utils

from rank_ssl import checkpoint, logs, manifest, parallel
from rank_ssl.changes import EVALUATION, HARMLESS, in_words, since
from rank_ssl.config import Config
from rank_ssl.data import Batches, BatchIterator, Splits, view_shapes
from rank_ssl.errors import UserError
from rank_ssl.evaluate import Evaluator
from rank_ssl.loop import Loop, Run, stop_signals
from rank_ssl.models.build import build_network, initial_params
from rank_ssl.models.network import make_apply
from rank_ssl.optimizer import make_optimizer
from rank_ssl.progress import Progress, say
from rank_ssl.step import compiled_lean, create_state, make_train_step, step_of

__all__ = ['Run', 'check_unused', 'create_run', 'make_train_step', 'restore_best', 'train']


def create_run(config: Config, workdir: pathlib.Path, splits: Splits) -> Run:
    """The run where its newest whole checkpoint left it, or before its first step.

    Raises UserError where network or weights don't fit, or where the checkpoint is of a config that
    differs in more than how it is run.
    """
    saved = checkpoint.newest(workdir / 'checkpoints')
    if saved is not None:
        _check_same_run(config, workdir, splits, saved[1])
    before = _before(config, splits) if saved is None else None
    known = saved[1] if saved else before
    network, loaded = build_network(config, pixels=known['pixels'] if known else None)
    mesh = parallel.make_mesh()
    init_key, step_key = _keys(config)
    params = initial_params(network, loaded, key=init_key, size=config.task.size)
    if before is not None:
        like = {'params': params}
        folder = pathlib.Path(config.init_from) / 'best'
        params = checkpoint.restore_step(folder, before['best']['step'], like)['params']
    tx = make_optimizer(
        config.optim, params, steps=config.steps, frozen_blocks=config.model.frozen_blocks
    )
    apply_fn = make_apply(network)
    state = create_state(apply_fn, params, tx, step_key)
    evaluated = [splits.validation, *([splits.test] if config.evaluate_test else [])]
    evaluator = Evaluator(
        config.task,
        apply_fn,
        mesh,
        batch=config.eval_batch,
        threads=config.data.threads,
        shapes=[s for records in evaluated for s in view_shapes(config.task, records)],
        tile=config.eval_tile,
    )
    run = Run(config, workdir, splits, mesh, tx, evaluator, network.pixels, state)
    run.seen = splits.labeled.ids() if config.labeled else []
    run.seen += known.get('seen_ids', []) if known else []
    run.seen = sorted(set(run.seen))
    if saved is not None:
        _go_on(run, *saved)
    run.state = parallel.replicate(run.state, mesh)
    return run


def _keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """Of the initial parameters, and of the steps, which use none of those before `first_step`."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    if config.first_step:
        step_key = jax.random.fold_in(step_key, config.first_step)
    return init_key, step_key


def _before(config: Config, splits: Splits) -> checkpoint.Meta | None:
    """The meta of the run that `init_from` names, whose validation chose the step to start from.

    Raises UserError where it, or a run that it started from, has seen labels that this run is
    selected or tested by.
    """
    if not config.init_from:
        return None
    folder = pathlib.Path(config.init_from)
    before = checkpoint.of_run(folder)
    if before is None:
        raise UserError(
            f'config.init_from={folder} holds no run with a validated step: name the --workdir of '
            'a finished run'
        )
    held_out = {*splits.validation.ids(), *splits.test.ids()}
    if leaked := held_out.intersection(before['seen_ids']):
        raise UserError(
            f'config.init_from={folder} has seen the labels of {len(leaked)} images that this run '
            f'is selected or tested by, such as {min(leaked)}: start from a run of the same '
            'seed and fold'
        )
    return before


def _go_on(run: Run, step: int, meta: dict[str, Any]) -> None:
    run.start = step
    state = checkpoint.load(run.workdir / 'checkpoints' / str(step), run.state)
    # What an earlier start let pass is no fault under a lower `max_bad_steps`. A buffer of its own.
    run.state = state.replace(worst_in_a_row=state.bad_in_a_row + 0)
    run.best, run.last, run.seconds = meta['best'], meta['last'], meta['seconds']
    run.images_per_second = meta['images_per_second']
    run.position = meta['data_position']


def restore_best(run: Run) -> None:
    """Puts the best parameters by validation into the run's state.

    Raises UserError for a run that was stopped before its first validation.
    """
    if not run.best:
        raise UserError(
            f'--workdir={run.workdir} was stopped before its first validation: go on with '
            'config.mode=train first'
        )
    like = {'params': run.state.params}
    tree = checkpoint.restore_step(run.workdir / 'best', run.best['step'], like)
    run.state = run.state.replace(params=parallel.replicate(tree['params'], run.mesh))


def train(run: Run) -> None:
    """Takes the steps up to config.steps; validates, saves and logs as the config says.

    Raises Stopped after a SIGTERM, SIGINT or SIGHUP (the state is saved first; a second SIGINT ends
    at once), and UserError after `max_bad_steps` non-finite gradients in a row and where no batch
    comes any more.
    """
    config = run.config
    padded, parts = parallel.layout(config.groups, run.mesh.devices.size, config.accumulate)
    batches = Batches(config, run.splits, parallel.process_groups(padded, run.mesh))
    step_fn = compiled_lean(step_of(config, run.tx, mesh=run.mesh, parts=parts))
    first, start, best = jax.process_index() == 0, run.start or 0, run.workdir / 'best'
    gone = _best_is_gone(run)
    if first:
        # Of a start that was killed before its next save: those steps are taken again.
        checkpoint.clean(best)
        checkpoint.discard(best, [step for step in checkpoint.saved_steps(best) if step > start])
    with contextlib.ExitStack() as stack:
        # First, so that a second SIGINT ends what is closed below, too.
        received = stack.enter_context(stop_signals())
        log = logs.MetricsLog(run.workdir, resume_step=start or None) if first else None
        saver = checkpoint.Saver(
            run.workdir / 'checkpoints', keep=config.keep, best=best, start=start
        )
        loop = Loop(
            run,
            batches,
            iterator=BatchIterator(batches, config.data, start=run.position.get('next_step', 0)),
            saver=saver,
            progress=Progress(config.steps, start=start),
            log=log,
        )
        for tool in (loop.iterator, saver, loop.progress, *([log] if log else ())):
            stack.callback(tool.close)
        if gone:
            loop.choose_again()
        loop.steps(step_fn, start, received)
    if jax.process_count() > 1:
        # The others read what the first one has written.
        multihost_utils.sync_global_devices('saved')


def check_unused(workdir: pathlib.Path) -> None:
    """For a run that starts anew: raises UserError where the workdir holds what it would replace.

    That is another kind of run, and a run whose checkpoints somebody has deleted. What one left
    that was killed before its first checkpoint counts for nothing.
    """
    if checkpoint.saved_steps(workdir / 'checkpoints'):
        return
    if (workdir / 'cycle_0').is_dir():
        raise UserError(
            f'--workdir={workdir} holds cycles of active learning: go on with config.mode=active, '
            'name the last of its folders cycle_N, or use another --workdir'
        )
    cure = 'restore its folder checkpoints from a copy, or use another --workdir'
    if (workdir / 'result.json').exists():
        raise UserError(f'--workdir={workdir} holds a finished run without a checkpoint: {cure}')
    metrics = workdir / 'metrics.jsonl'
    if rows := logs.read_metrics(metrics) if metrics.exists() else []:
        known = logs.read_json(workdir / 'config.json', cure=cure) or {}
        # The first save is on the disk before the second one begins.
        if rows[-1]['step'] > 2 * known.get('checkpoint_every', math.inf):
            raise UserError(
                f'--workdir={workdir} holds a run of {rows[-1]["step"]} steps without a '
                f'checkpoint: {cure}'
            )


def _best_is_gone(run: Run) -> bool:
    """Whether somebody has deleted the best parameters. Raises UserError for damaged ones.

    Now, and not after all steps, when they are needed.
    """
    if not run.best:
        return False
    path = run.workdir / 'best' / str(run.best['step'])
    if not path.exists():
        say(f'{path} is gone: the best step is chosen again, from step {run.step} on')
        return True
    if fault := manifest.damage(path):
        raise UserError(
            f'{path}: {fault}: restore it from a copy, or delete {path.parent}: the best step is '
            f'then chosen again, from step {run.step} on'
        )
    return False


def _check_same_run(
    config: Config, workdir: pathlib.Path, splits: Splits, meta: dict[str, Any]
) -> None:
    words = in_words(since(meta['config'], config))
    free = EVALUATION if config.mode == 'evaluate' else HARMLESS
    refused = [word for name, word in words.items() if name not in HARMLESS + free]
    if refused:
        raise UserError(
            f'--workdir={workdir} holds a run of another config, {"; ".join(refused)}: '
            'use its config to go on, or another --workdir'
        )
    for name in ('fingerprint', 'unlabeled_fingerprint'):
        was = meta['data_fingerprint' if name == 'fingerprint' else name]
        now = getattr(splits, name)
        # What is only evaluated reads no unlabeled image.
        if was != now and (config.mode == 'train' or name == 'fingerprint'):
            raise UserError(
                f'--workdir={workdir} was trained on other data ({name} {was}, now {now}): restore '
                'that data, or use another --workdir'
            )
    for name, word in words.items():
        if config.mode == 'train' or name != 'init_from':
            say(f'changed since the last start: {word}')
