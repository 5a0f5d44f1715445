"""The steps of a run, one after another: what is logged, validated and saved between them."""

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

from rank_ssl import checkpoint, logs, parallel
from rank_ssl.config import Config
from rank_ssl.data import Batches, BatchIterator, Examples, Splits, leave_at_once
from rank_ssl.errors import Stopped, UserError
from rank_ssl.evaluate import Evaluation, Evaluator
from rank_ssl.progress import Progress, RateMeter
from rank_ssl.types import TrainState


@dataclasses.dataclass
class Run:
    """What a run is made of; from `state` on the fields change while it trains."""

    config: Config
    workdir: pathlib.Path
    splits: Splits
    mesh: Any
    tx: Any
    evaluator: Evaluator
    pixels: str  # the convention that the network's input is in
    state: TrainState
    best: dict[str, Any] = dataclasses.field(default_factory=dict)  # step and validation metrics
    last: dict[str, float] = dataclasses.field(default_factory=dict)  # newest validation metrics
    position: dict[str, int] = dataclasses.field(default_factory=dict)  # of the data
    seconds: float = 0.0  # of training, over all starts
    images_per_second: float = math.nan  # over the last steps, validation left out
    start: int | None = None  # the step it went on from; None for a fresh one
    seen: list[str] = dataclasses.field(default_factory=list)  # whose labels made the parameters

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.state.step)


@dataclasses.dataclass
class Loop:
    """A run with the tools it needs while it trains; `log` is None but on the first process."""

    run: Run
    batches: Batches
    iterator: BatchIterator
    saver: checkpoint.Saver
    progress: Progress
    log: logs.MetricsLog | None
    told: int = 0  # skipped updates that a line has named

    def steps(self, step_fn: Callable, start: int, received: list[int]) -> None:
        """Takes the steps after `start`. Raises Stopped when a signal is received.

        The state is saved first: that after the step at work or, where that step still waits for
        its batch, that after the one before.
        """
        run, config, meter = self.run, self.run.config, RateMeter()
        metrics: dict[str, Any] = {}
        images = config.groups * (config.ranked + config.labeled)
        began, before, saved = time.perf_counter(), run.seconds, start
        self.told = int(run.state.skipped)
        for step in range(start + 1, config.steps + 1):
            asked = time.perf_counter()
            batch = self.iterator.ask(received)
            if batch is None:
                if saved < step - 1:
                    self._save(step - 1)
                self._stop(received[0])
            # While the device still works on the steps before, nothing waits for data.
            if step == start + 1 or metrics['loss'].is_ready():
                meter.waited(time.perf_counter() - asked)
            run.state, metrics = step_fn(run.state, parallel.to_devices(batch, run.mesh))
            last = step == config.steps
            stop = _agreed_stop(received, step)
            due = last or step % config.log_every == 0
            if due:
                # Reading a metric waits for the device; between log lines the host runs ahead.
                values = {name: float(value) for name, value in metrics.items()}
            meter.add(images)
            if due:
                self._log_step(step, values, meter)
                self.saver.check()
            if last or (config.eval_every and step % config.eval_every == 0):
                self._validate(step)
                meter = RateMeter()  # validation is no training time
            run.seconds = before + time.perf_counter() - began
            if last or stop or step % config.checkpoint_every == 0:
                self._save(step)
                saved = step
            if stop:
                self._stop(stop)

    def _stop(self, number: int) -> NoReturn:
        self.saver.wait()
        raise Stopped(number)

    def _log_step(self, step: int, values: dict[str, float], meter: RateMeter) -> None:
        config, skipped = self.run.config, int(self.run.state.skipped)
        # A regime shows the losses it has.
        absent = [] if config.labeled else ['regression']
        absent += [] if config.ranked else ['ranking', 'rank_accuracy']
        row = {name: value for name, value in values.items() if name not in absent}
        speed = {'images_per_second': meter.images_per_second, 'data_wait': meter.waiting_share}
        self.run.images_per_second = meter.images_per_second
        self._write(step, 'train', row | speed | {'skipped': skipped})
        shown = {name: value for name, value in row.items() if name != 'grad_norm'}
        extra = {'waiting': meter.waiting_share} | ({'skipped': skipped} if skipped else {})
        self.progress.line(step, meter.images_per_second, shown | extra)
        self._check_finite()
        if skipped > self.told:
            self.told = skipped
            self.progress.message(f'updates skipped so far: {skipped}, {self._last_bad()}')

    def _validate(self, step: int) -> None:
        run = self.run
        run.last = found = _main_metrics(validate(run))
        self._write(step, 'val', found)
        words = ', '.join(f'{name} {value:.4g}' for name, value in found.items())
        self.progress.message(f'validation at step {step}: {words}')
        if is_better(run.config, found, run.best.get('metrics')):
            self._keep_best(step, found)

    def choose_again(self) -> None:
        """Takes the state's parameters for the best ones: those that were are gone."""
        self._keep_best(self.run.step, _main_metrics(validate(self.run)))

    def _keep_best(self, step: int, found: dict[str, float]) -> None:
        run = self.run
        run.best = {'step': step, 'metrics': found}
        folder = run.workdir / 'best'
        checkpoint.save(folder, step, {'params': run.state.params}, self._identity())

    def _save(self, step: int) -> None:
        run = self.run
        self._check_finite()
        run.position = self.iterator.position
        meta = {
            'data_position': run.position,
            'last': run.last,
            'seconds': run.seconds,
            'images_per_second': run.images_per_second,
        }
        self.saver.save(step, run.state, self._identity() | meta)

    def _identity(self) -> dict[str, Any]:
        """What parameters are of, for those that start from them or ask them."""
        run = self.run
        return {
            'best': run.best,
            'pixels': run.pixels,
            'config': run.config.to_dict(),
            'data_fingerprint': run.splits.fingerprint,
            'unlabeled_fingerprint': run.splits.unlabeled_fingerprint,
            'labeled_ids': run.splits.labeled.ids(),
            'seen_ids': run.seen,
        }

    def _check_finite(self) -> None:
        config, bad = self.run.config, int(self.run.state.worst_in_a_row)
        if bad >= config.max_bad_steps:
            raise UserError(
                f'{bad} non-finite gradients in a row, {self._last_bad()}: lower '
                f'config.optim.rate={config.optim.rate:g} or set config.optim.clip_norm; the last '
                'checkpoint is kept'
            )

    def _last_bad(self) -> str:
        """The step whose update was skipped last, and its examples: those of this process."""
        step = int(self.run.state.last_bad_step)
        ids = ', '.join(self.batches.ids(step - 1))
        return f'the last one at step {step} (its examples: {ids})'

    def _write(self, step: int, group: str, values: dict[str, float]) -> None:
        if self.log is not None:
            self.log.write(step, {f'{group}/{name}': value for name, value in values.items()})


def validate(run: Run) -> Evaluation:
    """The state's predictions on the validation split."""
    examples = Examples(run.splits.validation, run.config.task, run.config.seed)
    return run.evaluator(run.state.params, examples)


def _main_metrics(found: Evaluation) -> dict[str, float]:
    """Those over all images: those of single kinds are for the tables of the end."""
    return {name: value for name, value in found.metrics.items() if '/' not in name}


def is_better(config: Config, new: dict[str, float], old: dict[str, float] | None) -> bool:
    """Whether the task's metric is better than before; anything is better than nan.

    Ranking alone sees no label, so nothing can choose among its steps: the last one stands.
    """
    name = config.task.best
    if old is None or config.regime == 'ranking' or not math.isfinite(old[name]):
        return True
    return new[name] < old[name] if config.task.lower_is_better else new[name] > old[name]


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that SIGTERM, SIGINT and SIGHUP add their number to; a SIGINT after one ends all.

    The process then ends at once, with its workers and exit code 130. A SIGHUP (the terminal is
    gone) that was ignored before, as nohup has it, stays so. With several processes the list stays
    empty: a SIGTERM is jax's, which agrees on a step with the others, and the first of the other
    signals becomes one. So it waits there for data that hang, up to `data.silence` seconds.
    """
    received: list[int] = []
    alone = jax.process_count() == 1

    def note(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            leave_at_once(128 + number)
        received.append(number)
        if not alone:
            os.kill(os.getpid(), signal.SIGTERM)

    numbers = [signal.SIGINT, *([signal.SIGTERM] if alone else [])]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    old = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received if alone else []
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _agreed_stop(received: list[int], step: int) -> int:
    """The signal to stop for after this step, 0 for none; the same on all processes."""
    if jax.process_count() > 1:
        return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0
    return received[0] if received else 0
