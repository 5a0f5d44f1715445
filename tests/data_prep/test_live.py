"""LIVE: the real scores in a made archive with MATLAB tables, and each fault of the layout."""

import csv
import io
from collections import Counter

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_prep.live import made, source

KINDS = {
    'jp2k': 'jpeg2000',
    'jpeg': 'jpeg',
    'wn': 'white_noise',
    'gblur': 'gaussian_blur',
    'fastfading': 'fast_fading',
}
STARTS = {'jp2k': 0, 'jpeg': 227, 'wn': 460, 'gblur': 634, 'fastfading': 808}
TOTAL = 982


def bmp(seed, shape=(3, 4)):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, 'BMP')
    return buffer.getvalue()


def write(folder, labels, *, realigned=True, change=None):
    """Images and tables of `labels`: 'jp2k/img2' -> (DMOS, reference); the rest are copies."""
    columns = {'dmos': [0.0] * TOTAL, 'orgs': [1] * TOTAL, 'names': ['a.bmp'] * TOTAL}
    for i, (id, (dmos, reference)) in enumerate(labels.items()):
        name, number = id.split('/img')
        at = STARTS[name] + int(number) - 1
        columns['dmos'][at], columns['orgs'][at], columns['names'][at] = dmos, 0, reference
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / f'{id}.bmp').write_bytes(bmp(i))
    if change:
        change(columns)
    made.write_tables(folder, *columns.values(), realigned=realigned)
    return folder


LABELS = {
    'jp2k/img2': (15.5, 'studentsculpture.bmp'),
    'jp2k/img227': (-2.5, 'rapids.bmp'),
    'jpeg/img1': (40.0, 'rapids.bmp'),
    'wn/img174': (111.0, 'bikes.bmp'),
    'gblur/img10': (0.0, 'bikes.bmp'),
    'fastfading/img1': (33.25, 'rapids.bmp'),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(source, 'COPIES', TOTAL - len(LABELS))
    return write(tmp_path / 'data' / 'live', LABELS)


@pytest.fixture
def prepare(tmp_path, run):
    return lambda *args: run('live', f'--manual_dir={tmp_path / "data"}', *args)


def test_the_real_table_comes_back_exactly(real_data, tmp_path, run, read_back):
    with (real_data / 'iqa_tables' / 'LIVE.txt').open() as file:
        rows = list(csv.DictReader(file))
    labels = {
        row['dis_img_path'].removeprefix('LIVE/').removesuffix('.bmp'): (
            float(row['score']),
            row['ref_img_path'].rsplit('/', 1)[1],
        )
        for row in rows
    }
    write(tmp_path / 'live', labels)
    code, out, err = run('live', f'--manual_dir={tmp_path}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    found = {e['id'].decode(): e for e in splits['whole']}
    assert found.keys() == labels.keys() and len(splits['whole']) == 779
    for id, (score, reference) in labels.items():
        assert found[id]['score'] == np.float32(score)
        assert found[id]['reference'].decode() == reference.removesuffix('.bmp')
        assert found[id]['kind'].decode() == KINDS[id.split('/')[0]]
        assert (found[id]['lower_is_better'], found[id]['level']) == (1, 0)
    numbers = Counter(KINDS[row['dis_type']] for row in rows)
    assert record['kinds'] == numbers and record['references'] == {'all': 29}
    assert record['notes'] == ['left out 203 images that are copies of references']
    assert record['partial'] is False and record['bad_files'] == []
    scores = [score for score, _ in labels.values()]
    assert record['scores'] == {'all': [min(scores), max(scores)]}
    scale = record['scale']
    assert scale['low'] <= min(scores) < max(scores) <= scale['high'] and scale['lower_is_better']
    assert 'live default: 779 images; DMOS -2.64..111.8 of -3..112, lower is better; 29 ref' in err


def test_each_image_has_its_own_columns(folder, prepare, read_back):
    (folder / 'gblur' / 'img11.bmp').write_bytes(bmp(5))  # a copy of a reference
    (folder / 'gblur' / 'Thumbs.db').write_text('')
    code, out, err = prepare()
    assert code == 0, err
    record, splits = read_back(out.strip())
    examples = {e['id'].decode(): e for e in splits['whole']}
    assert list(examples) == list(LABELS)
    for id, (dmos, reference) in LABELS.items():
        assert (examples[id]['score'], examples[id]['reference'].decode()) == (dmos, reference[:-4])
        assert examples[id]['image'] == (folder / f'{id}.bmp').read_bytes()
    assert record['notes'] == [
        'gblur: ignored 1 other files, such as thumbs.db',
        f'left out {TOTAL - 6} images that are copies of references',
    ]


def test_scipy_reads_the_made_tables_as_matlab_ones(folder):
    table = scipy.io.loadmat(folder / 'dmos_realigned.mat')
    names = scipy.io.loadmat(folder / 'refnames_all.mat')['refnames_all']
    assert table['dmos_new'].shape == table['orgs'].shape == names.shape == (1, 982)
    assert names[0, 1].tolist() == ['studentsculpture.bmp'] and table['dmos_new'][0, 1] == 15.5


def test_realigned_scores_come_first_and_others_are_reported(folder, prepare, read_back):
    raw = {id: (dmos / 2 + 40, reference) for id, (dmos, reference) in LABELS.items()}
    write(folder, raw, realigned=False)
    code, out, err = prepare()
    assert code == 0 and read_back(out.strip())[1]['whole'][0]['score'] == 15.5
    (folder / 'dmos_realigned.mat').unlink()
    code, out, err = prepare()
    record, splits = read_back(out.strip())
    assert code == 0 and splits['whole'][0]['score'] == 47.75
    scale = {'low': -5, 'high': 105, 'lower_is_better': True, 'unit': 'DMOS'}
    assert record['scale'] == scale
    assert 'scores of dmos.mat, which are not realigned over the types' in err


def test_another_reference_in_info_txt_is_reported(folder, prepare, read_back):
    lines = 'studentsculpture.bmp img2.bmp 0.8\nbikes.bmp img227.bmp 0.2\n\nodd\n'
    (folder / 'jp2k' / 'info.txt').write_text(lines)
    code, out, err = prepare()
    note = 'info.txt names another reference than refnames_all.mat, which is used, for 1 images'
    assert code == 0 and f'jp2k: {note}, such as img227.bmp' in err
    assert read_back(out.strip())[1]['whole'][1]['reference'] == b'rapids'


def test_names_in_capitals_are_read(folder, prepare):
    (folder / 'jp2k').rename(folder / 'JP2K')
    (folder / 'JP2K' / 'img2.bmp').rename(folder / 'JP2K' / 'IMG2.BMP')
    (folder / 'dmos_realigned.mat').rename(folder / 'DMOS_realigned.mat')
    code, _, err = prepare()
    assert code == 0, err


def test_a_missing_image_is_named_or_skipped(folder, prepare, read_back):
    (folder / 'wn' / 'img174.bmp').unlink()
    (folder / 'jpeg' / 'img1.bmp').write_bytes(b'no image')
    code, out, err = prepare('--allow_partial')
    assert (code, out) == (2, '') and '2 files are unusable' in err
    assert f'{folder}/wn/img174.bmp: missing, though {folder}/dmos_realigned.mat names it' in err
    code, out, err = prepare('--on_bad=skip')
    assert code == 0 and 'live default is partial (all 4 of 6)' in err
    assert read_back(out.strip())[0]['kinds'] == {
        'jpeg2000': 2,
        'gaussian_blur': 1,
        'fast_fading': 1,
    }


def test_more_copies_than_published_are_incomplete(folder, prepare, monkeypatch):
    monkeypatch.setattr(source, 'COPIES', TOTAL - 9)
    code, _, err = prepare()
    assert code == 2 and 'is incomplete: all 6 of 9' in err and 'refimgs/' in err


@pytest.mark.parametrize('value', [-5.5, 105.5, 850.0])
def test_a_raw_score_off_its_scale_is_one_line(folder, prepare, value):
    (folder / 'dmos_realigned.mat').unlink()
    write(folder, {**LABELS, 'jp2k/img2': (value, 'rapids.bmp')}, realigned=False)
    code, _, err = prepare('--on_bad=skip', '--allow_partial')
    assert (code, err) == (
        2, f'error: {folder}/dmos.mat: dmos number 2 is {value:g}, outside -5..105; '
        'unpack it again\n',
    )  # fmt: skip


def test_fewer_copies_than_published_are_one_line(folder, prepare, monkeypatch):
    monkeypatch.setattr(source, 'COPIES', TOTAL - len(LABELS) + 1)
    code, _, err = prepare('--on_bad=skip', '--allow_partial')
    assert code == 2 and err == (
        f'error: {folder}/dmos_realigned.mat: orgs flags 976 copies of references, not 977; '
        'unpack it again\n'
    )


@pytest.mark.parametrize('gone', ['dmos_realigned.mat', 'refnames_all.mat'])
def test_a_missing_table_is_an_error_with_the_tree(folder, prepare, tmp_path, gone):
    for name in KINDS:
        (folder / name).mkdir(exist_ok=True)
    (folder / gone).rename(tmp_path / 'gone')
    code, _, err = prepare()
    first, *tree = err.splitlines()
    assert code == 2 and f'LIVE in {folder} lacks {gone}; unpack it as below' in first
    assert any('img1.bmp ... img227.bmp' in line for line in tree)


def shorten(name):
    return lambda columns: columns[name].pop()


def put(name, value):
    def change(columns):
        columns[name][3], columns['orgs'][3] = value, 0

    return change


TABLE_FAULTS = {
    'short scores': (shorten('dmos'), 'dmos_new holds 981 values, not 982 numbers'),
    'short flags': (shorten('orgs'), 'orgs holds 981 values'),
    'short names': (shorten('names'), 'refnames_all holds no 982 names'),
    'nan': (put('dmos', np.nan), 'dmos_new holds values that are not finite'),
    'inf': (put('dmos', np.inf), 'dmos_new holds values that are not finite'),
    'high': (put('dmos', 112.5), 'dmos_new number 4 is 112.5, outside -3..112'),
    'low': (put('dmos', -3.5), 'dmos_new number 4 is -3.5, outside'),
    'no name': (put('names', ' '), 'refnames_all holds no 982 names'),
}


@pytest.mark.parametrize('fault', TABLE_FAULTS)
def test_a_faulty_table_is_one_line(folder, prepare, fault):
    change, message = TABLE_FAULTS[fault]
    write(folder, LABELS, change=change)
    code, _, err = prepare('--on_bad=skip', '--allow_partial')
    name = 'refnames_all.mat' if 'name' in fault else 'dmos_realigned.mat'
    assert code == 2 and err.count('\n') == 1
    assert err.startswith(f'error: {folder}/{name}: ') and message in err
    assert err.endswith('; unpack it again\n')


@pytest.mark.parametrize(
    ('name', 'variable', 'message'),
    [
        ('dmos_realigned.mat', 'dmos_neww', 'dmos_new holds 0 values'),
        ('dmos_realigned.mat', 'orgs', 'dmos_new holds 0 values'),
        ('refnames_all.mat', 'refnames', 'refnames_all holds no 982 names'),
    ],
)
def test_a_table_without_its_variable_is_one_line(folder, prepare, name, variable, message):
    scipy.io.savemat(folder / name, {variable: np.zeros((1, TOTAL))})
    code, _, err = prepare()
    assert code == 2 and err.count('\n') == 1 and f'{folder}/{name}: {message}' in err


@pytest.mark.parametrize('content', [b'', b'MATLAB 7.3 MAT-file'.ljust(600), b'x' * 700])
def test_a_damaged_table_is_one_line(folder, prepare, content):
    (folder / 'dmos_realigned.mat').write_bytes(content)
    code, _, err = prepare()
    assert code == 2 and err.count('\n') == 1
    assert err.startswith(f'error: {folder}/dmos_realigned.mat: ')


def test_the_fingerprint_covers_both_tables(folder, prepare):
    paths = [prepare()[1]]
    write(folder, {**LABELS, 'jpeg/img1': (41.0, 'rapids.bmp')})
    paths.append(prepare()[1])
    write(folder, {**LABELS, 'jpeg/img1': (41.0, 'bikes.bmp')})
    paths.append(prepare()[1])
    assert len(set(paths)) == 3 and '' not in paths


@pytest.mark.parametrize(('count', 'references'), [(4, 8), (40, 29)])
def test_tiny_sets_have_all_types_and_fit_the_layout(tmp_path, monkeypatch, count, references):
    if count > 8:
        monkeypatch.setattr(made, 'LEVELS', (2, 4))
    made.write(tmp_path, count=count, seed=0)
    reader = source.SOURCE('default', tmp_path)
    items = reader.items()['all']
    assert len(items) == references * 5 * len(made.LEVELS) and reader.notes[:-1] == []
    examples = [reader.read(item, 'all', 0)[0] for item in items]
    assert len({e['reference'] for e in examples}) == references
    assert Counter(e['kind'] for e in examples) == dict.fromkeys(
        KINDS.values(), references * len(made.LEVELS)
    )
    ladders = np.array([e['score'] for e in examples]).reshape(-1, len(made.LEVELS))
    assert (np.diff(ladders) > 0).all()
