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
        self._check_finite(step)


@pytest.fixture
def play(monkeypatch):
    """play(values, seconds, **fields): the rows logged over so many made steps."""
    monkeypatch.setattr(parallel, 'to_devices', lambda batch, mesh: batch)

    def run(values, *, worst=(), bad=(), seconds=0.0, **fields):
        config = Config(task=Crowd(), steps=len(values), eval_every=0, **fields)
        state = SimpleNamespace(skipped=0, worst_in_a_row=0, bad_in_a_row=0)
        run = SimpleNamespace(config=config, mesh=None, seconds=0.0, state=state)
        worst, bad = worst or [0] * len(values), bad or [0] * len(values)

        def batches():
            for step in range(len(values)):
                time.sleep(seconds)
                yield step

        def step_fn(state, batch):
            state.worst_in_a_row, state.bad_in_a_row = worst[batch], bad[batch]
            return state, {'loss': values[batch], 'regression': Value(1), 'ranking': Value(2)}

        rows: dict[int, dict] = {}
        log = SimpleNamespace(write=lambda step, row: rows.setdefault(step, row))
        silent = SimpleNamespace(line=lambda *a: None, message=lambda text: None)
        ids = SimpleNamespace(ids=lambda step: [f'of {step}'])
        Quiet(run, ids, batches(), None, silent, log).steps(step_fn, 0, [])
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
    outcome='stopped with the step and its examples',
)
def test_bad_gradients_in_a_row_end_it_although_a_good_one_came_after(play):
    options = {'worst': [0, 1, 2, 3, 3, 3], 'bad': [0, 1, 2, 3, 0, 0], 'log_every': 5}
    with pytest.raises(UserError) as caught:
        play([Value(1)] * 6, max_bad_steps=3, **options)
    assert str(caught.value).startswith(
        '3 non-finite gradients in a row by step 5 (its examples: of 4): lower config.optim.rate='
    )
    assert play([Value(1)] * 6, max_bad_steps=4, **options).keys() == {5, 6}
    with pytest.raises(UserError, match='by step 4 '):  # before what is bad would be saved
        play([Value(1)] * 6, max_bad_steps=3, **options | {'log_every': 100}, checkpoint_every=4)


@pytest.mark.parametrize('new, old, better', [
    (1.0, None, True), (1.0, 2.0, True), (2.0, 2.0, False), (3.0, 2.0, False),
    (np.nan, None, True), (np.nan, 2.0, False), (9.0, np.nan, True),
])  # fmt: skip
def test_the_best_is_the_first_of_the_lowest_and_never_nan_where_there_is_a_number(
    new, old, better
):
    config = Config(task=Crowd())
    assert is_better(config, {'mae': new}, None if old is None else {'mae': old}) == better
