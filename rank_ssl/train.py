"""Training: the loop around the step, with validation, checkpoints and a log."""

import contextlib
import dataclasses
import math
import pathlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

from rank_ssl import checkpoint, logs, parallel
from rank_ssl.config import HARMLESS, Config, differences
from rank_ssl.data import Batches, BatchIterator, Examples, Splits
from rank_ssl.errors import Stopped, UserError
from rank_ssl.evaluate import Evaluation, Evaluator
from rank_ssl.models.build import build_network, initial_params
from rank_ssl.models.network import make_apply
from rank_ssl.optimizer import make_optimizer
from rank_ssl.step import create_state, make_train_step
from rank_ssl.types import TrainState

__all__ = ['Run', 'create_run', 'make_train_step', 'resume', 'restore_best', 'train']


@dataclasses.dataclass
class Run:
    """What a run is made of. `state`, `best`, `position` and `seconds` change while it trains."""

    config: Config
    workdir: pathlib.Path
    splits: Splits
    mesh: Any
    tx: Any
    state: TrainState
    evaluator: Evaluator
    best: dict[str, Any] = dataclasses.field(default_factory=dict)  # step and validation metrics
    last: dict[str, float] = dataclasses.field(default_factory=dict)  # newest validation metrics
    position: dict[str, int] = dataclasses.field(default_factory=dict)  # of the data
    seconds: float = 0.0  # of training, over all starts
    images: int = 0  # forwarded in them

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.state.step)


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
    found = checkpoint.restore(run.workdir / 'checkpoints', run.state)
    if found is None:
        return None
    step, state, meta = found
    _check_same_run(run, meta)
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
    step, tree, _ = found
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
    iterator = BatchIterator(batches, config.data, start=run.position.get('next_step', 0))
    with (
        contextlib.closing(iterator),
        contextlib.closing(
            checkpoint.Saver(run.workdir / 'checkpoints', keep=config.keep)
        ) as saver,
        contextlib.closing(logs.Progress(config.steps, start=start)) as progress,
        _metrics_log(run, start) as log,
        _signals() as received,
    ):
        _loop(run, start, step_fn, iterator, batches, saver, progress, log, received)


def _loop(
    run: Run,
    start: int,
    step_fn: Any,
    iterator: BatchIterator,
    batches: Batches,
    saver: checkpoint.Saver,
    progress: logs.Progress,
    log: Any,
    received: list[int],
) -> None:
    config, meter = run.config, logs.RateMeter()
    images = config.data.groups * (config.ranked + config.labeled)
    began, before = time.perf_counter(), run.seconds
    for step in range(start + 1, config.steps + 1):
        with meter.waiting():
            batch = next(iterator)
        run.state, metrics = step_fn(run.state, parallel.to_devices(batch, run.mesh))
        last = step == config.steps
        due = step % config.log_every == 0 or last
        if due:
            # Reading a metric waits for the device; between log lines the host runs ahead.
            values = {name: float(value) for name, value in metrics.items()}
        meter.add(images)
        run.images += images
        if due:
            _log_step(run, step, values, meter, progress, log)
            _check_finite(run, step, batches)
        if last or (config.eval_every and step % config.eval_every == 0):
            _validate(run, step, progress, log)
        run.seconds = before + time.perf_counter() - began
        if last or received or step % config.checkpoint_every == 0:
            _check_finite(run, step, batches)
            run.position = iterator.position
            saver.save(step, run.state, _meta(run))
        if received:
            saver.wait()
            raise Stopped(received[0])


def _log_step(
    run: Run,
    step: int,
    values: dict[str, float],
    meter: logs.RateMeter,
    progress: logs.Progress,
    log: Any,
) -> None:
    # A regime shows the losses it has.
    if not run.config.labeled:
        values.pop('regression')
    if not run.config.ranked:
        values.pop('ranking')
        values.pop('rank_accuracy')
    skipped = int(run.state.skipped)
    rate, waiting = meter.images_per_second, meter.waiting_share
    row = {f'train/{name}': value for name, value in values.items()}
    speed = {'train/images_per_second': rate, 'train/data_wait': waiting}
    log.write(step, row | speed | {'train/skipped': skipped})
    shown = {name: value for name, value in values.items() if name != 'grad_norm'}
    extra = {'waiting': waiting} | ({'skipped': skipped} if skipped else {})
    progress.line(step, rate, shown | extra)


def _validate(run: Run, step: int, progress: logs.Progress, log: Any) -> None:
    found = validate(run)
    run.last = found.metrics
    log.write(step, {f'val/{name}': value for name, value in found.metrics.items()})
    words = ', '.join(f'{name} {value:.4g}' for name, value in found.metrics.items())
    progress.message(f'validation at step {step}: {words}')
    if _better(run.config, found.metrics, run.best.get('metrics')):
        run.best = {'step': step, 'metrics': found.metrics}
        folder = run.workdir / 'best'
        checkpoint.save(folder, step, {'params': run.state.params}, {'best': run.best})
        if jax.process_index() == 0:
            checkpoint.prune(folder, 1)


def validate(run: Run) -> Evaluation:
    """The state's predictions on the validation split."""
    examples = Examples(run.splits.validation, run.config.task, run.config.seed)
    return run.evaluator(run.state.params, examples)


def _better(config: Config, new: dict[str, float], old: dict[str, float] | None) -> bool:
    value = new[config.task.best]
    if old is None or not math.isfinite(old[config.task.best]):
        return True
    if config.task.lower_is_better:
        return value < old[config.task.best]
    return value > old[config.task.best]


def _check_finite(run: Run, step: int, batches: Batches) -> None:
    bad = int(run.state.bad_in_a_row)
    if bad >= run.config.max_bad_steps:
        ids = ', '.join(batches.ids(step - 1)[:10])
        raise UserError(
            f'{bad} non-finite gradients in a row up to step {step} (examples {ids}): lower '
            f'config.optim.rate={run.config.optim.rate:g} or set config.optim.clip_norm; the last '
            'checkpoint is kept'
        )


def _meta(run: Run) -> dict[str, Any]:
    return {
        'data_position': run.position,
        'best': run.best,
        'last': run.last,
        'seconds': run.seconds,
        'images': run.images,
        'config': run.config.to_dict(),
        'data_fingerprint': run.splits.fingerprint,
        'labeled_ids': run.splits.labeled.ids(),
    }


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


def _metrics_log(run: Run, start: int) -> Any:
    if jax.process_index() == 0:
        return logs.MetricsLog(run.workdir, resume_step=start or None)
    return _NoLog()


class _NoLog(contextlib.AbstractContextManager):
    """The other processes of a run leave the log to the first."""

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        return None


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT add their number to; a second SIGINT acts at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
