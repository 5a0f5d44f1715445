"""A person's own photos: what the command writes, and that a photo's certainty is its own."""

import csv
import importlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from data_prep.synthetic_crowd import scenes
from rank_ssl import cli, data, main, parallel, restore
from rank_ssl.active import pool
from rank_ssl.active.photos import Photos, number_of, prepare, without
from rank_ssl.config import Config
from rank_ssl.data import CertaintySets
from rank_ssl.errors import UserError
from rank_ssl.models.build import build_network
from rank_ssl.models.network import init_params
from rank_ssl.tasks.crowd import Crowd

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = 'quickstart.py:smoke'
NAMES = ['b.jpg', 'c 3.jpg', 'sub/a.jpg', 'sub/deep/é.jpg', 'x,y.jpg', 'z.jpg']


@pytest.fixture(scope='module')
def command():
    """The module of `python -m rank_ssl.active`, its flags defined once."""
    return importlib.import_module('rank_ssl.active.__main__')


@pytest.fixture(scope='module')
def workdir(smoke_run, tmp_path_factory):
    """A copy of a finished run."""
    return Path(shutil.copytree(smoke_run(QUICK).workdir, tmp_path_factory.mktemp('w') / 'run 1'))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Six drawn JPEGs of three sizes, in folders."""
    folder = tmp_path_factory.mktemp('pool') / 'my photos'
    for n, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image, _ = scenes.draw(scenes.image_rng(7, 0, n), (64 + 16 * (n % 3), 96), count=9)
        path.write_bytes(scenes.encode(image))
    return folder


@pytest.fixture(scope='module')
def asked(workdir, photos):
    """The command of a person, as a process; what it printed."""
    words = [f'--workdir={workdir}', f'--pool={photos}', '--count=3']
    done = subprocess.run(
        [sys.executable, '-m', 'rank_ssl.active', *words],
        cwd=ROOT, env={**os.environ, 'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def rows(path):
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_the_command_writes_tables_and_a_sheet(asked, workdir, photos):
    target = workdir / 'to_label' / 'my photos-certainty'
    assert sorted(path.name for path in target.iterdir()) == [
        'all.csv', 'sheet.png', 'to_label.csv',
    ]  # fmt: skip
    every, first = rows(target / 'all.csv'), rows(target / 'to_label.csv')
    assert list(every[0]) == ['rank', 'file', 'certainty', 'value', 'predicted']
    assert first == every[:3] and sorted(row['file'] for row in every) == NAMES
    assert [row['rank'] for row in every] == [str(n) for n in range(1, 7)]
    values = [float(row['value']) for row in every]
    assert values == sorted(values) and all(row['certainty'] == row['value'] for row in every)
    assert all(0 <= 100 * value <= 100 for value in values)
    assert np.allclose(100 * np.array(values), np.round(100 * np.array(values)))  # of 100 pairs
    sheet = np.asarray(Image.open(target / 'sheet.png').convert('RGB'))
    assert sheet.std() > 20
    tied = np.mean([value == values[2] for value in values])
    ones = np.mean([value == 1 for value in values])
    assert asked.stdout.splitlines() == [
        f'3 of 6 photos to label: {target / "to_label.csv"}',
        f'all in their order: {target / "all.csv"}',
        f'as pictures: {target / "sheet.png"}',
        f'tied at the cut: {tied:.1%} of the photos; of equal values a draw takes some',
        f'at C = 1: {ones:.1%} of the photos',
    ]
    assert 'asking 6/6 | ETA 0:00' in asked.stderr and 'predicting 6/6' in asked.stderr


def test_predictions_are_those_of_an_evaluation(workdir):
    """The photos of the run's own test set: the numbers that its predictions.csv holds."""
    config = restore.config_of(workdir)
    prepared, _ = data.prepare(config, str(workdir))
    records = prepared.records('test')
    trained = pool.load_trained(config, workdir)
    mesh = parallel.make_mesh()
    trained = trained._replace(params=parallel.replicate(trained.params, mesh))
    found = pool.predictions(config, trained, mesh, Photos(config.task, records))
    made = {row['id']: row['predicted'] for row in rows(workdir / 'predictions.csv')}
    assert {n: f'{v:.6g}' for n, v in zip(records.ids(), found, strict=True)} == made


def test_a_photo_is_asked_the_same_in_any_folder(asked, workdir, photos, tmp_path, capsys):
    """Half of the photos alone, in another folder: the same certainties, bit by bit."""
    for name in NAMES[1::2]:
        (tmp_path / 'half' / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / name, tmp_path / 'half' / name)
    config = restore.config_of(workdir)
    target = pool.ask(config, workdir, tmp_path / 'half', count=9, rule='graded')
    assert capsys.readouterr().out.startswith('3 of 3 photos to label: ')
    whole = {row['file']: row for row in rows(workdir / 'to_label/my photos-certainty/all.csv')}
    half = {row['file']: row for row in rows(target / 'all.csv')}
    assert sorted(half) == NAMES[1::2]
    for name, row in half.items():
        assert row['certainty'] == whole[name]['certainty']
    again = pool.ask(config, workdir, photos, count=2, rule='graded')
    graded = {row['file']: row['value'] for row in rows(again / 'all.csv')}
    assert {name: graded[name] for name in half} == {n: r['value'] for n, r in half.items()}
    once = (again / 'all.csv').read_bytes()
    pool.ask(config, workdir, photos, count=2, rule='graded')
    assert (again / 'all.csv').read_bytes() == once


def test_the_sheet_names_rank_certainty_and_score_in_full(monkeypatch):
    task = restore.from_dict({'task': {'class': 'Crowd'}}).task
    monkeypatch.setattr(pool.images, 'fit_within', lambda image, side: image)
    records = [{'image': np.zeros((4, 4, 3), np.uint8)}] * 70
    every = [
        {'rank': n + 1, 'certainty': f'{n / 70}', 'predicted': f'{1000.4 + n}', 'file': f'{n}.jpg'}
        for n in range(70)
    ]
    every[59]['certainty'] = ''
    figure = pool._sheet(task, records, np.arange(70), every, 'graded')
    title, *texts = [text.get_text() for text in figure.texts]
    assert title == 'To label next, by graded (the first 60 of 70)'
    assert texts[48] == '49.  C = 0.69\n1.05e+03 persons\n48.jpg'
    assert len(texts) == 60 and texts[59] == '60.\n1.06e+03 persons\n59.jpg'


@pytest.mark.parametrize('rule', [pytest.param('dropout', marks=pytest.mark.slow), 'kcenter'])
def test_rules_without_pairs_leave_the_certainty_empty(workdir, photos, rule, capsys):
    target = pool.ask(restore.config_of(workdir), workdir, photos, count=2, rule=rule)
    every = rows(target / 'all.csv')
    assert {row['certainty'] for row in every} == {''} and len(every) == 6
    values = [float(row['value']) for row in every]
    assert values == sorted(values)
    assert values[:3] == [0, 1, 2] if rule == 'kcenter' else max(values) < 0
    assert 'C = 1' not in capsys.readouterr().out


def test_photos_that_a_table_names_are_left_out(workdir, photos, tmp_path, capsys):
    config = restore.config_of(workdir)
    records = prepare(config, workdir, photos)
    table = tmp_path / 'done.csv'
    table.write_bytes('\ufefffile,x,y\nb.jpg,1,2\nb.jpg,3,4\n./sub/a.jpg,,\ngone.jpg,,\n'.encode())
    left = without(records, table)
    assert left.ids() == [name for name in NAMES if name not in ('b.jpg', 'sub/a.jpg')]
    assert f'left out 2 photos; {table} names 3' in capsys.readouterr().err
    for text, fault in (
        ('file\n' + ''.join(f'"{name}"\n' for name in NAMES), 'names all 6 photos: none is left'),
        ('image\nb.jpg\n', 'has no column file: write it into the first line'),
    ):
        table.write_text(text, encoding='utf-8')
        with pytest.raises(UserError, match=fault):
            without(records, table)
    with pytest.raises(UserError, match=r'nope\.csv: No such file.*; name a CSV file'):
        without(records, tmp_path / 'nope.csv')


@pytest.mark.slow
def test_a_list_that_is_there_is_never_overwritten(workdir, photos, capsys):
    def ask(skip=None):
        config = restore.config_of(workdir)
        target = pool.ask(config, workdir, photos, count=1, rule='kcenter', skip=skip)
        assert f'photos to label: {target / "to_label.csv"}\n' in capsys.readouterr().out
        return target

    folder = workdir / 'to_label' / 'my photos-kcenter'
    shutil.rmtree(folder, ignore_errors=True)
    lists = [ask()]
    lists.append(ask(skip=lists[0] / 'to_label.csv'))
    assert [path.name for path in lists] == [folder.name, f'{folder.name}-2']
    first, second = (rows(path / 'to_label.csv')[0]['file'] for path in lists)
    assert first != second and ask() == folder
    scored = f'file,score\n{first},3\n'
    (folder / 'to_label.csv').write_text(scored, encoding='utf-8')
    assert ask() == ask() == folder.with_name(f'{folder.name}-3')
    assert (folder / 'to_label.csv').read_text(encoding='utf-8') == scored


def test_the_folder_of_a_list_is_free_where_both_tables_are_its_own(tmp_path):
    one, two = [{'file': 'a.jpg'}], [{'file': 'a.jpg'}, {'file': 'b.jpg'}]
    folder = tmp_path / 'photos-certainty'

    def free(**tables):
        return pool.free_folder(folder, {f'{name}.csv': rows for name, rows in tables.items()})

    assert free(first=one, all=two) == folder
    folder.mkdir()
    (folder / 'first.csv').write_bytes(b'file\na.jpg\n')
    assert free(first=one, all=two) == folder  # a command that was stopped in between
    (folder / 'all.csv').write_bytes(b'file\na.jpg\nc.jpg\n')
    assert free(first=one, all=two) == tmp_path / 'photos-certainty-2'
    (tmp_path / 'photos-certainty-2').write_text('')
    with pytest.raises(UserError, match=r'first\.csv cannot be read \(Not a dir.*\): move it away'):
        free(first=one, all=two)


def test_a_bad_photo_is_told_with_the_flag_of_this_program(tmp_path, capfd):
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'a.jpg').write_bytes(b'')
    config = Config(task=Crowd())
    config.data.data_dir = str(tmp_path / 'data')
    with pytest.raises(data.PreparationRefused):
        prepare(config, tmp_path, tmp_path / 'set')
    assert 'leave them out with --on_bad=skip\n' in capfd.readouterr().err


@pytest.fixture(scope='module')
def quality():
    """An image quality config of the smoke form."""
    return importlib.import_module('experiments.iqa_tid2013_kodak').get_config('smoke')


@pytest.mark.slow
def test_quality_is_asked_of_photos_without_annotations(
    quality, photos, tmp_path, monkeypatch, capsys
):
    """The network is not trained: what the task makes of the photos is what is looked at."""
    config: Config = quality
    network, _ = build_network(config)
    params = init_params(network, jax.random.key(1), config.task.size)
    # A new layer near 0 tells no two images apart.
    params = jax.tree.map(lambda x: x + 0.05 * np.sign(np.cos(np.arange(x.size))).reshape(x.shape),
                          params)  # fmt: skip
    trained = pool.Trained(network, params, 4)
    monkeypatch.setattr(pool, 'load_trained', lambda config, folder: trained)
    target = pool.ask(config, tmp_path, photos, count=4)
    every = rows(target / 'all.csv')
    assert sorted(row['file'] for row in every) == NAMES
    assert all(0 <= float(row['certainty']) <= 1 for row in every)
    assert all(np.isfinite(float(row['predicted'])) for row in every)
    (tmp_path / 'few').mkdir()
    shutil.copy(photos / 'z.jpg', tmp_path / 'few')
    (alone,) = rows(pool.ask(config, tmp_path, tmp_path / 'few', count=4) / 'all.csv')
    (among,) = [row for row in every if row['file'] == 'z.jpg']
    del alone['rank'], among['rank']
    assert alone == among


def test_draws_follow_from_the_name_and_the_seed(workdir, photos):
    config = restore.config_of(workdir)
    found = Photos(config.task, prepare(config, workdir, photos))
    assert [found.number(n) for n in range(6)] == [number_of(name) for name in NAMES]
    assert len({number_of(str(n)) for n in range(1000)}) == 1000
    assert all(0 <= number_of(str(n)) < 2**63 for n in range(1000))

    def images(seed, step, places):
        sets = CertaintySets(config.task, found, places, seed=seed, step=step, pairs=5)
        return [sets[i] for i in range(len(places))]

    last, first = images(0, 1, [5, 0])
    (same,) = images(0, 1, [0])
    np.testing.assert_array_equal(first['views'].images, same['views'].images)
    np.testing.assert_array_equal(first['pairs'], same['pairs'])
    for other in (*images(1, 1, [0]), *images(0, 2, [0]), last):
        assert not np.array_equal(other['views'].images, first['views'].images)


def test_the_newest_finished_cycle_is_asked(tmp_path):
    assert pool.run_folder(tmp_path) == tmp_path
    for name in ('cycle_0', 'cycle_2', 'cycle_10', 'cycle_11', 'cycle_x'):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match='holds no finished cycle: go on with the run first'):
        pool.run_folder(tmp_path)
    for name in ('cycle_0', 'cycle_2', 'cycle_10'):
        (tmp_path / name / 'result.json').write_text('{}')
    assert pool.run_folder(tmp_path) == tmp_path / 'cycle_10'


def test_what_holds_no_network_is_one_line(workdir, photos, tmp_path):
    config = restore.config_of(workdir)
    with pytest.raises(UserError, match='holds no run with a validated step: train it first'):
        pool.load_trained(config, tmp_path)
    config.task.head_std, config.model.width = 0.5, 0.2
    with pytest.raises(UserError, match='in the checkpoint and .* use the config it was trained'):
        pool.load_trained(config, workdir)
    (tmp_path / 'image_folder').mkdir()
    shutil.copy(photos / 'z.jpg', tmp_path / 'image_folder')
    with pytest.raises(UserError, match='has a folder image_folder that is read alone: rename it'):
        prepare(config, workdir, tmp_path)


MISTAKES = {
    '--pool=$P --count=3': '--workdir is missing: python -m rank_ssl.active --workdir=runs/',
    '$W --count=3': '--pool is missing: python -m rank_ssl.active --workdir=runs/quickstart',
    '--workdir=$F/no $P --count=3': '--workdir=$F/no does not exist: name that of a run of',
    '$W --pool=$F/file --count=3': '--pool=$F/file is no folder: name a folder of photos',
    '$W $P': '--count is missing: --labels=FILE.csv and --into=FOLDER take labels in, --count=20',
    '$W $P --count=0': '--count=0 must be 1 or greater',
    '$W $P --count=many': 'flag --count=many: ',
    '$W $P --count=1 --count=2': '--count is given 2 times (1, 2): keep one',
    '$W $P --count=3 --rule=best': 'flag --rule=best: value should be one of <certainty|graded|',
    '$W $P --count=3 --labels=l.csv': '--count asks which photos to label, --labels takes labels',
    '$W $P --labels=l.csv': '--into is missing: ',
    '$W $P --into=set': '--labels is missing: ',
    '$W $P --labels= --into=set': '--labels is missing: ',
    '$W $P --count=3 junk': 'junk is no flag; see python -m rank_ssl.active --help',
    '$W $P --count=3 --cuont=3': "Unknown command line flag 'cuont'",
    '$W $P --count=3 --config=nope.py': '--config=nope.py does not exist: name an experiment file',
}


def parsed(command, words):
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        command.parse(['rank_ssl.active', *words])
        return {name: flags.FLAGS[name].value for name in (*command.ASKING, *command.TAKING)}


@pytest.mark.parametrize('words', MISTAKES)
def test_a_mistake_is_one_line(command, tmp_path, words):
    (tmp_path / 'file').write_text('')
    places = {'$W': f'--workdir={tmp_path}', '$P': f'--pool={tmp_path}', '$F': str(tmp_path)}
    text, expected = words.replace('--pool=$P', '$P'), MISTAKES[words]
    for name, value in places.items():
        text, expected = text.replace(name, value), expected.replace(name, value)
    with pytest.raises(UserError) as caught:
        parsed(command, text.split(' '))
    assert str(caught.value).startswith(expected) and '\n' not in str(caught.value)


def test_right_flags_are_taken(command, tmp_path):
    words = [f'--workdir={tmp_path}', '--pool', str(tmp_path)]
    assert parsed(command, [*words, '--count=3', '--rule=graded'])['rule'] == 'graded'
    assert parsed(command, [*words, '--labels=a', '--into=b', '--split=test'])['split'] == 'test'


def test_without_a_config_the_runs_own_command_is_printed(
    command, workdir, photos, tmp_path, monkeypatch, capsys
):
    run, file = Path(shutil.copytree(workdir, tmp_path / 'run')), tmp_path / 'labels.csv'
    words = ['--config=experiments/x.py:a', '--config.task.size=48', '--config.data.manual_dir=D']
    (run / 'reproduce.json').write_text(json.dumps({'command': words}))
    file.write_text(f'file,x,y\n{NAMES[0]},1,2\n', encoding='utf-8')
    taking = [f'--workdir={run}', f'--pool={photos}', f'--labels={file}']
    into = tmp_path / 'set'
    argv = ['rank_ssl.active', *taking, f'--into={into}']
    monkeypatch.setattr(sys, 'argv', argv)
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        command.parse(argv)
        command.main()
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert printed[:5] == ['python', '-m', 'rank_ssl.main', *words[:2]]
    assert f'--config.data.manual_dir={into}' in printed and words[2] not in printed


def test_labels_for_a_run_that_cannot_be_gone_on_with_are_not_taken_in(
    command, workdir, photos, tmp_path, monkeypatch
):
    run, file = Path(shutil.copytree(workdir, tmp_path / 'run')), tmp_path / 'labels.csv'
    (run / 'cycle_0').mkdir()
    file.write_text(f'file,x,y\n{NAMES[0]},1,2\n', encoding='utf-8')
    argv = ['rank_ssl.active', f'--workdir={run}', f'--pool={photos}', f'--labels={file}']
    argv.append(f'--into={tmp_path / "set"}')
    monkeypatch.setattr(sys, 'argv', argv)
    with flagsaver.flagsaver(), pytest.raises(UserError, match='holds no finished cycle'):
        flags.FLAGS.unparse_flags()
        command.parse(argv)
        command.main()
    assert not (tmp_path / 'set').exists()


def test_labels_are_taken_in_and_trained_on(
    command, workdir, photos, tmp_path, monkeypatch, capsys
):
    """Two photos for training more than a test: the command that it prints is then a run."""
    into, file = tmp_path / 'set', tmp_path / 'labels.csv'
    monkeypatch.chdir(ROOT)
    config = 'experiments/quickstart.py:smoke'
    given = {'test': NAMES[:1], 'train': NAMES[1:]}
    for split, names in given.items():
        text = io.StringIO()
        csv.writer(text).writerows([['file', 'x', 'y'], *([n, 10, 20.5] for n in names)])
        file.write_text(text.getvalue(), encoding='utf-8')
        words = [f'--workdir={workdir}', f'--pool={photos}', f'--config={config}',
                 f'--labels={file}', f'--into={into}', f'--split={split}']  # fmt: skip
        monkeypatch.setattr(sys, 'argv', ['rank_ssl.active', *words])
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            command.parse(sys.argv)
            command.main()
    first, ask, printed = capsys.readouterr().out.splitlines()[-3:]
    assert first == f'5 photos added to {into / "train" / "points.csv"}, 0 were in it already'
    assert ask == 'train with them:' and printed.startswith(
        f'python -m rank_ssl.main --config={config} --config.data.dataset=points_folder '
    )
    argv = ['rank_ssl.main', *shlex.split(printed)[3:]]
    argv += ['--config.steps=2', '--config.eval_every=2', '--config.figure_count=0']
    argv += [f'--config.data.data_dir={tmp_path / "data"}']
    monkeypatch.setattr(sys, 'argv', argv)  # where the flag of the config looks for its fields
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        cli.parse_flags(argv, program='rank_ssl.main')
        made = cli.CONFIG.value
        made.check()
        (tmp_path / 'new').mkdir()
        main.main(made, tmp_path / 'new')
    result = json.loads((tmp_path / 'new' / 'result.json').read_text())
    assert (result['labeled_images'], result['validation_images'], result['test_images']) == (
        4,
        1,
        1,
    )
    assert result['config']['init_from'] == str(workdir)
