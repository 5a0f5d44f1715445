"""The frozen-features ridge anchor: its algebra by brute force, its run on drawn images."""

import csv
import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_ssl import anchor, evidence, logs, metrics, results
from rank_ssl.config import Config, Model
from rank_ssl.data import Splits
from rank_ssl.errors import UserError
from rank_ssl.models.build import build_backbone
from rank_ssl.models.pixels import preprocess
from rank_ssl.models.vgg import VGG
from rank_ssl.tasks.iqa import IQA


class Drawn:
    """Records in memory: noise whose strength is the (negated) score."""

    def __init__(self, count, *, seed=0, lower=0, size=40):
        rng = np.random.default_rng(seed)
        self.reads = 0
        self.scores = rng.uniform(0, 1, count)
        self.images = [
            np.uint8(np.clip(128 + 100 * (1 - s) * rng.normal(size=(size, size, 3)), 0, 255))
            for s in self.scores
        ]
        sign = -1 if lower else 1
        self.annotations = [
            {'id': f'{seed}_{i}', 'score': sign * s, 'lower_is_better': lower}
            | {'reference': '', 'kind': '', 'level': 0, 'height': size, 'width': size}
            for i, s in enumerate(self.scores)
        ]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.reads += 1
        return self.annotations[i] | {'image': self.images[i]}


def make_splits(**options):
    parts = {name: Drawn(n, seed=n, **options) for name, n in SIZES.items()}
    return Splits(**parts, unlabeled=Drawn(0), partial=True, fingerprint='f00')


SIZES = {'labeled': 19, 'validation': 9, 'test': 12}


def make_config(**fields):
    model = Model(backbone='vgg8', width=0.1, weights='none')
    return Config(task=IQA(size=32, last='pool'), model=model, regime='ridge', **fields)


@pytest.fixture(scope='module', autouse=True)
def small_crops():
    """Crops of 32 px instead of 224."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchor, 'SIDE', 32)
        yield


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('ridge')
    config, splits = make_config(), make_splits()
    return config, splits, workdir, anchor.run_anchor(config, workdir, splits)


def brute_force(features, target, penalty):
    """Predictor by the normal equations with the bias as one more, unpenalised column."""
    scale = features.std(0)
    x = np.c_[(features - features.mean(0)) / scale, np.ones(len(features))]
    weight = penalty * np.eye(x.shape[1])
    weight[-1, -1] = 0
    solution = np.linalg.solve(x.T @ x + weight, x.T @ target)
    mean = features.mean(0)
    return lambda new: np.c_[(new - mean) / scale, np.ones(len(new))] @ solution


@pytest.mark.parametrize('rows, columns', [(40, 7), (9, 30), (12, 12)])
def test_ridge_solves_the_normal_equations(rows, columns):
    rng = np.random.default_rng(rows)
    features = rng.normal(2, 3, (rows, columns)) * rng.uniform(0.1, 50, columns)
    target, new = rng.normal(5, 2, rows), rng.normal(2, 3, (6, columns))
    penalties = (1e-3, 1.0, 50.0)
    for penalty, ridge in zip(
        penalties, anchor.fit_ridges(features, target, penalties), strict=True
    ):
        expected = brute_force(features, target, penalty)
        np.testing.assert_allclose(ridge(new), expected(new), rtol=1e-9)


def test_without_penalty_it_is_least_squares_and_with_much_the_mean():
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(30, 4)), rng.normal(3, 1, 30)
    free, bound = anchor.fit_ridges(features, target, (1e-9, 1e12))
    x = np.c_[features, np.ones(30)]
    np.testing.assert_allclose(free(features), x @ np.linalg.lstsq(x, target)[0], rtol=1e-6)
    np.testing.assert_allclose(bound(features), target.mean(), rtol=1e-6)


@settings(max_examples=20)
@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(1, 12))
def test_units_of_a_feature_and_the_offset_of_labels_do_not_matter(scale, offset, rows):
    rng = np.random.default_rng(rows)
    features, target = rng.normal(size=(rows, 6)), rng.normal(size=rows)
    (plain,) = anchor.fit_ridges(features, target, (2.0,))
    (moved,) = anchor.fit_ridges(features * scale + offset, target + offset, (2.0,))
    found = moved(features * scale + offset) - offset
    np.testing.assert_allclose(found, plain(features), rtol=1e-6, atol=1e-6)


def test_a_constant_feature_and_a_single_row_predict_finite_numbers():
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(6, 3)), rng.normal(size=6)
    features[:, 1] = 0.1
    assert features[:, 1].std() > 0  # in floating point: the mean of six is another number
    (ridge,) = anchor.fit_ridges(features, target, (1.0,))
    (without,) = anchor.fit_ridges(features[:, [0, 2]], target, (1.0,))
    found = ridge(features + [0, 1, 0])
    np.testing.assert_allclose(found, without(features[:, [0, 2]]), rtol=1e-9)
    (one,) = anchor.fit_ridges(features[:1], target[:1], (1.0,))
    assert one(features).tolist() == [target[0]] * 6


def test_the_crop_is_the_middle_and_a_small_image_is_mirrored():
    image = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
    assert (anchor.centre_crop(image, 4) == image[1:5, 2:6]).all()
    assert (anchor.centre_crop(image, 7) == image[:, 1:8]).all()
    made = anchor.centre_crop(image, 8)
    assert made.shape == (8, 8, 3)
    assert (made[:7] == image[:, :8]).all() and (made[7] == image[6, :8]).all()


def test_features_are_the_mean_maps_of_the_last_three_blocks():
    config, records = make_config(), Drawn(11)
    found = anchor.Extractor(config, total=11)(records)
    key = jax.random.split(jax.random.key(config.seed))[0]
    network, params = build_backbone(config, key=key)
    assert found.shape == (11, 26 + 51 + 51) and found.dtype == np.float64
    for i in (0, 7, 8, 10):  # the last batch is not a whole one
        x = preprocess(records.images[i][4:36, 4:36], network.pixels)
        maps = [
            VGG(network.backbone.layout, width=0.1, blocks=b).apply({'params': params}, x)
            for b in (3, 4, 5)
        ]
        expected = jnp.concatenate([m.mean((0, 1)) for m in maps])
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-6)


def test_fewer_blocks_give_the_last_ones():
    config = make_config()
    config.model.blocks = 2
    assert anchor.Extractor(config, total=1)(Drawn(1)).shape == (1, 6 + 13)


def test_the_crop_is_that_of_the_pretrained_weights_whatever_the_arms_see(monkeypatch):
    seen = []
    crop = anchor.centre_crop
    monkeypatch.setattr(anchor, 'centre_crop', lambda i, side: seen.append(side) or crop(i, side))
    monkeypatch.setattr(anchor, 'SIDE', 48)
    anchor.Extractor(make_config(), total=1)(Drawn(1))
    assert seen == [48] and make_config().task.size == 32


def test_a_run_leaves_what_a_trained_one_does(ran):
    config, splits, workdir, result = ran
    assert json.loads((workdir / 'result.json').read_text()) == result
    assert json.loads((workdir / 'config.json').read_text()) == config.to_dict()
    state = types.SimpleNamespace(skipped=0)
    run = types.SimpleNamespace(
        config=config,
        splits=splits,
        state=state,
        seconds=1.0,
        images_per_second=1.0,
        evaluator=types.SimpleNamespace(compiled_shapes=1),
    )
    facts = results.run_facts(run)
    assert facts.keys() <= result.keys()
    timed = {'seconds', 'images_per_second'}
    assert {n: result[n] for n in facts.keys() - timed} == {
        n: facts[n] for n in facts.keys() - timed
    }
    (row,) = logs.read_metrics(workdir / 'metrics.jsonl')
    assert row['val/srocc'] == result['best/val/srocc'] == result['final/val/srocc']
    assert row['test/lcc'] == result['test/lcc'] and (workdir / 'figures/scores.png').exists()


def test_it_predicts_the_test_split_from_what_it_learned(ran):
    _, splits, workdir, result = ran
    with open(workdir / 'predictions.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['id'] for row in rows] == [r['id'] for r in splits.test.annotations]
    true, predicted = (np.array([float(r[n]) for r in rows]) for n in ('true', 'predicted'))
    np.testing.assert_allclose(true, splits.test.scores, rtol=1e-5)
    np.testing.assert_allclose(metrics.srocc(predicted, true), result['test/srocc'])
    assert result['test/srocc'] > 0.8  # noise is what random features see best
    assert splits.test.reads == 12 and splits.labeled.reads == 19


def test_the_penalty_is_the_one_that_errs_least_on_validation(ran):
    config, splits, _, result = ran
    extract = anchor.Extractor(config, total=0)
    fits = anchor.fit_ridges(extract(splits.labeled), splits.labeled.scores, anchor.PENALTIES)
    features, true = extract(splits.validation), splits.validation.scores
    errors = [np.square(ridge(features) - true).mean() for ridge in fits]
    assert result['penalty'] == anchor.PENALTIES[int(np.argmin(errors))]
    chosen = fits[int(np.argmin(errors))](features)
    assert result['best/val/srocc'] == pytest.approx(metrics.srocc(chosen, true))


def test_it_is_an_arm_of_a_grid(ran):
    config, _, workdir, _ = ran
    base = dataclasses.replace(config, regime='baseline')
    cell = evidence.Cell('ridge', 0, workdir, ('--config.regime=ridge',))
    result = cell.result(base, 'test/srocc')
    assert result is not None
    table = evidence.make_table(config.task, [(cell, result)])
    assert f'| ridge | 0 | {result["test/lcc"]:.3f} |' in table
    assert evidence.setting(result).startswith('synthetic_crowd (an incomplete copy); 19 labeled')


def test_labels_where_lower_is_better_give_the_mirrored_predictions(ran, tmp_path):
    _, _, workdir, result = ran
    other = anchor.run_anchor(make_config(), tmp_path, make_splits(lower=1))
    assert other['test/srocc'] == pytest.approx(result['test/srocc'])
    assert other['params_sha256'] == result['params_sha256']
    with (
        open(tmp_path / 'predictions.csv', newline='') as file,
        open(workdir / 'predictions.csv', newline='') as plain,
    ):
        pairs = zip(csv.DictReader(file), csv.DictReader(plain), strict=True)
        assert all(float(a['true']) == -float(b['true']) for a, b in pairs)


def test_without_the_test_split_nothing_of_it_is_read(tmp_path, ran):
    config, splits = make_config(evaluate_test=False), make_splits()
    result = anchor.run_anchor(config, tmp_path, splits)
    assert splits.test.reads == 0 and not any(name.startswith('test/') for name in result)
    assert result['best/val/srocc'] == ran[3]['best/val/srocc']
    with open(tmp_path / 'predictions.csv', newline='') as file:
        assert len(list(csv.DictReader(file))) == 9


def test_the_folder_of_a_trained_run_is_refused(tmp_path):
    (tmp_path / 'checkpoints' / '3').mkdir(parents=True)
    with pytest.raises(UserError, match='holds a trained run: use another --workdir for ridge'):
        anchor.run_anchor(make_config(), tmp_path, make_splits())
    assert not (tmp_path / 'result.json').exists()
