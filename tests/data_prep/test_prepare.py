"""The command: output, reuse of what is prepared, tiny sets, processes that meet or die."""

import fcntl
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
import types

import pytest

from data_prep import progress, store
from data_prep import source as sources

ROOT = pathlib.Path(__file__).resolve().parents[2]
DRAWN = ('synthetic_crowd', '--train=3', '--test=2')


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'timed out'
        time.sleep(0.005)


def leftovers(tmp_path):
    return [str(p) for p in (tmp_path / 'prepared').rglob('*') if p.name.endswith('.tmp')]


def test_stdout_is_the_absolute_path_alone_and_the_set_can_be_read(start, tmp_path):
    process = start(*DRAWN)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    path = pathlib.Path(out.removesuffix('\n'))
    assert '\n' not in str(path) and path.is_absolute() and path.is_dir()
    assert 'synthetic_crowd default train: 3 examples in' in err and '%|' not in err
    code = (
        'import sys, tensorflow_datasets as tfds\n'
        'data = tfds.builder_from_directory(sys.argv[1]).as_data_source("train")\n'
        'print(data[1]["image"].shape, data[1]["id"].decode(), len(data))\n'
    )
    reader = [sys.executable, '-c', code, str(path)]
    printed = subprocess.run(reader, capture_output=True, text=True, cwd=tmp_path)
    assert printed.stdout.endswith(', 3) train/0001 3\n'), printed.stderr


def test_the_data_source_can_go_to_worker_processes(run):
    import tensorflow_datasets as tfds

    path = run(*DRAWN)[1].strip()
    decoders = {'image': tfds.decode.SkipDecoding()}
    data = tfds.builder_from_directory(path).as_data_source('train', decoders=decoders)
    copy = pickle.loads(pickle.dumps(data))
    assert [copy[i]['image'] for i in range(3)] == [data[i]['image'] for i in range(3)]


def test_a_prepared_set_is_returned_fast_and_without_heavy_imports(run, tmp_path):
    _, path, _ = run(*DRAWN)
    code = (
        'import sys\n'
        'from data_prep import prepare\n'
        'code = prepare.main(sys.argv[1:])\n'
        'heavy = ["tensorflow_datasets", "scipy", "cv2", "numpy", "PIL", "jax"]\n'
        'sys.exit(code or " ".join(name for name in heavy if name in sys.modules) or 0)\n'
    )
    command = [sys.executable, '-c', code, *DRAWN, f'--data_dir={tmp_path / "prepared"}']
    start = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout, result.stderr) == (0, path, '')
    assert time.monotonic() - start < 1.5


def test_closed_stderr_ends_no_preparation_and_leaves_stdout_to_the_path(run, monkeypatch):
    monkeypatch.setattr(progress, 'sys', types.SimpleNamespace(stderr=None))
    code, out, err = run(*DRAWN)
    assert code == 0 and out.count('\n') == 1 and pathlib.Path(out.strip()).is_dir()
    assert run('nope') == (2, '', '')


def test_a_damaged_copy_is_made_anew(run):
    path = pathlib.Path(run(*DRAWN)[1].strip())
    shard = next(path.glob('*train*'))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    code, out, err = run(*DRAWN)
    assert code == 0 and out.strip() == str(path) and '3 examples' in err
    assert shard.read_bytes() == content


def test_records_are_bitwise_repeatable(run, tmp_path):
    first = pathlib.Path(run(*DRAWN)[1].strip())
    shards = {p.name: p.read_bytes() for p in first.glob('*.array_record*')}
    (tmp_path / 'prepared').rename(tmp_path / 'before')
    again = pathlib.Path(run(*DRAWN)[1].strip())
    assert {p.name: p.read_bytes() for p in again.glob('*.array_record*')} == shards


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['nope'], "data set 'nope' is not known; choose one of biq2021, image_folder, "),
        (['../rank_ssl'], 'is not known'),
        (['shanghaitech', '--part=C'], '--part=C: shanghaitech has part_A, part_B'),
        (['shanghaitech', '--seed=1'], '--seed=1: shanghaitech takes no options'),
        (['synthetic_crowd', '--train=0'], '--train=0 must be at least 1'),
        (['synthetic_crowd', '--train=x'], 'invalid int value'),
        (['synthetic_crowd', '--seed=-1'], '--seed=-1 must be at least 0'),
        (['synthetic_crowd', '--tiny=0'], '--tiny=0 must be at least 1'),
        (['shanghaitech', '--tiny=3'], '--tiny=3 needs --tiny_dir=DIR'),
        (['shanghaitech', '--on_bad=drop'], "invalid choice: 'drop'"),
        (['shanghaitech', '--manual=x'], 'unrecognized arguments: --manual=x'),
        (['image_folder'], 'image_folder needs --manual_dir=DIR, whose images are all taken'),
        (['points_folder'], 'needs --manual_dir (or $RANK_SSL_DATA)'),
        (['points_folder', '--part=part_A'], '--part=part_A: points_folder has default'),
        ([], 'required: name'),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, args, message):
    code, out, err = run(*args)
    first, *rest = err.splitlines()
    assert (code, out) == (2, '')
    assert first.startswith('error: ') and message in first
    assert all(line.startswith('  ') for line in rest)


@pytest.mark.fault(row=20, injected='--data_dir is a file', outcome='one line')
def test_a_data_dir_that_is_a_file_is_one_line(start, tmp_path):
    (tmp_path / 'prepared').write_text('')
    process = start(*DRAWN)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ''
    assert err.count('\n') == 1 and 'is not a writable folder' in err


@pytest.mark.parametrize('name', sources.names())
def test_every_set_has_a_tiny_version(run, read_back, tmp_path, name):
    args = (name, '--tiny=4', f'--tiny_dir={tmp_path / "tiny"}')
    code, out, err = run(*args)
    assert code == 0, err
    record, splits = read_back(out.strip())
    if 'fold' in splits.get('whole', [{}])[0]:
        assert {example['fold'] for example in splits['whole']} == {1, 2, 3, 4, 5}
    elif 'all' in record['splits']:  # nothing published: a fifth of the references is for testing
        assert record['references']['all'] >= 8 and record['scale'] is not None
    else:
        assert record['splits']['train'] == 4 and record['splits'].get('test', 2) == 2
    examples = [example for split in splits.values() for example in split]
    assert len(examples) == sum(record['splits'].values())
    assert all(60 <= min(e['height'], e['width']) <= 100 for e in examples)
    again = run(*args)
    assert again[:2] == (0, out) and 'examples in' not in again[2]
    assert run(name, '--tiny=9', f'--tiny_dir={tmp_path / "tiny9"}')[1] != out


def test_tiny_shanghaitech_has_gray_images_and_an_empty_one(run, read_back, tmp_path):
    from PIL import Image

    _, out, err = run('shanghaitech', '--part=part_B', '--tiny=6', f'--tiny_dir={tmp_path / "t"}')
    record, splits = read_back(out.strip())
    assert record['made'] and 'tiny made images' in err
    assert [e['count'] == 0 for e in splits['train']] == [False] * 5 + [True]
    images = sorted((tmp_path / 't/part_B/train_data/images').iterdir())
    assert {Image.open(path).mode for path in images} == {'L', 'RGB'}


def test_tiny_images_never_mix_with_others(run, tmp_path):
    (tmp_path / 'photo.jpg').write_bytes(b'')
    code, _, err = run('image_folder', '--tiny=4', f'--tiny_dir={tmp_path}')
    assert code == 2 and 'must be new, empty or hold this same tiny set' in err
    tiny = tmp_path / 'tiny'
    assert run('image_folder', '--tiny=4', f'--tiny_dir={tiny}')[0] == 0
    assert run('image_folder', '--tiny=5', f'--tiny_dir={tiny}')[0] == 2


KILLED = """
import os, sys
from data_prep import prepare
from data_prep.image_folder.source import SOURCE

def half(folder, **_):
    (folder / 'half.jpg').write_bytes(b'')
    os.kill(os.getpid(), 9)

SOURCE.write_tiny = half
prepare.main(sys.argv[1:])
"""


@pytest.mark.fault(
    row=1,
    injected='kill -9 while tiny images are made',
    outcome='the same command makes them; nothing of the killed one is left',
)
def test_tiny_images_that_a_kill_cut_off_are_made_again(run, tmp_path):
    place = tmp_path / 'made'
    args = ('image_folder', '--tiny=2', f'--tiny_dir={place / "tiny"}')
    command = [sys.executable, '-c', KILLED, *args, f'--data_dir={tmp_path / "prepared"}']
    killed = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(place.rglob('half.jpg'))) == 1
    code, _, err = run(*args)
    assert code == 0, err
    assert [path.name for path in place.iterdir()] == ['tiny'] and not list(place.rglob('half*'))


@pytest.mark.fault(
    row=1,
    injected='a marker of a tiny set that is empty or cut off',
    outcome='the same command makes it again',
)
@pytest.mark.parametrize('size', [0, 5])
def test_a_tiny_set_whose_marker_is_cut_off_is_made_again(run, tmp_path, size):
    tiny = tmp_path / 'made' / 'tiny'
    args = ('image_folder', '--tiny=2', f'--tiny_dir={tiny}')
    assert run(*args)[0] == 0
    whole = {path.name: path.read_bytes() for path in tiny.iterdir()}
    (tiny / sources.TINY_MARKER).write_bytes(whole[sources.TINY_MARKER][:size])
    code, _, err = run(*args)
    assert code == 0, err
    assert {path.name: path.read_bytes() for path in tiny.iterdir()} == whole
    assert list(tiny.parent.iterdir()) == [tiny]


def test_tiny_images_fill_a_folder_that_is_there_and_empty(run, tmp_path):
    tiny, link = tmp_path / 'tiny', tmp_path / 'link'
    tiny.mkdir()
    link.symlink_to(tiny)
    code, _, err = run('image_folder', '--tiny=2', f'--tiny_dir={link}')
    assert code == 0, err
    assert link.is_symlink() and (tiny / sources.TINY_MARKER).is_file()


@pytest.fixture
def prepared_once(run, tmp_path, write_shanghaitech, monkeypatch):
    """A complete copy prepared from a folder that is then gone; returns its path."""
    from data_prep.shanghaitech import source

    monkeypatch.setattr(source, 'EXPECTED', {'part_A': {'train': 3, 'test': 2}})
    write_shanghaitech(tmp_path / 'data' / 'part_A')
    _, out, _ = run('shanghaitech', f'--manual_dir={tmp_path / "data"}')
    (tmp_path / 'data').rename(tmp_path / 'away')
    return out


@pytest.mark.parametrize('args', [[], ['--manual_dir='], ['--allow_partial']])
def test_the_only_prepared_copy_stands_in_where_no_folder_is_named(
    run, prepared_once, tmp_path, args, monkeypatch
):
    monkeypatch.setenv('RANK_SSL_DATA', '')
    monkeypatch.chdir(tmp_path / 'away')  # which an empty name must not mean
    assert run('shanghaitech', '--tiny=3', f'--tiny_dir={tmp_path / "t"}')[0] == 0  # never taken
    code, out, err = run('shanghaitech', *args)
    assert (code, out) == (0, prepared_once)
    assert 'using the copy prepared before' in err and err.count('\n') == 1


@pytest.mark.parametrize('extra', [[], ['--allow_partial']])
@pytest.mark.parametrize('by', ['--manual_dir', '$RANK_SSL_DATA'])
def test_a_named_folder_without_the_set_is_an_error_whatever_is_prepared(
    run, prepared_once, tmp_path, monkeypatch, by, extra
):
    wrong = tmp_path / 'data'
    assert run('shanghaitech')[:2] == (0, prepared_once)
    if by == '--manual_dir':
        monkeypatch.setenv('RANK_SSL_DATA', str(tmp_path / 'away'))  # right, and not asked for
        extra = [*extra, f'--manual_dir={wrong}']
    else:
        monkeypatch.setenv('RANK_SSL_DATA', str(wrong))
    code, out, err = run('shanghaitech', *extra)
    first, *tree = err.splitlines()
    assert (code, out) == (2, '')
    origin = '' if by == '--manual_dir' else ' ($RANK_SSL_DATA)'
    assert first.startswith(f'error: shanghaitech part_A is not in {wrong}{origin}; a prepared ')
    assert 'only where no --manual_dir or $RANK_SSL_DATA is given; unpack the set' in first
    assert any('IMG_1.jpg ... IMG_3.jpg' in line for line in tree)
    assert all(line.startswith('  ') for line in tree)


def test_two_prepared_copies_are_not_chosen_from(run, prepared_once, tmp_path, write_shanghaitech):
    write_shanghaitech(tmp_path / 'other' / 'part_A', train=4)
    assert run('shanghaitech', f'--manual_dir={tmp_path / "other"}')[0] == 0
    code, _, err = run('shanghaitech')
    assert code == 2 and '2 prepared copies differ' in err


def test_a_partial_copy_stands_in_only_if_allowed(run, prepared_once, tmp_path):
    record_path = pathlib.Path(prepared_once.strip()) / 'prepared.json'
    record = json.loads(record_path.read_text())
    record_path.write_text(json.dumps({**record, 'partial': True}))
    code, _, err = run('shanghaitech')
    assert code == 2 and 'the prepared copy is partial, --allow_partial takes it' in err
    code, _, err = run('shanghaitech', '--flags=config.data.')
    assert code == 2 and 'is partial, --config.data.allow_partial takes it' in err
    assert run('shanghaitech', '--allow_partial')[:2] == (0, prepared_once)


def test_the_environment_names_the_folder(run, tmp_path, write_shanghaitech, monkeypatch):
    from data_prep.shanghaitech import source

    monkeypatch.setattr(source, 'EXPECTED', {'part_A': {'train': 3, 'test': 2}})
    write_shanghaitech(tmp_path / 'data' / 'shanghaitech' / 'part_A')
    monkeypatch.setenv('RANK_SSL_DATA', str(tmp_path / 'data'))
    assert run('shanghaitech')[0] == 0


def test_two_processes_prepare_once(start, tmp_path):
    processes = [start(*DRAWN) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0] != ''
    assert sum(err.count('train: 3 examples in') for _, err in results) == 1


def test_a_second_process_says_that_it_waits(start, tmp_path):
    source = sources.load('synthetic_crowd')('default', None, train=3, test=2)
    root = tmp_path / 'prepared' / 'synthetic_crowd' / 'default'
    place = store.Place(root, store.fingerprint(source, source.items()), source.version)
    root.mkdir(parents=True)
    with place.lock.open('w') as lock:
        lock.write('4711')
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(*DRAWN)
        assert 'process 4711 is preparing the same set: waiting' in process.stderr.readline()
        assert process.poll() is None and not place.final.exists()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.strip() == str(place.final)


@pytest.mark.fault(
    row=1,
    injected='kill -9 of a preparation',
    outcome='nothing that looks ready; the next one prepares',
)
@pytest.mark.parametrize('delay', [0.0, 0.4])
def test_a_killed_preparation_leaves_nothing_that_looks_ready(start, tmp_path, delay):
    args = ('synthetic_crowd', '--train=40', '--test=2')
    process = start(*args)
    wait_for(lambda: leftovers(tmp_path))
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=60)
    assert not list((tmp_path / 'prepared').rglob(store.RECORD))
    again = start(*args)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert leftovers(tmp_path) == []
    assert store.load_prepared(pathlib.Path(out.strip())).record['splits'] == {
        'train': 40,
        'test': 2,
    }


@pytest.mark.fault(
    row=2,
    injected='SIGTERM and SIGINT to a preparation',
    outcome='exit codes 143 and 130; nothing is left',
)
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_ended_preparation_cleans_up(start, tmp_path, number, code):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip('the signal is ignored here, and so it is in a process started from here')
    process = start('synthetic_crowd', '--train=400', '--test=2')
    wait_for(lambda: leftovers(tmp_path))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, '') and 'Traceback' not in err
    assert leftovers(tmp_path) == []


def test_a_record_spool_keeps_order_without_memory(tmp_path):
    from data_prep import builder

    spool = builder._Spool(str(tmp_path), 'salt', disable_shuffling=True)
    data = {key: os.urandom(100 + key) for key in (5, 0, 3)}
    for key, value in data.items():
        spool.add(key, value)
    assert all(len(entry) == 3 and isinstance(entry[1], int) for entry in spool._mem_buffer)
    assert list(spool) == sorted(data.items()) and spool.size == sum(map(len, data.values()))


@pytest.mark.fault(row=21, injected='a preparation without stderr', outcome='it goes on')
def test_a_closed_stderr_ends_no_preparation(tmp_path):
    command = [sys.executable, '-m', 'data_prep.prepare', 'synthetic_crowd', '--tiny=4']
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*command, f'--data_dir={tmp_path}'], cwd=ROOT, stderr=write, stdout=subprocess.PIPE
    )
    os.close(write)
    assert done.returncode == 0
    assert pathlib.Path(done.stdout.decode().strip(), 'prepared.json').is_file()
