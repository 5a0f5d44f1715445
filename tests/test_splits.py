"""Splits by reference: what is made from one picture stays together, and nothing leaks."""

import dataclasses

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
