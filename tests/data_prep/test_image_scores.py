"""Image scores: what comes back, the direction and range of scores, and each fault of a table."""

import csv
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep import scores, tables, validate
from data_prep.image_scores import made, source
from data_prep.source import Scale
from rank_ssl.errors import UserError

TABLE = """image,score,reference,kind,level
a.jpg,3.5,castle,jpeg,1
deep/er/b.png,0,castle,jpeg,2
c é.jpg,-1e1,harbour,,
"""


@pytest.fixture
def folder(tmp_path, picture):
    """Three images in tmp_path/rated, one of them 16-bit gray and tiny, with TABLE."""
    folder = tmp_path / 'rated'
    (folder / 'deep' / 'er').mkdir(parents=True)
    for i, name in enumerate(('a.jpg', 'c é.jpg')):
        (folder / name).write_bytes(picture(i))
    gray = np.arange(60, dtype=np.uint16).reshape(6, 10) * 1028
    Image.fromarray(gray).save(folder / 'deep' / 'er' / 'b.png')
    (folder / 'scores.csv').write_text(TABLE)
    return folder


@pytest.fixture
def prepare(folder, run):
    return lambda *args: run('image_scores', f'--manual_dir={folder}', *args)


@pytest.fixture
def write(folder):
    """write(*lines) -> scores.csv, of those lines alone."""

    def write(*lines):
        path = folder / 'scores.csv'
        path.write_text(''.join(f'{line}\n' for line in lines))
        return path

    return write


def labels(splits, split='whole'):
    return {
        e['id'].decode(): (e['score'], e['reference'].decode(), e['kind'].decode(), e['level'])
        for e in splits[split]
    }


def test_examples_come_back_exactly(folder, prepare, read_back):
    code, out, err = prepare()
    assert code == 0, err
    record, splits = read_back(out.strip())
    assert labels(splits) == {
        'a.jpg': (3.5, 'castle', 'jpeg', 1),
        'c é.jpg': (-10, 'harbour', '', 0),
        'deep/er/b.png': (0, 'castle', 'jpeg', 2),
    }
    for example in splits['whole']:
        assert example['image'] == (folder / example['id'].decode()).read_bytes()
        assert example['lower_is_better'] == 0
    assert [(e['height'], e['width']) for e in splits['whole']] == [(40, 56), (40, 56), (6, 10)]
    assert record['scale'] == {'low': -10, 'high': 3.5, 'lower_is_better': False, 'unit': 'score'}
    assert record['scores'] == {'all': [-10, 3.5]} and record['kinds'] == {'jpeg': 2}
    assert record['references'] == {'all': 2} and record['splits'] == {'all': 3}
    assert record['partial'] is record['made'] is False and record['notes'] == []
    assert 'default: 3 images; score -10..3.5 of -10..3.5, higher is better; 2 references' in err
    assert prepare()[:2] == (0, out)


@pytest.mark.parametrize(
    ('column', 'lower', 'unit'), [('score', 0, 'score'), ('mos', 0, 'MOS'), ('DMOS', 1, 'DMOS')]
)
def test_the_column_says_which_way_scores_run(write, prepare, read_back, column, lower, unit):
    write('# range 0 100', f'{column},Image', '100,a.jpg', '0,c é.jpg')
    code, out, err = prepare()
    record, splits = read_back(out.strip())
    assert code == 0 and [e['lower_is_better'] for e in splits['whole']] == [lower, lower]
    scale = {'low': 0, 'high': 100, 'lower_is_better': bool(lower), 'unit': unit}
    assert record['scale'] == scale
    better = 'lower' if lower else 'higher'
    assert f'{unit} 0..100 of 0..100, {better} is better; no references' in err


RANGES = ['# range -1 5.5', '#range -1 5.5', '#  Range,-1,5.5,', '# range -1 5.5,,,']


@pytest.mark.parametrize('line', [*RANGES, f'"{RANGES[0]}"'])
def test_the_range_line_is_read_as_spreadsheets_write_it(write, prepare, read_back, line):
    write(line, 'image,score', 'a.jpg,5.5', 'c é.jpg,-1')
    code, out, err = prepare()
    assert code == 0, err
    scale = read_back(out.strip())[0]['scale']
    assert (scale['low'], scale['high']) == (-1, 5.5)


def test_published_splits_keep_their_images(write, prepare, read_back):
    path = write('split,image,score,reference', 'test,a.jpg,1,x', 'train,deep//er/b.png,2,y',
                 'train,c é.jpg,3,')  # fmt: skip
    code, out, err = prepare()
    record, splits = read_back(out.strip())
    assert code == 0, err
    assert labels(splits, 'train') == {'c é.jpg': (3, '', '', 0), 'deep/er/b.png': (2, 'y', '', 0)}
    assert labels(splits, 'test') == {'a.jpg': (1, 'x', '', 0)}
    assert record['references'] == {'train': 1, 'test': 1}
    assert record['scores'] == {'train': [2, 3], 'test': [1, 1]}
    assert path.is_file() and 'default: 2 train, 1 test; score 1..3 of 1..3' in err


def test_what_spreadsheets_write_is_read(folder, prepare, read_back, picture):
    (folder / 'x, 2.jpg').write_bytes(picture(7))
    text = '\ufeffimage, Score ,level,,\r\n"x, 2.jpg", 1.5 ,3.0,,\r\n,,,,\r\n\r\na.jpg,2,,,'
    (folder / 'scores.csv').write_bytes(text.encode())
    code, out, err = prepare()
    assert code == 0, err
    found = labels(read_back(out.strip())[1])
    assert found == {'a.jpg': (2, '', '', 0), 'x, 2.jpg': (1.5, '', '', 3)}


@pytest.mark.fault(
    row=7,
    injected='odd images in a table of scores',
    outcome='prepared with their bytes',
)
def test_odd_images_stay_with_their_bytes(folder, write, prepare, read_back):
    gray = np.arange(60, dtype=np.uint8).reshape(6, 10)
    Image.fromarray(np.stack([gray] * 4, -1), 'CMYK').save(folder / '1.tif')
    Image.fromarray(np.stack([gray] * 4, -1), 'RGBA').save(folder / '2.png')
    Image.fromarray(gray).save(folder / '3.bmp')
    Image.new('RGB', (1, 1)).save(folder / '4.webp')
    names = ['1.tif', '2.png', '3.bmp', '4.webp']
    write('image,score', *(f'{name},1' for name in names))
    code, out, err = prepare()
    assert code == 0, err
    record, splits = read_back(out.strip())
    assert [e['image'] for e in splits['whole']] == [(folder / n).read_bytes() for n in names]
    note = 'left out 3 images that have no row in scores.csv, such as a.jpg'
    assert record['notes'] == [note] and note in err


@pytest.mark.parametrize('name', ['gone.jpg', 'deep/er'])
def test_a_missing_image_is_an_error_or_skipped(folder, write, prepare, read_back, name):
    path = write('image,score', 'a.jpg,1', f'{name},2')
    code, out, err = prepare()
    assert (code, out) == (2, '') and err.splitlines()[-2].endswith(
        '1 file is unusable; mend or remove them, or leave them out with --on_bad=skip'
    )
    said = f'{folder}/{name}: missing, though {path} row 3 names it'
    assert err.splitlines()[-1] == f'  {said}'
    code, out, err = prepare('--on_bad=skip')
    assert code == 0 and f'skipped: {said}' in err
    assert list(labels(read_back(out.strip())[1])) == ['a.jpg']


def test_blanks_around_a_name_are_dropped_where_the_file_has_none(
    folder, write, prepare, read_back, picture
):
    (folder / ' b.jpg').write_bytes(picture(8))
    (folder / 'd\\e.jpg').write_bytes(picture(9))
    write('image,score', ' a.jpg  ,1', ' b.jpg,2', 'd\\e.jpg,3')
    code, out, err = prepare()
    assert code == 0, err
    assert set(labels(read_back(out.strip())[1])) == {'a.jpg', ' b.jpg', 'd\\e.jpg'}


def test_type_is_another_name_of_kind(write, prepare, read_back):
    write('image,Type,score', 'a.jpg,blur,1')
    code, out, err = prepare()
    assert code == 0, err
    assert labels(read_back(out.strip())[1]) == {'a.jpg': (1, '', 'blur', 0)}


@pytest.mark.fault(
    row=7,
    injected='a damaged image in a table of scores',
    outcome='listed with its path; --on_bad=skip leaves it out',
)
def test_a_damaged_image_is_an_error_or_skipped(folder, prepare, read_back):
    (folder / 'a.jpg').write_bytes(b'no image')
    code, out, err = prepare()
    assert (code, out) == (2, '') and '1 file is unusable' in err
    assert err.splitlines()[-1].startswith(f'  {folder}/a.jpg: ')
    code, out, err = prepare('--on_bad=skip')
    assert code == 0 and f'skipped: {folder}/a.jpg' in err
    assert read_back(out.strip())[0]['scores'] == {'all': [-10, 0]}


def test_the_folder_is_the_set(folder, run, tmp_path):
    _, out, _ = run('image_scores', f'--manual_dir={folder}')
    folder.rename(tmp_path / 'image_scores')
    assert run('image_scores', f'--manual_dir={tmp_path}')[:2] == (0, out)
    code, _, err = run('image_scores')
    assert code == 2 and 'needs --manual_dir' in err and 'image,dmos where a lower one is' in err
    (tmp_path / 'image_scores' / 'scores.csv').unlink()
    code, _, err = run('image_scores', f'--manual_dir={tmp_path}')
    assert code == 2 and 'is not in' in err


def test_a_change_of_score_split_or_range_makes_another_set(write, prepare):
    rows = ['a.jpg,1,train', 'c é.jpg,2,test']
    paths = set()
    for lines in (
        ['image,score,split', *rows],
        ['# range 0 9', 'image,score,split', *rows],
        ['image,dmos,split', *rows],
        ['image,score,split', rows[0], 'c é.jpg,2.5,test'],
        ['image,score,split', 'a.jpg,1,test', 'c é.jpg,2,train'],
    ):
        write(*lines)
        paths.add(prepare()[1])
    assert len(paths) == 5 and '' not in paths


FAULTS = {
    'a.jpg,,,train': "score='' is not a finite number; write the score or remove the row",
    'a.jpg,bad,,train': "score='bad' is not a finite number",
    'a.jpg,NaN,,train': "score='NaN' is not a finite number",
    'a.jpg,1e999,,train': "score='1e999' is not a finite number",
    'a.jpg,"1,5",,train': "score='1,5' is not a finite number",
    'a.jpg,10.01,,train': 'score=10.01 is outside the declared range 0..10; correct one of them',
    'a.jpg,-1,,train': 'score=-1 is outside',
    'a.jpg,1,one,train': "level='one' is no whole number from 0; write one or leave it empty",
    'a.jpg,1,1.5,train': "level='1.5' is no whole number",
    'a.jpg,1,-1,train': "level='-1' is no whole number",
    'a.jpg,1,inf,train': "level='inf' is no whole number",
    'a.jpg,1,nan,train': "level='nan' is no whole number",
    'a.jpg,1,1e10,train': "level='1e10' is no whole number",
    'a.jpg,1,,val': "split='val' is not known; write train or test",
    'a.jpg,1,,': "split='' is not known",
    'a.jpg,1_0,,train': "score='1_0' is not a finite number",
    'a.jpg,1,1_0,train': "level='1_0' is no whole number",
    'deep\\er\\b.png,1,,test': "'deep\\\\er\\\\b.png' is missing in {}; write / between folders",
    ' c é.jpg ,9,,test': "'c é.jpg' stands in row 3 already",
    '../a.jpg,1,,test': "'../a.jpg' is no path below the folder; write it relative, without ..",
    '/a.jpg,1,,test': "'/a.jpg' is no path below the folder",
    ' ,1,,test': 'names no image; write its file name or remove the row',
    './c é.jpg,7,,train': "'c é.jpg' stands in row 3 already, there with score=9; keep one row",
    'c é.jpg,9,,test': "'c é.jpg' stands in row 3 already",
    'a.jpg,1,': 'has 3 fields; write image,score,level,split, a name with a comma in double quotes',
    'a.jpg,1,,test,x': 'has 5 fields; write',
    '"a.jpg,1,,test': 'unexpected end of data; check its double quotes',
}


@pytest.mark.parametrize('row', FAULTS)
def test_a_fault_in_a_row_is_one_line_with_file_and_row(folder, write, prepare, row):
    path = write('# range 0 10', 'image,score,level,split', 'c é.jpg,9,,train',
                 'deep/er/b.png,1,,test', row)  # fmt: skip
    code, out, err = prepare('--on_bad=skip')
    assert (code, out) == (2, '') and err.count('\n') == 1
    assert err.startswith(f'error: {path} row 5: ') and FAULTS[row].format(folder) in err


def test_all_faults_are_told_together(write, prepare):
    path = write('image,score', '/z.jpg,1', 'a.jpg,x', 'a.jpg', *(f'z{i}.jpg,' for i in range(30)))
    first, *rest = prepare()[2].splitlines()
    assert first.startswith(f"error: {path} row 2: '/z.jpg' is no path")
    assert first.endswith('(the first of 33 faults)')
    assert "row 3: score='x'" in rest[0] and 'row 4: has 1 field' in rest[1]
    assert len(rest) == 20 and rest[-1] == '  and 13 more'


def test_a_reference_in_both_splits_is_named_once(write, prepare):
    path = write('image,score,reference,split', 'c é.jpg,1,castle,train', 'a.jpg,1,castle,test',
                 'deep/er/b.png,1,castle,test')  # fmt: skip
    code, _, err = prepare('--on_bad=skip')
    assert (code, err.count('\n')) == (2, 1)
    assert err == (
        f"error: {path} row 3: reference 'castle' is in split=test and, in row 2, in split=train; "
        'put all its images into one\n'
    )


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_split_without_images_is_one_line(write, prepare, split):
    path = write('image,score,split', f'a.jpg,1,{split}')
    code, _, err = prepare()
    other = 'test' if split == 'train' else 'train'
    assert code == 2 and err.count('\n') == 1
    assert err.startswith(f'error: {path} has no row with split={other}; write some, or leave')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', "row 1: the header is ''; it must hold image and one of score, mos, dmos"),
        (b'a.jpg,1\n', "row 1: the header is 'a.jpg,1'; it must hold image"),
        (b'image;score\na.jpg;1\n', "row 1: the header is 'image;score'"),
        (b'image,quality\na.jpg,1\n', "row 1: the header is 'image,quality'"),
        (b'image,score,dmos\na.jpg,1,1\n', 'it must hold image and one of score, mos, dmos'),
        (b'image,score,score\na.jpg,1,1\n', 'each once'),
        (b'image,score,type,kind\na.jpg,1,x,y\n', "it holds 'kind' twice, and must name each once"),
        (b'image,score,level,level\na.jpg,1,1,2\n', "it holds 'level' twice"),
        (b'image,score,,kind\na.jpg,1,,x\n', "remove '': it may hold image and one of"),
        (
            b'image,score,refrence\na.jpg,1,x\n',
            "rename or remove 'refrence': it may hold image and one of",
        ),
        (b'# range 0 1\n\nimage\n', "row 3: the header is 'image'"),
        (b'# range 0 1\n', "row 2: the header is ''"),
        (b'image,score\n\n,\n', 'names no image; write a row for each one below the header'),
        (b'# range 5 1\nimage,score\na.jpg,1\n', "row 1: '# range 5 1' is not like # range 0 100"),
        (b'# range 0\nimage,score\na.jpg,1\n', 'is not like # range 0 100'),
        (b'# range 0 inf\nimage,score\na.jpg,1\n', 'is not like # range 0 100'),
        (b'# range nan 1\nimage,score\na.jpg,1\n', 'is not like # range 0 100'),
        (b'# range 0 1_0\nimage,score\na.jpg,1\n', 'is not like # range 0 100'),
        (b'# range a b\nimage,score\na.jpg,1\n', 'is not like # range 0 100'),
        (b'# scores of May\nimage,score\na.jpg,1\n', "'# scores of May' is not like"),
        (b'image,score\ncaf\xe9.jpg,1\n', 'is not UTF-8 text; save it as CSV in UTF-8'),
        ('image,score\na.jpg,1\n'.encode('utf-16'), 'is not UTF-8 text'),
        (b'"image\n,score\n', 'row 1: unexpected end of data'),
    ],
)
def test_a_wrong_file_is_one_line(folder, prepare, content, message):
    (folder / 'scores.csv').write_bytes(content)
    code, _, err = prepare()
    assert code == 2 and err.count('\n') == 1, err
    assert err.startswith(f'error: {folder}/scores.csv ') and message in err


NAMES = st.text(
    st.characters(blacklist_characters='/\\\0', blacklist_categories=['Cs', 'Cc']),
    min_size=1,
    max_size=8,
).filter(lambda name: name.strip() and name not in ('.', '..'))
LABELS = st.fixed_dictionaries(
    {
        'score': st.floats(-1e6, 1e6),
        'reference': st.sampled_from(['', 'castle', 'größe, 1']),
        'kind': st.sampled_from(['', 'jpeg']),
        'level': st.integers(0, 9),
    }
)


@given(rows=st.dictionaries(NAMES, LABELS, min_size=1, max_size=5), order=st.permutations(range(5)))
def test_any_table_is_read_as_written_in_any_order_of_columns(rows, order, tmp_path_factory):
    path = tmp_path_factory.mktemp('table') / 'scores.csv'
    columns = ['image', 'score', 'reference', 'kind', 'level']
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([columns[i] for i in order])
        for name, label in rows.items():
            fields = {'image': name, **label}
            writer.writerow([fields[columns[i]] for i in order])
    table = tables.read(path)
    entries = scores.parse_rows(table, column='score', scale=None)
    assert table.faults == []
    assert {e.image: e.label for e in entries} == {k: scores.Label(**v) for k, v in rows.items()}


@given(st.floats(-3, 3), st.floats(-2, 0), st.floats(0.5, 2))
def test_scores_on_the_scale_pass_and_others_do_not(value, low, high):
    scale = Scale(low, high, lower_is_better=True, unit='DMOS')
    if low <= value <= high:
        assert scores.parse_score(repr(value), scale) == value
    else:
        with pytest.raises(ValueError, match='is outside the declared range'):
            scores.parse_score(repr(value), scale)


def test_scores_beyond_32_bits_are_refused():
    largest = float(np.finfo(np.float32).max)
    for value in (largest, -largest):
        assert np.isfinite(np.float32(scores.parse_score(repr(value), None)))
    for text in ('1e39', '-3.5e38'):
        with pytest.raises(ValueError, match=f'score={text} is beyond 32-bit numbers; give'):
            scores.parse_score(text, None)


def test_near_duplicates_are_sought_across_references_and_splits_only(picture):
    image = np.asarray(Image.open(io.BytesIO(picture(3, (120, 160)))))
    validator = validate.Validator()
    for i, (split, group) in enumerate(
        [
            ('train', 'a'),
            ('train', 'a'),
            ('train', 'b'),
            ('test', 'a'),
            ('train', ''),
            ('train', ''),
        ]
    ):
        data = b'same' if i in (0, 1) else bytes([i])
        validator.add(split, str(i), data, image, group=group)
    pairs = [(int(d.first[1]), int(d.second[1])) for d in validator.duplicates()]
    assert pairs == [(i, j) for i in range(6) for j in range(i + 1, 6)]  # (0, 1) by its bytes
    validator.digests[1] = b'another'
    pairs = [(int(d.first[1]), int(d.second[1])) for d in validator.duplicates()]
    assert (0, 1) not in pairs and len(pairs) == 14


def test_plain_tfds_use_prepares_and_refuses(folder, write, tmp_path):
    import tensorflow_datasets as tfds

    from data_prep.image_scores.image_scores import ImageScores

    def build(data_dir):
        builder = ImageScores(data_dir=data_dir, file_format='array_record')
        config = tfds.download.DownloadConfig(manual_dir=folder)
        builder.download_and_prepare(download_config=config)
        return builder

    builder = build(tmp_path / 'tfds')
    assert len(builder.as_data_source('all')) == 3
    assert 'one quality score each' in builder.info.description
    write('image,score', 'gone.jpg,1')
    with pytest.raises(UserError, match='gone.jpg: missing, though .* row 2 names it'):
        build(tmp_path / 'tfds2')


def test_tiny_sets_use_every_column_but_split(tmp_path):
    made.write(tmp_path, count=4, seed=0)
    reader = source.SOURCE('default', tmp_path)
    items = reader.items()['all']
    features = [reader.read(item, 'all', 0)[0] for item in items]
    assert Counter(e['reference'] for e in features) == {f'made{i:02d}': 15 for i in range(8)}
    assert {e['kind'] for e in features} == set(made.KINDS)
    assert {e['level'] for e in features} == {1, 2, 3, 4, 5}
    assert reader.scale == Scale(0, 100, lower_is_better=False, unit='score')
    assert all(len(item.files) == (2 if i == 0 else 1) for i, item in enumerate(items))
