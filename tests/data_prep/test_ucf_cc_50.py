"""UCF_CC_50: its folds, every place the files may lie in, each fault, and the real set."""

import re

import numpy as np
import pytest
import scipy.io

from data_prep.ucf_cc_50 import made, source
from rank_ssl.errors import UserError

FIRST = [37, 48, 29, 10, 14, 1, 45, 47, 40, 24]  # the released test_set_0.txt
NUMBERS = (1, 2, 10, 46)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(source, 'EXPECTED', len(NUMBERS))


@pytest.fixture
def write(picture):
    """write(folder): image n has n + 1 points."""

    def call(folder, *, numbers=NUMBERS):
        folder.mkdir(parents=True)
        for n in numbers:
            (folder / f'{n}.jpg').write_bytes(picture(n, mode='L'))
            points = np.random.default_rng(n).uniform(0, 40, (n + 1, 2))
            made.write_annotation(folder / f'{n}_ann.mat', points)
        return folder

    return call


@pytest.fixture
def folder(tmp_path, write, small):
    return write(tmp_path / 'data' / 'ucf_cc_50' / 'UCF_CC_50')


@pytest.fixture
def prepare(tmp_path, run):
    return lambda *args: run('ucf_cc_50', f'--manual_dir={tmp_path / "data"}', *args)


def test_the_folds_are_five_tens_of_the_50_images():
    assert [len(numbers) for numbers in source.FOLDS] == [10] * 5
    assert sorted(source.FOLD) == list(range(1, 51))
    assert list(source.FOLDS[0]) == FIRST
    assert {source.FOLD[n] for n in FIRST} == {1}


def test_each_scene_lies_in_one_fold():
    assert {source.FOLD[n] for n in source.SCENES} == {source.FOLD[41]} == {5}


@pytest.mark.parametrize(
    'place', ['.', 'ucf_cc_50', 'UCF_CC_50', 'ucf_cc_50/UCF_CC_50', 'ucf_cc_50/ucf_cc_50']
)
def test_every_place_is_listed(tmp_path, write, place):
    write(tmp_path / 'data' / place)
    at = source.SOURCE.locate('published', tmp_path / 'data')
    listing = source.SOURCE('published', at).items()
    assert [item.id for item in listing['all']] == [f'ucf_cc_50/{n}' for n in NUMBERS]
    assert all(len(item.files) == 2 and not item.problem for item in listing['all'])


@pytest.mark.parametrize('part, scenes', [('published', [''] * 4), ('one_scene', None)])
def test_examples_come_back_exactly(folder, prepare, read_back, part, scenes):
    code, out, err = prepare(f'--part={part}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    assert list(splits) == ['whole'] and len(splits['whole']) == len(NUMBERS)
    for n, example in zip(NUMBERS, splits['whole'], strict=True):
        points = scipy.io.loadmat(folder / f'{n}_ann.mat')['annPoints']
        assert example['image'] == (folder / f'{n}.jpg').read_bytes()
        assert example['id'].decode() == f'ucf_cc_50/{n}'
        np.testing.assert_array_equal(example['points'], points.astype(np.float32))
        assert (example['count'], example['outside']) == (n + 1, 0)
        assert (example['height'], example['width']) == (40, 56)
    assert [example['fold'] for example in splits['whole']] == [1, 3, 1, 5]
    references = [example['reference'].decode() for example in splits['whole']]
    assert references == (scenes or ['', '', '', 'scene_41_46'])
    assert record['splits'] == record['expected'] == {'all': 4} and record['partial'] is False
    assert record['persons'] == {'all': sum(n + 1 for n in NUMBERS)}
    assert record['bad_files'] == record['notes'] == []
    assert 'Research use' in record['license']


def test_other_files_and_numbers_are_ignored_and_reported(folder, prepare):
    for name in ('Thumbs.db', '51.jpg', '0.jpg', '01.jpg', '1_ann (copy).mat', '._2.jpg'):
        (folder / name).write_bytes(b'')
    code, _, err = prepare()
    assert code == 0 and 'ignored 6 other files, such as ' in err


def test_points_off_the_image(folder, prepare, read_back):
    points = np.array([[56.0, 40.0], [-0.4, 5.0], [-400.0, 5.0]])
    made.write_annotation(folder / '2_ann.mat', points)
    code, out, err = prepare()
    assert code == 0 and 'ucf_cc_50/2: 1 points off the image dropped, 1 moved onto it' in err
    example = read_back(out.strip())[1]['whole'][1]
    np.testing.assert_array_equal(example['points'], [[56, 40], [0, 5]])
    assert (example['count'], example['outside']) == (3, 1)


def corrupt(path):
    data = bytearray(path.read_bytes())
    data[140] ^= 0xFF  # in the compressed stream, behind 128 bytes of header and 8 of a tag
    path.write_bytes(data)


FAULTS = {
    'missing': (lambda path: path.unlink(), '2.jpg: its annotation .*2_ann.mat is missing'),
    'empty': (lambda path: path.write_bytes(b''), 'not a readable MATLAB file'),
    'corrupt': (corrupt, 'not a readable MATLAB file|damaged'),
    'cut': (lambda path: path.write_bytes(path.read_bytes()[:-30]), 'not a readable|damaged'),
    'nan': (lambda path: made.write_annotation(path, [[np.nan, 1.0]]), '1 points are not finite'),
    'three': (lambda path: made.write_annotation(path, np.ones((2, 3))), r'not \[P, 2\]'),
    'other': (lambda path: scipy.io.savemat(path, {'x': 1}), 'holds no annPoints'),
}


@pytest.mark.fault(
    row=9,
    injected='missing, damaged and odd annotations',
    outcome='listed with its path; --on_bad=skip leaves it out',
)
@pytest.mark.parametrize('fault', FAULTS)
def test_a_bad_annotation_is_an_error_or_skipped(folder, prepare, read_back, fault):
    damage, message = FAULTS[fault]
    damage(folder / '2_ann.mat')
    code, out, err = prepare()
    first, second = err.splitlines()[-2:]
    assert code == 2 and out == '' and 'Traceback' not in err
    assert first.startswith('error: ucf_cc_50 published: 1 file is unusable')
    assert re.search(message, second)
    code, out, err = prepare('--on_bad=skip')
    assert code == 0, err
    record, splits = read_back(out.strip())
    assert [e['fold'] for e in splits['whole']] == [1, 1, 5]
    assert record['partial'] is True and len(record['bad_files']) == 1


def test_an_annotation_without_its_image_is_listed(folder, prepare):
    (folder / '10.jpg').unlink()
    code, _, err = prepare()
    assert code == 2 and re.search('10_ann.mat: its image .*10.jpg is missing', err)


def test_an_incomplete_set_is_refused_or_taken_as_partial(folder, prepare, read_back):
    (folder / '46.jpg').unlink()
    (folder / '46_ann.mat').unlink()
    code, out, err = prepare()
    assert code == 2 and out == ''
    assert 'is incomplete: all 3 of 4; complete it or pass --allow_partial' in err.splitlines()[0]
    code, out, err = prepare('--allow_partial')
    assert code == 0 and read_back(out.strip())[0]['partial'] is True


@pytest.mark.fault(
    row=15,
    injected='a data set that is not there',
    outcome='an error with command and tree',
)
def test_a_missing_set_names_the_command_and_the_tree(prepare):
    code, out, err = prepare()
    first, *tree = err.splitlines()
    assert code == 2 and out == ''
    assert 'python -m data_prep.prepare ucf_cc_50 --part=published --manual_dir=DIR' in first
    assert all(line.startswith('  ') for line in tree) and '1_ann.mat ... 50_ann.mat' in err


def test_annotations_without_any_image_show_the_tree(folder, prepare):
    for path in folder.glob('*.jpg'):
        path.unlink()
    code, _, err = prepare()
    assert code == 2 and err.startswith(f'error: {folder} has none of the images n.jpg; ')
    assert 'UCF_CC_50/' in err


@pytest.mark.parametrize('count', [1, 8, 20, 40])
def test_tiny_images_stand_in_every_fold(tmp_path, count):
    source.SOURCE.write_tiny(tmp_path, config='published', count=count, seed=0)
    items = source.SOURCE('published', tmp_path).items()['all']
    folds = [source.FOLD[int(item.id.rpartition('/')[2])] for item in items]
    assert len(items) == min(50, max(7, count + count // 2))
    assert np.ptp([folds.count(fold) for fold in range(1, 6)]) <= 1


def test_plain_tfds_use_prepares_and_refuses(folder, tmp_path):
    import tensorflow_datasets as tfds

    from data_prep.ucf_cc_50.ucf_cc_50 import UcfCc50

    def build(data_dir):
        builder = UcfCc50(config='one_scene', data_dir=data_dir, file_format='array_record')
        config = tfds.download.DownloadConfig(manual_dir=tmp_path / 'data')
        builder.download_and_prepare(download_config=config)
        return builder

    builder = build(tmp_path / 'tfds')
    assert len(builder.as_data_source('whole')) == len(NUMBERS)
    assert builder.name == 'ucf_cc_50'
    assert 'Multi-Source' in builder.info.citation and 'folds' in builder.info.description
    corrupt(folder / '2_ann.mat')
    with pytest.raises(UserError, match='1 file is unusable'):
        build(tmp_path / 'again')


@pytest.mark.parametrize('part', ['published', 'one_scene'])
def test_the_real_set_has_its_published_totals(real_data, run, read_back, part):
    code, out, err = run('ucf_cc_50', f'--part={part}', f'--manual_dir={real_data}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    examples = splits['whole']
    assert record['splits'] == {'all': 50} and record['partial'] is False
    assert record['persons'] == {'all': 63_974} and record['outside'] == {'all': 2}
    assert record['bad_files'] == []
    assert record['notes'] == [
        'ucf_cc_50/1: 0 points off the image dropped, 2 moved onto it',
        'ucf_cc_50/6: 1 points off the image dropped, 0 moved onto it',
        'ucf_cc_50/17: 0 points off the image dropped, 1 moved onto it',
        'ucf_cc_50/20: 1 points off the image dropped, 0 moved onto it',
    ]
    assert sum(len(e['points']) for e in examples) == 63_974 - 2
    assert np.bincount([e['fold'] for e in examples]).tolist() == [0, 10, 10, 10, 10, 10]
    together = {e['id'].decode() for e in examples if e['reference']}
    assert together == ({'ucf_cc_50/41', 'ucf_cc_50/46'} if part == 'one_scene' else set())
    reported = [(d['first'][1], d['second'][1]) for d in record['near_duplicates']]
    assert reported == ([] if part == 'one_scene' else [('ucf_cc_50/41', 'ucf_cc_50/46')])
