"""Ladder sets: what is stored beside pristine images, and in which order and form."""

import io
import itertools
import os

import numpy as np
import pytest
from PIL import Image

from data_prep.ladders import reader
from data_prep.waterloo.source import WaterlooSource
from rank_ssl.ops import codecs, images, ladders

KEYS = ('jpeg2000', 'denoised_1', 'denoised_2', 'denoised_3', 'denoised_4')


def _smooth(seed: int, shape: tuple[int, int] = (80, 112)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def _pixels(seed: int, shape: tuple[int, int] = (80, 112)) -> np.ndarray:
    """A picture with grain, whose PNG is larger than what is stored beside it."""
    grain = np.random.default_rng(seed).normal(0, 5, (*shape, 3))
    return np.clip(np.rint(_smooth(seed, shape) + grain), 0, 255).astype(np.uint8)


@pytest.fixture
def waterloo(tmp_path):
    """A folder of six of the published images, two of them not square, and strays."""
    folder = tmp_path / 'waterloo' / 'pristine_images'
    folder.mkdir(parents=True)
    for number in (3, 1, 2, 4744, 20, 10):
        Image.fromarray(_pixels(number)).save(folder / f'{number:05d}.bmp')
    (folder / 'Thumbs.db').write_bytes(b'x')
    (folder / '04745.bmp').write_bytes(b'x')
    return tmp_path


def test_features_are_the_image_and_its_costly_levels(tmp_path, run, read_back):
    folder = tmp_path / 'photos é'
    (folder / 'deep').mkdir(parents=True)
    Image.fromarray(_pixels(0)).save(folder / 'b.jpg')
    Image.fromarray(_pixels(1, (73, 130))).save(folder / 'deep' / 'a.png')
    code, out, err = run('ladders', f'--manual_dir={folder}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    assert list(splits) == ['train'] and record['expected'] == {'train': 2}
    examples = splits['train']
    assert [e['id'].decode() for e in examples] == ['b.jpg', 'deep/a.png']
    assert [(e['height'], e['width']) for e in examples] == [(80, 112), (73, 130)]
    for example in examples:
        id = example['id'].decode()
        assert example['image'] == (folder / id).read_bytes()
        kept = {key: example[key] for key in KEYS}
        image = images.decode(example['image'])
        assert kept == ladders.costly(image, id)
        for chain in ('jpeg2000', 'live_jpeg2000', 'denoising'):
            rng = np.random.default_rng(0)
            made = ladders.ladder(rng, image, chain, size=32, stored=kept)
            assert made.shape == (ladders.levels(chain) + 1, 32, 32, 3)


@pytest.mark.parametrize('suffix', ['bmp', 'tif', 'ppm'])
def test_uncompressed_images_become_png_of_the_same_pixels(tmp_path, run, read_back, suffix):
    folder = tmp_path / 'set'
    folder.mkdir()
    Image.fromarray(_pixels(2)).save(folder / f'a.{suffix}')
    code, out, err = run('ladders', f'--manual_dir={folder}')
    assert code == 0, err
    (example,) = read_back(out.strip())[1]['train']
    with Image.open(io.BytesIO(example['image'])) as kept:
        assert kept.format == 'PNG'
    np.testing.assert_array_equal(images.decode(example['image']), _pixels(2))


def test_the_notes_say_what_is_added_against_png(tmp_path, run, read_back):
    folder = tmp_path / 'set'
    folder.mkdir()
    Image.fromarray(_pixels(3)).save(folder / 'a.jpg')
    Image.fromarray(_pixels(3)).save(tmp_path / 'a.png')
    code, out, err = run('ladders', f'--manual_dir={folder}')
    assert code == 0
    record, splits = read_back(out.strip())
    added = sum(len(splits['train'][0][key]) for key in KEYS)
    note = f'ladders add {added} bytes to 1 images of '
    assert any(line.startswith(note) for line in record['notes']) and note in err
    with Image.open(folder / 'a.jpg') as image:
        image.save(tmp_path / 'a.png')
    assert f'of {(tmp_path / "a.png").stat().st_size} bytes as PNG' in record['notes'][0]


def test_what_is_stored_stays_below_the_png_and_is_counted(tmp_path, run, read_back):
    folder = tmp_path / 'set'
    folder.mkdir()
    Image.fromarray(_smooth(3)).save(folder / 'smooth.png')
    Image.new('RGB', (64, 64)).save(folder / 'flat.png')
    Image.fromarray(_pixels(3)).save(folder / 'grain.png')
    code, out, err = run('ladders', f'--manual_dir={folder}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    examples = {e['id'].decode(): e for e in splits['train']}
    for id, example in examples.items():
        image = images.decode(example['image'])
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, 'PNG')
        kept = {key: example[key] for key in KEYS}
        assert sum(map(len, kept.values())) < buffer.tell()
        whole = ladders.costly(image, id)
        assert all(kept[key] in (b'', whole[key]) for key in KEYS)
        left = {key: len(whole[key]) for key in KEYS if not kept[key]}
        if id == 'grain.png':
            assert not left
        else:  # the largest are left, and the least of them would not have fitted in
            stored = [len(kept[key]) for key in KEYS if kept[key]]
            assert min(left.values()) >= max(stored, default=0)
            assert sum(stored) + min(left.values()) >= buffer.tell()
        for chain in ('jpeg2000', 'denoising'):
            made = ladders.ladder(np.random.default_rng(0), image, chain, size=32, stored=kept)
            assert made.shape == (5, 32, 32, 3)
    note = '2 of 3 images lack stored levels, as all would take no less than the image as PNG'
    assert any(line.startswith(note) for line in record['notes']) and note in err


def test_equal_jpeg2000_levels_and_gray_images_are_counted(tmp_path, run, read_back):
    folder = tmp_path / 'set'
    folder.mkdir()
    gray = _pixels(1, (240, 320))[..., 0]
    Image.fromarray(gray).save(folder / 'gray.png')
    Image.fromarray(np.stack([gray] * 3, -1)).save(folder / 'gray_too.png')
    for n, shape in enumerate([(240, 320), (48, 48), (300, 260)]):
        Image.fromarray(_pixels(n, shape)).save(folder / f'{n}.png')
    code, out, err = run('ladders', f'--manual_dir={folder}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    equal = []
    for example in splits['train']:
        levels = [codecs.decode_layer(example['jpeg2000'], k).tobytes() for k in range(5)]
        equal.append(any(a == b for a, b in itertools.pairwise(levels)))
    assert equal == [False, True, False, False, False]
    note = (
        '1 of 5 images have neighbouring JPEG2000 levels with equal pixels, as small ones may; '
        '2 of 5 images are gray, which saturation does not change'
    )
    assert note in record['notes'] and note in err
    assert record['notes'][2].startswith('1 of 5 images lack stored levels')  # the small one


@pytest.mark.parametrize('cores', [1, 3])
def test_order_and_bytes_are_those_of_one_after_another(tmp_path, waterloo, monkeypatch, cores):
    expected = []
    for number in (1, 2, 3, 10, 20, 4744):
        path = waterloo / 'waterloo' / 'pristine_images' / f'{number:05d}.bmp'
        image = images.decode(path.read_bytes())
        expected.append({'id': path.stem, **ladders.costly(image, path.stem)})
    with WaterlooSource('default', waterloo / 'waterloo') as source:
        source.cores = cores
        listing = source.items()['train']
        made = [source.read(item, 'train', i)[0] for i, item in enumerate(listing)]
    assert [{'id': m['id'], **{key: m[key] for key in KEYS}} for m in made] == expected


def test_a_bad_image_between_others_is_reported_alone(tmp_path, run, read_back):
    folder = tmp_path / 'set'
    folder.mkdir()
    for n in range(6):
        Image.fromarray(_pixels(n)).save(folder / f'{n}.png')
    (folder / '2.png').write_bytes(b'no image')
    Image.fromarray(_pixels(4, (15, 60))).save(folder / '4.png')
    code, out, err = run('ladders', f'--manual_dir={folder}')
    assert code == 2 and out == '' and 'Traceback' not in err
    assert '2 files are unusable' in err and f'{folder}/2.png: ' in err
    assert f'{folder}/4.png: 60x15 image has a side below 16 px' in err
    code, out, err = run('ladders', f'--manual_dir={folder}', '--on_bad=skip')
    assert code == 0
    assert [e['id'] for e in read_back(out.strip())[1]['train']] == [
        b'0.png',
        b'1.png',
        b'3.png',
        b'5.png',
    ]


def test_levels_that_cannot_be_encoded_are_a_bad_file(tmp_path, run, monkeypatch):
    def fail(image, id):
        raise OSError('broken data stream when writing image file')

    Image.fromarray(_pixels(0)).save(tmp_path / 'a.png')
    monkeypatch.setattr(ladders, 'costly', fail)
    code, _, err = run('ladders', f'--manual_dir={tmp_path}')
    said = f'{tmp_path}/a.png: its levels were not encoded (broken data stream when writing image'
    assert code == 2 and said in err and '--data_dir' not in err


def test_reading_ends_in_the_middle_without_waiting_for_all(waterloo):
    source = WaterlooSource('default', waterloo / 'waterloo')
    with pytest.raises(KeyboardInterrupt), source:
        source.read(source.items()['train'][0], 'train', 0)
        raise KeyboardInterrupt
    assert source._pool is None and not any('ladders add' in note for note in source.notes)


def test_an_example_out_of_order_is_made_where_it_is_asked_for(waterloo):
    with WaterlooSource('default', waterloo / 'waterloo') as source:
        items = source.items()['train']
        assert source.read(items[3], 'train', 3)[0]['id'] == '00010'
        assert source.read(items[0], 'train', 0)[0]['id'] == '00001'
        assert source.read(items[0], 'train', 0)[0] == reader.make(items[0]).features


def test_an_incomplete_waterloo_needs_allow_partial(waterloo, run, read_back):
    code, out, err = run('waterloo', f'--manual_dir={waterloo}')
    assert code == 2 and 'train 6 of 4744' in err and '--allow_partial' in err
    assert 'pristine_images' in err
    code, out, err = run('waterloo', f'--manual_dir={waterloo}', '--allow_partial')
    assert code == 0, err
    record, splits = read_back(out.strip())
    ids = ['00001', '00002', '00003', '00010', '00020', '04744']
    assert [e['id'].decode() for e in splits['train']] == ids
    assert record['partial'] and record['expected'] == {'train': 4744}
    assert 'ignored 2 other files, such as 04745.bmp' in record['notes']
    np.testing.assert_array_equal(images.decode(splits['train'][5]['image']), _pixels(4744))


def test_waterloo_is_found_as_its_archive_unpacks(waterloo, tmp_path, run):
    (tmp_path / 'waterloo').rename(tmp_path / 'exploration_database_and_code')
    assert run('waterloo', f'--manual_dir={tmp_path}', '--allow_partial')[0] == 0


def test_a_waterloo_folder_without_images_shows_the_tree(tmp_path, run):
    (tmp_path / 'pristine_images').mkdir()
    code, _, err = run('waterloo', f'--manual_dir={tmp_path}', '--allow_partial')
    assert code == 2 and 'none of the images 00001.bmp to 04744.bmp' in err
    assert len(err.splitlines()) == 4


@pytest.mark.parametrize('name', ['ladders', 'waterloo'])
def test_tiny(tmp_path, start, read_back, name):
    process = start(name, '--tiny=3', f'--tiny_dir={tmp_path / "tiny"}')
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    record, splits = read_back(out.strip())
    assert record['made'] and len(splits['train']) == 3
    assert all(any(example[key] for key in KEYS) for example in splits['train'])
    if name == 'waterloo':
        assert sorted(os.listdir(tmp_path / 'tiny' / 'pristine_images'))[0] == '00001.bmp'
