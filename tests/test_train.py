"""The best parameters are those that the run names, whatever else lies in best/."""

from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from rank_ssl import checkpoint, parallel, step, train
from rank_ssl.errors import UserError


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
