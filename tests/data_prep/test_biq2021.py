"""BIQ2021: the real part, both spellings of the tables, and each fault in them."""

import csv

import numpy as np
import pytest

from data_prep import tiny_quality
from data_prep.biq2021 import made, source

TRAIN = ['ss01 (1).jpg,0.5', 'ss02 (2).jpg,0.0000', 'ss03 (10).jpg,1']
TEST = ['ss01 (7).jpg,0.25', 'ss03 (8).jpg,0.75']
PUBLISHED = '{} (Images and MOS).csv'
EARLIER = (
    "scores of train.csv and test.csv: an earlier version, where they are the repository's own, of "
    'those in Train (Images and MOS).csv and Test (Images and MOS).csv'
)


@pytest.fixture
def folder(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(source, 'EXPECTED', {'train': 3, 'test': 2})
    folder = tmp_path / 'data' / 'biq2021'
    (folder / 'Images').mkdir(parents=True)
    for i, row in enumerate([*TRAIN, *TEST]):
        (folder / 'Images' / row.split(',')[0]).write_bytes(picture(i))
    write(folder)
    return folder


def write(folder, train=TRAIN, test=TEST, *, names='{}.csv', header='image,mos', end=''):
    for split, rows in (('Train', train), ('Test', test)):
        name = names.format(split if 'MOS' in names else split.lower())
        text = ''.join(f'{row}{end}\n' for row in [header, *rows])
        (folder / name).write_text(text)


@pytest.fixture
def prepare(tmp_path, run):
    return lambda *args: run('biq2021', f'--manual_dir={tmp_path / "data"}', *args)


def test_the_real_part_is_refused_or_partial_and_comes_back(real_data, run, read_back):
    manual_dir = f'--manual_dir={real_data}'
    code, out, err = run('biq2021', manual_dir)
    if code == 0:
        pytest.skip('BIQ2021 is complete here')
    assert (code, out) == (2, '')
    assert 'is incomplete: train 560 of 10000, test 160 of 2000; complete it or pass' in err
    code, out, err = run('biq2021', manual_dir, '--allow_partial')
    assert code == 0, err
    record, splits = read_back(out.strip())
    for split in ('train', 'test'):
        with (real_data / 'biq2021' / f'{split}.csv').open() as file:
            rows = list(csv.DictReader(file))
        assert [e['id'].decode() for e in splits[split]] == [f'{split}/{r["image"]}' for r in rows]
        scores = np.array([e['score'] for e in splits[split]])
        np.testing.assert_array_equal(scores, np.array([r['mos'] for r in rows], np.float32))
        images = real_data / 'biq2021' / 'Images'
        assert splits[split][7]['image'] == (images / rows[7]['image']).read_bytes()
        assert all(e['reference'] == e['kind'] == b'' for e in splits[split])
        assert all(e['level'] == e['lower_is_better'] == 0 for e in splits[split])
    assert record['partial'] is True and record['splits'] == {'train': 560, 'test': 160}
    assert record['scores']['test'][0] == 0 and record['references'] == {'train': 0, 'test': 0}
    assert record['scale'] == {'low': 0, 'high': 1, 'lower_is_better': False, 'unit': 'MOS'}
    assert record['kinds'] == {} and record['bad_files'] == []
    assert record['notes'] == [EARLIER]
    assert 'MOS 0..0.9287 of 0..1, higher is better; no references' in err
    shapes = {(e['height'], e['width']) for e in splits['train'] + splits['test']}
    assert shapes == {(512, 512), (356, 356)}
    # Looked at: each of the pairs is one photo twice.
    pairs = {(d['first'][1][-10:-4], d['second'][1][-10:-4]) for d in record['near_duplicates']}
    assert pairs == {
        ('(6882)', '(5560)'), ('(5568)', '(6902)'), ('(7290)', '(5682)'), ('(5764)', '(7910)'),
    }  # fmt: skip


@pytest.mark.parametrize(
    ('names', 'header', 'end'),
    [
        ('{}.csv', 'image,mos', ''),
        (PUBLISHED, 'Image Name,MOS', ''),
        (PUBLISHED, 'Image Name,MOS', ',,'),
        (PUBLISHED, '\ufeffImage Name , MOS', '\r'),
    ],
)
def test_every_spelling_of_the_tables_is_read(folder, prepare, read_back, names, header, end):
    for path in folder.glob('*.csv'):
        path.unlink()
    write(folder, names=names, header=header, end=end)
    code, out, err = prepare()
    assert code == 0, err
    splits = read_back(out.strip())[1]
    assert [e['score'] for e in splits['train']] == [0.5, 0.0, 1.0]
    assert [e['id'] for e in splits['test']] == [b'test/ss01 (7).jpg', b'test/ss03 (8).jpg']


def test_the_final_tables_come_before_the_older_ones(folder, prepare, read_back):
    write(folder, [row.replace('0.5', '0.4') for row in TRAIN], names=PUBLISHED)
    record, splits = read_back(prepare()[1].strip())
    assert splits['train'][0]['score'] == np.float32(0.4) and record['notes'] == []


def test_columns_in_another_order_and_others_are_read(folder, prepare, read_back):
    rows = [','.join(['0.1', *row.split(',')[::-1], 'x', 'y']) for row in TRAIN]
    (folder / 'train.csv').write_text('\n'.join(['Std,MOS,Image Name,Level,Reference', *rows]))
    code, out, err = prepare()
    assert code == 0, err
    train = read_back(out.strip())[1]['train']
    assert [e['score'] for e in train] == [0.5, 0.0, 1.0]
    assert all((e['level'], e['reference']) == (0, b'') for e in train)


@pytest.mark.parametrize('gone', ['train.csv', 'test.csv', 'Images'])
def test_a_missing_part_is_an_error_with_the_tree(folder, prepare, tmp_path, gone):
    (folder / gone).rename(tmp_path / 'gone')
    code, _, err = prepare()
    first, *tree = err.splitlines()
    assert code == 2 and any('Train (Images and MOS).csv' in line for line in tree)
    lacks = f'lacks its table of {gone.removesuffix(".csv")} scores'
    assert (lacks if gone != 'Images' else 'biq2021 default is not in') in first


def test_a_missing_image_is_named_or_skipped_and_others_are_counted(
    folder, prepare, read_back, picture
):
    (folder / 'Images' / 'ss02 (2).jpg').unlink()
    (folder / 'Images' / 'ss03 (99).jpg').write_bytes(picture(9))
    code, _, err = prepare('--allow_partial')
    wanted = f'ss02 (2).jpg: missing, though {folder}/train.csv row 3 names it'
    assert code == 2 and '1 file is unusable' in err and wanted in err
    code, out, err = prepare('--on_bad=skip')
    assert code == 0 and 'biq2021 default is partial (train 2 of 3, test 2 of 2)' in err
    note = 'left out 1 of 5 files in Images, which no table names, such as ss03 (99).jpg'
    assert read_back(out.strip())[0]['notes'] == [EARLIER, note]


def test_fewer_rows_are_incomplete(folder, prepare):
    write(folder, TRAIN[:2])
    code, _, err = prepare('--on_bad=skip')
    assert code == 2 and 'is incomplete: train 2 of 3; complete it' in err
    assert prepare('--allow_partial')[0] == 0


FAULTS = {
    'ss01 (3).jpg,': "mos='' is not a finite number; write the score or remove the row",
    'ss01 (3).jpg,good': "mos='good' is not a finite number",
    'ss01 (3).jpg,nan': "mos='nan' is not a finite number",
    'ss01 (3).jpg,-inf': "mos='-inf' is not a finite number",
    'ss01 (3).jpg,1.2': 'mos=1.2 is outside the declared range 0..1',
    'ss01 (3).jpg,-0.01': 'mos=-0.01 is outside',
    'ss01 (3).jpg': 'has 1 field; write image,mos, a name with a comma in double quotes',
    'ss01 (3).jpg,0,5': 'has 3 fields',
    ' ,0.5': 'names no image',
    '../ss01 (3).jpg,0.5': 'is no path below the folder',
    '/ss01 (3).jpg,0.5': 'is no path below the folder',
    'ss01 (7).jpg,0.9': "'ss01 (7).jpg' stands in row 2 already, there with mos=0.25; keep one",
    'ss01 (7).jpg,0.25': "'ss01 (7).jpg' stands in row 2 already",
    'SS01 (7).JPG,0.9': "'SS01 (7).JPG' stands in row 2 already, there with mos=0.25; keep one",
    'ss01 (1).jpg,0.5': "'ss01 (1).jpg' stands in train.csv too; remove one of them",
    'ss01 (1).JPG,0.5': "'ss01 (1).JPG' stands in train.csv too; remove one of them",
    'ss01 (3).jpg,0_1': "mos='0_1' is not a finite number",
}


def test_names_in_another_case_than_the_file_are_read(folder, prepare, read_back):
    write(folder, [row.upper() for row in TRAIN])
    code, out, err = prepare()
    assert code == 0, err
    example = read_back(out.strip())[1]['train'][1]
    assert example['id'] == b'train/SS02 (2).JPG'
    assert example['image'] == (folder / 'Images' / 'ss02 (2).jpg').read_bytes()


def test_two_files_that_differ_in_case_alone_are_one_line(folder, prepare, picture):
    (folder / 'Images' / 'SS01 (1).jpg').write_bytes(picture(9))
    if len(list((folder / 'Images').iterdir())) == 5:
        pytest.skip('names differ here whatever their case')
    code, _, err = prepare('--on_bad=skip', '--allow_partial')
    assert code == 2 and err == (
        f'error: {folder}/Images holds SS01 (1).jpg and ss01 (1).jpg, names that differ in case '
        'alone; remove or rename one\n'
    )


@pytest.mark.parametrize('row', FAULTS)
def test_a_fault_in_a_row_is_one_line(folder, prepare, row):
    write(folder, test=[*TEST, row])
    code, _, err = prepare('--on_bad=skip', '--allow_partial')
    assert code == 2 and err.count('\n') == 1
    assert err.startswith(f'error: {folder}/test.csv row 4: ') and FAULTS[row] in err


@pytest.mark.parametrize(
    ('header', 'message'),
    [
        ('image,score', "row 1: the header is 'image,score'; it must be image,mos or Image Name"),
        ('image;mos', "row 1: the header is 'image;mos'"),
        ('image,mos,mos', "'image,mos,mos'; it holds 'mos' twice, and must name each once"),
        ('Image Name,mos,image', "it holds 'image' twice, and must name each once"),
        ('ss01 (9).jpg,0.2', "row 1: the header is 'ss01 (9).jpg,0.2'"),
    ],
)
def test_a_wrong_header_is_one_line(folder, prepare, header, message):
    write(folder, header=header)
    code, _, err = prepare()
    assert code == 2 and err.count('\n') == 1 and message in err


def test_an_empty_table_is_one_line(folder, prepare):
    write(folder, test=[])
    code, _, err = prepare('--allow_partial')
    assert (code, err) == (2, f'error: {folder}/test.csv names no image; unpack it again\n')


def test_tiny_sets_differ_by_picture_and_score(tmp_path):
    made.write(tmp_path, count=7, seed=1)
    reader = source.SOURCE('default', tmp_path)
    listing = reader.items()
    assert {split: len(items) for split, items in listing.items()} == {'train': 7, 'test': 3}
    scores = [
        reader.read(item, split, 0)[0]['score']
        for split, items in listing.items()
        for item in items
    ]
    assert len(set(scores)) == 10 and 0 <= min(scores) < 0.3 < 0.8 < max(scores) <= 1
    again = tiny_quality.picture(1, 4)
    np.testing.assert_array_equal(again, tiny_quality.picture(1, 4))
    assert (again != tiny_quality.picture(2, 4)).any()
