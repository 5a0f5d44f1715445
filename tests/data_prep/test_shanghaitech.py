"""ShanghaiTech: both spellings, annotations of every kind, and each fault of the layout."""

import json
import re

import numpy as np
import pytest
import scipy.io

from data_prep.shanghaitech import made, source

SMALL = {'part_A': {'train': 3, 'test': 2}, 'part_B': {'train': 3, 'test': 2}}


@pytest.fixture(autouse=True)
def small_published_size(monkeypatch):
    monkeypatch.setattr(source, 'EXPECTED', SMALL)


@pytest.fixture
def part(tmp_path, write_shanghaitech):
    return write_shanghaitech(tmp_path / 'data' / 'shanghaitech' / 'part_A')


@pytest.fixture
def prepare(tmp_path, run):
    return lambda *args: run('shanghaitech', f'--manual_dir={tmp_path / "data"}', *args)


@pytest.mark.parametrize('name', ['part_A', 'part_A_final', 'part_B', 'part_B_final'])
@pytest.mark.parametrize('truth', ['ground-truth', 'ground_truth'])
@pytest.mark.parametrize('parent', ['shanghaitech', '.'])
def test_every_spelling_is_listed(tmp_path, write_shanghaitech, name, truth, parent):
    write_shanghaitech(tmp_path / parent / name, truth=truth)
    config = name.removesuffix('_final')
    folder = source.SOURCE.locate(config, tmp_path)
    listing = source.SOURCE(config, folder).items()
    assert [item.id for item in listing['train']] == [f'{config}/train/IMG_{n}' for n in (1, 2, 3)]
    assert len(listing['test']) == 2
    assert all(len(item.files) == 2 and not item.problem for item in listing['train'])


def test_numbers_sort_as_numbers(tmp_path, write_shanghaitech):
    write_shanghaitech(tmp_path / 'part_A', train=11)
    listing = source.SOURCE('part_A', tmp_path).items()
    assert [item.id.rsplit('_', 1)[1] for item in listing['train']] == [
        str(n) for n in range(1, 12)
    ]


def test_examples_come_back_exactly(part, prepare, read_back):
    code, out, err = prepare()
    assert code == 0, err
    record, splits = read_back(out.strip())
    for split, examples in splits.items():
        for n, example in enumerate(examples, start=1):
            folder = part / f'{split}_data'
            truth = scipy.io.loadmat(folder / 'ground-truth' / f'GT_IMG_{n}.mat')
            points = truth['image_info'][0, 0][0, 0][0]
            assert example['image'] == (folder / 'images' / f'IMG_{n}.jpg').read_bytes()
            assert example['id'].decode() == f'part_A/{split}/IMG_{n}'
            np.testing.assert_array_equal(example['points'], points.astype(np.float32))
            assert example['points'].dtype == np.float32
            assert (example['count'], example['outside']) == (n + 1, 0)
            assert (example['height'], example['width']) == (40, 56)
    assert record['splits'] == record['expected'] == {'train': 3, 'test': 2}
    assert record['persons'] == {'train': 9, 'test': 5}
    assert record['partial'] is record['made'] is False
    assert record['bad_files'] == record['near_duplicates'] == record['notes'] == []
    assert record['source'] == str(part.parent) and 'Research use' in record['license']


def test_strays_are_ignored_and_reported(part, prepare):
    images = part / 'train_data' / 'images'
    for name in ('Thumbs.db', 'IMG_9.png', 'IMG_2 (copy).jpg', '._IMG_1.jpg'):
        (images / name).write_bytes(b'')
    code, _, err = prepare()
    assert code == 0 and 'train: ignored 4 other files, such as ' in err


@pytest.mark.fault(
    row=9,
    injected='points outside the image',
    outcome='moved or dropped, and reported',
)
def test_points_off_the_image_on_one_pixel_and_on_the_border(part, prepare, read_back):
    points = [[56.0, 40.0], [0.0, 0.0], [10.2, 5.1], [10.3, 5.2], [-0.7, 5.0], [-400.0, 5.0]]
    made.write_annotation(part / 'train_data/ground-truth/GT_IMG_1.mat', np.array(points))
    code, out, err = prepare()
    assert code == 0
    assert 'part_A/train/IMG_1: 1 points off the image dropped, 1 moved onto it' in err
    record, splits = read_back(out.strip())
    example = splits['train'][0]
    expected = [[56.0, 40.0], [0.0, 0.0], [10.2, 5.1], [10.3, 5.2], [0.0, 5.0]]
    np.testing.assert_allclose(example['points'], expected, rtol=1e-6)
    assert (example['count'], example['outside']) == (6, 1)
    assert record['outside'] == {'train': 1, 'test': 0} and record['persons']['train'] == 6 + 3 + 4


@pytest.mark.fault(row=9, injected='zero persons', outcome='valid')
@pytest.mark.parametrize('shape', [(0, 2), (0, 0)])
def test_zero_persons_is_valid(part, prepare, read_back, shape):
    made.write_annotation(part / 'test_data/ground-truth/GT_IMG_2.mat', np.zeros(shape), count=0)
    code, out, err = prepare()
    assert code == 0, err
    example = read_back(out.strip())[1]['test'][1]
    assert example['count'] == 0 and example['points'].shape == (0, 2)


@pytest.mark.fault(row=9, injected='a wrong count', outcome='reported; the points are used')
def test_a_wrong_count_is_reported_and_the_points_are_used(part, prepare, read_back):
    truth = part / 'train_data/ground-truth/GT_IMG_1.mat'
    made.write_annotation(truth, np.ones((2, 2)), count=9)
    code, out, err = prepare()
    assert code == 0
    note = 'part_A/train/IMG_1: count 9 in the file, 2 points; the points are used'
    record, splits = read_back(out.strip())
    assert note in err and record['notes'] == [note]
    assert splits['train'][0]['count'] == 2


def corrupt(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def nan_point(path):
    made.write_annotation(path, np.array([[1.0, 2.0], [np.nan, 3.0]]))


FAULTS = {
    'missing': (lambda path: path.unlink(), 'its annotation .* is missing'),
    'empty': (lambda path: path.write_bytes(b''), 'not a readable MATLAB file'),
    'corrupt': (corrupt, 'not a readable MATLAB file|damaged'),
    'v7.3': (lambda path: path.write_bytes(b'MATLAB 7.3 MAT-file'.ljust(600)), '7.3'),
    'nan': (nan_point, '1 points are not finite'),
    'other': (lambda path: scipy.io.savemat(path, {'x': 1}), 'holds no image_info'),
}


@pytest.mark.fault(
    row=9,
    injected='missing, empty, damaged, of version 7.3, NaN points, another content',
    outcome='listed with its path; --on_bad=skip leaves it out',
)
@pytest.mark.parametrize('fault', FAULTS)
def test_a_bad_annotation_is_an_error_or_skipped(part, prepare, read_back, fault):
    damage, message = FAULTS[fault]
    path = part / 'train_data/ground-truth/GT_IMG_2.mat'
    damage(path)
    code, out, err = prepare()
    first, second = err.splitlines()[-2:]
    assert code == 2 and out == '' and 'Traceback' not in err
    assert first.startswith('error: shanghaitech part_A: 1 file is unusable')
    assert 'IMG_2' in second and re.search(message, second)
    code, out, err = prepare('--on_bad=skip')
    assert code == 0, err
    record, splits = read_back(out.strip())
    assert [e['id'].decode()[-5:] for e in splits['train']] == ['IMG_1', 'IMG_3']
    assert record['partial'] is True and len(record['bad_files']) == 1


def test_an_annotation_without_its_image_is_listed(part, prepare):
    (part / 'test_data/images/IMG_1.jpg').unlink()
    code, _, err = prepare()
    assert code == 2 and 'GT_IMG_1.mat: its image' in err and 'IMG_1.jpg is missing' in err


@pytest.mark.fault(
    row=15,
    injected='images missing',
    outcome='refused with the counts; --allow_partial takes it',
)
def test_an_incomplete_set_is_refused_or_taken_as_partial(part, prepare, read_back):
    (part / 'train_data/images/IMG_3.jpg').unlink()
    (part / 'train_data/ground-truth/GT_IMG_3.mat').unlink()
    code, out, err = prepare()
    lines = err.splitlines()
    assert code == 2 and out == ''
    assert 'is incomplete: train 2 of 3; complete it or pass --allow_partial' in lines[0]
    assert all(line.startswith('  ') for line in lines[1:]) and 'IMG_3.jpg' in err
    code, out, err = prepare('--allow_partial')
    assert code == 0 and 'is partial (train 2 of 3, test 2 of 2)' in err
    assert read_back(out.strip())[0]['partial'] is True
    assert prepare()[0] == 2  # the partial copy that is now prepared changes nothing


def test_a_missing_split_may_be_partial(part, prepare, read_back):
    (part / 'test_data').rename(part / 'gone')
    assert prepare()[0] == 2
    code, out, _ = prepare('--allow_partial')
    assert code == 0 and read_back(out.strip())[0]['splits'] == {'train': 3}


@pytest.mark.fault(
    row=15,
    injected='a data set that is not there',
    outcome='an error with folder, command and tree',
)
def test_a_missing_set_names_the_folder_the_command_and_the_tree(tmp_path, prepare):
    code, out, err = prepare()
    first, *tree = err.splitlines()
    assert code == 2 and out == ''
    assert str(tmp_path / 'data') in first
    assert 'python -m data_prep.prepare shanghaitech --part=part_A --manual_dir=DIR' in first
    assert all(line.startswith('  ') for line in tree)
    assert 'IMG_1.jpg ... IMG_3.jpg' in err and 'ground-truth' in err


@pytest.mark.fault(
    row=15,
    injected='a folder of another name',
    outcome='an error with the expected tree',
)
@pytest.mark.parametrize('wrong', ['images', 'ground-truth'])
def test_a_wrong_layout_shows_the_tree(part, prepare, wrong):
    for split in ('train', 'test'):
        (part / f'{split}_data' / wrong).rename(part / f'{split}_data' / 'pictures')
    code, _, err = prepare()
    assert code == 2 and err.startswith(f'error: {part} has none of the images')
    assert '--part=part_A' in err.splitlines()[0] and 'ground-truth/' in err


def test_a_shown_twice_picture_is_reported(part, prepare, read_back):
    leaked = (part / 'train_data/images/IMG_3.jpg').read_bytes()
    (part / 'test_data/images/IMG_2.jpg').write_bytes(leaked)
    code, out, err = prepare()
    assert code == 0 and '1 near-duplicate between train and test: IMG_3 = test IMG_2' in err
    assert read_back(out.strip())[0]['near_duplicates'] == [
        {
            'first': ['train', 'part_A/train/IMG_3'],
            'second': ['test', 'part_A/test/IMG_2'],
            'same_bytes': True,
        }
    ]


def test_the_record_is_readable_text(part, prepare):
    folder = prepare()[1].strip()
    with open(f'{folder}/prepared.json', encoding='utf-8') as file:
        record = json.load(file)
    assert (record['name'], record['config'], record['version']) == (
        'shanghaitech',
        'part_A',
        '1.0.0',
    )
    assert f'/{record["fingerprint"]}/' in folder


def test_plain_tfds_use_prepares_and_refuses(part, tmp_path):
    import tensorflow_datasets as tfds

    from data_prep.shanghaitech.shanghaitech import Shanghaitech
    from rank_ssl.errors import UserError

    def build(data_dir):
        builder = Shanghaitech(config='part_A', data_dir=data_dir, file_format='array_record')
        config = tfds.download.DownloadConfig(manual_dir=tmp_path / 'data')
        builder.download_and_prepare(download_config=config)
        return builder

    builder = build(tmp_path / 'tfds')
    assert len(builder.as_data_source('train')) == 3
    assert 'Multi-Column' in builder.info.citation and 'Part A' in builder.info.description
    corrupt(part / 'train_data/ground-truth/GT_IMG_2.mat')
    with pytest.raises(UserError, match='1 file is unusable'):
        build(tmp_path / 'tfds2')
