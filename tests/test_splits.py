"""Splits by reference: what is made from one picture stays together, and nothing leaks."""

import dataclasses
import hashlib

import numpy as np
import pytest

from rank_ssl import data
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA

REFERENCES, VERSIONS = 20, 6


@dataclasses.dataclass(frozen=True)
class Made:
    """A prepared data set in memory."""

    rows: dict[str, list[dict]]
    features: tuple[str, ...] = ('id', 'reference')

    @property
    def splits(self) -> list[str]:
        return list(self.rows)

    @property
    def report(self) -> dict:
        return {'fingerprint': 'made', 'partial': False, 'name': 'made'}

    def records(self, split: str) -> data.Records:
        rows = self.rows[split]
        return data.Records([rows], [(0, n) for n in range(len(rows))])


def versions(references, *, number: int = VERSIONS) -> list[dict]:
    return [
        {'id': f'{reference}_{n}'.encode(), 'reference': f'{reference}'.encode(), 'count': n}
        for reference in references
        for n in range(number)
    ]


def made_config(*, seed: int = 0, regime: str = 'baseline', **fields) -> Config:
    config = Config(task=Crowd(), seed=seed, regime=regime)
    config.data = dataclasses.replace(config.data, unlabeled_rest=False, **fields)
    return config


def references(records: data.Records) -> set[str]:
    return {record['reference'] for record in records.annotations}


WHOLE = Made({'all': versions(f'r{n:02d}' for n in range(REFERENCES))})
FOLDS = 5


def in_folds(number: int = 30, *, part: str = 'all', **shared: str) -> Made:
    """Image n in fold n % 5 + 1; `shared` gives the images that have a reference."""
    rows = [
        {'id': f'{n:02d}'.encode(), 'fold': n % FOLDS + 1, 'count': n,
         'reference': shared.get(f'image_{n}', '').encode()}
        for n in range(number)
    ]  # fmt: skip
    splits = {'all': rows} if part == 'all' else {'train': rows[6:], 'test': rows[:6], 'all': rows}
    return Made(splits, features=('id', 'fold', 'reference'))


def ids(found: data.Splits) -> list[list[str]]:
    return [part.ids() for part in (found.labeled, found.validation, found.test, found.unlabeled)]


def digest(found: data.Splits) -> str:
    return hashlib.sha256(repr(ids(found)).encode()).hexdigest()[:16]


@pytest.mark.parametrize('seed', range(5))
def test_a_set_without_a_test_split_gives_a_fifth_of_its_references(seed):
    found = data.load_splits(made_config(seed=seed), WHOLE, [])
    parts = [found.labeled, found.validation, found.test]
    assert [len(references(part)) for part in parts] == [14, 2, 4]
    assert [len(part) for part in parts] == [14 * VERSIONS, 2 * VERSIONS, 4 * VERSIONS]
    assert len(set.union(*map(references, parts))) == REFERENCES
    assert len({i for part in parts for i in part.ids()}) == REFERENCES * VERSIONS


def test_the_seed_is_the_repetition():
    tests = [references(data.load_splits(made_config(seed=s), WHOLE, []).test) for s in range(5)]
    assert len({frozenset(t) for t in tests}) == 5
    same = [data.load_splits(made_config(seed=3), WHOLE, []) for _ in range(2)]
    assert same[0].labeled.ids() == same[1].labeled.ids()
    assert same[0].fingerprint == same[1].fingerprint
    other = data.load_splits(made_config(seed=3, regime='multitask', unlabeled_labeled=True),
                             WHOLE, [])  # fmt: skip
    assert other.labeled.ids() == same[0].labeled.ids()


def test_few_labels_are_of_many_references():
    config = made_config(labels=14)
    assert len(references(data.load_splits(config, WHOLE, []).labeled)) > 5


def test_the_share_of_test_is_a_field():
    found = data.load_splits(made_config(test_share=0.5), WHOLE, [])
    assert len(references(found.test)) == 10
    with pytest.raises(UserError, match='test_share=0.95 and config.data.validation=0.9 leave '):
        data.load_splits(made_config(test_share=0.95, validation=0.9), WHOLE, [])


def test_images_without_a_reference_stand_alone():
    alone = Made({'all': versions([''], number=30)})
    found = data.load_splits(made_config(), alone, [])
    assert [len(p) for p in (found.labeled, found.validation, found.test)] == [22, 2, 6]


def test_a_published_test_split_is_kept():
    made = Made({'train': versions(['a', 'b', 'c', 'd']), 'test': versions(['e', 'f'])})
    found = data.load_splits(made_config(), made, [])
    assert references(found.test) == {'e', 'f'}
    assert len(references(found.validation)) == 1
    assert not references(found.validation) & references(found.labeled)


def test_a_reference_in_both_published_splits_is_refused():
    made = Made({'train': versions(['a', 'b']), 'test': versions(['c', 'b'])})
    with pytest.raises(UserError, match="reference 'b' stands in train and in test of made"):
        data.load_splits(made_config(), made, [])


def test_every_nth_test_image():
    found = data.load_splits(made_config(test_stride=3), WHOLE, [])
    whole = data.load_splits(made_config(), WHOLE, [])
    assert found.test.ids() == whole.test.ids()[::3]
    assert np.all(np.diff([int(i[1:3]) for i in whole.test.ids()]) >= 0)


def test_two_references_are_too_few():
    with pytest.raises(UserError, match='leave none of the 2 references .* at least 3'):
        data.load_splits(made_config(), Made({'all': versions(['a', 'b'])}), [])


def test_a_data_set_of_another_kind_is_refused():
    config = made_config()
    config.task = IQA()
    with pytest.raises(UserError, match="holds no 'score', which the task IQA reads"):
        data.load_splits(config, WHOLE, [])


def test_unlabeled_images_come_from_a_set_of_such():
    config = made_config(regime='multitask', unlabeled_set='tid2013')
    with pytest.raises(UserError, match='unlabeled_set=tid2013 is no set of unlabeled images'):
        data.load_splits(config, WHOLE, [WHOLE])


@pytest.mark.parametrize('regime', ['multitask', 'ranking', 'finetune'])
def test_something_has_to_be_ranked_in_every_regime_that_ranks(regime):
    with pytest.raises(UserError, match='leaves no unlabeled image to rank'):
        data.load_splits(made_config(regime=regime), WHOLE, [])
    config = made_config(regime=regime)
    config.mode = 'evaluate'
    assert len(data.load_splits(config, WHOLE, []).test) == 4 * VERSIONS


def test_a_last_stage_alone_ranks_nothing():
    config = made_config(regime='finetune')
    config.init_from = 'elsewhere'
    assert not config.needs_unlabeled
    assert len(data.load_splits(config, WHOLE, []).unlabeled) == 0


@pytest.mark.parametrize('fold', range(1, FOLDS + 1))
@pytest.mark.parametrize('seed', range(3))
def test_a_fold_is_tested_on_and_the_others_are_trained_on(fold, seed):
    found = data.load_splits(made_config(seed=seed, fold=fold), in_folds(), [])
    assert found.test.ids() == [f'{n:02d}' for n in range(fold - 1, 30, FOLDS)]
    trained = found.labeled.ids() + found.validation.ids()
    assert sorted(trained) == [f'{n:02d}' for n in range(30) if n % FOLDS != fold - 1]
    assert len(found.validation) == 2


def test_the_folds_depend_on_no_seed_and_the_draws_in_them_do():
    found = [data.load_splits(made_config(seed=s, fold=2), in_folds(), []) for s in (0, 0, 1, 2)]
    assert len({tuple(f.test.ids()) for f in found}) == 1
    assert ids(found[0]) == ids(found[1]) and found[0].fingerprint == found[1].fingerprint
    assert len({tuple(f.validation.ids()) for f in found}) == 3
    assert len({f.fingerprint for f in found}) == 3


def test_each_fold_has_a_fingerprint_of_its_own():
    found = [data.load_splits(made_config(fold=f), in_folds(), []) for f in range(1, 6)]
    assert len({f.fingerprint for f in found}) == FOLDS


def test_labels_and_stride_work_in_a_fold():
    config = made_config(fold=1, labels=6, test_stride=4)
    config.data.unlabeled_rest = True
    found = data.load_splits(config, in_folds(), [])
    assert found.test.ids() == ['00', '20']
    assert [len(p) for p in (found.labeled, found.unlabeled, found.validation)] == [6, 16, 2]


def test_images_of_one_scene_are_drawn_as_one():
    made = in_folds(image_4='scene', image_9='scene')  # both in fold 5
    apart = 0
    for seed in range(20):
        found = data.load_splits(made_config(seed=seed, fold=1, validation=0.5), made, [])
        assert len({'04', '09'} & set(found.validation.ids())) != 1
        alone = data.load_splits(made_config(seed=seed, fold=1, validation=0.5), in_folds(), [])
        apart += len({'04', '09'} & set(alone.validation.ids())) == 1
    assert apart > 0


def test_a_scene_in_two_folds_is_refused():
    made = in_folds(image_4='scene', image_5='scene')
    with pytest.raises(UserError, match="reference 'scene' stands in train and in test of made"):
        data.load_splits(made_config(fold=1), made, [])
    data.load_splits(made_config(fold=2), made, [])


def test_a_published_test_split_beside_folds_is_fold_0():
    made = in_folds(part='published')
    found = data.load_splits(made_config(), made, [])
    assert found.test.ids() == [f'{n:02d}' for n in range(6)] and len(found.labeled) == 22
    found = data.load_splits(made_config(fold=3), made, [])
    assert found.test.ids() == [f'{n:02d}' for n in range(2, 30, FOLDS)]


WITHOUT_TWO = Made(
    {'all': [row for row in in_folds().rows['all'] if row['fold'] != 2]}, features=('id', 'fold')
)
PUBLISHED = Made({'train': versions(['a', 'b', 'c', 'd']), 'test': versions(['e', 'f'])})


@pytest.mark.parametrize(
    'made, fold, message',
    [
        (in_folds(), 0, 'fold=0: made has folds and no test split of its own; use 1 to 5'),
        (in_folds(), 6, 'fold=6 is no fold of made; use 1 to 5'),
        (WITHOUT_TWO, 2, 'fold=2 is no fold of made; use 1, 3, 4, 5'),
        (WHOLE, 1, 'fold=1: made has no folds; use 0'),
        (PUBLISHED, 1, 'fold=1: made has no folds; use 0'),
    ],
)
def test_a_fold_that_cannot_be_is_one_line(made, fold, message):
    with pytest.raises(UserError) as error:
        data.load_splits(made_config(fold=fold), made, [])
    assert str(error.value) == f'config.data.{message}'


def test_one_fold_alone_leaves_nothing_to_train_on():
    rows = [row for row in in_folds().rows['all'] if row['fold'] == 1]
    with pytest.raises(UserError, match='leaves none of the 0 training images'):
        data.load_splits(made_config(fold=1), Made({'all': rows}, features=('id', 'fold')), [])


@pytest.mark.parametrize(
    'made, expected, fingerprint',
    [
        (WHOLE, 'e2fa37cec9c8a13a', '3b1df520bf43ca9c'),
        (PUBLISHED, 'c675ac5cf86cef32', 'a4bc6aa2b792d632'),
    ],
)
def test_the_draws_of_a_seed_stay_the_same(made, expected, fingerprint):
    config = made_config(seed=3, labels=9, test_stride=2)
    config.data.unlabeled_rest = True
    found = data.load_splits(config, made, [])
    assert (digest(found), found.fingerprint) == (expected, fingerprint)


def test_the_labels_may_be_named():
    config = made_config(labels=4)
    config.data.unlabeled_rest = True
    made = Made({'train': versions(range(10)), 'test': versions(range(10, 12))})
    drawn = data.load_splits(config, made, [])
    pool = drawn.unlabeled.ids() + drawn.labeled.ids()
    chosen = pool[1::3]
    found = data.load_splits(config, made, [], labeled_ids=chosen)
    assert set(found.labeled.ids()) == set(chosen) and len(found.labeled) == len(chosen)
    assert set(found.unlabeled.ids()) == set(pool) - set(chosen)
    assert found.validation.ids() == drawn.validation.ids()
    assert found.fingerprint != drawn.fingerprint
    # In the order of the draw, whatever the order they are named in.
    again = data.load_splits(config, made, [], labeled_ids=chosen[::-1])
    assert again.labeled.ids() == found.labeled.ids()
    same = data.load_splits(config, made, [], labeled_ids=drawn.labeled.ids())
    assert same.labeled.ids() == drawn.labeled.ids() and same.fingerprint == drawn.fingerprint
