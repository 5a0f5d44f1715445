"""Checkpoints: what is saved comes back bit by bit, and what was damaged is never used."""

import concurrent.futures
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from rank_ssl import checkpoint, manifest
from rank_ssl.errors import UserError
from rank_ssl.step import create_state

ROOT = Path(__file__).resolve().parent.parent


def tree(value: float = 0.0) -> dict:
    return {'params': {'conv': np.full((3, 4), value, np.float32)}, 'step': np.int32(value)}


def restore(folder: Path, like):
    """What a run goes on from: the newest whole checkpoint, then its arrays."""
    if (found := checkpoint.newest(folder)) is None:
        return None
    step, meta = found
    return step, checkpoint.load(folder / str(step), like), meta


def made_state(seed: int):
    """A training state with Adam's and a schedule's counters, after one update."""
    rng = np.random.default_rng(seed)
    params = {
        'backbone': {'conv': {'kernel': jnp.asarray(rng.random((3, 3, 3, 4)), jnp.float32)}},
        'head': {'bias': jnp.asarray(rng.random(4), jnp.float32)},
    }
    tx = optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(optax.linear_schedule(
        1.0, 0.0, 10)))  # fmt: skip
    state = create_state(lambda params, image: image, params, tx, jax.random.key(seed))
    _, opt_state = tx.update(params, state.opt_state, params)
    return state.replace(
        step=jnp.int32(seed),
        opt_state=opt_state,
        skipped=jnp.int32(2),
        worst_in_a_row=jnp.int32(seed),
    )


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """Checkpoints 1 and 2 of `tree`; tests work on copies."""
    folder = tmp_path_factory.mktemp('whole')
    for step in (1, 2):
        checkpoint.save(folder, step, tree(step), {'number': step})
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / 'checkpoints'))


def files(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob('*') if p.is_file())


def assert_holds(folder: Path, step: int) -> None:
    """The newest whole checkpoint is that of a step, with its values."""
    found, restored, meta = restore(folder, tree())
    assert (found, meta) == (step, {'number': step})
    np.testing.assert_array_equal(restored['params']['conv'], np.full((3, 4), step, np.float32))
    assert restored['step'] == step


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob('.*'))


def test_a_training_state_comes_back_bit_by_bit(tmp_path):
    state, other = made_state(3), made_state(4)
    meta = {'data_position': {'next_step': 3}, 'best': {'metrics': {'mae': 0.1 + 0.2}}}
    checkpoint.save(tmp_path, 3, state, meta)
    step, restored, found = restore(tmp_path, other)
    assert (step, found) == (3, meta)
    assert jax.tree.structure(restored) == jax.tree.structure(other)
    assert jax.dtypes.issubdtype(restored.key.dtype, jax.dtypes.prng_key)
    as_bits = lambda t: [np.asarray(x).tobytes() for x in jax.tree.leaves(t)]  # noqa: E731
    pick = lambda s: (s.step, s.params, s.opt_state, s.skipped, s.worst_in_a_row)  # noqa: E731
    assert as_bits(pick(restored)) == as_bits(pick(state)) != as_bits(pick(other))
    draw = [np.asarray(jax.random.bits(s.key, (4,))) for s in (state, restored, other)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert (draw[0] != draw[2]).any()


def test_no_checkpoint_at_all(tmp_path):
    assert restore(tmp_path / 'absent', tree()) is None
    assert restore(tmp_path, tree()) is None
    assert checkpoint.saved_steps(tmp_path) == []


def test_the_newest_by_number_is_taken(folder):
    checkpoint.save(folder, 10, tree(10), {'number': 10})
    assert checkpoint.saved_steps(folder) == [1, 2, 10]
    assert_holds(folder, 10)


def test_saving_a_step_again_replaces_it(folder):
    checkpoint.save(folder, 2, tree(2) | {'step': np.int32(7)}, {})
    assert restore(folder, tree())[1]['step'] == 7
    assert leftovers(folder) == []


def test_files_and_folders_are_on_the_disk_before_a_checkpoint_has_its_name(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    target = tmp_path / '3'

    def noted(descriptor: int) -> None:
        path = Path(os.readlink(f'/proc/self/fd/{descriptor}'))
        synced.append((path, target.exists()))
        real(descriptor)

    monkeypatch.setattr(os, 'fsync', noted)
    checkpoint.save(tmp_path, 3, tree(3), {})
    partial = tmp_path / '.3.partial'
    before = {path.relative_to(partial) for path, named in synced if not named}
    assert before >= {p.relative_to(target) for p in (target, *target.rglob('*'))}
    # The folder that names it comes last.
    assert synced[-1] == (tmp_path, True)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == 'deleted':
        path.unlink()
    elif how == 'truncated':
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        flipped = bytes([content[middle] ^ 1])
        path.write_bytes(content[:middle] + flipped + content[middle + 1 :])


@pytest.mark.fault(
    row=4,
    injected='every file of the newest checkpoint cut off, one bit flipped, deleted',
    outcome='found by the manifest, a warning that names the file, the step before is used',
)
@pytest.mark.parametrize('how', ['truncated', 'flipped', 'deleted'])
def test_damage_to_any_file_is_found_and_the_step_before_taken(whole, tmp_path, capsys, how):
    names = files(whole / '2')
    assert {'meta.json', 'manifest.json', 'arrays/_METADATA'} < set(names) and len(names) > 8
    for number, name in enumerate(names):
        copy = Path(shutil.copytree(whole, tmp_path / str(number)))
        damage(copy / '2' / name, how)
        assert_holds(copy, 1)
        told = capsys.readouterr().err
        assert told.startswith(f'{copy / "2"}: ') and name in told and told.count('\n') == 1, name
        assert 'going back to the checkpoint before' in told


@pytest.mark.fault(
    row=4,
    injected='a file added to a checkpoint',
    outcome='found by the manifest, the step before is used',
)
def test_a_file_that_was_added_is_found(folder, capsys):
    (folder / '2' / 'arrays' / 'stray').write_text('x')
    assert_holds(folder, 1)
    assert f'{folder / "2"}: arrays/stray was added' in capsys.readouterr().err


@pytest.mark.fault(
    row=4,
    injected='a manifest changed with its files',
    outcome='found by its own hash, the step before is used',
)
def test_a_manifest_that_fits_its_files_but_not_itself_is_found(folder, capsys):
    path = folder / '2' / 'manifest.json'
    listed = json.loads(path.read_text())
    (folder / '2' / 'meta.json').write_text('{}')
    listed['files']['meta.json'] = hashlib.sha256(b'{}').hexdigest()
    path.write_text(json.dumps(listed))
    assert_holds(folder, 1)
    assert 'manifest.json was changed' in capsys.readouterr().err


@pytest.mark.fault(
    row=4,
    injected='a manifest that is empty, no JSON, or JSON of another form',
    outcome='the step before is used',
)
@pytest.mark.parametrize('content', ['', '[]', '{}', '{"files": 3, "sha256": 4}', 'null'])
def test_a_manifest_of_another_form(folder, content):
    (folder / '2' / 'manifest.json').write_text(content)
    assert_holds(folder, 1)


@pytest.mark.fault(
    row=4,
    injected='all checkpoints damaged',
    outcome='an error, never a fresh start',
)
def test_none_whole_is_an_error_never_a_fresh_start(folder, capsys):
    for step in (1, 2):
        damage(folder / str(step) / 'meta.json', 'flipped')
    with pytest.raises(UserError) as caught:
        restore(folder, tree())
    assert str(caught.value) == (
        f'{folder}: none of the checkpoints 1, 2 is whole: restore the folder from a copy, or '
        'delete it to start again'
    )
    assert capsys.readouterr().err.count('meta.json was changed') == 2


@pytest.mark.fault(
    row=4,
    injected='an empty and a stray step folder, a file named like a step',
    outcome='a warning, the newest whole one is used; a run that reaches the step saves it',
)
def test_stray_and_empty_folders(folder, capsys):
    (folder / '99').mkdir()
    (folder / 'notes').mkdir()
    (folder / '7').write_text('a file')
    assert_holds(folder, 2)
    assert f'{folder / "99"}: its manifest.json cannot be read' in capsys.readouterr().err
    for step in (7, 99):
        checkpoint.save(folder, step, tree(step), {'number': step})
    assert checkpoint.saved_steps(folder) == [1, 2, 7, 99] and leftovers(folder) == []
    assert manifest.damage(folder / '7') is None
    assert_holds(folder, 99)


def test_a_stray_folder_does_not_push_out_what_was_just_saved(folder):
    (folder / '99').mkdir()
    saver = checkpoint.Saver(folder, keep=1)
    saver.save(3, tree(3), {'number': 3})
    saver.close()
    assert checkpoint.saved_steps(folder) == [3, 99]
    assert_holds(folder, 3)


def test_prune_keeps_the_newest(folder):
    for step in (3, 4, 11):
        (folder / str(step)).mkdir()
    checkpoint.prune(folder, 2, newest=4)
    assert checkpoint.saved_steps(folder) == [3, 4, 11]
    checkpoint.prune(folder, 1, newest=11)
    assert checkpoint.saved_steps(folder) == [11]
    assert leftovers(folder) == []


def test_the_newest_whole_one_can_be_asked_for_without_its_arrays(folder, capsys):
    assert checkpoint.newest(folder) == (2, {'number': 2})
    damage(folder / '2' / 'meta.json', 'flipped')
    assert checkpoint.newest(folder) == (1, {'number': 1})
    assert 'going back to the checkpoint before' in capsys.readouterr().err
    assert checkpoint.newest(folder / 'absent') is None
    damage(folder / '1' / 'meta.json', 'flipped')
    with pytest.raises(UserError, match='none of the checkpoints 1, 2 is whole'):
        checkpoint.newest(folder)


def test_a_step_that_is_named_is_taken_or_refused(folder):
    for step in (1, 2):
        assert checkpoint.restore_step(folder, step, tree())['step'] == step
    damage(folder / '1' / 'meta.json', 'truncated')
    for step, fault in ((1, 'meta.json was changed'), (3, 'its manifest.json cannot be read')):
        with pytest.raises(UserError) as caught:
            checkpoint.restore_step(folder, step, tree())
        assert str(caught.value).startswith(f'{folder / str(step)}: {fault}')
        assert str(caught.value).endswith(': restore it from a copy, or train again')


def test_discarded_steps_leave_nothing(folder):
    checkpoint.discard(folder, [])
    checkpoint.discard(folder, [1])
    assert [path.name for path in folder.iterdir()] == ['2']


def made_best(tmp_path: Path, kept: dict[int, int | None]) -> tuple[Path, Path]:
    """(best, folder): best steps 1 to 6 and 9; checkpoints by what each names its best."""
    best, folder = tmp_path / 'best', tmp_path / 'checkpoints'
    for step in (1, 2, 3, 4, 5, 6, 9):
        (best / str(step)).mkdir(parents=True)
    for step, named in kept.items():
        (folder / str(step)).mkdir(parents=True)
        meta = {'best': {} if named is None else {'step': named, 'metrics': {}}}
        (folder / str(step) / 'meta.json').write_text(json.dumps(meta))
    return best, folder


@pytest.mark.parametrize('kept, newest, left', [
    ({6: 3, 8: 5}, 8, [3, 5, 9]),
    ({6: 3, 8: 3}, 8, [3, 9]),
    ({4: None, 6: 6}, 6, [6, 9]),
    ({4: None}, 4, [5, 6, 9]),  # later steps are not its to judge
    ({6: 3, 8: 9}, 9, [3, 9]),
])  # fmt: skip
def test_best_steps_that_a_kept_checkpoint_names_are_kept(tmp_path, kept, newest, left):
    best, folder = made_best(tmp_path, kept)
    checkpoint.prune_best(best, folder, newest=newest)
    assert checkpoint.saved_steps(best) == left and leftovers(best) == []


@pytest.mark.parametrize('content', [None, '', '{"best"', '{}', '[]', '{"best": 3}'])
def test_where_a_checkpoint_is_damaged_no_best_step_is_deleted(tmp_path, content):
    best, folder = made_best(tmp_path, {6: 3, 8: 5})
    path = folder / '6' / 'meta.json'
    path.unlink() if content is None else path.write_text(content)
    checkpoint.prune_best(best, folder, newest=8)
    assert checkpoint.saved_steps(best) == [1, 2, 3, 4, 5, 6, 9]


def test_a_saver_deletes_best_steps_that_no_kept_checkpoint_names(tmp_path):
    best, folder = made_best(tmp_path, {})
    saver = checkpoint.Saver(folder, keep=2, best=best)
    for step, named, left in ((2, 1, [1, 3]), (4, 1, [1, 5]), (6, 5, [1, 5, 9]), (8, 5, [5, 9])):
        saver.save(step, tree(step), {'best': {'step': named}})
        saver.wait()
        assert [s for s in checkpoint.saved_steps(best) if s in left] == left
    saver.close()
    assert checkpoint.saved_steps(best) == [5, 9]


def test_another_process_than_the_first_writes_nothing(folder, tmp_path, monkeypatch):
    stray = folder / '.3.partial'
    stray.mkdir()  # the first process's, which is about to be named 3
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    checkpoint.save(folder, 3, tree(3), {'number': 3})
    saver = checkpoint.Saver(folder, keep=1, best=tmp_path / 'best')
    saver.save(4, tree(4), {'number': 4})
    saver.close()
    assert checkpoint.saved_steps(folder) == [1, 2] and leftovers(folder) == [stray]
    with pytest.raises(UserError, match='params/conv is not finite'):  # all of them stop
        checkpoint.save(folder, 3, {'params': {'conv': np.array([np.nan])}}, {})
    assert_holds(folder, 2)


@pytest.mark.fault(
    row=1,
    injected='folders of saves that were killed',
    outcome='removed at the next start',
)
def test_what_killed_saves_left_is_removed_at_the_next_start(folder):
    for name in ('.3.partial', '.1.partial'):
        (folder / name / 'arrays').mkdir(parents=True)
    (folder / '.3.partial' / 'arrays' / 'x').write_text('half')
    (folder / '.4.partial').write_text('a file')
    checkpoint.Saver(folder, keep=2).close()
    assert leftovers(folder) == [] and checkpoint.saved_steps(folder) == [1, 2]
    checkpoint.clean(folder / 'absent')


@pytest.mark.fault(
    row=6,
    injected='NaN, inf and -inf in arrays of three types',
    outcome='refused with the name of the array; nothing is saved',
)
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('kind', [np.float32, np.float64, ml_dtypes.bfloat16])
def test_a_state_that_is_not_finite_is_never_saved(folder, bad, kind):
    array = np.zeros(4, kind)
    array[2] = bad
    with pytest.raises(UserError, match=f'{folder / "3"}: params/conv is not finite'):
        checkpoint.save(folder, 3, {'params': {'conv': array}}, {})
    assert checkpoint.saved_steps(folder) == [1, 2] and leftovers(folder) == []


@pytest.mark.parametrize(
    'wanted, name, have, want',
    [
        ({'conv': np.zeros((3, 4), np.float64)}, 'conv', 'float32[3, 4]', 'float64[3, 4]'),
        ({'conv': np.zeros((4, 3), np.float32)}, 'conv', 'float32[3, 4]', 'float32[4, 3]'),
        ({}, 'conv', 'float32[3, 4]', 'absent'),
        ({'conv': np.zeros((3, 4), np.float32), 'z': np.int8(0)}, 'z', 'absent', 'int8[]'),
    ],
)
def test_other_arrays_than_the_runs(folder, wanted, name, have, want):
    with jax.enable_x64(True), pytest.raises(UserError) as caught:
        restore(folder, {'params': wanted, 'step': np.int32(0)})
    assert str(caught.value) == (
        f'{folder / "2"}: params/{name} is {have} in the checkpoint and {want} in this run: use '
        'the config it was trained with, or another --workdir'
    )


@pytest.mark.fault(
    row=1,
    injected='a process that dies at each system call of a save in turn',
    outcome='a whole checkpoint each time, of this step or the one before; nothing else is left',
)
def test_a_process_that_dies_at_any_point_of_a_save_leaves_a_whole_checkpoint(tmp_path):
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    like = {'value': np.zeros(1000)}
    with jax.enable_x64(True):
        for step in (1, 2):
            value = {'value': np.full(1000, float(step))}
            checkpoint.save(whole, step, value, {'number': step})
        command = [sys.executable, ROOT / 'tests' / 'killed_saves.py', whole, out]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        copies = sorted(out.iterdir(), key=lambda path: int(path.name))
        found = []
        for copy in copies:
            step, restored, meta = restore(copy, like)
            assert meta == {'number': step}
            np.testing.assert_array_equal(restored['value'], np.full(1000, float(step)))
            assert [manifest.damage(copy / str(s)) for s in checkpoint.saved_steps(copy)] == (
                [None] * len(checkpoint.saved_steps(copy))
            )
            checkpoint.Saver(copy, keep=2).close()
            assert leftovers(copy) == []
            found.append(step)
    # It dies before, in and after each part of a save: making, hashing, renaming, pruning.
    assert len(copies) > 20 and found == sorted(found) and set(found) == {2, 3}
    assert checkpoint.saved_steps(copies[-1]) == [2, 3]


@pytest.mark.fault(
    row=3,
    injected='RLIMIT_FSIZE below what a save writes',
    outcome='an error with path and bytes; older checkpoints whole; it saves again when '
    'there is room',
)
# orbax's threads outlive the loop that they report to.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('limit', [300_000, 50])
def test_a_full_disk_is_an_error_and_spoils_nothing(folder, disk_limit, limit):
    noise = np.random.default_rng(0).random(100_000, np.float32)  # orbax compresses
    disk_limit(limit)
    with pytest.raises(UserError) as caught:
        checkpoint.save(folder, 3, {'value': noise}, {})
    disk_limit(resource.RLIM_INFINITY)
    assert str(caught.value) == (
        f'{folder / "3"}: cannot save 400000 bytes (File too large): free disk space and start '
        'the same command again; older checkpoints are whole'
    )
    assert leftovers(folder) == []
    assert_holds(folder, 2)
    checkpoint.save(folder, 3, {'value': noise}, {})
    assert restore(folder, {'value': noise})[0] == 3


@pytest.mark.fault(
    row=3,
    injected='a disk with a byte too little',
    outcome='an error with path and bytes before anything is written',
)
def test_a_disk_without_room_is_told_before_anything_is_written(folder, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=52 - 1)  # a step and 3 x 4 numbers
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(UserError, match='cannot save 52 bytes .No space left on device.: free'):
        checkpoint.save(folder, 3, tree(3), {})
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=52))
    checkpoint.save(folder, 3, tree(3), {'number': 3})
    assert_holds(folder, 3)


def test_the_saver_writes_what_the_tree_held_when_it_was_called(folder):
    value = tree(3)
    saver = checkpoint.Saver(folder, keep=2)
    saver.save(3, value, {'number': 3})
    value['params']['conv'][:] = np.nan
    saver.close()
    assert checkpoint.saved_steps(folder) == [2, 3]
    assert_holds(folder, 3)


@pytest.mark.parametrize('next_call', ['save', 'check', 'wait', 'close'])
def test_an_error_of_a_save_comes_up_at_the_next_call(folder, monkeypatch, next_call):
    def fails(*arguments):
        raise UserError('the disk is full')

    saver = checkpoint.Saver(folder, keep=2)
    monkeypatch.setattr(checkpoint, 'save', fails)
    saver.save(3, tree(3), {})
    concurrent.futures.wait([saver._pending])
    call = {'save': lambda: saver.save(4, tree(4), {}), 'check': saver.check, 'wait': saver.wait,
            'close': saver.close}  # fmt: skip
    with pytest.raises(UserError, match='^the disk is full$'):
        call[next_call]()
    saver.close()
    assert checkpoint.saved_steps(folder) == [1, 2]


@pytest.mark.fault(
    row=4,
    injected='a file of a checkpoint that cannot be read (permissions, the disk)',
    outcome='a warning that names it, the step before is used',
)
@pytest.mark.parametrize('error', [PermissionError(13, 'Permission denied'), OSError(5, 'I/O')])
def test_a_file_that_cannot_be_read_is_damage(folder, monkeypatch, capsys, error):
    real = manifest._sha256

    def read(path: Path) -> str:
        if path == folder / '2' / 'arrays' / '_METADATA':
            raise error
        return real(path)

    monkeypatch.setattr(manifest, '_sha256', read)
    assert_holds(folder, 1)
    assert (
        f'2: arrays/_METADATA cannot be read ({error.strerror}); going' in capsys.readouterr().err
    )


def test_what_is_not_whole_counts_for_nothing_among_those_that_are_kept(folder):
    (folder / '3').mkdir()  # the run goes on from 2, so this one is damaged
    saver = checkpoint.Saver(folder, keep=2, start=2)
    for step in (4, 5):
        saver.save(step, tree(step), {'number': step})
    saver.close()
    assert checkpoint.saved_steps(folder) == [3, 4, 5]
    saver = checkpoint.Saver(folder, keep=2, start=2)  # now 3 is saved again
    saver.save(3, tree(3), {'number': 3})
    saver.close()
    assert not saver._strays & {3} and manifest.damage(folder / '3') is None


def test_a_folder_whose_name_is_no_step_is_left_alone(folder):
    (folder / '007').mkdir()
    assert checkpoint.saved_steps(folder) == [1, 2]
    checkpoint.prune(folder, 1, newest=9)
    assert checkpoint.saved_steps(folder) == [2] and (folder / '007').exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / 'checkpoints').touch()
    with pytest.raises(UserError) as caught:
        checkpoint.save(tmp_path / 'checkpoints', 3, tree(3), {})
    folder = tmp_path / 'checkpoints'
    assert str(caught.value).startswith(f'{folder / "3"}: cannot save 52 bytes (')
    assert f'): make {folder} a folder and start the same command again' in str(caught.value)


@pytest.mark.fault(
    row=14,
    injected='a file system that knows no locks',
    outcome='told as that, not as a workdir in use',
)
def test_a_lock_that_cannot_be_had_is_not_taken_for_one_that_is_held(tmp_path, monkeypatch):
    def refuses(*arguments):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(checkpoint.fcntl, 'flock', refuses)
    with (
        pytest.raises(UserError, match='cannot be locked .No locks available.: name a --workdir'),
        checkpoint.lock(tmp_path),
    ):
        pass


def test_a_look_at_a_save_does_not_wait_for_it(folder, monkeypatch):
    released = threading.Event()
    saver = checkpoint.Saver(folder, keep=2)
    saver.check()
    monkeypatch.setattr(checkpoint, 'save', lambda *arguments: released.wait(60))
    saver.save(3, tree(3), {})
    saver.check()
    assert not saver._pending.done()
    released.set()
    saver.close()


HOLDER = """
import pathlib, sys, time
from rank_ssl import checkpoint
with checkpoint.lock(pathlib.Path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.mark.fault(
    row=14,
    injected='a second process, then kill -9 of the first',
    outcome='refused with the pid and host of the owner; the lock of a dead owner is free',
)
def test_a_workdir_is_one_process_at_a_time(tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', HOLDER, tmp_path]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == 'held\n'
            owner = f'pid {holder.pid} on {socket.gethostname()}'
            with pytest.raises(UserError) as caught, checkpoint.lock(tmp_path):
                pytest.fail('the lock was given twice')
            assert str(caught.value) == (
                f'--workdir={tmp_path} is in use by {owner}: wait for it, or use another folder'
            )
        finally:
            holder.send_signal(signal.SIGKILL)
    # Its owner is dead: the lock is free, whatever the file says.
    assert owner in (tmp_path / '.lock').read_text()
    with checkpoint.lock(tmp_path):
        assert (tmp_path / '.lock').read_text() == f'pid {os.getpid()} on {socket.gethostname()}'
    with checkpoint.lock(tmp_path):
        pass


@pytest.mark.fault(
    row=1,
    injected='a kill while result.json or metrics.jsonl is replaced',
    outcome='the half of a file is removed at the next start',
)
def test_the_next_owner_of_a_workdir_removes_half_a_file(tmp_path):
    for name in ('.result.json.partial', '.metrics.jsonl.partial'):
        (tmp_path / name).write_text('{"st')
    with checkpoint.lock(tmp_path), pytest.raises(UserError), checkpoint.lock(tmp_path):
        pytest.fail('the lock was given twice')
    assert [path.name for path in tmp_path.iterdir()] == ['.lock']


def test_params_sha256_is_over_the_bytes_in_path_order():
    conv2, conv10 = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)
    expected = hashlib.sha256()
    for name, array in (('a/conv10/bias', conv10), ('a/conv2/kernel', conv2)):
        expected.update(name.encode() + array.tobytes())
    params = {'a': {'conv2': {'kernel': conv2.T.copy().T}, 'conv10': {'bias': jnp.asarray(conv10)}}}
    assert checkpoint.params_sha256(params) == expected.hexdigest()
    params['a']['conv10']['bias'] = conv10 + np.float32(1e-7)
    assert checkpoint.params_sha256(params) != expected.hexdigest()
