"""Splits and batches: the same bits for any workers, threads, devices and restarts."""

import dataclasses
import hashlib
import io
import multiprocessing
import subprocess

import absl.flags
import numpy as np
import pytest
from PIL import Image

from rank_ssl import data
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.ops import crops
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch, RankedSet

GROUPS, LABELS = 3, 2
LEVELS = 5

# Any other value changes every run that somebody wants to repeat.
GOLDEN_RAW = [3908118788357988974, 3976118584364544030]
GOLDEN_RANDOM = 0.18596676272279888
GOLDEN_PHI = [[59, 44, 33, 25, 19], [63, 47, 35, 27, 20], [62, 47, 35, 26, 20]]
GOLDEN_IDS = [
    'train/0004',
    'train/0006',
    'train/0001',
    'train/0003',
    'train/0007',
    'train/0001',
    'train/0002',
    'train/0006',
    'train/0007',
]
GOLDEN_BOXES = [
    [0, 15, 59, 74],
    [8, 23, 52, 67],
    [13, 28, 46, 61],
    [17, 32, 42, 57],
    [20, 35, 39, 54],
]
GOLDEN_PATCHES = [[4, 31, 50, 77], [27, 8, 60, 41]]


def make_config(*, regime: str = 'multitask', seed: int = 0, margin: float = 0.0, **fields):
    """A small run; `fields` are of config.data."""
    config = Config(task=Crowd(size=32, patch_min=24, patch_max=64), regime=regime, seed=seed)
    config.margin = margin
    base = {'tiny': 8, 'labels': 3, 'validation': 0.25, 'groups': GROUPS}
    config.data = dataclasses.replace(config.data, **base | {'labeled_per_group': LABELS} | fields)
    return config


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp('run')


@pytest.fixture(scope='module')
def prepared(workdir):
    """Eight tiny drawn training scenes and four test scenes."""
    main, folders = data.prepare(make_config(), str(workdir))
    assert folders == []
    return main


@pytest.fixture(scope='module')
def splits(prepared):
    return data.load_splits(make_config(), prepared, [])


@pytest.fixture(scope='module', autouse=True)
def parsed_flags():
    """grain's worker processes read absl's flags, which main has parsed in a run."""
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()


def picture(array: np.ndarray, kind: str = 'PNG') -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def records(number: int, *, shape=(40, 48), points=()) -> data.Records:
    """Grey pictures in memory, of one channel on disk."""
    rows = []
    for n in range(number):
        image = picture(np.full(shape, n, np.uint8))
        rows.append({'image': image, 'id': f'made/{n:02d}'.encode(), 'height': shape[0],
                     'width': shape[1], 'points': np.reshape(points, (-1, 2)),
                     'count': len(points)})  # fmt: skip
    return data.Records([rows], [(0, n) for n in range(number)])


def made_splits(labeled: data.Records, unlabeled: data.Records) -> data.Splits:
    return data.Splits(labeled, unlabeled, labeled, labeled, partial=False, fingerprint='')


def digest(batch) -> str:
    """Of every field's type, shape and bytes."""
    arrays = batch._asdict() if isinstance(batch, Batch) else batch
    found = hashlib.sha256()
    for name in Batch._fields:
        array = np.asarray(arrays[name])
        found.update(f'{name} {array.dtype} {array.shape}'.encode() + array.tobytes())
    return found.hexdigest()


def test_counter_rng_is_another_stream_for_each_of_its_numbers():
    numbers = [(a, b, c, d) for a in range(3) for b in range(3) for c in range(3) for d in range(3)]
    drawn = [data.counter_rng(*four).bit_generator.random_raw(4).tolist() for four in numbers]
    assert len({word for words in drawn for word in words}) == 4 * len(numbers)
    again = data.counter_rng(2, 1, 0, 2).bit_generator.random_raw(4).tolist()
    assert again == drawn[numbers.index((2, 1, 0, 2))]


def test_streams_have_numbers_of_their_own():
    streams = data.SPLIT, data.RANKED, data.LABELED, data.EVALUATE, data.FIGURE
    assert streams == (0, 1, 2, 3, 4)  # other numbers would change every run


def test_golden_values_of_counter_rng():
    raw = data.counter_rng(0, data.RANKED, 0, 0).bit_generator.random_raw(2)
    assert raw.tolist() == GOLDEN_RAW
    assert data.counter_rng(2**32 - 1, data.LABELED, 10_000, 49).random() == GOLDEN_RANDOM


def test_a_batch_has_the_shapes_and_types_of_the_contract(splits):
    batch = Batch(**data.Batches(make_config(), splits, range(GROUPS))[0])
    images, shapes = LEVELS + LABELS, {name: array.shape for name, array in batch._asdict().items()}
    assert shapes == {
        'image': (GROUPS, images, 32, 32, 3),
        'phi': (GROUPS, LEVELS),
        'segments': (GROUPS, LEVELS),
        'ranked_where': (GROUPS, LEVELS),
        'target': (GROUPS, LABELS, 2, 2),
        'labeled_where': (GROUPS, LABELS),
    }
    types = [np.uint8, np.float32, np.int32, np.bool_, np.float32, np.bool_]
    assert [array.dtype for array in batch] == types
    assert batch.ranked_where.all() and batch.labeled_where.all()


def test_golden_phi_boxes_and_examples_of_the_first_step(splits):
    batches = data.Batches(make_config(), splits, range(GROUPS))
    assert batches[0]['phi'].astype(int).tolist() == GOLDEN_PHI
    assert batches.ids(0) == GOLDEN_IDS
    rng = data.counter_rng(0, data.RANKED, 0, 0)
    boxes = crops.pyramid_boxes(rng, (64, 96))
    assert boxes.tolist() == GOLDEN_BOXES
    patches = [
        crops.patch_box(data.counter_rng(0, data.LABELED, 0, i), (64, 96), min_side=24, max_side=64)
        for i in range(2)
    ]
    assert [patch.tolist() for patch in patches] == GOLDEN_PATCHES


def test_each_image_is_drawn_from_its_own_record_and_counter(splits):
    config, step = make_config(), 4
    batches = data.Batches(config, splits, range(GROUPS))
    made, ids = batches[step], batches.ids(step)
    both = splits.labeled + splits.unlabeled
    by_id = {name: both[i] for i, name in enumerate(both.ids())}
    per_group = 1 + LABELS
    for group in range(GROUPS):
        ranked, *labeled = ids[group * per_group : (group + 1) * per_group]
        rng = data.counter_rng(0, data.RANKED, step, group)
        expected = config.task.ranked_set(rng, by_id[ranked])
        np.testing.assert_array_equal(made['image'][group, :LEVELS], expected.images)
        np.testing.assert_array_equal(made['phi'][group], expected.phi)
        for r, name in enumerate(labeled):
            rng = data.counter_rng(0, data.LABELED, step, group * LABELS + r)
            image, target = config.task.labeled(rng, by_id[name])
            np.testing.assert_array_equal(made['image'][group, LEVELS + r], image)
            np.testing.assert_array_equal(made['target'][group, r], target)


@pytest.mark.fault(row=16, injected='data for 1, 2 and 4 devices', outcome='the same bits')
@pytest.mark.parametrize('devices', [1, 2, 4])
def test_the_groups_of_all_devices_are_the_batch_and_padding_is_empty(splits, devices):
    config, each = make_config(), 4 // devices
    whole = data.Batches(config, splits, range(GROUPS))
    shares = [data.Batches(config, splits, range(each * d, each * (d + 1))) for d in range(devices)]
    for step in (0, 5):
        parts = [share[step] for share in shares]
        ids = [name for share in shares for name in share.ids(step)]
        assert ids == whole.ids(step)
        for name, expected in whole[step].items():
            found = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(found[:GROUPS], expected)
            assert found.shape[0] == 4 and not found[GROUPS:].any()


@pytest.mark.fault(
    row=17,
    injected='restarted at each of 6 positions, with 1 and 3 threads',
    outcome='the remaining batches have the same bits',
)
@pytest.mark.parametrize('threads', [1, 3])
def test_threads_change_nothing_at_any_start(splits, threads):
    config = make_config(threads=threads)
    batches = data.Batches(config, splits, range(4))
    expected = [digest(batches[step]) for step in range(6)]
    assert len(set(expected)) == 6
    for start in range(6):
        iterator = data.BatchIterator(batches, config.data, start=start)
        assert iterator.position == {'next_step': start}
        assert [digest(next(iterator)) for _ in range(6 - start)] == expected[start:]
        assert iterator.position == {'next_step': 6}
        iterator.close()


@pytest.mark.fault(
    row=17,
    injected='restarted with 0, 2, 1 and 0 worker processes',
    outcome='the remaining batches have the same bits',
)
def test_a_run_goes_on_from_its_position_with_any_number_of_workers(splits):
    config = make_config(prefetch=1)
    batches = data.Batches(config, splits, range(4))
    position, found = 0, []
    for workers, steps in ((0, 1), (2, 3), (1, 2), (0, 2)):
        config.data.workers = workers
        iterator = data.BatchIterator(batches, config.data, start=position)
        found += [digest(next(iterator)) for _ in range(steps)]
        position = iterator.position['next_step']
        assert bool(multiprocessing.active_children()) == bool(workers)
        iterator.close()
        assert not multiprocessing.active_children()
    assert position == 8
    assert found == [digest(batches[step]) for step in range(8)]


def test_every_epoch_passes_each_record_once_in_another_order():
    labeled, unlabeled, epochs = records(7), records(10), 4
    config = make_config(groups=5)
    batches = data.Batches(config, made_splits(labeled, unlabeled), range(5))
    steps = [np.array(batches.ids(step)).reshape(5, 1 + LABELS) for step in range(28)]
    ranked = np.concatenate([ids[:, 0] for ids in steps])
    regressed = np.concatenate([ids[:, 1:].ravel() for ids in steps])
    for passed, source in ((ranked, unlabeled), (regressed, labeled)):
        orders = passed[: epochs * len(source)].reshape(epochs, -1)
        assert all(sorted(order) == source.ids() for order in orders)
        assert len({tuple(order) for order in orders}) == epochs
    other = data.Batches(make_config(groups=5, seed=1), made_splits(labeled, unlabeled), range(5))
    assert [other.ids(step) for step in range(2)] != [batches.ids(step) for step in range(2)]


def test_both_orders_of_one_set_of_records_are_apart():
    same = records(12)
    config = make_config(groups=12, labeled_per_group=1)
    ids = data.Batches(config, made_splits(same, same), range(12)).ids(0)
    assert sorted(ids[::2]) == sorted(ids[1::2]) == same.ids() and ids[::2] != ids[1::2]


@pytest.mark.parametrize('regime, levels, labels', [('baseline', 0, LABELS), ('ranking', 5, 0)])
def test_regimes_hold_only_their_own_images(prepared, splits, regime, levels, labels):
    whole = data.Batches(make_config(), splits, range(GROUPS))[2]
    config = make_config(regime=regime)
    own = data.load_splits(config, prepared, [])
    found = data.Batches(config, own, range(GROUPS))
    batch = found[2]
    assert len(found.ids(2)) == GROUPS * (bool(levels) + labels)
    assert batch['phi'].shape == (GROUPS, levels) and batch['target'].shape[:2] == (GROUPS, labels)
    kept = slice(LEVELS, None) if regime == 'baseline' else slice(0, LEVELS)
    np.testing.assert_array_equal(batch['image'], whole['image'][:, kept])
    for name in ('target', 'labeled_where') if labels else ('phi', 'segments', 'ranked_where'):
        np.testing.assert_array_equal(batch[name], whole[name])


def test_a_regime_needs_no_records_of_the_other():
    some, none = records(3), records(0)
    for regime, chosen in (('baseline', (some, none)), ('ranking', (none, some))):
        batches = data.Batches(make_config(regime=regime), made_splits(*chosen), range(GROUPS))
        assert batches[0]['image'].shape[0] == GROUPS


@pytest.mark.fault(
    row=7,
    injected='grey pictures smaller than the crop, 1x1 among them',
    outcome='batches of the usual shape',
)
@pytest.mark.parametrize('shape', [(40, 48), (14, 20), (1, 1)])
def test_grey_small_pictures_without_persons_make_batches(shape):
    some = records(2, shape=shape)
    batch = data.Batches(make_config(), made_splits(some, some), range(GROUPS))[0]
    assert batch['image'].shape == (GROUPS, LEVELS + LABELS, 32, 32, 3)
    assert set(batch['image'].ravel()) == {0, 1}  # record n is of grey n
    assert not batch['target'].any() and batch['labeled_where'].all()
    assert (batch['phi'] <= min(shape)).all()


def ids_of(splits: data.Splits) -> dict[str, list[str]]:
    names = 'labeled', 'unlabeled', 'validation', 'test'
    return {name: getattr(splits, name).ids() for name in names}


@pytest.mark.parametrize('labels, expected', [(3, 3), (1, 1), (6, 6), (0, 6)])
def test_splits_are_disjoint_and_cover_the_training_set(prepared, labels, expected):
    config = make_config(labels=labels, regime='baseline')
    found = ids_of(data.load_splits(config, prepared, []))
    assert {name: len(ids) for name, ids in found.items()} == {
        'labeled': expected, 'unlabeled': 6 - expected, 'validation': 2, 'test': 4,
    }  # fmt: skip
    train = found['labeled'] + found['unlabeled'] + found['validation']
    assert sorted(train) == [f'train/{i:04d}' for i in range(8)]
    assert found['test'] == [f'test/{i:04d}' for i in range(4)]


def test_splits_are_draws_from_the_seed_alone(prepared, splits):
    again = data.load_splits(make_config(), prepared, [])
    assert ids_of(again) == ids_of(splits) and again.fingerprint == splits.fingerprint
    drawn = [ids_of(data.load_splits(make_config(seed=s), prepared, [])) for s in range(5)]
    for name in ('labeled', 'validation'):
        assert len({tuple(found[name]) for found in drawn}) > 2
    assert all(found['test'] == drawn[0]['test'] for found in drawn)


def test_paired_arms_share_labels_and_validation(prepared, splits):
    arms = {'regime': 'baseline'}, {'margin': 5.0}, {'unlabeled_labeled': True}, {'groups': 7}
    for options in arms:
        found = ids_of(data.load_splits(make_config(**options), prepared, []))
        for name in ('labeled', 'validation', 'test'):
            assert found[name] == ids_of(splits)[name]


def test_more_labels_extend_fewer(prepared):
    few, more = (data.load_splits(make_config(labels=n), prepared, []) for n in (2, 4))
    assert more.labeled.ids()[:2] == few.labeled.ids()
    assert more.validation.ids() == few.validation.ids()


@pytest.mark.parametrize(
    'rest, labeled, expected',
    [(True, False, ['rest']), (True, True, ['rest', 'labeled']), (False, True, ['labeled'])],
)
def test_what_serves_unlabeled(prepared, splits, rest, labeled, expected):
    config = make_config(unlabeled_rest=rest, unlabeled_labeled=labeled)
    found = data.load_splits(config, prepared, []).unlabeled.ids()
    of = {'rest': splits.unlabeled.ids(), 'labeled': splits.labeled.ids()}
    assert found == [name for part in expected for name in of[part]]


def test_every_nth_test_image_is_evaluated(prepared):
    found = data.load_splits(make_config(test_stride=3), prepared, [])
    assert found.test.ids() == ['test/0000', 'test/0003']


@pytest.mark.fault(
    row=15,
    injected='more labels than images, no image left to rank or validate',
    outcome='an error with the count and the cure',
)
@pytest.mark.parametrize(
    'fields, words',
    [
        ({'labels': 7}, ['config.data.labels=7', '6 training images', 'use at most 6']),
        ({'labels': 6}, ['config.data.labels=6', 'unlabeled_labeled=true', 'regime=baseline']),
        ({'labels': 0}, ['no unlabeled image', 'config.data.unlabeled_dirs']),
        ({'unlabeled_rest': False}, ['no unlabeled image', 'unlabeled_labeled=true']),
        ({'labels': 0, 'validation': 0.99}, ['config.data.validation=0.99', 'none of the 8']),
    ],
)
def test_a_split_that_would_be_empty_is_refused_with_the_cure(prepared, fields, words):
    with pytest.raises(UserError) as raised:
        data.load_splits(make_config(**fields), prepared, [])
    message = str(raised.value)
    assert '\n' not in message and all(word in message for word in words), message


def test_validation_holds_at_least_one_image(prepared):
    found = data.load_splits(make_config(validation=0.01), prepared, [])
    assert len(found.validation) == 1


def test_the_fingerprint_tells_seed_rows_and_sources(prepared, splits):
    other = [
        make_config(seed=1), make_config(labels=4), make_config(validation=0.4),
    ]  # fmt: skip
    found = [data.load_splits(config, prepared, []).fingerprint for config in other]
    copy = data.Prepared(prepared.path, prepared.report | {'fingerprint': 'another'})
    found.append(data.load_splits(make_config(), copy, []).fingerprint)
    found.append(splits.fingerprint)
    assert len(set(found)) == len(found)
    both = [data.load_splits(make_config(), prepared, [folder]) for folder in (prepared, copy)]
    assert {one.fingerprint for one in both} == {splits.fingerprint}
    assert len({one.unlabeled_fingerprint for one in (*both, splits)}) == 3


def test_partial_copies_are_reported(prepared):
    copy = data.Prepared(prepared.path, prepared.report | {'partial': True})
    assert not data.load_splits(make_config(), prepared, []).partial
    assert data.load_splits(make_config(), copy, []).partial
    assert data.load_splits(make_config(), prepared, [copy]).partial


def test_records_are_decoded_on_reading_and_keep_their_annotations(prepared):
    train = prepared.records('train')
    assert len(train) == 8
    one = train[2]
    assert one['id'] == 'train/0002' and one['index'] == 2
    assert one['image'].shape == (64, 96, 3) and one['image'].dtype == np.uint8
    assert one['points'].shape == (one['count'], 2)
    assert isinstance(train.raw(2)['image'], bytes)
    both = train.take([5, 1]) + prepared.records('test', [3])
    assert both.ids() == ['train/0005', 'train/0001', 'test/0003']
    assert both[2]['index'] == 2 and both.take([2, 0]).ids() == ['test/0003', 'train/0005']


def test_examples_of_a_split(prepared, splits):
    examples = data.Examples(splits.test, Crowd(size=32, eval_side=50), 0)
    assert examples.shapes() == [(48, 64)] * 4  # 50 px by 33, up to multiples of 16
    read = list(examples.read([3, 0, 2], 2))
    assert [example['record']['id'] for example in read] == ['test/0003', 'test/0000', 'test/0002']
    for place, example in zip([3, 0, 2], read, strict=True):
        assert example['views'].images.shape == (1, 48, 64, 3)
        annotations = examples.annotations[place]
        assert annotations['id'] == example['record']['id'] and 'image' not in annotations
        np.testing.assert_array_equal(annotations['points'], example['record']['points'])
    assert list(examples.read([], 2)) == []


def test_unlabeled_folders_are_added_and_leave_nothing_outside_the_workdir(
    prepared, workdir, tmp_path, monkeypatch
):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    folder = tmp_path / 'my own photos'
    (folder / 'deep').mkdir(parents=True)
    (folder / 'a.jpg').write_bytes(picture(np.full((20, 30), 90, np.uint8), 'JPEG'))
    (folder / 'deep' / 'b.png').write_bytes(picture(np.full((50, 40, 3), 7, np.uint8)))
    (tmp_path / 'more').mkdir()
    (tmp_path / 'more' / 'c.png').write_bytes(picture(np.full((30, 30), 50, np.uint8)))
    config = make_config(unlabeled_dirs=f'{folder},{tmp_path / "more"}')
    main, folders = data.prepare(config, str(workdir))
    assert main.path == prepared.path and not (tmp_path / 'cache').exists()
    found = data.load_splits(config, main, folders)
    assert found.unlabeled.ids()[3:] == ['a.jpg', 'deep/b.png', 'c.png']
    grey = found.unlabeled[3]['image']
    assert grey.shape == (20, 30, 3) and (np.abs(grey.astype(int) - 90) < 4).all()
    batches = data.Batches(config, found, range(GROUPS))
    passed = {name for step in range(4) for name in batches.ids(step)[:: 1 + LABELS]}
    assert {'a.jpg', 'deep/b.png', 'c.png'} <= passed
    assert all(np.isfinite(batches[step]['phi']).all() for step in range(2))


@pytest.mark.fault(
    row=15,
    injected='a folder without the data set',
    outcome='an error with the folder, said once',
)
def test_what_the_preparation_refuses_is_said_once(tmp_path, capfd):
    config = make_config(dataset='shanghaitech', part='part_A', tiny=0, manual_dir=str(tmp_path),
                         data_dir=str(tmp_path / 'prepared'))  # fmt: skip
    with pytest.raises(data.PreparationRefused):
        data.prepare(config, str(tmp_path))
    assert str(tmp_path) in capfd.readouterr().err


@pytest.mark.parametrize('given, flags', [({}, 'config.data.'), ({'flags': ''}, '')])
def test_the_preparation_knows_how_flags_begin(monkeypatch, tmp_path, given, flags):
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 2, stdout='')

    monkeypatch.setattr(subprocess, 'run', run)
    with pytest.raises(data.PreparationRefused):
        data.prepare(make_config(), str(tmp_path), **given)
    assert f'--flags={flags}' in commands[0]


@pytest.mark.parametrize('code, out', [(1, ''), (-9, 'path'), (0, '')])
def test_a_preparation_that_breaks_is_named_with_its_command(monkeypatch, tmp_path, code, out):
    done = subprocess.CompletedProcess([], code, stdout=out)
    monkeypatch.setattr(subprocess, 'run', lambda command, **options: done)
    with pytest.raises(UserError, match=f'exit code {code}.*data_prep.prepare synthetic_crowd'):
        data.prepare(make_config(), str(tmp_path))


def comparable(phi: np.ndarray, segments: np.ndarray) -> int:
    return int(((phi[:, None] < phi) & (segments[:, None] == segments)).sum())


@pytest.mark.parametrize('levels, groups', [(5, 4), (4, 3)])
def test_random_pairs_are_two_images_of_as_many_records(splits, levels, groups):
    config = make_config(groups=groups)
    config.task.levels, config.sampler = levels, 'random'
    config.check()
    batches = data.Batches(config, splits, range(config.groups))
    batch, every = Batch(**batches[3]), groups * levels
    assert batch.phi.shape == (config.groups, config.ranked) and batch.phi.size == every
    assert batch.ranked_where.all()
    for phi, segments in zip(batch.phi, batch.segments, strict=True):
        np.testing.assert_array_equal(segments, np.arange(config.ranked // 2).repeat(2))
        assert comparable(phi, segments) == config.ranked // 2
    ids = batches.ids(3)
    assert len(ids) == every // 2 + config.groups * config.labeled
    # Each pair is of the record that its place in the shuffled order names.
    order = data.batches._shuffled(splits.unlabeled, config.seed, data.RANKED)
    for pair in range(every // 2):
        group, place = divmod(pair, config.ranked // 2)
        rng = data.counter_rng(config.seed, data.RANKED, 3, pair)
        record = order[3 * every // 2 + pair]
        whole = config.task.ranked_set(rng, record)
        mine = batch.image[group, 2 * place : 2 * place + 2]
        assert all(any(np.array_equal(image, one) for one in whole.images) for image in mine)
        assert record['id'] in ids


def test_labeled_images_are_the_same_for_every_sampler(splits):
    found = []
    for sampler in ('all', 'random', 'hard'):
        config = make_config(groups=4)
        config.sampler = sampler
        batch = Batch(**data.Batches(config, splits, range(config.groups))[2])
        found.append(batch.image[:, config.ranked :].reshape(-1, 32, 32, 3))
        assert batch.image.shape[0] * batch.image.shape[1] == 4 * (LEVELS + LABELS)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_random_pair_is_any_comparable_one():
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    phi, segments = np.float32([0, 0, 1, 2]), np.int32([0, 0, 0, 1])
    whole = RankedSet(images, phi, segments)
    seen = set()
    for seed in range(60):
        pair = data.batches.random_pair(np.random.default_rng(seed), whole)
        seen.add(tuple(int(image[0, 0, 0]) for image in pair.images))
        np.testing.assert_array_equal(pair.phi, [0, 1])
    assert seen == {(0, 2), (1, 2)}
    alone = RankedSet(images[:2], phi[:2], segments[:2])
    pair = data.batches.random_pair(np.random.default_rng(0), alone)
    assert comparable(pair.phi, pair.segments) == 0 and len(pair.images) == 2


def test_first_step_goes_on_where_the_steps_before_ended(prepared):
    config, splits = make_config(), data.load_splits(make_config(), prepared, [])
    whole = data.Batches(config, splits, range(GROUPS))
    config.first_step = 5
    later = data.Batches(config, splits, range(GROUPS))
    assert digest(later[2]) == digest(whole[7]) != digest(whole[2])
    assert later.ids(2) == whole.ids(7)
