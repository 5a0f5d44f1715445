"""The benches: the command, the form of the numbers, and peers that make the same distortion."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rank_ssl import bench
from rank_ssl.bench import delivered, ladder, pictures, registry, timing
from rank_ssl.ops import distortions, images

PEERS = [(name, library) for name, of in registry.PEERS.items() for library in of]
# Their damage varies from draw to draw: a few patches or blocks.
DRAWS = {'pattern_noise': 20, 'blockwise': 60}
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def picture() -> np.ndarray:
    return pictures.drawn(0, (320, 240))


@pytest.fixture
def no_real_data(monkeypatch):
    monkeypatch.delenv('RANK_SSL_DATA', raising=False)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def mean_psnr(make, image: np.ndarray, value: float, draws: int) -> float:
    """PSNR of the mean squared error over some draws of make(image, value)."""
    errors = [np.square(make(image, value) - image.astype(float)).mean() for _ in range(draws)]
    return float(10 * np.log10(255**2 / np.mean(errors)))


@pytest.mark.parametrize(('name', 'library'), PEERS)
def test_a_peer_makes_the_same_distortion(picture, name, library):
    if library not in registry.installed():
        pytest.skip(f'{library} is not installed')
    peer = registry.PEERS[name][library]
    rng = np.random.Generator(np.random.Philox(0))

    def ours(image, value):
        return distortions.apply(rng, image, name, value)

    draws = DRAWS.get(name, 1)
    unlike = registry.UNLIKE.get(name, ('', ''))[0] == library
    for level in range(1, ladder.LEVELS[name] + 1):
        value = distortions.value(name, level)
        made = peer(picture, value)
        assert (made.shape, made.dtype) == (picture.shape, np.uint8)
        near = pytest.approx(mean_psnr(ours, picture, value, draws), abs=4 if unlike else 1)
        assert mean_psnr(peer, picture, value, draws) == near, level


@pytest.mark.parametrize(
    ('name', 'least'),
    [
        ('quantization_noise', 90),
        ('mean_shift_down', 90),
        ('mean_shift_up', 90),
        ('contrast_down', 50),
        ('contrast_up', 50),
        ('saturation', 50),
        ('gaussian_blur', 50),
        ('jpeg2000', 45),
    ],
)
def test_a_peer_without_chance_makes_the_same_pixels(picture, name, least):
    rng = np.random.Generator(np.random.Philox(0))
    for level in range(1, 5):
        ours = distortions.distort(rng, picture, name, level)
        same = set(registry.PEERS[name]) - {registry.UNLIKE.get(name, ('',))[0]}
        for library in same & set(registry.installed()):
            theirs = registry.PEERS[name][library](picture, distortions.value(name, level))
            assert psnr(ours, theirs) > least, (library, level)


def test_every_type_has_a_peer_that_is_always_there():
    assert set(registry.PEERS) == {*distortions.TID2013, *distortions.LIVE}
    for name, of in registry.PEERS.items():
        assert set(of) - set(registry.OPTIONAL), name
    assert set(registry.LIBRARIES) - set(registry.OPTIONAL) <= set(registry.installed())


def test_an_absent_library_is_said_and_the_others_measured(picture, monkeypatch):
    monkeypatch.setitem(registry.LIBRARIES, 'albumentations', 'no_such_package')
    row = ladder.measure_type(ladder.centre(picture), 'gaussian_blur', rounds=1, seconds=0)
    assert row['peer'] == 'OpenCV' and set(row['peers']) == {'OpenCV'}
    assert 'not installed' in ladder.line(row)
    assert len(ladder.line(row)) == len(ladder.head())


def test_the_ratio_is_that_to_the_best_peer_over_all_levels(picture, monkeypatch):
    taken = {'ours': [2.0, 2.0, 4.0, 4.0], 'OpenCV': [1.0, 1.0, 1.0, 6.0], 'NumPy': [9.0] * 4}
    levels = iter(range(4))

    def alternate(calls, *, rounds, seconds):
        level = next(levels)
        return {name: np.full(3, taken[name][level]) for name in calls if name in taken}

    monkeypatch.setattr(ladder, 'alternate', alternate)
    row = ladder.measure_type(picture, 'white_noise', rounds=3, seconds=0)
    # Harmonic means: 4 images in 12 s, in 9 s and in 36 s.
    assert row['ours'] == pytest.approx(4 / 12) and row['peer_rate'] == pytest.approx(4 / 9)
    assert row['peer'] == 'OpenCV' and row['ratio'] == pytest.approx(9 / 12)
    assert row['peers']['NumPy'] == pytest.approx(4 / 36)
    assert '0.75<' in ladder.line(row)


def test_calls_alternate_and_are_repeated_for_about_the_time_given():
    order, clock = [], {'slow': 0.004, 'fast': 0.001}

    def call(name):
        order.append(name)
        until = time.process_time() + clock[name]
        while time.process_time() < until:
            pass

    found = timing.alternate(
        {name: lambda name=name: call(name) for name in clock}, rounds=3, seconds=0.008
    )
    for name, seconds in clock.items():
        assert found[name].shape == (3,)
        assert np.median(found[name]) == pytest.approx(seconds, rel=0.5)
    warm, timed = order[:4], order[4:]
    assert warm == ['slow', 'slow', 'fast', 'fast']
    changes = [name for k, name in enumerate(timed) if k == 0 or timed[k - 1] != name]
    assert changes == ['slow', 'fast'] * 3


def test_waiting_is_not_counted():
    assert timing.cpu_seconds(lambda: time.sleep(0.05)) < 0.02


def test_rates_of_ladders_count_the_source_once_and_distorted_crops(picture, monkeypatch):
    stores = []
    make = delivered.ladders.ladder

    def spy(rng, image, chain, *, size, stored):
        stores.append((chain, set(stored)))
        return make(rng, image, chain, size=size, stored=stored)

    def a_second(call):
        call()
        return 1.0

    monkeypatch.setattr(delivered.ladders, 'ladder', spy)
    monkeypatch.setattr(delivered, 'cpu_seconds', a_second)
    data = pictures.encoded(picture, 'PNG')
    best = {name: 'OpenCV' for name in distortions.LIVE}
    image = ladder.centre(picture)
    found = delivered.measure({'a': {'0': data}, 'b': {'1': data}}, image, best, rounds=1)

    assert len(stores) == 2 * 2 * 23
    assert all('jpeg2000' in keys and 'denoised_4' in keys for _, keys in stores)
    live, tid2013 = found['live'], found['tid2013']
    # One second for the source and one for each chain; one for each image of the peers.
    assert (live['rate'], tid2013['rate']) == pytest.approx((20 / 5, 76 / 20))
    assert (live['with_pristine'], tid2013['with_pristine']) == pytest.approx((24 / 5, 95 / 20))
    assert (live['peer_rate'], live['ratio'], found['noise_scale']) == pytest.approx((1, 4, 2011))
    assert live['scaled_ratio'] == pytest.approx(4 * 2011 / 197)
    assert live['sets'] == pytest.approx({'a': 4, 'b': 4})
    assert live['decode_ms_per_source'] == pytest.approx(1000)
    assert live['ms_per_crop'] == pytest.approx(dict.fromkeys(distortions.LIVE, 200))
    assert tid2013['ms_per_crop'] == pytest.approx(dict.fromkeys(distortions.TID2013, 250))
    assert 'missed' not in '\n'.join(delivered.lines(found))
    missed = {**found, 'live': {**live, 'ratio': 2.9, 'scaled_ratio': 2.9}}
    assert '\n'.join(delivered.lines(missed)).count('target 3: missed') == 2


def test_the_command_prints_a_table_and_writes_json(tmp_path, monkeypatch, capsys, no_real_data):
    monkeypatch.setitem(ladder.EFFORT, 'default', (1, 1, 0, 1))
    small = {name: (*spec[:2], (250, 230)) for name, spec in pictures.SETS.items()}
    monkeypatch.setattr(pictures, 'SETS', small)
    bench.main(['ladder', '--json', str(tmp_path / 'out.json')])
    found = json.loads((tmp_path / 'out.json').read_text())
    assert set(found) == {'pictures', 'types', 'noise_scale', 'live', 'tid2013'}
    assert [row['name'] for row in found['types']] == list(ladder.LEVELS)
    for row in found['types']:
        assert {'name', 'peer', 'peer_rate', 'ours', 'ratio', 'target', 'peers'} == set(row)
        assert row['peer_rate'] == max(row['peers'].values()) > 0 < row['ours']
    for kind in ('live', 'tid2013'):
        assert set(found[kind]['ms_per_crop']) == set(delivered.LEVELS[kind])
        assert found[kind]['rate'] > 0 < found[kind]['target']
    printed = capsys.readouterr().out
    assert all(f'\n{name} ' in printed for name in ladder.LEVELS)
    assert 'best peers' in printed and 'a crop of live_jpeg2000' in printed


def test_benches_are_loaded_when_asked_for(monkeypatch, capsys, tmp_path):
    asked = []

    class Module:
        @staticmethod
        def run(*, full):
            asked.append(full)
            return {'a': 1}

    monkeypatch.setattr(bench, 'BENCHES', {'made_up': 'no.such.module'})
    monkeypatch.setattr(bench.importlib, 'import_module', {'no.such.module': Module}.get)
    bench.main(['made_up', '--full'])
    bench.main(['made_up', '--json', str(tmp_path / 'out.json')])
    assert asked == [True, False]
    assert json.loads((tmp_path / 'out.json').read_text()) == {'a': 1}
    with pytest.raises(SystemExit) as stopped:
        bench.main(['ladder'])
    assert stopped.value.code == 2 and 'made_up' in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, capsys):
    path = tmp_path / 'absent' / 'out.json'
    with pytest.raises(SystemExit) as stopped:
        bench.main(['ladder', '--json', str(path)])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: --json={path}: its folder does not exist')


def test_every_bench_can_be_asked_for_from_the_shell():
    command = [sys.executable, '-m', 'rank_ssl.bench', '--help']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
    for name, module in bench.BENCHES.items():
        assert f'    {name} ' in done.stdout
        assert callable(importlib.import_module(module).run)


def test_pictures_are_drawn_where_there_are_none(no_real_data):
    sources = pictures.sources(2)
    assert pictures.said(sources) == '2 of drawn 481x321, 2 of drawn 768x512'
    for files, shape in zip(sources.values(), [(321, 481, 3), (512, 768, 3)], strict=True):
        assert {images.decode(data).shape for data in files.values()} == {shape}
    first, second = sources['drawn 481x321'].values()
    assert first != second and pictures.sources(2) == sources
