"""Fingerprints, the record that marks a complete copy, and the lock."""

import dataclasses
import fcntl
import json
import os

import pytest

from data_prep import store
from data_prep.image_folder.source import SOURCE
from data_prep.synthetic_crowd.source import SOURCE as DRAWN
from rank_ssl.errors import UserError


@pytest.fixture
def folder(tmp_path, picture):
    (tmp_path / 'set').mkdir()
    for name, seed in (('a.jpg', 1), ('b.jpg', 2)):
        (tmp_path / 'set' / name).write_bytes(picture(seed))
    return tmp_path / 'set'


def fingerprint(folder, **options):
    source = SOURCE('default', folder)
    return store.fingerprint(source, source.items(), **options)


def test_the_fingerprint_sees_content_names_and_number(folder, picture):
    first = fingerprint(folder)
    os.utime(folder / 'a.jpg', (1, 1))
    assert fingerprint(folder) == first
    data = bytearray(picture(1))
    data[-3] ^= 1
    (folder / 'a.jpg').write_bytes(data)
    changed = fingerprint(folder)
    (folder / 'a.jpg').write_bytes(picture(1))
    assert fingerprint(folder) == first
    (folder / 'b.jpg').rename(folder / 'c.jpg')
    renamed = fingerprint(folder)
    (folder / 'c.jpg').unlink()
    assert len({first, changed, renamed, fingerprint(folder)}) == 4


def test_the_fingerprint_does_not_depend_on_the_place(folder, tmp_path):
    first = fingerprint(folder)
    folder.rename(tmp_path / 'elsewhere')
    assert fingerprint(tmp_path / 'elsewhere') == first


def test_large_sets_use_the_modification_time(folder):
    first = fingerprint(folder, content_limit=0)
    os.utime(folder / 'a.jpg', (1, 1))
    assert fingerprint(folder, content_limit=0) != first


def test_a_fault_known_from_file_names_changes_the_fingerprint(folder):
    source = SOURCE('default', folder)
    listing = source.items()
    first, *others = listing['train']
    faulty = {'train': [dataclasses.replace(first, problem='a.jpg has no annotation'), *others]}
    assert store.fingerprint(source, faulty) != store.fingerprint(source, listing)


def test_options_config_and_version_change_the_fingerprint(monkeypatch):
    def drawn(config, **options):
        source = DRAWN(config, None, **options)
        return store.fingerprint(source, source.items())

    prints = [drawn('default', train=2), drawn('default', train=2, seed=1), drawn('tiny', train=2)]
    monkeypatch.setattr(DRAWN, 'version', '9.9.9')
    assert len({*prints, drawn('default', train=2)}) == 4
    assert drawn('default', seed=0) == drawn('default')


def test_a_copy_counts_only_when_complete(tmp_path):
    assert store.load_prepared(tmp_path) is None
    (tmp_path / 'x.array_record').write_bytes(b'1234')
    assert store.load_prepared(tmp_path) is None
    for text in ('', '{', '[]', '{}', '{"files": {"x.array_record": 5}}', '{"files": {"y": 4}}'):
        (tmp_path / store.RECORD).write_text(text)
        assert store.load_prepared(tmp_path) is None, text
    (tmp_path / store.RECORD).write_text(json.dumps({'files': {'x.array_record': 4}}))
    assert store.load_prepared(tmp_path).path == tmp_path


def test_publishing_replaces_a_damaged_copy(tmp_path):
    place = store.Place(tmp_path, 'abc', '1.0.0')
    place.final.mkdir(parents=True)
    (place.final / 'left').write_text('over')
    built = tmp_path / 'built'
    built.mkdir()
    (built / 'x').write_text('1234')
    assert store.publish(built, place, {'name': 'n'}) == place.final
    assert sorted(p.name for p in place.final.iterdir()) == [store.RECORD, 'x']
    assert store.load_prepared(place.final).record == {'name': 'n', 'files': {'x': 4}}


def test_the_record_is_on_the_disk_before_the_copy_is_in_place(tmp_path, monkeypatch):
    place = store.Place(tmp_path, 'abc', '1.0.0')
    built = tmp_path / 'built'
    built.mkdir()
    synced = []

    def noted(file):
        assert not place.final.exists()
        synced.append((os.fstat(file).st_ino, (built / store.RECORD).read_text()))

    monkeypatch.setattr(os, 'fsync', noted)
    record = store.publish(built, place, {'name': 'n'}) / store.RECORD
    assert (record.stat().st_ino, record.read_text()) in synced


def test_who_waits_is_told_the_owners_process(tmp_path, monkeypatch):
    place, lines, flock = store.Place(tmp_path, 'abc', '1.0.0'), [], fcntl.flock

    def without_waiting(file, how):
        if how & fcntl.LOCK_NB:
            flock(file, how)

    monkeypatch.setattr(store, 'say', lines.append)
    monkeypatch.setattr(fcntl, 'flock', without_waiting)
    with store.locked(place), store.locked(place):
        pass
    assert lines == [f'process {os.getpid()} is preparing the same set: waiting for it']


def test_the_temporary_folder_starts_empty_and_goes(tmp_path):
    place = store.Place(tmp_path, 'abc', '1.0.0')
    place.temporary.mkdir()
    (place.temporary / 'left').write_text('by a killed process')
    with store.temporary_folder(place) as folder:
        assert list(folder.iterdir()) == []
    assert not place.temporary.exists()


@pytest.mark.parametrize(
    'error',
    [
        OSError(28, 'No space left on device'),
        RuntimeError(
            'Failed to finalize writing: write() failed: No space left on device; at byte 9'
        ),
    ],
)
def test_a_full_disk_is_a_users_error_that_names_the_folder(tmp_path, error):
    place = store.Place(tmp_path, 'abc', '1.0.0')
    message = r'--data_dir: writing .*/\.abc\.tmp failed \(No space left on device\)'
    with pytest.raises(UserError, match=message), store.temporary_folder(place):
        raise error
    assert not place.temporary.exists()


def test_another_error_passes_through_and_the_folder_goes(tmp_path):
    place = store.Place(tmp_path, 'abc', '1.0.0')
    with pytest.raises(RuntimeError, match='a fault'), store.temporary_folder(place):
        raise RuntimeError('a fault')
    assert not place.temporary.exists()


def test_a_data_dir_that_is_a_file_is_a_users_error(tmp_path):
    (tmp_path / 'file').write_text('')
    place = store.Place(tmp_path / 'file' / 'set', 'abc', '1.0.0')
    with pytest.raises(UserError, match='is not a writable folder'), store.locked(place):
        pass


def test_the_default_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert store.default_data_dir() == tmp_path / 'rank_ssl'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', '/home/someone')
    assert str(store.default_data_dir()) == '/home/someone/.cache/rank_ssl'
