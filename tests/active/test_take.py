"""Labels that are taken in: what is added, what stays, and that one wrong line changes nothing."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_prep import prepare
from rank_ssl.active import take
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.tasks import IQA, Crowd

CROWD, QUALITY = Config(task=Crowd()), Config(task=IQA())
HEIGHT, WIDTH = 30, 40
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def pool(tmp_path):
    """Five photos of 40 x 30 px."""
    folder = tmp_path / 'pool'
    for n, name in enumerate(('a.jpg', 'b c.jpg', 'sub/a.jpg', 'd,e.png', 'é.jpg')):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def into(tmp_path):
    return tmp_path / 'set'


@pytest.fixture
def give(tmp_path, pool, into):
    """give(text, config, split): takes the labels of a file with that text in."""

    def give(text, config=CROWD, split=''):
        file = tmp_path / 'labels.csv'
        file.write_bytes(text.encode())
        return take.take(config, file, pool, into, split=split)

    return give


def tree(folder):
    """Every file of a folder, hidden ones too, with its bytes."""
    paths = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


POINTS = 'file,x,y\na.jpg,1.5,2\nsub/a.jpg,,\na.jpg,40,30\n"d,e.png",0,0\n'


def test_points_and_photos_are_added_and_the_pool_stays(give, pool, into):
    before = tree(pool)
    taken = give(POINTS)
    assert (taken.dataset, taken.added, taken.known) == ('points_folder', 3, 0)
    assert tree(into) == {
        'train/a.jpg': before['a.jpg'],
        'train/sub_a.jpg': before['sub/a.jpg'],
        'train/d,e.png': before['d,e.png'],
        'train/points.csv': b'image,x,y\na.jpg,1.5,2\na.jpg,40,30\nsub_a.jpg,,\n"d,e.png",0,0\n',
    }
    assert tree(pool) == before


def test_a_second_time_changes_nothing_and_more_is_appended(give, into):
    give(POINTS)
    once = tree(into)
    stamps = {path: path.stat().st_mtime_ns for path in into.rglob('*')}
    taken = give(POINTS)
    assert (taken.added, taken.known) == (0, 3) and tree(into) == once
    assert stamps == {path: path.stat().st_mtime_ns for path in into.rglob('*')}
    taken = give('File, X ,Y,rank\né.jpg,3, 4.0 ,7\na.jpg,40.0,30,\na.jpg,1.50,2,\n')
    assert (taken.added, taken.known) == (1, 1)
    more = tree(into)
    assert more['train/points.csv'] == once['train/points.csv'] + 'é.jpg,3,4.0\n'.encode()
    assert set(more) == {*once, 'train/é.jpg'}


def test_the_table_that_is_there_stays_as_it_was_written(give, into, pool):
    (into / 'train').mkdir(parents=True)
    shutil.copy(pool / 'a.jpg', into / 'train' / 'old.jpg')
    old = b'\xef\xbb\xbfimage,x,y\r\nold.jpg,7,8'
    (into / 'train' / 'points.csv').write_bytes(old)
    give('file,x,y\na.jpg,1,2\n')
    assert (into / 'train' / 'points.csv').read_bytes() == old + b'\r\na.jpg,1,2\r\n'


def test_both_parts_are_what_data_prep_reads(give, into, tmp_path, capsys):
    give(POINTS)
    taken = give('file,x,y\nb c.jpg,3,4\n', split='test')
    command = ['points_folder', f'--manual_dir={into}', f'--data_dir={tmp_path / "data"}']
    assert prepare.main(command) == 0, capsys.readouterr().err
    assert take.missing(taken, into) == []
    (into / 'train' / 'points.csv').unlink()
    (line,) = take.missing(taken, into)
    assert line == (
        f'{into / "train" / "points.csv"} is missing: take labels in with --split=train too'
    )


SCORES = 'file,score\na.jpg,3.5\nsub/a.jpg,1\n"d,e.png", 2 \n'


def test_scores_keep_their_folders_and_are_what_data_prep_reads(give, into, pool, tmp_path, capsys):
    taken = give(SCORES, QUALITY)
    assert (taken.dataset, taken.added, taken.known) == ('image_scores', 3, 0)
    found = tree(into)
    assert found.pop('scores.csv') == b'image,score\na.jpg,3.5\nsub/a.jpg,1\n"d,e.png",2\n'
    assert found == {name: tree(pool)[name] for name in ('a.jpg', 'sub/a.jpg', 'd,e.png')}
    once = tree(into)
    assert give(SCORES, QUALITY).known == 3 and tree(into) == once
    command = ['image_scores', f'--manual_dir={into}', f'--data_dir={tmp_path / "data"}']
    assert prepare.main(command) == 0, capsys.readouterr().err


def test_scores_follow_the_columns_of_the_table(give, into, pool):
    into.mkdir()
    old = '# range 0 100\nreference,image,DMOS,split\nr,a.jpg,30,test\n'
    (into / 'scores.csv').write_text(old)
    shutil.copy(pool / 'a.jpg', into)
    taken = give('file,dmos\nb c.jpg,55\na.jpg,30\n', QUALITY, split='test')
    assert (taken.added, taken.known) == (1, 1)
    give('file,dmos\né.jpg,5\n', QUALITY)
    rows = old + ',b c.jpg,55,test\n,é.jpg,5,train\n'
    assert (into / 'scores.csv').read_text(encoding='utf-8') == rows
    with pytest.raises(UserError, match='it must hold file,dmos'):
        give('file,score\nsub/a.jpg,55\n', QUALITY)  # a score would run the other way
    with pytest.raises(UserError, match=r'line 2: dmos=101 is outside the declared range 0\.\.100'):
        give('file,dmos\nsub/a.jpg,101\n', QUALITY)


FAULTS = {
    'points of no file': (CROWD, 'nope.jpg,1,2', "'nope.jpg' is no file in $P; write it as"),
    'no name': (CROWD, ',1,2', "'' is no file in $P"),
    'above the pool': (CROWD, '../pool/a.jpg,1,2', "'../pool/a.jpg' is no file in $P"),
    'a long name': (CROWD, f'{"x" * 300}.jpg,1,2', "x.jpg' is no file in $P"),
    'no image': (CROWD, 'notes.txt,1,2', 'notes.txt: not a readable JPEG'),
    'right of it': (CROWD, 'b c.jpg,40.1,2', 'x=40.1 is outside the image, whose x are 0 to 40 px'),
    'below it': (CROWD, 'b c.jpg,2,31', 'y=31 is outside the image, whose y are 0 to 30 px'),
    'left of it': (CROWD, 'b c.jpg,-1,3', 'x=-1 is outside the image'),
    'half a point': (CROWD, 'b c.jpg,1,', "y='' is no number; write px such as 12.5, or leave"),
    'no number': (CROWD, 'b c.jpg,1_0,2', "x='1_0' is no number"),
    'infinite': (CROWD, 'b c.jpg,inf,2', "x='inf' is no number"),
    'a field more': (CROWD, 'b c.jpg,1,2,3', 'has 4 fields; write file,x,y'),
    'empty and not': (CROWD, 'a.jpg,,', "'a.jpg' is labeled twice, in line 2 too: keep one"),
    'no score': (QUALITY, 'b c.jpg,good', "score='good' is no number; write the score or remove"),
    'a huge score': (QUALITY, 'b c.jpg,1e39', "score='1e39' is no number"),
    'a score twice': (QUALITY, 'a.jpg,3.5', "'a.jpg' is labeled twice, in line 2 too: keep one"),
    'a score of none': (QUALITY, 'nope.jpg,1', "'nope.jpg' is no file in $P"),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_wrong_line_is_named_and_nothing_changes(give, into, pool, tmp_path, name):
    config, line, fault = FAULTS[name]
    good = 'file,x,y\na.jpg,1,2\n' if config is CROWD else 'file,score\na.jpg,3.5\n'
    for _ in range(2):  # without a data set, then beside one
        before = tree(tmp_path) if into.exists() else {}
        with pytest.raises(UserError) as caught:
            give(f'{good}{line}\n', config)
        message = str(caught.value)
        assert message.startswith(f'{tmp_path / "labels.csv"} line 3: ')
        assert fault.replace('$P', str(pool)) in message and '\n' not in message
        assert message.endswith('; nothing was taken in')
        if before:
            before['labels.csv'] = (tmp_path / 'labels.csv').read_bytes()
            assert tree(tmp_path) == before
        else:
            assert not into.exists()
            give(good.replace('a.jpg', 'é.jpg'), config)


def test_all_faults_are_shown_by_line(give):
    with pytest.raises(UserError) as caught:
        give('file,x,y\n\na.jpg,1,2\nnope.jpg,1,2\n"no\nfile",,\na.jpg,99,1\n')
    first, *rest = str(caught.value).splitlines()
    assert ' line 4: ' in first and '(the first of 3 faults)' in first
    assert ' line 5: ' in rest[0] and ' line 7: x=99' in rest[1]


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('image,x,y\na.jpg,1,2\n', "the header is 'image,x,y'; it must hold file,x,y"),
        ('file,x,x,y\na.jpg,1,1,2\n', 'it must hold file,x,y'),
        ('', "the header is ''"),
        ('file,x,y\n', 'labels no photo: write a line below the header'),
        ('file,x,y\n"a.jpg,1,2\n', 'check its double quotes'),
    ],
)
def test_a_file_that_is_no_table_of_labels_is_one_line(give, into, text, fault):
    with pytest.raises(UserError) as caught:
        give(text)
    assert fault in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not into.exists()


def test_other_labels_of_a_photo_that_is_there_are_refused(give, into):
    give(POINTS)
    give(SCORES, QUALITY)
    before = tree(into)
    for text, config, split, fault in (
        ('file,x,y\na.jpg,1,2\n', CROWD, '', "'a.jpg' has other points in train/points.csv"),
        ('file,x,y\na.jpg,,\n', CROWD, '', "'a.jpg' has other points in train/points.csv"),
        (POINTS, CROWD, 'test', "'a.jpg' is in train/points.csv already: leave it out"),
        ('file,score\na.jpg,3\n', QUALITY, '', "'a.jpg' has score=3.5 in "),
    ):
        with pytest.raises(UserError, match=r' line 2: ') as caught:
            give(text, config, split)
        assert fault in str(caught.value)
    with pytest.raises(UserError, match='--split=test: .* has no column split; leave it out'):
        give(SCORES, QUALITY, 'test')
    assert tree(into) == before


def test_another_image_of_the_name_is_not_overwritten(give, into, pool):
    (into / 'train').mkdir(parents=True)
    (into / 'train' / 'a.jpg').write_bytes(b'mine')
    with pytest.raises(UserError, match=r'line 3: .*a\.jpg is another image: rename one'):
        give('file,x,y\nb c.jpg,1,2\na.jpg,1,2\n')
    assert tree(into) == {'train/a.jpg': b'mine'}
    shutil.copy(pool / 'a.jpg', into / 'train')  # the same bytes are fine
    assert give('file,x,y\nb c.jpg,1,2\na.jpg,1,2\n').added == 2


def test_two_photos_do_not_become_one(give, into, pool):
    shutil.copy(pool / 'b c.jpg', pool / 'sub_a.jpg')
    with pytest.raises(UserError, match=r"line 3: 'sub_a.jpg' and 'sub/a.jpg' would both be"):
        give('file,x,y\nsub/a.jpg,1,2\nsub_a.jpg,1,2\n')
    assert not into.exists()


@pytest.mark.parametrize('failing', ['copy', 'table'])
def test_a_disk_that_fills_leaves_the_set_as_it_was(give, into, monkeypatch, failing):
    give('file,x,y\na.jpg,1,2\n')
    before = tree(into)
    real = shutil.copyfile

    def full(source, target):
        if failing == 'copy' and 'sub' in str(target):
            raise OSError(28, 'No space left on device', str(target))
        return real(source, target)

    def no_table(path, text):
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(shutil, 'copyfile', full)
    if failing == 'table':
        monkeypatch.setattr(take.logs, 'write_text', no_table)
    with pytest.raises(UserError, match='No space left on device; nothing was taken in'):
        give('file,x,y\nb c.jpg,1,2\nsub/a.jpg,1,2\n')
    assert tree(into) == before


@pytest.mark.fault(
    row=14,
    injected='two takings of labels into one folder',
    outcome='the second is refused in one line; the labels of the first are all there',
)
def test_two_takings_at_once_lose_no_label(give, into, monkeypatch):
    commit = take._commit

    def meanwhile(taken):
        monkeypatch.setattr(take, '_commit', commit)
        with pytest.raises(UserError) as caught:
            give('file,x,y\né.jpg,1,2\n', split='test')
        assert str(caught.value) == (
            f'--into={into}: another process is taking labels in there; nothing was taken in: '
            'wait for it and start the same command again'
        )
        commit(taken)

    monkeypatch.setattr(take, '_commit', meanwhile)
    assert give('file,x,y\na.jpg,1,2\n').added == 1
    assert tree(into)['train/points.csv'] == b'image,x,y\na.jpg,1,2\n'
    assert set(tree(into)) == {'train/points.csv', 'train/a.jpg'}
    assert give('file,x,y\né.jpg,1,2\n').added == 1  # the lock has ended with its owner


KILLED = """
import os, pathlib, shutil, sys
from rank_ssl.active import take
from rank_ssl.config import Config
from rank_ssl.tasks import Crowd

def half(source, target):
    pathlib.Path(target).write_bytes(pathlib.Path(source).read_bytes()[:99])
    os._exit(9)

shutil.copyfile = half
file, pool, into = map(pathlib.Path, sys.argv[1:])
take.take(Config(task=Crowd()), file, pool, into)
"""


@pytest.mark.fault(
    row=1,
    injected='a taking of labels killed in the copy of a photo',
    outcome='no half photo under its name; the same command takes all in and leaves no part',
)
def test_a_taking_killed_in_a_copy_leaves_no_half_photo(give, into, pool, tmp_path):
    text = 'file,x,y\na.jpg,1,2\n'
    file = tmp_path / 'labels.csv'
    file.write_text(text)
    command = [sys.executable, '-c', KILLED, str(file), str(pool), str(into)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    assert sum(len(data) for data in tree(into).values()) == 99
    assert not (into / 'train' / 'a.jpg').exists()
    assert give(text).added == 1
    assert tree(into) == {
        'train/a.jpg': tree(pool)['a.jpg'],
        'train/points.csv': b'image,x,y\na.jpg,1,2\n',
    }


def test_another_task_has_no_table(give):
    with pytest.raises(UserError, match='labels: those of the task object have no table'):
        give(POINTS, type('Other', (), {'task': object()})())


def test_the_fields_to_train_on_with(give, into, tmp_path):
    taken, run = give(POINTS), tmp_path / 'run'
    config = Config(task=Crowd())
    start = {'data.dataset': 'points_folder', 'data.manual_dir': str(into)}
    last = {'init_from': str(run)}
    ranked = {'data.unlabeled_labeled': 'true'}
    assert take.next_fields(config, taken, into, run) == start | ranked | last
    config.regime = 'baseline'
    assert take.next_fields(config, taken, into, run) == start | last
    config.mode, config.data.part, config.data.labels, config.data.tiny = 'active', 'part_A', 20, 8
    config.data.fold = 2
    assert take.next_fields(config, taken, into, run) == start | last | {
        'mode': 'train', 'data.part': '', 'data.fold': '0', 'data.tiny': '0', 'data.labels': '0',
    }  # fmt: skip


def test_a_set_that_has_grown_is_not_trained_on_from_a_run_that_has_seen_it(
    give, into, tmp_path, monkeypatch
):
    taken, config = give(POINTS), Config(task=Crowd(), regime='baseline')
    config.data.dataset = 'points_folder'
    for folder in (into, into.parent):
        config.data.manual_dir = str(folder)
        found = take.next_fields(config, taken, into, tmp_path)
        assert ('init_from' in found) == (folder != into)
    config.data.manual_dir = ''
    monkeypatch.setenv('RANK_SSL_DATA', str(into))
    assert 'init_from' not in take.next_fields(config, taken, into, tmp_path)
