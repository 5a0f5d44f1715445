"""What a network says of units: forwards counted, differences and draws against one by one."""

import functools
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from rank_ssl.active import measures
from rank_ssl.active.measures import dropped
from rank_ssl.active.rules import certainty_of
from rank_ssl.config import Config
from rank_ssl.data import CertaintySets, Examples, Units
from rank_ssl.models.build import build_network
from rank_ssl.models.network import make_apply
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA
from tests.topologies import facts, facts_of_two, start

SCRIPT = Path(__file__).with_name('made_units.py')
MADE = runpy.run_path(str(SCRIPT))
config_of, measured = MADE['config_of'], MADE['measured']
crowd_records, quality_records = MADE['crowd_records'], MADE['quality_records']


def asked(config: Config, units: Units, *, pairs: int | None = None) -> list[dict]:
    count = config.active.pairs if pairs is None else pairs
    sets = CertaintySets(
        config.task, units, range(len(units)), seed=config.seed, step=7, pairs=count
    )
    return [sets[n] for n in range(len(units))]


TASKS = {
    'anchors': (Crowd(size=32), crowd_records, 50, 100),
    'nested': (Crowd(size=32, asked='nested'), crowd_records, 15, 105),
    'levels': (IQA(size=32, head_std=1.0), quality_records, 20, 160),
}


@pytest.mark.parametrize('name', TASKS)
def test_forwards_and_pairs_of_a_unit(name, monkeypatch):
    task, make, forwards, pairs = TASKS[name]
    config = config_of(task)
    units = Units(task, make())
    every = asked(config, units, pairs=0)
    assert all(len(one['views'].images) == forwards for one in every)
    assert all(len(one['pairs']) == pairs for one in every)
    assert all(len(one['pairs']) == min(pairs, 100) for one in asked(config, units))

    counted = []

    def counting(network):
        def apply(params, image, **options):
            counted.append(image.shape)
            return make_apply(network)(params, image, **options)

        return apply

    monkeypatch.setattr(measures, 'make_apply', counting)
    measured_, *_ = measured(config, make())
    lowered = []
    sweep = measures.Sweep

    def noting(function, mesh, **options):
        def noted(params, images, valid):
            lowered.append(images.shape)
            return function(params, images, valid)

        return sweep(noted, mesh, **options)

    monkeypatch.setattr(measures, 'Sweep', noting)
    assert measured_.differences.shape == (len(units), min(pairs, 100))
    # One program, a unit at a time, each of its images through the network once.
    assert lowered == [(1, forwards, 32, 32, 3)] and counted == [(32, 32, 3)]


@pytest.mark.parametrize('name', TASKS)
def test_differences_are_those_of_images_forwarded_one_by_one(name):
    task, make, *_ = TASKS[name]
    config = config_of(task)
    found, units, params = measured(config, make())
    network, _ = build_network(config, pixels='torch')
    score = jax.jit(lambda image: task.score(make_apply(network)(params, image)))
    for n, one in enumerate(asked(config, units)):
        y = np.array([float(score(image)) for image in one['views'].images])
        expected = [y[j] - y[i] for i, j in one['pairs']]
        np.testing.assert_allclose(found.differences[n], expected, rtol=1e-3, atol=1e-4)
    assert certainty_of(found.differences).shape == (len(units),)


def test_units_of_quality_are_the_levels_of_a_reference_and_a_type():
    task, records = IQA(size=32), quality_records()
    units = Units(task, records)
    assert len(units) == 4 and sorted(map(len, units.rows)) == [5] * 4
    kinds = {(records.annotations[row]['reference'], records.annotations[row]['kind'])
             for row in units.rows[0]}  # fmt: skip
    assert len(kinds) == 1 and units.names[0] == '/'.join(kinds.pop())
    ids = units.ids([0, 2])
    assert len(ids) == 10 and len(set(ids)) == 10


def test_units_of_unequal_size_are_asked_apart():
    records = quality_records()
    fewer = records.take(n for n in range(len(records)) if n not in (0, 7, 9))
    config = config_of(IQA(size=32, head_std=1.0))
    found, units, _ = measured(config, fewer)
    sizes = [len(one['pairs']) for one in asked(config, units)]
    assert len(set(map(len, units.rows))) > 1
    assert np.isfinite(found.differences).sum(1).tolist() == sizes


def test_a_photo_without_levels_is_asked_with_ladders_of_its_own():
    task = IQA(size=32, ladder='live')
    record = {k: v for k, v in quality_records()[0].items() if k in ('image', 'id')}
    made = task.certainty_set(np.random.default_rng(0), [record])
    assert set(made.segments.tolist()) == set(range(10))
    assert task.unit_of(record) == record['id']


def test_images_whose_level_is_not_known_are_units_of_their_own():
    """As in LIVE: of images of one level nothing would be known but that they are alike."""
    task, records = IQA(size=32), quality_records()
    unknown = [{**record, 'level': 0} for record in records.annotations]
    assert [task.unit_of(record) for record in unknown] == records.ids()


def assert_same(one: dict, other: dict) -> None:
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_measures_do_not_depend_on_the_topology():
    first, second = (found['all'] for found in facts_of_two(SCRIPT, devices=1))
    assert first == second
    alone = facts(start(SCRIPT, 4))
    assert_same(alone['one'], alone['all'])
    assert_same(alone['one'], first)


def test_features_are_the_mean_over_the_cells_of_the_image():
    config = config_of(Crowd(size=32))
    found, units, params = measured(config, crowd_records())
    network, _ = build_network(config, pixels='torch')
    examples = Examples(units.records, config.task, config.seed)
    features_of = jax.jit(
        lambda image: network.apply({'params': params}, image, method=type(network).features)
    )
    for n in range(len(units)):
        features = np.asarray(features_of(examples[n]['views'].images[0]))
        np.testing.assert_allclose(found.features[n], features.mean((0, 1)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('task', [Crowd(size=32, head_std=1.0), IQA(size=32, head_std=1.0)])
def test_draws_are_forwards_with_dropout(task):
    config = config_of(task)
    records = crowd_records(2) if isinstance(task, Crowd) else quality_records(1, 1)
    found, units, params = measured(config, records)
    assert found.draws.shape == (len(units), 3)
    assert (found.draws.std(1) > 0).all()
    network, _ = build_network(config, pixels='torch')
    key = jax.random.key(1)
    image = np.asarray(records[0]['image'][:32, :32])
    plain = jax.jit(functools.partial(dropped, network, key))
    full = jax.jit(make_apply(network))(params, image)
    if isinstance(task, Crowd):  # its head has no dropout of its own
        np.testing.assert_allclose(plain(0.0, params, image), full, rtol=1e-5)

        @jax.jit
        def half(params, image):
            features = network.apply({'params': params}, image, method=type(network).features)
            kept = jax.random.bernoulli(key, 0.5, features.shape[-1:])
            return network.apply(
                {'params': params}, features * kept * 2, method=type(network).output
            )

        expected = half(params, image)
        np.testing.assert_allclose(plain(0.5, params, image), expected, rtol=1e-4, atol=1e-5)
    else:
        assert float(plain(0.0, params, image)) != float(full)
