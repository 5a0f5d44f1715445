"""The best parameters are those that the run names, whatever else lies in best/."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rank_ssl import checkpoint, parallel, step, train
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.tasks.crowd import Crowd


@pytest.fixture
def run(tmp_path):
    """A run whose best step is 3, between others in best/."""
    for number in (1, 3, 5, 999):
        tree = {'params': {'conv': np.full((2, 2), number, np.float32)}}
        checkpoint.save(tmp_path / 'best', number, tree, {'best': {'step': number}})
    params = {'conv': np.zeros((2, 2), np.float32)}
    state = step.create_state(lambda params, image: image, params, optax.sgd(1), jax.random.key(0))
    mesh = parallel.make_mesh(jax.devices()[:1])
    return SimpleNamespace(workdir=tmp_path, best={'step': 3}, state=state, mesh=mesh)


def test_the_best_parameters_are_of_the_step_that_the_run_names(run):
    train.restore_best(run)
    np.testing.assert_array_equal(run.state.params['conv'], np.full((2, 2), 3))
    assert run.best == {'step': 3}


def unused(workdir) -> str:
    with pytest.raises(UserError) as caught:
        train.check_unused(workdir)
    return str(caught.value)


def rows(workdir, steps: int, every: int) -> None:
    (workdir / 'config.json').write_text(json.dumps({'checkpoint_every': every}))
    lines = [json.dumps({'step': number + 1}) + '\n' for number in range(steps)]
    (workdir / 'metrics.jsonl').write_text(''.join(lines))


def test_what_another_kind_of_run_left_is_not_replaced(tmp_path):
    train.check_unused(tmp_path)
    (tmp_path / 'cycle_0').mkdir()
    assert unused(tmp_path) == (
        f'--workdir={tmp_path} holds cycles of active learning: go on with config.mode=active, '
        'name the last of its folders cycle_N, or use another --workdir'
    )


@pytest.mark.fault(
    row=4,
    injected='the folder checkpoints of a run that has not ended deleted',
    outcome='refused, unless it was killed before its first checkpoint',
)
def test_a_run_that_has_lost_its_checkpoints_is_not_begun_again(tmp_path):
    rows(tmp_path, 6, every=3)
    train.check_unused(tmp_path)  # killed while it wrote the first
    rows(tmp_path, 7, every=3)
    assert unused(tmp_path) == (
        f'--workdir={tmp_path} holds a run of 7 steps without a checkpoint: restore its folder '
        'checkpoints from a copy, or use another --workdir'
    )


SPLITS = SimpleNamespace(fingerprint='f', unlabeled_fingerprint='u')


@pytest.mark.parametrize(
    'name, modes', [('fingerprint', ['train', 'evaluate']), ('unlabeled_fingerprint', ['train'])]
)
def test_other_data_are_refused_where_they_are_read(tmp_path, name, modes):
    config = Config(task=Crowd())
    meta = {'config': config.to_dict(), 'data_fingerprint': 'f', 'unlabeled_fingerprint': 'u'}
    train._check_same_run(config, tmp_path, SPLITS, meta)
    other = SimpleNamespace(**{**vars(SPLITS), name: 'x'})
    for mode in ('train', 'evaluate'):
        config.mode = mode
        if mode in modes:
            with pytest.raises(UserError, match=f'trained on other data .{name} [fu], now x.: '):
                train._check_same_run(config, tmp_path, other, meta)
        else:
            train._check_same_run(config, tmp_path, other, meta)


def test_steps_after_others_have_random_draws_of_their_own():
    first, later = (train._keys(Config(task=Crowd(), first_step=n)) for n in (0, 8))
    (init, step), (init_later, step_later) = (
        map(jax.random.key_data, first),
        map(jax.random.key_data, later),
    )
    np.testing.assert_array_equal(init, init_later)
    assert (np.asarray(step) != np.asarray(step_later)).any()


@pytest.mark.fault(
    row=6,
    injected='a lower max_bad_steps than a run has had bad gradients in a row, which it let pass',
    outcome='it goes on: only those that come now count',
)
def test_bad_gradients_that_an_earlier_start_let_pass_end_no_later_one(run):
    bad = {'worst_in_a_row': 3, 'bad_in_a_row': 1, 'skipped': 4}
    run.state = run.state.replace(**{name: jnp.int32(n) for name, n in bad.items()})
    checkpoint.save(run.workdir / 'checkpoints', 7, run.state, {})
    meta = {'best': {}, 'last': {}, 'seconds': 1.0, 'images_per_second': 1.0, 'data_position': {}}
    train._go_on(run, 7, meta)
    state = run.state
    assert (state.worst_in_a_row, state.bad_in_a_row, state.skipped) == (1, 1, 4)


def test_without_them_there_is_no_result(run):
    run.best = {'step': 4}
    with pytest.raises(UserError, match=f'{run.workdir / "best" / "4"}: its manifest.json cannot'):
        train.restore_best(run)
    run.best = {}
    with pytest.raises(UserError) as caught:
        train.restore_best(run)
    assert str(caught.value) == (
        f'--workdir={run.workdir} was stopped before its first validation: go on with '
        'config.mode=train first'
    )
