"""Who is trained on and who tested on as a data set itself says: its splits, or its folds."""

from collections.abc import Sequence

import numpy as np

from rank_ssl.config import Data
from rank_ssl.data.records import Prepared, Records
from rank_ssl.errors import UserError


def published_parts(data: Data, prepared: Prepared) -> tuple[Records, Records | None]:
    """The training images and the test images; None for the latter where they are to be drawn.

    Fold `data.fold` is tested on and the other folds are trained on, whatever the seed. Raises
    UserError for a fold that is not there, for no fold where one is needed, and for a reference
    that stands in both parts.
    """
    if 'fold' in prepared.features and (data.fold or 'test' not in prepared.splits):
        train, test = _by_fold(data, prepared)
    elif data.fold:
        raise UserError(
            f'config.data.fold={data.fold}: {prepared.report["name"]} has no folds; use 0'
        )
    elif 'test' not in prepared.splits:
        return prepared.records('all'), None
    else:
        train, test = prepared.records('train'), prepared.records('test')
    _check_apart(prepared, train, test)
    return train, test


def _by_fold(data: Data, prepared: Prepared) -> tuple[Records, Records]:
    whole = prepared.records('all')
    folds = np.array([record['fold'] for record in whole.annotations])
    name, there = prepared.report['name'], np.unique(folds).tolist()
    if not data.fold:
        raise UserError(
            f'config.data.fold=0: {name} has folds and no test split of its own; use {_span(there)}'
        )
    if data.fold not in there:
        raise UserError(f'config.data.fold={data.fold} is no fold of {name}; use {_span(there)}')
    tested = folds == data.fold
    return whole.take(np.flatnonzero(~tested)), whole.take(np.flatnonzero(tested))


def _span(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    whole = len(numbers) == last - first + 1
    return f'{first} to {last}' if whole else ', '.join(map(str, numbers))


def _check_apart(prepared: Prepared, train: Records, test: Records) -> None:
    """Raises UserError for a reference that stands in both parts."""
    if 'reference' not in prepared.features:
        return
    shared = _references(train) & _references(test)
    if shared:
        raise UserError(
            f'reference {min(shared)!r} stands in train and in test of {prepared.report["name"]}: '
            'a test on it would be no test; put all its images into one split'
        )


def _references(records: Records) -> set[str]:
    return {record['reference'] for record in records.annotations} - {''}
