"""Paired differences and their intervals in closed form, and folds taken together."""

import json
import math

import numpy as np
import pytest
from absl import flags

from rank_ssl import compare as module
from rank_ssl.compare import _places, compare, difference, interval, pooled
from rank_ssl.errors import UserError
from rank_ssl.grid import make_cells
from rank_ssl.predictions import Values, predictions
from rank_ssl.tasks.iqa import IQA
from tests.made_runs import BASE, TASK, TRUE, finish, made_cell


@pytest.fixture(autouse=True)
def split(monkeypatch):
    """Sets --compare; 'test' unless a test calls it."""
    flags.FLAGS.mark_as_parsed()

    def choose(name: str) -> None:
        monkeypatch.setattr(flags.FLAGS['compare'], 'value', name)

    choose('test')
    return choose


def told_interval(text: str) -> tuple[float, float]:
    low, high = text.partition('[')[2].partition(']')[0].split(',')
    return float(low), float(high)


def test_the_difference_of_arms_in_closed_form(tmp_path):
    """Each error of the second arm is 2 smaller, so each resample's mean difference is -2."""
    one = [made_cell(tmp_path, 'baseline', s, 5 + np.arange(8.0)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, 3 + np.arange(8.0)) for s in (0, 1)]
    text = compare(TASK, one, other)
    assert text == (
        'multitask - baseline: test/mae -2.00 (by seed -2.00, -2.00); 95 % over 2 seeds and 8 test '
        'images [-2.00, -2.00]: decided'
    )


def test_the_interval_holds_the_mean_of_the_seeds(tmp_path):
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 4, (2, 3, 8))
    one = [made_cell(tmp_path, 'baseline', s, errors[0, s]) for s in range(3)]
    other = [made_cell(tmp_path, 'multitask', s, errors[1, s]) for s in range(3)]
    text = compare(TASK, one, other)
    differences = np.abs(errors[1]) - np.abs(errors[0])
    low, high = told_interval(text)
    assert f'test/mae {differences.mean():+.2f} (by seed ' in text
    assert low < differences.mean() < high
    # Seeds and images are drawn, each with replacement, and the images are the same for all seeds.
    rng = np.random.default_rng(1)
    draws = [(rng.integers(3, size=3), rng.integers(8, size=8)) for _ in range(20_000)]
    means = [differences[np.ix_(seeds, places)].mean() for seeds, places in draws]
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), atol=0.15)
    assert ('not decidable at this scale' in text) == (low <= 0 <= high)
    assert compare(TASK, one, other) == text


def pairs_of(*differences: float) -> list:
    """For each seed, an arm that errs by 9 and one whose errors differ by so much."""
    ids = np.arange(len(TRUE))
    arms = [(TRUE + 9, TRUE + 9 + difference) for difference in differences]
    return [tuple(Values(TRUE, predicted, ids, ids) for predicted in pair) for pair in arms]


def test_seeds_that_disagree_decide_nothing():
    """Of two seeds both, one or none are drawn twice: -1, 1 and 3 in 1/4, 1/2 and 1/4 of draws."""
    assert interval(TASK, pairs_of(3.0, -1.0)) == (-1.0, 3.0)
    low, high = interval(TASK, pairs_of(-1.0, -2.0, -3.0))
    assert -3 <= low < -2.6 and -1.4 < high <= -1


def test_one_seed_or_a_number_that_is_not_finite_decides_nothing():
    for pairs in (pairs_of(-1.0), pairs_of(-1.0, math.nan), pairs_of(math.inf, -1.0), []):
        assert all(math.isnan(bound) for bound in interval(TASK, pairs))


def test_identical_arms_differ_by_nothing(tmp_path):
    one = [made_cell(tmp_path, 'baseline', s, np.arange(8.0)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, np.arange(8.0)) for s in (0, 1)]
    assert compare(TASK, one, other) == (
        'multitask - baseline: test/mae +0.00 (by seed +0.00, +0.00); 95 % over 2 seeds and 8 test '
        'images [+0.00, +0.00]: not decidable at this scale'
    )


def test_one_seed_alone_is_not_decidable(tmp_path):
    one = [made_cell(tmp_path, 'baseline', 0, np.full(8, 9.0))]
    other = [made_cell(tmp_path, 'multitask', 0, np.ones(8))]
    text = compare(TASK, one, other)
    assert 'test/mae -8.00 (by seed -8.00)' in text
    assert text.endswith(' 8 test images [+nan, +nan]: not decidable at this scale')


def test_on_validation_the_seeds_alone_are_compared(tmp_path, split):
    split('val')
    one = [made_cell(tmp_path, 'a', s, np.ones(8), **{'best/val/mae': 5.0 + s}) for s in (0, 1)]
    other = [made_cell(tmp_path, 'b', s, np.ones(8), **{'best/val/mae': 4.0}) for s in (0, 1)]
    assert compare(TASK, one, other) == 'b - a: best/val/mae -1.50 (by seed -1.00, -2.00)'


def test_images_of_one_reference_are_drawn_together():
    groups = np.array(['a', 'a', 'b', 'b', 'b', 'c'])
    values = Values(np.arange(6.0), np.arange(6.0), np.arange(6), groups)
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = groups[_places(rng, values)]
        counts = {group: int((drawn == group).sum()) for group in 'abc'}
        assert counts['a'] % 2 == counts['b'] % 3 == 0
        assert counts['a'] // 2 + counts['b'] // 3 + counts['c'] == 3


def test_arms_with_other_test_images_are_not_paired(tmp_path):
    one = [made_cell(tmp_path, 'baseline', s, np.ones(8)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, np.ones(8)) for s in (0, 1)]
    path = other[1][0].folder / 'predictions.csv'
    path.write_text(path.read_text().replace('image7', 'image9'))
    assert compare(TASK, one, other).endswith('not paired: their test images are not the same')


@pytest.mark.parametrize('spoil, fault', [
    (None, 'cannot be read (No such file or directory)'),
    (lambda text: text[: text.index('image5')], 'is damaged: it should have 8 images, and has 5'),
    (lambda text: text.rstrip()[:-1], 'is cut off'),  # the last number is another one
    (lambda text: text[: text.index('image5') + 9], 'is cut off'),
    (lambda text: text.replace('11.0', ''), 'is damaged'),
    (lambda text: text.replace('true', 'tru'), 'is damaged'),
    (lambda text: text.replace('id,', 'i,'), 'is damaged'),
    (lambda text: '', 'is cut off'),
])  # fmt: skip
def test_damaged_predictions_of_a_finished_cell_are_named(tmp_path, spoil, fault):
    one = [made_cell(tmp_path, 'baseline', s, np.ones(8)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, np.ones(8)) for s in (0, 1)]
    folder = other[1][0].folder
    path = folder / 'predictions.csv'
    if spoil:
        path.write_text(spoil(path.read_text()))
    else:
        path.unlink()
    with pytest.raises(UserError) as caught:
        compare(TASK, one, other)
    assert str(caught.value) == (
        f'{path} {fault}: delete {folder / "result.json"}, and the same command makes it again'
    )


def test_a_run_on_validation_predicts_the_images_of_that(tmp_path):
    cell, result = made_cell(tmp_path, 'baseline', 0, np.ones(8), validation_images=8)
    found = {name: v for name, v in result.items() if not name.startswith('test/')}
    (cell.folder / 'result.json').write_text(json.dumps({**found, 'test_images': 5}))
    assert len(predictions(cell).true) == 8


def test_arms_with_other_true_values_for_the_same_images_are_refused(tmp_path):
    one = [made_cell(tmp_path, 'baseline', s, np.ones(8)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, np.ones(8)) for s in (0, 1)]
    paths = [cells[1][0].folder / 'predictions.csv' for cells in (one, other)]
    paths[1].write_text(paths[1].read_text().replace('image7,80', 'image7,81'))
    with pytest.raises(UserError) as caught:
        compare(TASK, one, other)
    assert str(caught.value) == (
        f'{paths[0]} and {paths[1]} have other true values for the same images (image7: 80 and '
        '81): train one of them again in another --workdir, on the same data'
    )


def test_the_fold_whose_true_values_are_others_is_named(tmp_path):
    results = {arm: folds_of(tmp_path, arm, 0, [[1, 1], [5]]) for arm in ('a', 'b')}
    path = results['b'][1][0].folder / 'predictions.csv'
    path.write_text(path.read_text().replace('2/0,10', '2/0,11'))
    one, other = (pooled(TASK, found) for found in results.values())
    with pytest.raises(UserError, match=f'/a/fold_2/seed_0/predictions.csv and {path} have other'):
        compare(TASK, one, other)


def test_a_seed_that_one_arm_lacks_is_left_out(tmp_path):
    one = [made_cell(tmp_path, 'baseline', s, np.full(8, 5.0)) for s in (0, 1, 2)]
    other = [made_cell(tmp_path, 'multitask', s, np.full(8, 3.0 + s)) for s in (2, 0)]
    found = difference(TASK, one, other)
    assert found.by_seed == {0: -2.0, 2: 0.0} and found.mean == -1.0


def test_a_difference_as_numbers(tmp_path):
    one = [made_cell(tmp_path, 'baseline', s, np.full(8, 5.0)) for s in (0, 1)]
    other = [made_cell(tmp_path, 'multitask', s, np.full(8, 2.0)) for s in (0, 1)]
    assert difference(TASK, one, other, name='mse').to_dict() == {
        'one': 'baseline', 'other': 'multitask', 'metric': 'test/mse', 'by_seed': {0: -3, 1: -3},
        'interval': (-3.0, -3.0), 'over': '2 seeds and 8 test images', 'mean': -3.0,
        'decided': True,
    }  # fmt: skip


def test_the_interval_is_of_the_metric_that_is_named(monkeypatch):
    """Both arms have the right order, so SROCC is 1; LCC is that of the straight one alone."""
    monkeypatch.setattr(module, 'DRAWS', 100)
    ids = np.arange(len(TRUE))
    bent, straight = (Values(TRUE, predicted, ids, ids) for predicted in (TRUE**4, TRUE))
    assert interval(IQA(), [(bent, straight)] * 2, name='srocc') == (0.0, 0.0)
    assert interval(IQA(), [(bent, straight)] * 2) == (0.0, 0.0)
    low, high = interval(IQA(), [(bent, straight)] * 2, name='lcc')
    assert 0.01 < low < high < 0.5


def folds_of(tmp_path, arm, seed, errors):
    """A finished cell for each fold; `errors` [folds][images]."""
    cells = make_cells([f'{arm}:margin=2'], [str(seed)], tmp_path, ['1', '2'])
    found = []
    for cell, error in zip(cells, errors, strict=True):
        true = TRUE[: len(error)]
        ids = [f'{cell.fold}/{n}' for n in range(len(error))]
        facts = {'best/val/mae': 4.0 * cell.fold, 'best_step': 2 * cell.fold}
        found.append(
            (cell, finish(cell, BASE, true + error, true=true, columns={'id': ids}, **facts))
        )
    return found


def test_folds_of_a_seed_are_one_run_of_all_their_images(tmp_path):
    results = folds_of(tmp_path, 'a', 3, [[1, 1, 1], [5]])
    ((run, result),) = pooled(TASK, results)
    assert (run.arm, run.seed) == ('a', 3)
    assert predictions(run).ids.tolist() == ['1/0', '1/1', '1/2', '2/0']
    assert result['test/mae'] == 2.0 and result['test/mse'] == pytest.approx(7**0.5)
    assert (result['test/mae/fold_1'], result['test/mae/fold_2']) == (1.0, 5.0)
    assert (result['best/val/mae'], result['best_step']) == (6.0, '2, 4')
    assert (result['test_images'], result['folds']) == (4, [1, 2])


def test_pooled_folds_are_paired_image_by_image(tmp_path):
    one, other = (
        pooled(TASK, [c for s in (0, 1) for c in folds_of(tmp_path, arm, s, [[e] * 3, [e + 2]])])
        for arm, e in (('a', 5), ('b', 4))
    )
    assert compare(TASK, one, other) == (
        'b - a: test/mae -1.00 (by seed -1.00, -1.00); 95 % over 2 seeds and 4 test images '
        '[-1.00, -1.00]: decided'
    )


def test_on_validation_folds_have_their_mean(tmp_path, split):
    split('val')
    ((_, result),) = pooled(TASK, folds_of(tmp_path, 'a', 0, [[1, 1], [5, 5]]))
    assert result['best/val/mae'] == 6.0
    assert (result['best/val/mae/fold_1'], result['best/val/mae/fold_2']) == (4.0, 8.0)
    assert not any(name.startswith('test/') for name in result)


def test_pooled_predictions_that_are_not_finite_have_no_number(tmp_path):
    ((_, result),) = pooled(TASK, folds_of(tmp_path, 'a', 0, [[1, 1], [math.nan, 5]]))
    assert math.isnan(result['test/mae']) and result['test/mae/fold_1'] == 1.0


def test_runs_of_no_fold_stay_as_they_are(tmp_path):
    results = [made_cell(tmp_path, 'baseline', s, np.ones(8)) for s in (0, 1)]
    assert pooled(TASK, results) == results


def test_folds_of_a_data_set_without_any_are_told(tmp_path):
    results = folds_of(tmp_path, 'a', 0, [[1, 1], [5, 5]])
    for cell, _ in results:
        path = cell.folder / 'predictions.csv'
        path.write_text(path.read_text().replace('2/', '1/'))
    with pytest.raises(UserError, match='^--folds: two folds of a, seed 0 test the same images;'):
        pooled(TASK, results)


def test_values_of_some_types(tmp_path):
    (cell,) = make_cells(['baseline'], ['0'], tmp_path)
    kinds = ['jpeg', 'rain'] * 4
    finish(cell, BASE, TRUE, columns={'kind': kinds, 'reference': list('aabbccdd')})
    values = predictions(cell)
    assert values.of(['jpeg']).true.tolist() == [10, 30, 50, 70]
    other = values.of(['jpeg'], others=True)
    assert other.ids.tolist() == ['image1', 'image3', 'image5', 'image7']
    assert other.groups.tolist() == list('abcd') and set(other.kinds) == {'rain'}
    with pytest.raises(ValueError, match='no types'):
        Values(TRUE, TRUE, TRUE, TRUE).of(['jpeg'])
