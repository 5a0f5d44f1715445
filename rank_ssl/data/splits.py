"""Who is trained on, selected on and tested on: seeded draws, by reference where there is one."""

import dataclasses
import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from rank_ssl.config import Config, Data
from rank_ssl.data.draws import SPLIT, counter_rng
from rank_ssl.data.published import published_parts
from rank_ssl.data.records import Prepared, Records
from rank_ssl.errors import UserError


@dataclasses.dataclass(frozen=True)
class Splits:
    """Who is trained on, selected on and tested on. Test is read by evaluation alone."""

    labeled: Records
    unlabeled: Records
    validation: Records
    test: Records
    partial: bool  # the copy of the data set is incomplete, by the user's leave
    fingerprint: str  # of the labeled source and of the rows chosen
    unlabeled_fingerprint: str = ''  # of the folders; '' where there is none


def load_splits(
    config: Config,
    main: Prepared,
    folders: Sequence[Prepared],
    *,
    labeled_ids: Collection[str] | None = None,
) -> Splits:
    """The splits of a run: validation and the labeled subset are seeded draws from training.

    Images made from one reference stay together (6.1): they are drawn as one. Fold `data.fold` is
    the test split of a data set that has folds; one that publishes neither gives
    `data.test_share` of its references. The rest of the training set serves unlabeled, and so do
    the folders; what is labeled depends on the seed and the fold alone, or is what `labeled_ids`
    names among the training images. Raises UserError where a split that is needed would be empty.
    """
    data = config.data
    _check_kind(config, main, folders)
    train, test = published_parts(data, main)
    groups = _groups(train, main)
    rng = counter_rng(config.seed, SPLIT, 0, 0)
    order = rng.permutation(len(groups))
    held_out = 0 if test is not None else max(1, round(data.test_share * len(groups)))
    selecting = max(1, round(data.validation * (len(groups) - held_out)))
    left = order[held_out + selecting :]
    _check_left(data, len(groups), len(left), held_out)

    rows = np.concatenate([groups[g] for g in left])
    if len(rows) > len(left):
        rows = rng.permutation(rows)  # else the first labels would be of few references
    if data.labels > len(rows):
        raise UserError(
            f'config.data.labels={data.labels} is more than the {len(rows)} training images left '
            f'by validation (config.data.validation={data.validation}); use at most {len(rows)}'
        )
    labeled = np.arange(len(rows)) < (data.labels or len(rows))
    if labeled_ids is not None:
        labeled = np.isin(train.take(rows).ids(), list(labeled_ids))
    chosen = {
        'validation': _rows(groups, order[held_out : held_out + selecting]),
        'labeled': rows[labeled],
        'rest': rows[~labeled],
    }
    if test is None:
        chosen['test'] = np.sort(_rows(groups, order[:held_out]))
        test = train.take(chosen['test'])
    elif data.fold:
        chosen['fold'] = np.array([data.fold])  # else folds of one size would look the same
    unlabeled = train.take(chosen['rest'] if data.unlabeled_rest else [])
    if data.unlabeled_labeled:
        unlabeled += train.take(chosen['labeled'])
    for folder in folders:
        unlabeled += folder.records('train')
    if config.needs_unlabeled and config.mode == 'train' and not len(unlabeled):
        raise UserError(
            f'config.data.labels={data.labels} leaves no unlabeled image to rank: set '
            'config.data.unlabeled_labeled=true, name folders in config.data.unlabeled_dirs, '
            'or use config.regime=baseline'
        )
    return Splits(
        labeled=train.take(chosen['labeled']),
        unlabeled=unlabeled,
        validation=train.take(chosen['validation']),
        test=test.take(range(0, len(test), data.test_stride)),
        partial=any(p.report['partial'] for p in (main, *folders)),
        fingerprint=_fingerprint([main], chosen),
        unlabeled_fingerprint=_fingerprint(folders, {}) if folders else '',
    )


def _check_kind(config: Config, main: Prepared, folders: Sequence[Prepared]) -> None:
    """Raises UserError for a data set that lacks what the task reads."""
    split = 'train' if 'train' in main.splits else 'all'
    record = main.records(split).raw(0)
    try:
        config.task.label(record)
    except KeyError as error:
        raise UserError(
            f'config.data.dataset={config.data.dataset} holds no {error}, which the task '
            f'{type(config.task).__name__} reads: name a data set of its kind'
        ) from None
    for folder in folders:
        if 'train' not in folder.splits:
            raise UserError(
                f'config.data.unlabeled_set={config.data.unlabeled_set} is no set of unlabeled '
                'images: use image_folder, ladders or waterloo'
            )


def _groups(records: Records, prepared: Prepared) -> list[np.ndarray]:
    """Rows that must stay together, in the order of their first one."""
    if 'reference' not in prepared.features:
        return [np.array([row]) for row in range(len(records))]
    members: dict[str, list[int]] = {}
    for row, record in enumerate(records.annotations):
        # An image without a reference stands alone; no reference is named like that.
        members.setdefault(record['reference'] or f'row/{row}', []).append(row)
    return [np.array(rows) for rows in members.values()]


def _rows(groups: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    return np.concatenate([groups[place] for place in places])


def _check_left(data: Data, total: int, left: int, held_out: int) -> None:
    if left >= 1:
        return
    shares = f'config.data.validation={data.validation}'
    if not held_out:
        raise UserError(
            f'{shares} leaves none of the {total} training images to train on; use less, or '
            'prepare more images'
        )
    raise UserError(
        f'config.data.test_share={data.test_share} and {shares} leave none of the {total} '
        'references to train on; use less, and prepare at least 3'
    )


def _fingerprint(sources: Sequence[Prepared], chosen: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for prepared in sources:
        digest.update(prepared.report['fingerprint'].encode())
    for name, rows in chosen.items():
        digest.update(f'{name} {rows.tolist()}'.encode())
    return digest.hexdigest()[:16]
