"""Ladders as batches: the same bytes for any workers, threads, devices and restarts."""

import hashlib
import io

import absl.flags
import numpy as np
import pytest
from PIL import Image

from rank_ssl import data
from rank_ssl.config import Config, Data
from rank_ssl.ops import ladders
from rank_ssl.tasks.iqa import IQA
from rank_ssl.types import Batch

GROUPS, STEPS = 4, 5


@pytest.fixture(scope='module', autouse=True)
def parsed_flags():
    """grain's worker processes read absl's flags, which main has parsed in a run."""
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = np.kron(rng.uniform(0, 255, (7, 9, 3)), np.ones((12, 12, 1)))
    return np.clip(rough + rng.normal(0, 10, rough.shape), 0, 255).astype(np.uint8)


def stored(number: int, *, costly: bool) -> data.Records:
    """Pictures with their scores and, where `costly`, what a ladder store keeps beside them."""
    rows = []
    for n in range(number):
        image, file = picture(n), io.BytesIO()
        Image.fromarray(image).save(file, 'PNG')
        more = ladders.costly(image, f'{n}') if costly else {}
        rows.append({'image': file.getvalue(), 'id': f'{n}'.encode(), 'score': float(n),
                     'lower_is_better': 0, 'reference': b'', 'kind': b'', 'level': 0,
                     'height': 84, 'width': 108} | more)  # fmt: skip
    return data.Records([rows], [(0, n) for n in range(number)])


def config_of(**fields) -> Config:
    config = Config(task=IQA(size=32, last='pool'))
    config.data = Data(groups=GROUPS, labeled_per_group=1, prefetch=1, **fields)
    return config


@pytest.fixture(scope='module', params=[True, False], ids=['store', 'folder'])
def batches(request) -> data.Batches:
    records = stored(6, costly=request.param)
    splits = data.Splits(records, records, records, records, partial=False, fingerprint='')
    return data.Batches(config_of(), splits, range(GROUPS))


def digest(batch) -> str:
    arrays = batch._asdict() if isinstance(batch, Batch) else batch
    found = hashlib.sha256()
    for name in Batch._fields:
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()


@pytest.fixture(scope='module')
def expected(batches) -> list[str]:
    return [digest(batches[step]) for step in range(STEPS)]


@pytest.mark.parametrize(
    'how', [{'workers': 0, 'threads': 1}, {'workers': 0, 'threads': 4}, {'workers': 1},
            {'workers': 2}]
)  # fmt: skip
def test_workers_and_threads_change_no_byte(batches, expected, how):
    iterator = data.BatchIterator(batches, config_of(**how).data)
    assert [digest(next(iterator)) for _ in range(STEPS)] == expected
    iterator.close()


def test_a_restart_changes_no_byte(batches, expected):
    iterator = data.BatchIterator(batches, config_of().data, start=3)
    assert [digest(next(iterator)) for _ in range(2)] == expected[3:]
    iterator.close()


@pytest.mark.parametrize('devices', [1, 4])
def test_devices_change_no_byte(batches, expected, devices):
    records = stored(6, costly='jpeg2000' in batches._ranked[0])
    splits = data.Splits(records, records, records, records, partial=False, fingerprint='')
    each = GROUPS // devices
    shares = [
        data.Batches(config_of(), splits, range(each * d, each * (d + 1))) for d in range(devices)
    ]
    for step in range(STEPS):
        parts = [share[step] for share in shares]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert digest(whole) == expected[step]


def test_labels_and_order_of_a_batch(batches):
    batch = batches[0]
    assert batch['image'].shape == (GROUPS, 6, 32, 32, 3)
    assert (batch['phi'] == [0, -1, -2, -3, -4]).all()
    ids = [int(i) for i in batches.ids(0)][1::2]
    assert batch['target'].ravel().tolist() == ids
