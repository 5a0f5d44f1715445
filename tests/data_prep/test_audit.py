"""The auditor: its measures in closed form, its tables by hand, its command from outside."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import audit
from data_prep.audit import DRAWS, SIZE, Measured
from rank_ssl.ops import distortions

ROOT = Path(__file__).resolve().parents[2]


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture
def folder(tmp_path, picture):
    """Two images, the second smaller than a crop, and a file that is none."""
    path = tmp_path / 'pristine'
    (path / 'below').mkdir(parents=True)
    (path / 'a.jpg').write_bytes(picture(1, (240, 260)))
    (path / 'below' / 'b.jpg').write_bytes(picture(2, (90, 300)))
    (path / 'notes.txt').write_text('no image')
    return path


@pytest.fixture
def run(capsys):
    """run(*args) -> (exit code, stdout, stderr)."""

    def call(*args):
        capsys.readouterr()
        code = audit.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def table(text, head):
    """The rows below the one that starts with `head`: first cell -> the others."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f'| {head} |'))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith('|'):
            break
        rows.append([cell.strip() for cell in line.strip('|').split('|')])
    return rows


def test_measures_by_hand():
    image = np.full((40, 60, 3), 100, np.uint8)
    distorted = image.copy()
    distorted[:20, :30, 1] = 130
    psnr, ssim, area = audit._numbers(audit.damage(image, distorted))
    # A quarter of the pixels is off by 30 in one of three channels.
    assert psnr == pytest.approx(10 * np.log10(255**2 / (900 / 3 / 4)), abs=1e-5)
    assert area == 0.25
    assert 0 < ssim < 1
    # Two flat images differ in luminance alone: (2 a b + C1) / (a^2 + b^2 + C1).
    flat = audit.damage(image, np.full_like(image, 150))
    want = (2 * 100 * 150 + 2.55**2) / (100**2 + 150**2 + 2.55**2)
    assert audit._numbers(flat)[1] == pytest.approx(want, abs=1e-6)
    assert audit._numbers(audit.damage(image, image)).tolist() == [np.inf, 1, 0]


def test_ssim_of_a_pixel_is_wangs():
    a, b = rng().integers(0, 256, (2, 21, 25, 3)).astype(np.uint8)
    y, x = 9, 12
    offset = np.arange(-5, 6)
    weights = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for c in range(3):
        p, q = (v[y - 5 : y + 6, x - 5 : x + 6, c].astype(float) for v in (a, b))
        mp, mq = (weights * p).sum(), (weights * q).sum()
        pp, qq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
        pq = (weights * (p - mp) * (q - mq)).sum()
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        found.append((2 * mp * mq + c1) * (2 * pq + c2) / ((mp**2 + mq**2 + c1) * (pp + qq + c2)))
    assert audit.damage(a, b)[y, x, 1] == pytest.approx(np.mean(found), abs=1e-6)


def test_pairs_out_of_order_and_equal_ones():
    assert audit.out_of_order(np.array([np.inf, 30, 20, 10])) == (0, 0)
    # Of six pairs: 20 before 25 is wrong, 20 twice is equal.
    assert audit.out_of_order(np.array([[30.0, 20, 25, 20], [4, 3, 2, 1]])) == (1 / 12, 1 / 12)
    assert audit.out_of_order(np.array([np.inf, np.inf, 3.0])) == (0, 1 / 3)


def test_a_chain_is_measured_level_by_level(picture):
    image = np.asarray(Image.open(io.BytesIO(picture(3, (230, 250)))))
    measured = audit.measure(rng(), image, 'impulse_noise', compat='paper')
    assert measured.whole.shape == (3, 5) and measured.cropped.shape == (DRAWS, 3, 5)
    again = rng()
    for level in range(5):
        made = distortions.distort(again, image, 'impulse_noise', level)
        error = np.square(made.astype(float) - image).mean()
        if level:
            want = 10 * np.log10(255**2 / error)
            assert measured.whole[0, level] == pytest.approx(want, abs=1e-4)
        assert measured.whole[2, level] == (made != image).any(-1).mean(dtype=np.float64)
        np.testing.assert_array_equal(measured.centre[level], made[3:227, 13:237])
    # The crops differ, and are fair samples of the image.
    spread = measured.cropped[:, 2, 1:].std(0)
    assert (spread > 0).all()
    np.testing.assert_allclose(measured.cropped[:, 2].mean(0), measured.whole[2], rtol=0.05)


def test_each_level_has_a_position_of_its_own():
    # White pixels can't get lighter: what a crop loses depends on its position alone.
    image = np.full((SIZE, 2 * SIZE, 3), 100, np.uint8)
    image[:, SIZE:] = 255
    area = audit.measure(rng(), image, 'mean_shift_up', compat='paper').cropped[:, 2]
    assert (area[:, 0] == 0).all()
    assert len(np.unique(area[:, 1:])) > 3 * DRAWS
    assert 0.3 < area[:, 1:].mean() < 0.7


def test_an_image_of_a_crops_size_gives_what_the_whole_does_and_a_smaller_is_mirrored(picture):
    image = np.asarray(Image.open(io.BytesIO(picture(3, (SIZE, SIZE)))))
    whole, cropped, _ = audit.measure(rng(), image, 'jpeg', compat='paper')
    assert (cropped == whole).all()
    small = image[: SIZE // 2, : SIZE // 2]
    whole, cropped, centre = audit.measure(rng(), small, 'jpeg', compat='paper')
    np.testing.assert_allclose(cropped, np.broadcast_to(whole, cropped.shape), rtol=1e-6)
    np.testing.assert_array_equal(centre[0][:, ::-1], centre[0])


def measured(psnr, area, crop_area):
    """A chain of two levels: SSIM falls with PSNR; two draws of crops from `crop_area` [2, 3]."""
    whole = np.array([psnr, np.array(psnr) / 100, area], float)
    cropped = np.stack([whole, whole])
    cropped[:, 2] = crop_area
    return Measured(whole, cropped, np.zeros((3, 4, 4, 3), np.uint8))


FOUND = {
    'jpeg': [
        measured([99, 30, 20], [0, 1, 1], [[0, 0.5, 1], [0, 1, 1]]),
        measured([99, 40, 26], [0, 1, 1], [[0, 1, 1], [0, 1, 1]]),
    ],
    'blockwise': [
        measured([99, 31, 33], [0, 0.1, 0.2], [[0, 0.2, 0.1], [0, 0, 0.4]]),
        measured([99, 31, 21], [0, 0.1, 0.4], [[0, 0.2, 0.3], [0, 0, 0]]),
    ],
}


def test_means_by_level():
    rows = table(audit.levels_table(FOUND), 'TID2013')
    assert rows == [
        ['', 'near TID2013', '33 / 30 / 27 / 24 / 21', '', '', ''],
        ['10', 'jpeg', '35.0 / 23.0', '0.350 / 0.230', '100.0 / 100.0', '87.5 / 100.0'],
        ['15', 'blockwise', '31.0 / 27.0', '0.310 / 0.270', '10.0 / 30.0', '10.0 / 20.0'],
        ['', 'mean of all chains', '33.0 / 25.0', '0.330 / 0.250', '55.0 / 65.0', '48.8 / 60.0'],
    ]


def test_a_chain_that_changes_nothing_is_left_out_of_the_mean_psnr():
    same = [measured([np.inf] * 3, [0, 0, 0], [[0, 0, 0], [0, 0, 0]])]
    rows = table(audit.levels_table({**FOUND, 'saturation': same}), 'TID2013')
    assert rows[3][1:3] == ['saturation', 'inf / inf']
    assert rows[4][1:4] == ['mean of all chains, PSNR of 2 of 3', '33.0 / 25.0', 'inf / inf']
    rows = table(audit.levels_table({'saturation': same}), 'TID2013')
    assert rows[2][1:3] == ['mean of all chains, PSNR of 0 of 1', 'inf / inf']


def test_pairs_by_measure():
    rows = table(audit.order_table(FOUND), 'chain')
    # jpeg: one pair of three has equal areas; of its crops, three pairs of twelve. blockwise: one
    # pair of six is wrong by PSNR; of the crops' areas one of twelve is wrong and four are equal.
    assert rows == [
        ['jpeg', '0.0 + 0.0', '0.0 + 0.0', '0.0 + 33.3', '0.0 + 0.0', '0.0 + 0.0', '0.0 + 25.0'],
        ['blockwise', '16.7 + 0.0', '16.7 + 0.0', '0.0 + 0.0', '16.7 + 0.0', '16.7 + 0.0',
         '8.3 + 33.3'],
        ['all chains', '8.3 + 0.0', '8.3 + 0.0', '0.0 + 16.7', '8.3 + 0.0', '8.3 + 0.0',
         '4.2 + 29.2'],
    ]  # fmt: skip


def test_the_figure_has_all_levels_under_their_parameters():
    made = np.arange(3 * 16 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    first = {name: Measured(np.zeros(0), np.zeros(0), made) for name in ('jpeg', 'gaussian_blur')}
    axes = audit.figure(first, 'caffe').axes
    assert [one.get_title() for one in axes] == [
        'jpeg', 'level 1: 43', 'level 2: 12', 'gaussian blur', 'level 1: 1.17', 'level 2: 2.5',
    ]  # fmt: skip
    for one, want in zip(axes, [*made, *made], strict=True):
        np.testing.assert_array_equal(one.images[0].get_array(), want)


def test_the_command_prints_and_writes(run, folder, tmp_path, monkeypatch):
    out = tmp_path / 'new' / 'out'
    code, text, err = run(folder, '--ladder=live', f'--out={out}')
    assert code == 0, err
    assert text.startswith(f'# The live ladder on 2 images of {folder}\n')
    assert [row[1] for row in table(text, 'TID2013')] == [
        'near TID2013', *distortions.LIVE, 'mean of all chains',
    ]  # fmt: skip
    assert [row[0] for row in table(text, 'chain')] == [*distortions.LIVE, 'all chains']
    assert (out / 'audit.md').read_text(encoding='utf-8') == text
    assert Image.open(out / 'ladders.png').format == 'PNG'
    assert 'audit: 8 examples in' in err
    # The draws are each task's own, whatever the number of threads; another seed draws anew.
    monkeypatch.setattr(audit.os, 'cpu_count', lambda: 1)
    assert run(folder, '--ladder=live')[1] == text
    other = run(folder, '--ladder=live', '--seed=1')[1]
    assert table(other, 'chain') != table(text, 'chain')


def test_bad_images_are_left_out_listed_and_counted(run, folder, tmp_path):
    text = run(folder, '--ladder=live')[1]
    (folder / '0.jpg').write_bytes(b'no image')
    Image.new('RGB', (30, 10)).save(folder / 'small.png')
    out = tmp_path / 'out'
    code, found, err = run(folder, '--ladder=live', f'--out={out}')
    assert code == 0, err
    assert found.startswith(f'# The live ladder on 2 images of {folder}, 2 left out as unusable\n')
    left = [line for line in err.splitlines() if line.startswith('left out: ')]
    assert len(left) == 2 and left[0].startswith(f'left out: {folder}/0.jpg: ')
    assert left[1] == f'left out: {folder}/small.png has 10 x 30 px, SSIM needs 11: remove it'
    assert len(table(found, 'TID2013')) == len(table(text, 'TID2013'))
    assert Image.open(out / 'ladders.png').format == 'PNG'
    code, found, err = run(folder, '--images=1')
    assert (code, found, err.count('\n')) == (2, '', 1) and err.startswith(f'error: {folder}/0.jpg')
    for path in (folder / 'a.jpg', folder / 'below' / 'b.jpg'):
        path.unlink()
    code, found, err = run(folder)
    assert (code, found, err.count('\n')) == (2, '', 1)
    assert err.endswith('(2 images, none of them usable)\n')


def test_the_pixels_of_the_first_usable_image_alone_are_kept():
    one = measured([99, 30, 20], [0, 1, 1], [[0, 0.5, 1], [0, 1, 1]])
    bad = audit.BadFile('x')
    stream = [('jpeg', bad), ('jpeg', one), ('jpeg', one), ('blockwise', one), ('jpeg', bad)]
    found, messages = audit._collect(iter(stream))
    assert [len(every.centre) for every in found['jpeg']] == [3, 0]
    assert found['jpeg'][1].centre.base is None  # a view would keep all of it
    assert len(found['blockwise'][0].centre) == 3 and messages == ['x']


@pytest.mark.parametrize('cores', [1, 3])
def test_work_goes_no_further_ahead_than_two_tasks_per_core(monkeypatch, cores):
    monkeypatch.setattr(audit.os, 'cpu_count', lambda: cores)
    begun = []
    results = audit._in_threads(lambda task: begun.append(task) or -task, range(40))
    for taken, result in enumerate(results):
        assert result == -taken
        assert len(begun) <= taken + 2 * cores
    assert sorted(begun) == list(range(40))


def test_the_first_images_are_taken(folder):
    assert [path.name for path in audit.find(folder, None)] == ['a.jpg', 'b.jpg']
    assert [path.name for path in audit.find(folder, 1)] == ['a.jpg']


def test_chains_of_an_image_draw_apart(folder):
    paths = audit.find(folder, 1)
    chains = ('white_noise', 'live_noise')
    found = [one for _, one in audit.measure_all(paths, chains, compat='paper', seed=3)]
    # Their first levels are of nearly one variance, so that equal draws would look alike.
    first, second = (one.centre[1].astype(int) - one.centre[0] for one in found)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05


def test_the_released_codes_levels_are_measured_where_asked(folder):
    paths = audit.find(folder, 1)
    found = {
        compat: next(audit.measure_all(paths, ['quantization_noise'], compat=compat, seed=0))[1]
        for compat in distortions.COMPATS
    }
    image = audit._read(paths[0])
    for compat, one in found.items():
        made = distortions.distort(rng(), image, 'quantization_noise', 4, compat=compat)
        error = np.square(made.astype(float) - image).mean()
        assert one.whole[0, 4] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)
    assert found['paper'].whole[0, 4] != found['caffe'].whole[0, 4]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['nowhere'], 'nowhere is no folder: name one with pristine images'),
        (['{empty}'], '{empty} holds no image (1 other files): name one that does'),
        (['{folder}', '--images=0'], '--images=0 must be at least 1'),
        (['{folder}', '--seed=-1'], '--seed=-1 must be at least 0'),
        (['{folder}', '--images=x'], "argument --images: invalid int value: 'x'; see python -m"),
        (['{folder}', '--ladder=x'], "argument --ladder: invalid choice: 'x'"),
        (['{broken}'], '{broken}/x.png: '),
        (['{tiny}'], '{tiny}/x.png has 10 x 30 px, SSIM needs 11: remove it'),
        (['{folder}', '--out={folder}/a.jpg'], '{folder}/a.jpg: File exists'),
        ([], 'the following arguments are required: folder'),
    ],
)
def test_mistakes_are_one_line(run, folder, tmp_path, args, message):
    places = {'folder': folder, **{n: tmp_path / n for n in ('empty', 'broken', 'tiny')}}
    for name in ('empty', 'broken', 'tiny'):
        places[name].mkdir()
    (places['empty'] / 'notes.txt').touch()
    (places['broken'] / 'x.png').write_bytes(b'no image')
    Image.new('RGB', (30, 10)).save(places['tiny'] / 'x.png')
    code, out, err = run(*(arg.format(**places) for arg in args))
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert err.startswith(f'error: {message.format(**places)}')


def test_what_it_needs_is_checked_before_the_work(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(audit.os, 'access', lambda *_: False)
    code, _, err = run(folder, f'--out={tmp_path}')
    assert (code, err) == (
        2, f'error: --out={tmp_path} is read-only: name a folder that can be written to\n',
    )  # fmt: skip
    monkeypatch.setattr(audit.importlib.util, 'find_spec', lambda _: None)
    code, _, err = run(folder)
    assert (code, err) == (
        2, 'error: SSIM needs scikit-image, which is not there: pip install scikit-image\n',
    )  # fmt: skip


def test_a_mistake_ends_the_program_with_code_2():
    command = [sys.executable, '-m', 'data_prep.audit', 'nowhere']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'error: nowhere is no folder: name one with pristine images\n'


@pytest.mark.parametrize(
    'chain',
    ['white_noise', 'impulse_noise', 'multiplicative_noise', 'gaussian_blur', 'mean_shift_down',
     'mean_shift_up', 'contrast_down', 'contrast_up', 'pattern_noise'],
)  # fmt: skip
def test_a_real_photograph_falls_in_psnr(real_data, chain):
    (path,) = audit.find(real_data / 'pristine' / 'kodak24', 1)
    image = np.ascontiguousarray(audit._read(path)[:256, :320])
    whole = audit.measure(rng(), image, chain, compat='paper').whole
    assert audit.out_of_order(whole[0]) == (0, 0)
