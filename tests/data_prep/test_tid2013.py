"""TID2013: the real score table in a made archive, both parts, and each fault of the layout."""

import csv
import io
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep.tid2013 import made, source
from rank_ssl.errors import UserError
from rank_ssl.ops import distortions

KINDS = {'01': 'white_noise', '16': 'mean_shift'}


def bmp(seed, shape=(8, 10)):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, 'BMP')
    return buffer.getvalue()


@pytest.fixture
def small(monkeypatch):
    """Two references, the second one the synthetic one, two types: 10 of 20 images are natural."""
    monkeypatch.setattr(source, 'REFERENCES', {'natural': 1, 'all': 2})
    monkeypatch.setattr(source, 'SYNTHETIC', 'i02')
    monkeypatch.setattr(source, 'KINDS', KINDS)


@pytest.fixture
def folder(tmp_path, small):
    folder = tmp_path / 'data' / 'tid2013'
    write(folder, [f'i0{r}_{k}_{n}.bmp' for r in (1, 2) for k in KINDS for n in range(1, 6)])
    return folder


def write(folder, names, *, images='distorted_images', table='mos_with_names.txt'):
    (folder / images).mkdir(parents=True)
    for i, name in enumerate(names):
        (folder / images / name).write_bytes(bmp(i))
    lines = [f'{i / 4:.5f} {name.upper()[:-4]}.bmp\n' for i, name in enumerate(names)]
    (folder / table).write_text(''.join(lines))


@pytest.fixture
def prepare(tmp_path, run):
    return lambda *args: run('tid2013', f'--manual_dir={tmp_path / "data"}', *args)


def test_the_kinds_are_those_of_the_ladders():
    assert list(source.KINDS) == [f'{n:02d}' for n in range(1, 25)]
    assert len(set(source.KINDS.values())) == 24
    for name, number in distortions.NUMBERS.items():
        assert source.KINDS[number] == name.removesuffix('_down').removesuffix('_up')
    missing = source.KINDS.keys() - set(distortions.NUMBERS.values())
    assert missing == {'03', '04', '12', '13', '20', '21', '24'}


def test_the_real_table_comes_back_exactly(real_data, tmp_path, run, read_back):
    with (real_data / 'iqa_tables' / 'TID2013.txt').open() as file:
        rows = list(csv.DictReader(file))
    folder = tmp_path / 'tid2013'
    (folder / 'distorted_images').mkdir(parents=True)
    names = [row['dis_img_path'].rsplit('/', 1)[1] for row in rows]
    for i, name in enumerate(names):
        (folder / 'distorted_images' / name).write_bytes(bmp(i, (3, 4)))
    lines = [f'{row["score"]} {name.capitalize()}\n' for row, name in zip(rows, names, strict=True)]
    (folder / 'mos_with_names.txt').write_text(''.join(lines))
    assert len(source.SOURCE('all', folder).items()['all']) == 3000
    code, out, err = run('tid2013', f'--manual_dir={tmp_path}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    found = {e['id'].decode(): e for e in splits['whole']}
    kept = [row for row in rows if '/i25' not in row['dis_img_path']]
    assert len(found) == len(kept) == len(splits['whole']) == 2880
    for row in kept:
        id = row['dis_img_path'].rsplit('/', 1)[1].removesuffix('.bmp')
        assert found[id]['score'] == np.float32(row['score'])
        assert found[id]['reference'].decode() == row['ref_img_path'].rsplit('/', 1)[1][:-4]
        assert found[id]['level'] == int(id[-1]) and found[id]['lower_is_better'] == 0
        assert found[id]['kind'].decode() == source.KINDS[id[4:6]]
        assert (found[id]['height'], found[id]['width']) == (3, 4)
    types = {(row['dis_img_path'].split('_')[2], row['dis_type']) for row in rows}
    by_type = {kind for _, kind in types}
    assert len(types) == 24 and len(by_type) == 23  # the table calls 21 and 24 the same
    assert record['kinds'] == dict.fromkeys(source.KINDS.values(), 24 * 5)
    assert record['references'] == {'all': 24} and record['partial'] is False
    scores = [float(row['score']) for row in kept]
    assert record['scores'] == {'all': [min(scores), max(scores)]}
    assert record['scale'] == {'low': 0, 'high': 9, 'lower_is_better': False, 'unit': 'MOS'}
    assert 'tid2013 natural: 2880 images; MOS 0.2424..7.214 of 0..9, higher is ' in err
    assert '24 references, 24 kinds of distortion' in err


def test_versions_of_one_reference_are_no_near_duplicates(folder, prepare, read_back):
    smooth = np.tile(np.arange(0, 200, 2, dtype=np.uint8)[:, None], (80, 1, 3)).reshape(80, 100, 3)
    for path in (folder / 'distorted_images').iterdir():
        pixels = smooth + np.uint8(int(path.stem[-1]) + 10 * int(path.stem[2]))
        Image.fromarray(pixels).save(path)
    copied = (folder / 'distorted_images' / 'i01_01_4.bmp').read_bytes()
    (folder / 'distorted_images' / 'i01_16_2.bmp').write_bytes(copied)
    record, _ = read_back(prepare('--part=all')[1].strip())
    pairs = {(d['first'][1], d['second'][1]): d['same_bytes'] for d in record['near_duplicates']}
    inside = {pair: same for pair, same in pairs.items() if pair[0][:3] == pair[1][:3]}
    assert inside[('i01_01_4', 'i01_16_2')] and all(inside.values())
    assert len(pairs) - len(inside) == 100  # of the other reference, which looks the same


def test_names_in_any_case_are_read(tmp_path, small, run, read_back):
    names = [f'I01_{k}_{n}.BMP' for k in KINDS for n in range(1, 6)]
    write(tmp_path, names, images='Distorted_Images', table='MOS_with_names.txt')
    (tmp_path / 'Distorted_Images' / 'Thumbs.db').write_text('')
    code, out, err = run('tid2013', f'--manual_dir={tmp_path}')
    assert code == 0 and 'ignored 1 other files, such as thumbs.db' in err
    examples = read_back(out.strip())[1]['whole']
    assert [e['id'].decode() for e in examples] == [name.lower()[:-4] for name in names]
    assert [e['score'] for e in examples] == [i / 4 for i in range(10)]


def test_images_whose_names_differ_in_case_alone_are_one_line(folder, prepare):
    (folder / 'distorted_images' / 'I01_01_1.bmp').write_bytes(bmp(99))
    if len(list((folder / 'distorted_images').iterdir())) == 20:
        pytest.skip('names differ here whatever their case')
    code, _, err = prepare('--on_bad=skip')
    assert code == 2 and err.count('\n') == 1
    assert 'holds I01_01_1.bmp and i01_01_1.bmp, names that differ in case alone' in err


def test_an_image_or_a_line_alone_is_named_or_skipped(folder, prepare, read_back):
    (folder / 'distorted_images' / 'i01_01_2.bmp').unlink()
    table = folder / 'mos_with_names.txt'
    table.write_text(''.join(table.read_text().splitlines(keepends=True)[:9]))
    code, out, err = prepare()
    assert (code, out) == (2, '') and '2 files are unusable; mend or remove them' in err
    assert f'i01_01_2.bmp: missing, though {table} names it' in err
    assert f'i01_16_5.bmp: {table} has no score for it' in err
    code, out, err = prepare('--on_bad=skip')
    record, splits = read_back(out.strip())
    assert code == 0 and len(splits['whole']) == 8 and record['partial'] is True
    assert 'tid2013 natural is partial (all 8 of 10)' in err


def test_lacking_both_is_incomplete(folder, prepare):
    (folder / 'distorted_images' / 'i01_16_5.bmp').unlink()
    table = folder / 'mos_with_names.txt'
    table.write_text(''.join(table.read_text().splitlines(keepends=True)[:9]))
    code, _, err = prepare()
    assert code == 2 and 'is incomplete: all 9 of 10; complete it or pass --allow_partial' in err
    assert prepare('--allow_partial')[0] == 0


@pytest.mark.parametrize('gone', ['distorted_images', 'mos_with_names.txt'])
def test_a_missing_part_is_an_error_with_the_tree(folder, prepare, tmp_path, gone):
    (folder / gone).rename(tmp_path / 'gone')
    code, _, err = prepare()
    first, *tree = err.splitlines()
    assert code == 2 and f'TID2013 in {folder} lacks {folder}/{gone}' in first
    assert any('5.51429 I01_01_1.bmp' in line for line in tree)


FAULTS = {
    'nan I01_01_1.bmp': "MOS='nan' is not a finite number; write the score or remove the row",
    'inf I01_01_1.bmp': "MOS='inf' is not a finite number",
    'five I01_01_1.bmp': "MOS='five' is not a finite number",
    '9.5 I01_01_1.bmp': 'MOS=9.5 is outside the declared range 0..9',
    '-0.1 I01_01_1.bmp': 'MOS=-0.1 is outside',
    '5 I01_03_1.bmp': "'5 I01_03_1.bmp' is not like 5.51429 I01_01_1.bmp",
    '5 I01_01_6.bmp': 'is not like',
    '5 I00_01_1.bmp': 'is not like',
    '5 I03_01_1.bmp': 'is not like',
    '1_0 I01_01_1.bmp': "MOS='1_0' is not a finite number",
    '5': 'is not like',
    '5 6 I01_01_1.bmp': 'is not like',
    '5 i01_01_2.BMP': 'i01_01_2.BMP stands in another line already; keep one',
}


@pytest.mark.parametrize('line', FAULTS)
def test_a_faulty_line_is_named(folder, prepare, line):
    table = folder / 'mos_with_names.txt'
    good = table.read_text().splitlines()[1:]
    table.write_text('\n'.join(['', *good, line]))
    code, _, err = prepare('--on_bad=skip')
    assert code == 2 and err.count('\n') == 1
    assert err.startswith(f'error: {table} line 21: ') and FAULTS[line] in err


def test_a_table_that_is_no_text_is_one_line(folder, prepare):
    (folder / 'mos_with_names.txt').write_bytes(b'\xff\xfe\x00')
    code, _, err = prepare()
    assert code == 2 and err.count('\n') == 1 and 'is not text; unpack it again' in err


def test_the_fingerprint_covers_table_and_images_and_part(folder, prepare):
    paths = [prepare()[1], prepare('--part=all')[1]]
    table = folder / 'mos_with_names.txt'
    table.write_text(table.read_text().replace('0.25000', '0.26000'))
    paths.append(prepare()[1])
    (folder / 'distorted_images' / 'i01_01_2.bmp').write_bytes(bmp(99))
    paths.append(prepare()[1])
    assert len(set(paths)) == 4 and '' not in paths


def test_plain_tfds_use_prepares_and_refuses(folder, tmp_path):
    import tensorflow_datasets as tfds

    from data_prep.tid2013.tid2013 import Tid2013

    def build(data_dir):
        builder = Tid2013(config='all', data_dir=data_dir, file_format='array_record')
        config = tfds.download.DownloadConfig(manual_dir=folder.parent)
        builder.download_and_prepare(download_config=config)
        return builder

    builder = build(tmp_path / 'tfds')
    assert (
        len(builder.as_data_source('all')) == 20 and 'Higher is better' in builder.info.description
    )
    (folder / 'distorted_images' / 'i01_01_2.bmp').unlink()
    with pytest.raises(UserError, match='missing, though'):
        build(tmp_path / 'tfds2')


@pytest.mark.parametrize(('count', 'references'), [(2, 8), (9, 9), (40, 24)])
def test_tiny_sets_have_ladders_whose_scores_fall(tmp_path, monkeypatch, count, references):
    if count != 9:
        monkeypatch.setattr(made, 'NUMBERS', {'10': 'jpeg'})
    made.write(tmp_path, count=count, seed=3)
    reader = source.SOURCE('natural', tmp_path)
    examples = [reader.read(item, 'all', 0) for item in reader.items()['all']]
    assert Counter(e['reference'] for e, _ in examples) == {
        f'i{n:02d}': 5 * len(made.NUMBERS) for n in range(1, references + 1)
    }
    ladders = {}
    for features, image in examples:
        assert image.shape == (96, 128, 3)
        path = tmp_path / 'reference_images' / f'{features["reference"].upper()}.BMP'
        error = float(np.square(image - cv2.imread(str(path))[..., ::-1].astype(float)).mean())
        key = features['reference'], features['kind']
        ladders.setdefault(key, []).append((features['score'], -error))
    for ladder in ladders.values():
        scores, fidelity = np.array(ladder).T
        assert (np.diff(scores) < 0).all() and (np.diff(fidelity) < 0).all()
