"""The loop over steps with made steps: what counts as waiting, and when bad gradients end it."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from rank_ssl import parallel
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.loop import Loop, is_better
from rank_ssl.tasks.crowd import Crowd


class Value(float):
    """A metric of a step that the device may still be at work on."""

    ready = True

    def is_ready(self) -> bool:
        return self.ready


class Busy(Value):
    ready = False


class Quiet(Loop):
    """It neither validates nor saves."""

    def _validate(self, step):
        self.run.last = {'step': step}

    def _save(self, step):
        self._check_finite()


class Iterator:
    """Batches of the steps 0, 1, ..., each after some seconds."""

    def __init__(self, seconds):
        self.step, self.seconds = -1, seconds

    def ask(self, received):
        time.sleep(self.seconds)
        self.step += 1
        return self.step


@pytest.fixture
def play(monkeypatch):
    """play(values, seconds, **fields): the rows logged over so many made steps.

    `skipped` updates and `trained` seconds are of the starts before; the run is added to `runs`.
    `bad` are the steps, from 1, whose gradient is not finite; the lines told are added to `lines`;
    `save_ends` is asked with the rows so far where the loop looks at its last save.
    """
    monkeypatch.setattr(parallel, 'to_devices', lambda batch, mesh: batch)

    def run(
        values,
        *,
        bad=(),
        lines=None,
        seconds=0.0,
        save_ends=None,
        skipped=0,
        trained=0.0,
        runs=None,
        **fields,
    ):
        config = Config(task=Crowd(), steps=len(values), eval_every=0, **fields)
        state = SimpleNamespace(skipped=skipped, worst_in_a_row=0, bad_in_a_row=0, last_bad_step=0)
        run = SimpleNamespace(config=config, mesh=None, seconds=trained, state=state)
        if runs is not None:
            runs.append(run)

        def step_fn(state, batch):
            found = batch + 1 in bad
            state.skipped += found
            state.bad_in_a_row = found * (state.bad_in_a_row + 1)
            state.worst_in_a_row = max(state.worst_in_a_row, state.bad_in_a_row)
            state.last_bad_step = batch + 1 if found else state.last_bad_step
            return state, {'loss': values[batch], 'regression': Value(1), 'ranking': Value(2)}

        rows: dict[int, dict] = {}
        log = SimpleNamespace(write=lambda step, row: rows.setdefault(step, row))
        told = [] if lines is None else lines
        quiet = SimpleNamespace(line=lambda *a: None, message=told.append)
        ids = SimpleNamespace(ids=lambda step: [f'{n} of batch {step}' for n in range(12)])
        checked = SimpleNamespace(check=lambda: None if save_ends is None else save_ends(rows))
        Quiet(run, ids, Iterator(seconds), checked, quiet, log).steps(step_fn, 0, [])
        return rows

    return run


def test_while_the_device_works_nothing_waits_for_data(play):
    options = {'seconds': 0.02, 'log_every': 6, 'checkpoint_every': 100}
    idle = play([Value(1)] * 6, **options)
    busy = play([Busy(1)] * 6, **options)
    assert idle[6]['train/data_wait'] > 0.8
    assert busy[6]['train/data_wait'] == 0
    # The first step is left out: of the other five, the device was busy before two.
    some = play([Value(1), Busy(1), Value(1), Busy(1), Value(1), Value(1)], **options)
    assert some[6]['train/data_wait'] == pytest.approx(0.6, abs=0.15)


@pytest.mark.fault(
    row=6,
    injected='k bad gradients in a row, then a good one',
    outcome='stopped with the last bad step and all of its examples',
)
def test_bad_gradients_in_a_row_end_it_although_a_good_one_came_after(play):
    options = {'bad': (2, 3, 4), 'max_bad_steps': 3}
    message = (
        f'3 non-finite gradients in a row, the last one at step 4 (its examples: {examples(4)}): '
        'lower config.optim.rate='
    )
    # At the next line, and before what is bad would be saved.
    for when in ({'log_every': 5}, {'log_every': 100, 'checkpoint_every': 5}):
        with pytest.raises(UserError) as caught:
            play([Value(1)] * 6, **options, **when)
        assert str(caught.value).startswith(message)
    assert play([Value(1)] * 6, log_every=5, **options | {'max_bad_steps': 4}).keys() == {5, 6}


@pytest.mark.fault(
    row=6,
    injected='a bad gradient, once',
    outcome='a line that names the step and all of its examples',
)
def test_a_skipped_update_is_told_once_with_its_examples(play):
    lines: list[str] = []
    play([Value(1)] * 9, bad=(2, 3, 8), lines=lines, log_every=2)
    assert lines == [
        f'updates skipped so far: 1, the last one at step 2 (its examples: {examples(2)})',
        f'updates skipped so far: 2, the last one at step 3 (its examples: {examples(3)})',
        f'updates skipped so far: 3, the last one at step 8 (its examples: {examples(8)})',
    ]


def test_updates_that_were_skipped_before_a_start_are_not_told_again(play):
    lines: list[str] = []
    play([Value(1)] * 4, skipped=3, lines=lines, log_every=2)
    assert lines == []
    play([Value(1)] * 4, skipped=3, bad=(2,), lines=lines, log_every=2)
    assert lines == [
        f'updates skipped so far: 4, the last one at step 2 (its examples: {examples(2)})'
    ]


def test_seconds_are_added_to_those_of_the_starts_before(play):
    runs: list[SimpleNamespace] = []
    began = time.perf_counter()
    play([Value(1)] * 6, trained=100.0, runs=runs, seconds=0.002, log_every=2)
    took = time.perf_counter() - began
    assert 0.012 <= runs[0].seconds - 100 <= took


@pytest.mark.fault(
    row=3,
    injected='a save that fails in the background',
    outcome='told at the next line of progress, not at the next save',
)
def test_a_save_that_has_failed_is_told_at_the_next_line(play):
    def ends(rows):
        if max(rows) >= 4:
            raise UserError('the disk is full')

    with pytest.raises(UserError, match='^the disk is full$'):
        play([Value(1)] * 9, log_every=2, checkpoint_every=100, save_ends=ends)


def examples(step: int) -> str:
    return ', '.join(f'{n} of batch {step - 1}' for n in range(12))


@pytest.mark.parametrize('new, old, better', [
    (1.0, None, True), (1.0, 2.0, True), (2.0, 2.0, False), (3.0, 2.0, False),
    (np.nan, None, True), (np.nan, 2.0, False), (9.0, np.nan, True),
])  # fmt: skip
def test_the_best_is_the_first_of_the_lowest_and_never_nan_where_there_is_a_number(
    new, old, better
):
    config = Config(task=Crowd())
    assert is_better(config, {'mae': new}, None if old is None else {'mae': old}) == better
