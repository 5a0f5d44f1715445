"""Any folder of images: what is taken, in which order, and what is left."""

import os

import numpy as np
import pytest
from PIL import Image

from data_prep.image_folder import source


def test_walk_is_sorted_skips_others_and_survives_loops(tmp_path, picture):
    for name in ('b.jpg', 'a.JPG', 'deep/er/c.jpeg', '.hidden.jpg', '.git/d.jpg', 'notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(1))
    (tmp_path / 'deep' / 'loop').symlink_to(tmp_path)
    (tmp_path / 'gone.jpg').symlink_to(tmp_path / 'nowhere.jpg')
    paths, others = source.walk(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        'a.JPG',
        'b.jpg',
        'deep/er/c.jpeg',
    ]
    assert others == 2  # the text file and the dangling link


def test_a_linked_folder_is_read(tmp_path, picture):
    outside = tmp_path / 'outside'
    outside.mkdir()
    (outside / 'x.jpg').write_bytes(picture(1))
    folder = tmp_path / 'set'
    folder.mkdir()
    (folder / 'link').symlink_to(outside)
    assert len(source.walk(folder)[0]) == 1


def test_an_id_that_is_not_utf8_is_written_out(tmp_path):
    name = os.fsdecode(b'caf\xe9.jpg')
    assert source._text(tmp_path / name, tmp_path) == 'caf\\xe9.jpg'


@pytest.mark.fault(row=7, injected='odd images in a folder', outcome='prepared with their bytes')
def test_odd_images_keep_their_bytes(tmp_path, run, read_back, picture):
    folder = tmp_path / 'my photos é'
    folder.mkdir()
    gray = np.arange(60, dtype=np.uint8).reshape(6, 10)
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / '1_16bit.png')
    Image.fromarray(gray).convert('P').save(folder / '2_palette.gif')
    Image.fromarray(np.stack([gray] * 4, -1), 'CMYK').save(folder / '3_cmyk.tif')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gray).save(folder / '4_turned.jpg', exif=exif)
    (folder / 'readme.md').write_text('no image')
    code, out, err = run('image_folder', f'--manual_dir={folder}')
    assert code == 0, err
    assert 'ignored 1 files' in err
    record, splits = read_back(out.strip())
    names = ['1_16bit.png', '2_palette.gif', '3_cmyk.tif', '4_turned.jpg']
    assert [e['id'].decode() for e in splits['train']] == names
    assert [e['image'] for e in splits['train']] == [(folder / n).read_bytes() for n in names]
    assert [(e['height'], e['width']) for e in splits['train']] == [(6, 10)] * 3 + [(10, 6)]
    assert record['partial'] is False and record['expected'] == {'train': 4}


@pytest.mark.fault(
    row=7,
    injected='an empty, a garbage and a truncated file in a folder',
    outcome='listed with its path; --on_bad=skip leaves it out',
)
@pytest.mark.parametrize('content', [b'', b'no image at all', None])
def test_a_bad_image_is_an_error_or_skipped(tmp_path, run, read_back, picture, content):
    folder = tmp_path / 'set'
    folder.mkdir()
    (folder / 'a.jpg').write_bytes(picture(1))
    (folder / 'b.jpg').write_bytes(picture(2)[:200] if content is None else content)
    code, out, err = run('image_folder', f'--manual_dir={folder}')
    assert code == 2 and out == ''
    assert '1 file is unusable' in err and '--on_bad=skip' in err and f'{folder}/b.jpg: ' in err
    err = run('image_folder', f'--manual_dir={folder}', '--flags=config.data.')[2]
    assert 'leave them out with --config.data.on_bad=skip\n' in err
    code, out, err = run('image_folder', f'--manual_dir={folder}', '--on_bad=skip')
    assert code == 0 and f'skipped: {folder}/b.jpg' in err
    record, splits = read_back(out.strip())
    assert len(record['bad_files']) == 1 and len(splits['train']) == 1
    code, out, err = run('image_folder', f'--manual_dir={folder}')  # the prepared copy lacks b.jpg
    assert code == 2 and f'{folder}/b.jpg: ' in err


def test_a_decompression_bomb_is_bad(tmp_path, run, picture):
    folder = tmp_path / 'set'
    folder.mkdir()
    (folder / 'a.jpg').write_bytes(picture(1))
    header = bytearray((folder / 'a.jpg').read_bytes())
    at = header.index(b'\xff\xc0') + 5
    header[at : at + 4] = (40_000).to_bytes(2, 'big') * 2
    (folder / 'bomb.jpg').write_bytes(header)
    code, _, err = run('image_folder', f'--manual_dir={folder}')
    assert code == 2 and 'bomb.jpg: ' in err


@pytest.mark.fault(
    row=15,
    injected='a folder without a usable image',
    outcome='an error with the folder and the file',
)
def test_a_folder_without_images_or_with_bad_ones_alone_is_an_error(tmp_path, run):
    folder = tmp_path / 'set'
    folder.mkdir()
    (folder / 'a.txt').write_text('')
    code, _, err = run('image_folder', f'--manual_dir={folder}')
    assert code == 2 and f'{folder} holds no image (1 other files)' in err
    (folder / 'a.jpg').write_bytes(b'')
    code, _, err = run('image_folder', f'--manual_dir={folder}', '--on_bad=skip')
    assert code == 2 and 'no usable example' in err and 'a.jpg' in err


@pytest.mark.parametrize('name', ['image_folder', 'ladders'])
def test_the_environment_names_no_folder_all_of_which_is_taken(
    tmp_path, run, picture, monkeypatch, name
):
    (tmp_path / 'labelled').mkdir()
    (tmp_path / 'labelled' / 'test.jpg').write_bytes(picture(1))
    monkeypatch.setenv('RANK_SSL_DATA', str(tmp_path))
    code, out, err = run(name)
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert err.startswith(f'error: {name} needs --manual_dir=DIR, whose images are all taken')


@pytest.mark.parametrize('name', ['image_folder', 'ladders'])
def test_a_folder_of_the_sets_name_comes_first(tmp_path, run, read_back, picture, name):
    for place in (name, 'labelled'):
        (tmp_path / place).mkdir()
        (tmp_path / place / f'{place}.jpg').write_bytes(picture(1, (40, 60)))
    out = run(name, f'--manual_dir={tmp_path}')[1]
    assert [e['id'].decode() for e in read_back(out.strip())[1]['train']] == [f'{name}.jpg']
    assert run(name, f'--manual_dir={tmp_path / name}')[:2] == (0, out)


def test_no_copy_of_a_folder_stands_in_for_another_or_for_none(tmp_path, run, picture):
    folder = tmp_path / 'set'
    folder.mkdir()
    (folder / 'a.jpg').write_bytes(picture(1))
    code, out, _ = run('image_folder', f'--manual_dir={folder}')
    assert code == 0
    assert run('image_folder')[0] == 2
    wrong = f'--manual_dir={tmp_path / "sett"}'
    assert run('image_folder', wrong)[0] == 2
    folder.rename(tmp_path / 'moved')
    assert run('image_folder', f'--manual_dir={folder}')[0] == 2
    assert run('image_folder', f'--manual_dir={tmp_path / "moved"}')[:2] == (0, out)
