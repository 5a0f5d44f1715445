"""One's own photos with points: what is taken, what is left, and each fault of a points.csv."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep import store
from data_prep.points_folder import source, table
from rank_ssl.errors import UserError

TRAIN = """image,x,y
a.jpg,10.5,20
b.png,3,4
a.jpg,0,0
empty.jpg,,
a.jpg,10.5,20
"""
TEST = 'image,x,y\nt.jpg,7.25,8\n'


@pytest.fixture
def folder(tmp_path, picture):
    """A set of three train images and one test image, in tmp_path/photos."""
    folder = tmp_path / 'photos'
    for split, names, text in (
        ('train', ('a.jpg', 'empty.jpg'), TRAIN),
        ('test', ('t.jpg',), TEST),
    ):
        (folder / split).mkdir(parents=True)
        for name in names:
            (folder / split / name).write_bytes(picture(len(split) + ord(name[0])))
        (folder / split / 'points.csv').write_text(text)
    gray = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / 'train' / 'b.png')
    return folder


@pytest.fixture
def prepare(folder, run):
    return lambda *args: run('points_folder', f'--manual_dir={folder}', *args)


@pytest.fixture
def write(folder):
    """write(*rows) -> train/points.csv, with the good rows and these below them."""

    def write(*rows, good=TRAIN):
        path = folder / 'train' / 'points.csv'
        path.write_text(good + ''.join(f'{row}\n' for row in rows))
        return path

    return write


def test_examples_come_back_exactly(folder, prepare, read_back):
    code, out, err = prepare()
    assert code == 0, err
    record, splits = read_back(out.strip())
    expected = {
        'train/a.jpg': [[10.5, 20], [0, 0], [10.5, 20]],
        'train/b.png': [[3, 4]],
        'train/empty.jpg': np.zeros((0, 2)),
        'test/t.jpg': [[7.25, 8]],
    }
    examples = [*splits['train'], *splits['test']]
    assert [e['id'].decode() for e in examples] == list(expected)
    for example, points in zip(examples, expected.values(), strict=True):
        np.testing.assert_array_equal(example['points'], np.array(points, np.float32))
        assert example['points'].dtype == np.float32
        assert example['image'] == (folder / example['id'].decode()).read_bytes()
        assert (example['count'], example['outside']) == (len(points), 0)
    shapes = [(e['height'], e['width']) for e in examples]
    assert shapes == [(40, 56), (6, 10), (40, 56), (40, 56)]
    assert record['persons'] == {'train': 4, 'test': 1} and record['source'] == str(folder)
    assert record['notes'] == record['bad_files'] == record['near_duplicates'] == []
    assert record['partial'] is record['made'] is False
    assert prepare()[:2] == (0, out)


def test_the_folder_itself_and_its_parent_are_one_set(folder, run, tmp_path):
    _, out, _ = run('points_folder', f'--manual_dir={folder}')
    folder.rename(tmp_path / 'points_folder')
    assert run('points_folder', f'--manual_dir={tmp_path}')[:2] == (0, out)
    assert run('points_folder', f'--manual_dir={tmp_path / "points_folder"}')[:2] == (0, out)


def test_a_change_of_the_points_or_of_an_image_makes_another_set(folder, prepare, picture):
    paths = {prepare()[1]}
    with (folder / 'test' / 'points.csv').open('a') as file:
        file.write('t.jpg,1,1\n')
    paths.add(prepare()[1])
    (folder / 'train' / 'empty.jpg').write_bytes(picture(99))
    paths.add(prepare()[1])
    assert len(paths) == 3 and '' not in paths


def test_the_fingerprint_reads_each_file_once(folder):
    reader = source.SOURCE('default', folder)
    listing = reader.items()
    files = [path for items in listing.values() for item in items for path in item.files]
    assert len(files) == len(set(files)) == 6
    assert store.fingerprint(reader, listing) == store.fingerprint(
        reader, listing, content_limit=9**9
    )


@pytest.mark.fault(
    row=15,
    injected='no folder, another folder',
    outcome='an error with the expected tree',
)
def test_no_folder_and_another_folder_are_errors_with_the_tree(folder, prepare, run, tmp_path):
    assert prepare()[0] == 0
    for args in ([], [f'--manual_dir={tmp_path / "nowhere"}']):
        code, out, err = run('points_folder', *args)
        first, *tree = err.splitlines()
        assert (code, out) == (2, '')
        assert 'python -m data_prep.prepare points_folder --manual_dir=DIR' in first
        assert any('header image,x,y' in line for line in tree)


@pytest.mark.parametrize('gone', ['train', 'test/points.csv'])
def test_a_missing_split_or_table_is_an_error_with_the_tree(folder, prepare, tmp_path, gone):
    (folder / gone).rename(tmp_path / 'gone')
    code, _, err = prepare('--allow_partial')
    split = gone.split('/')[0]
    assert code == 2 and err.startswith(f'error: {folder}/{split}/points.csv is missing; ')
    assert err.splitlines()[1] == '  points_folder/     (or DIR itself)'


def test_images_without_a_row_are_reported_and_not_taken(folder, prepare, picture, read_back):
    for name in ('new.jpg', 'later.TIF', '.hidden.jpg', 'notes.txt', 'points.csv.bak', '._a.jpg'):
        (folder / 'train' / name).write_bytes(picture(5))
    (folder / 'train' / 'more').mkdir()
    (folder / 'train' / 'more' / 'deep.jpg').write_bytes(picture(6))
    code, out, err = prepare()
    notes = [
        'train: left out 2 of 5 images, which have no row in points.csv, such as later.TIF',
        'train: ignored 2 other files, such as notes.txt',
    ]
    assert code == 0 and all(note in err.splitlines() for note in notes)
    record, splits = read_back(out.strip())
    assert record['notes'] == notes and len(splits['train']) == 3


def test_points_off_the_image_are_dropped_moved_and_reported(write, prepare, read_back):
    write('empty.jpg,56.9,5', 'empty.jpg,57.1,5', 'empty.jpg,-400,5', 'empty.jpg,56,40',
          good=TRAIN.replace('empty.jpg,,\n', ''))  # fmt: skip
    code, out, err = prepare()
    assert code == 0
    assert 'train/empty.jpg: 2 points off the image dropped, 1 moved onto it' in err
    record, splits = read_back(out.strip())
    example = splits['train'][2]
    np.testing.assert_array_equal(example['points'], np.array([[56, 5], [56, 40]], np.float32))
    assert (example['count'], example['outside']) == (4, 2)
    assert record['outside'] == {'train': 2, 'test': 0} and record['persons']['train'] == 8


def test_points_are_on_the_upright_image(folder, prepare, read_back):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 10), np.uint8)).save(folder / 'test' / 't.jpg', exif=exif)
    (folder / 'test' / 'points.csv').write_text('image,x,y\nt.jpg,5,9.5\n')
    example = read_back(prepare()[1].strip())[1]['test'][0]
    assert (example['height'], example['width'], example['outside']) == (10, 6, 0)


@pytest.mark.fault(
    row=7,
    injected='a damaged image in a folder with points.csv',
    outcome='listed with its path; --on_bad=skip leaves it out',
)
def test_a_bad_image_is_an_error_or_skipped(folder, prepare, read_back):
    (folder / 'train' / 'a.jpg').write_bytes(b'no image')
    code, out, err = prepare()
    assert (code, out) == (2, '') and '1 file is unusable' in err
    assert f'{folder}/train/a.jpg: ' in err.splitlines()[-1]
    code, out, err = prepare('--on_bad=skip')
    record, splits = read_back(out.strip())
    assert code == 0 and [e['id'] for e in splits['train']] == [b'train/b.png', b'train/empty.jpg']
    assert record['partial'] is False and record['persons'] == {'train': 1, 'test': 1}


def test_a_picture_in_both_splits_is_reported(folder, prepare):
    (folder / 'test' / 't.jpg').write_bytes((folder / 'train' / 'a.jpg').read_bytes())
    assert '1 near-duplicate between train and test: a.jpg = test t.jpg' in prepare()[2]


FAULTS = {
    'gone.jpg,1,2': "'gone.jpg' is missing in {}; add the image or remove its rows",
    'gone.jpg,,': "'gone.jpg' is missing in {}",
    'a.jpg,abc,2': "x='abc' is not a finite number",
    'a.jpg,1,nan': "y='nan' is not a finite number",
    'a.jpg,inf,1': "x='inf' is not a finite number",
    'a.jpg,1_0,1': "x='1_0' is not a finite number",
    'a.jpg,1e999,1': "x='1e999' is not a finite number",
    '"a.jpg","1,5",2': "x='1,5' is not a finite number",
    'a.jpg,1,': "y='' is not a finite number",
    'a.jpg, ,2': "x=' ' is not a finite number",
    'a.jpg,,': "'a.jpg' has points in other rows",
    'empty.jpg,1,1': "'empty.jpg' has points in other rows",
    'a.jpg,1': 'has 2 fields; write image,x,y',
    'a.jpg': 'has 1 field; write',
    'a.jpg,1,2,head': 'has 4 fields; write',
    ',1,2': 'names no image',
    '../test/t.jpg,1,2': "'../test/t.jpg' is no file name; leave out the folders",
    '..,1,2': "'..' is missing in",
    '"a.jpg,1,2': 'unexpected end of data; check its double quotes',
}


@pytest.mark.parametrize('extra', [[], ['--on_bad=skip']])
@pytest.mark.parametrize('row', FAULTS)
def test_a_fault_in_a_row_is_one_line_with_file_and_row(folder, write, prepare, row, extra):
    path = write('', row, 'b.png,1,1')
    number = 5 if row == 'empty.jpg,1,1' else 8  # the row without a point is the one to remove
    code, out, err = prepare(*extra)
    assert (code, out) == (2, '') and err.count('\n') == 1
    assert err.startswith(f'error: {path} row {number}: ')
    assert FAULTS[row].format(folder / 'train') in err


def test_a_missing_image_is_told_once_and_all_faults_together(write, prepare):
    path = write('z.jpg,1,2', 'b.png,x,2', 'z.jpg,3,4', 'c.jpg,1,2')
    code, _, err = prepare()
    first, *rest = err.splitlines()
    assert code == 2 and len(rest) == 2
    assert first.startswith(f"error: {path} row 7: 'z.jpg'")
    assert first.endswith('(the first of 3 faults)')
    assert rest[0].startswith(f"  {path} row 8: x='x'")
    assert rest[1].startswith(f"  {path} row 10: 'c.jpg'")


@pytest.mark.parametrize('rows', [('z.jpg,1,2', 'z.jpg,,'), ('z.jpg,,', 'z.jpg,1,2')])
def test_the_first_row_of_a_missing_image_is_told(write, prepare, rows):
    path = write(*rows, 'b.png,1,1', good='image,x,y\n')
    code, _, err = prepare()
    assert code == 2 and err.count('\n') == 1
    assert err.startswith(f"error: {path} row 2: 'z.jpg' is missing")


def test_of_many_faults_some_are_shown(write, prepare):
    write(*(f'z{i}.jpg,1,2' for i in range(30)))
    lines = prepare()[2].splitlines()
    assert len(lines) == 21 and lines[-1] == '  and 10 more'
    assert lines[0].endswith('(the first of 30 faults)')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', "row 1: the header is ''; it must be image,x,y"),
        (b'a.jpg,1,2\n', "row 1: the header is 'a.jpg,1,2'"),
        (b'image;x;y\na.jpg;1;2\n', "row 1: the header is 'image;x;y'"),
        (b'image,y,x\n', "row 1: the header is 'image,y,x'"),
        (b'image,x,y\n\n,,\n', 'names no image'),
        (b'image,x,y\ncaf\xe9.jpg,1,2\n', 'is not UTF-8 text; save it as CSV in UTF-8'),
        ('image,x,y\na.jpg,1,2\n'.encode('utf-16'), 'is not UTF-8 text'),
        (b'"image\n,x,y\n', 'row 1: unexpected end of data'),
        (b'x' * 200_000, 'row 1: field larger than field limit'),
    ],
)
def test_a_wrong_file_is_one_line(folder, prepare, content, message):
    path = folder / 'train' / 'points.csv'
    path.write_bytes(content)
    code, _, err = prepare()
    assert code == 2 and err.count('\n') == 1, err
    assert err.startswith(f'error: {path} ') and message in err


def test_what_spreadsheets_write_is_read(folder, prepare, read_back, picture):
    (folder / 'train' / 'été, 2.jpg').write_bytes(picture(7))
    text = '\ufeffimage, x, y\r\n"été, 2.jpg", 1 ,2.5e0\r\n,,\r\n\r\nempty.jpg,,\r\nempty.jpg,,'
    (folder / 'train' / 'points.csv').write_bytes(text.encode())
    code, out, err = prepare()
    assert code == 0, err
    examples = read_back(out.strip())[1]['train']
    assert [e['id'].decode() for e in examples] == ['train/empty.jpg', 'train/été, 2.jpg']
    assert [e['points'].tolist() for e in examples] == [[], [[1.0, 2.5]]]


NAMES = st.text(
    st.characters(blacklist_characters='/\0', blacklist_categories=['Cs', 'Cc']),
    min_size=1,
    max_size=8,
).filter(lambda name: name.strip() and name != '.')
HUNDREDTHS = st.integers(-1_000, 1_000_000).map(lambda n: n / 100)
POINTS = st.lists(st.tuples(HUNDREDTHS, HUNDREDTHS), max_size=4)


@given(tables=st.dictionaries(NAMES, POINTS, min_size=1, max_size=4))
def test_what_is_written_is_read_back(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp('table') / 'points.csv'
    table.write(path, tables)
    assert table.load(path, tables) == tables


def test_plain_tfds_use_prepares_and_refuses(folder, write, tmp_path):
    import tensorflow_datasets as tfds

    from data_prep.points_folder.points_folder import PointsFolder

    def build(data_dir):
        builder = PointsFolder(data_dir=data_dir, file_format='array_record')
        config = tfds.download.DownloadConfig(manual_dir=folder)
        builder.download_and_prepare(download_config=config)
        return builder

    builder = build(tmp_path / 'tfds')
    assert len(builder.as_data_source('train')) == 3
    assert 'one point per person' in builder.info.description
    write('gone.jpg,1,2')
    with pytest.raises(UserError, match="row 7: 'gone.jpg' is missing"):
        build(tmp_path / 'tfds2')
