"""reproduce.json: what it names, and a second run of it."""

import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from rank_ssl import cli, reproduce
from rank_ssl.config import Config, Data
from rank_ssl.errors import UserError
from rank_ssl.tasks.crowd import Crowd

ROOT = Path(__file__).resolve().parent.parent
QUICK = 'quickstart.py:smoke'
ACTIVE = 'active_quickstart.py:smoke'


def noted(workdir: Path) -> dict:
    return json.loads((workdir / 'reproduce.json').read_text())


@pytest.mark.parametrize('experiment', [QUICK, pytest.param(ACTIVE, marks=pytest.mark.slow)])
def test_a_run_again_has_the_same_bits(smoke_run, run_main, tmp_path, experiment):
    first = smoke_run(experiment).workdir
    words = [f'--reproduce={first / "reproduce.json"}', f'--workdir={tmp_path / "new"}']
    place = f'--config.data.data_dir={tmp_path / "data"}'
    again = run_main([*words, place])
    assert again.returncode == 0, again.stderr
    assert 'final parameters: the same bits (' in again.stdout
    one, two = noted(first), noted(tmp_path / 'new')
    assert one['params_sha256'] == two['params_sha256']
    assert two['command'] == [*one['command'], place] and (tmp_path / 'data').is_dir()
    result = json.loads((tmp_path / 'new' / 'result.json').read_text())
    assert result['params_sha256'] == two['params_sha256']


@pytest.mark.slow
def test_other_bits_are_told_with_what_differs(smoke_run, run_main, tmp_path):
    """A reproduce.json of another seed and topology than its parameters are of."""
    made = noted(smoke_run(QUICK).workdir)
    made['config']['seed'] = 1
    made['devices'], made['versions']['jax'] = 8, '0.1'
    made['cores'] = 96
    path = tmp_path / 'reproduce.json'
    path.write_text(json.dumps(made))
    done = run_main([f'--reproduce={path}', f'--workdir={tmp_path / "new"}'])
    assert done.returncode == 1, done.stderr
    assert 'final parameters: OTHER bits (' in done.stdout
    assert 'another topology: devices 8 before, now 1' in done.stdout
    assert re.search(r'another topology: cores 96 before, now \d', done.stdout)
    assert re.search(r'other versions: jax 0\.1 before, now \d', done.stdout)
    assert 'another seed: seed 0 before, now 1' in done.stdout


def test_what_it_names(smoke_run):
    made = noted(smoke_run(QUICK).workdir)
    others = {'again', 'command', 'config', 'git', 'params_sha256', 'gone_on_with'}
    assert {*reproduce.NEEDED, *others} == set(made)
    assert made['versions']['jax'] and made['weights_sha256'] is None
    assert made['command'] == ['--config=experiments/quickstart.py:smoke']
    assert made['data_fingerprint'] and '(cpu, ' in made['device']


def test_a_start_that_took_no_step_is_forgotten(tmp_path, monkeypatch):
    for devices in (1, 4):
        made = {**facts(devices=devices), 'git': None, 'config': {}}
        monkeypatch.setattr(reproduce, 'facts', lambda *_, made=made: dict(made))
        reproduce.note(Config(task=Crowd()), tmp_path, None)
        assert noted(tmp_path)['devices'] == devices and not noted(tmp_path)['gone_on_with']


def test_a_finished_run_that_noted_nothing_is_not_compared(tmp_path):
    with pytest.raises(UserError, match='a finished run without reproduce.json: use another'):
        reproduce.complete(tmp_path, {})


def facts(**fields) -> dict:
    return {**dict.fromkeys(reproduce.NEEDED, 'x'), 'params_sha256': 'a' * 64, **fields}


def test_the_folder_of_another_run_is_not_the_second_run(smoke_run, run_main, tmp_path):
    """It would be finished already, and be compared with itself."""
    first = Path(shutil.copytree(smoke_run(QUICK).workdir, tmp_path / 'copy'))
    for workdir in (smoke_run(QUICK).workdir, first):
        done = run_main([f'--reproduce={first / "reproduce.json"}', f'--workdir={workdir}'])
        assert done.returncode == 2 and 'holds another run: name a new folder' in done.stderr


def test_a_second_run_that_was_stopped_goes_on(tmp_path):
    (tmp_path / 'reproduce.json').write_text(json.dumps({'again': 'a', 'params_sha256': None}))
    reproduce.check_new(tmp_path, 'a')
    with pytest.raises(UserError, match='holds another run'):
        reproduce.check_new(tmp_path, 'b')


def test_a_run_that_went_on_for_longer_is_run_again_for_as_long(tmp_path, monkeypatch):
    found = facts(git=None, config={'steps': 2})
    del found['params_sha256']
    monkeypatch.setattr(reproduce, 'facts', lambda *_: dict(found))
    reproduce.note(Config(task=Crowd()), tmp_path, None)
    (tmp_path / 'checkpoints' / '2').mkdir(parents=True)
    found['config'] = {'steps': 9}
    for _ in range(2):
        reproduce.note(Config(task=Crowd()), tmp_path, None)
    made = noted(tmp_path)
    assert made['config'] == {'steps': 9} and made['gone_on_with'] == [{'config': {'steps': 2}}]


def test_a_field_that_the_first_version_did_not_have_is_no_other_config(tmp_path, monkeypatch):
    config = Config(task=Crowd())
    found = facts(git=None, config=config.to_dict())
    del found['params_sha256']
    monkeypatch.setattr(reproduce, 'facts', lambda *_: dict(found))
    reproduce.note(config, tmp_path, None)
    (tmp_path / 'checkpoints' / '2').mkdir(parents=True)
    path = tmp_path / 'reproduce.json'
    older = noted(tmp_path)
    del older['config']['margin']
    path.write_text(json.dumps(older))
    reproduce.note(config, tmp_path, None)
    assert not noted(tmp_path)['gone_on_with']


@pytest.mark.fault(
    row=1,
    injected='a kill in the very first save, then the same workdir with another seed',
    outcome='reproduce.json is of the run that begins now',
)
def test_a_first_save_that_was_killed_is_no_begun_run(tmp_path, monkeypatch):
    found = facts(git=None, config={}, seed=0)
    del found['params_sha256']
    monkeypatch.setattr(reproduce, 'facts', lambda *_: dict(found))
    reproduce.note(Config(task=Crowd()), tmp_path, None)
    (tmp_path / 'checkpoints' / '.2.partial').mkdir(parents=True)
    found['seed'] = 1
    reproduce.note(Config(task=Crowd()), tmp_path, None)
    assert noted(tmp_path)['seed'] == 1 and not noted(tmp_path)['gone_on_with']


def test_what_a_run_starts_from_is_named(smoke_run, tmp_path):
    first = Path(shutil.copytree(smoke_run(QUICK).workdir, tmp_path / 'first'))
    (best,) = (first / 'best').iterdir()
    # One of another step, that no checkpoint names.
    (first / 'best' / '1').mkdir()
    (first / 'best' / '1' / 'manifest.json').write_text('{}')
    config = Config(task=Crowd(), init_from=str(first))
    assert (
        reproduce._init_sha256(config)
        == hashlib.sha256((best / 'manifest.json').read_bytes()).hexdigest()
    )
    assert reproduce._init_sha256(Config(task=Crowd())) is None


def test_the_verdict_in_words():
    assert reproduce.verdict(facts(), facts()) == (
        True,
        ['final parameters: the same bits (aaaaaaaaaaaaaaaa, aaaaaaaaaaaaaaaa before)'],
    )
    same, lines = reproduce.verdict(facts(), facts(params_sha256='b' * 64))
    assert not same and lines[1:] == [
        'versions, device, topology and data are the same: this should not be'
    ]
    first = facts(gone_on_with=[{'devices': 2}])
    same, lines = reproduce.verdict(first, facts(data_fingerprint='y'))
    assert same and lines[1:] == [
        'other data: data_fingerprint x before, now y',
        'the first run was gone on with other devices',
    ]


def test_other_settings_of_jax_are_told():
    config = Config(task=Crowd())
    config.model.weights = 'none'
    splits = SimpleNamespace(fingerprint='f', unlabeled_fingerprint='')
    first = reproduce.facts(config, splits) | {'params_sha256': 'a' * 64}
    with jax.enable_x64(True), jax.default_prng_impl('rbg'):
        second = reproduce.facts(config, splits) | {'params_sha256': 'b' * 64}
    _, (_, *told) = reproduce.verdict(first, second)
    assert told == [
        'other settings of jax: jax_default_prng_impl threefry2x32 before, now rbg, '
        'jax_enable_x64 False before, now True'
    ]
    assert json.loads(json.dumps(first)) == first
    assert set(reproduce.SETTINGS) <= set(jax.config.values)


def test_a_file_of_before_the_settings_of_jax_is_not_told_as_different(tmp_path, monkeypatch):
    older = facts()
    del older['jax_config']
    assert reproduce.verdict(older, facts())[1][1:] == []
    now = facts(git=None, config={})
    monkeypatch.setattr(reproduce, 'facts', lambda *_: dict(now))
    (tmp_path / 'checkpoints' / '2').mkdir(parents=True)
    (tmp_path / 'reproduce.json').write_text(json.dumps(older | {'gone_on_with': [], 'config': {}}))
    reproduce.note(Config(task=Crowd()), tmp_path, None)
    assert noted(tmp_path)['gone_on_with'] == []


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path, monkeypatch):
    config = Config(task=Crowd())
    found = facts(git=None, config={}, weights_sha256='w')
    del found['params_sha256']
    monkeypatch.setattr(reproduce, 'facts', lambda *_: dict(found))
    reproduce.note(config, tmp_path, None)
    (tmp_path / 'checkpoints' / '2').mkdir(parents=True)
    reproduce.note(config, tmp_path, None)
    assert noted(tmp_path)['gone_on_with'] == [] and noted(tmp_path)['params_sha256'] is None
    found |= {'devices': 4, 'weights_sha256': None, 'git': {'revision': 'r', 'changed': True}}
    reproduce.note(config, tmp_path, None)
    reproduce.note(config, tmp_path, None)
    assert noted(tmp_path)['gone_on_with'] == [{'devices': 4}]
    reproduce.complete(tmp_path, {'params_sha256': 'c' * 64})
    assert noted(tmp_path)['params_sha256'] == 'c' * 64 and noted(tmp_path)['devices'] == 'x'


@pytest.mark.parametrize(
    'text, message',
    [
        (None, 'reproduce.json does not exist: name the reproduce.json of a workdir'),
        ('{', 'cannot be read ('),
        ('{}', 'there is no task in it'),
        ('[]', 'holds no JSON object: name the reproduce.json of a workdir'),
        ('{"config": 3}', 'there is no task in it'),
    ],
)
def test_a_file_that_cannot_be_reproduced(tmp_path, text, message):
    path = tmp_path / 'reproduce.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        reproduce.read(str(path))
    assert message in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'name, value, rule',
    [
        ('params_sha256', 5, '5 must be a hash'),
        ('params_sha256', ['a'], r'\["a"\] must be a hash'),
        ('gone_on_with', 3, '3 must be a list of objects'),
        ('gone_on_with', [3], r'\[3\] must be a list of objects'),
        ('gone_on_with', None, 'null must be a list of objects'),
        ('command', 5, '5 must be a list of words'),
        ('command', 'abc', '"abc" must be a list of words'),
        ('command', ['a', 5], r'\["a", 5\] must be a list of words'),
    ],
)
def test_a_value_of_another_kind_is_told_before_training(tmp_path, name, value, rule):
    path = tmp_path / 'reproduce.json'
    whole = facts(config=Config(task=Crowd()).to_dict(), command=['--config=x'], gone_on_with=[{}])
    path.write_text(json.dumps(whole))
    assert reproduce.read(str(path))[1] == whole
    path.write_text(json.dumps(whole | {name: value}))
    with pytest.raises(UserError, match=f'{name}={rule}: name the reproduce.json of a') as caught:
        reproduce.read(str(path))
    assert '\n' not in str(caught.value)


@pytest.mark.fault(
    row=4,
    injected='reproduce.json of a run damaged before it goes on and before it ends',
    outcome='one line with the cure',
)
def test_a_damaged_note_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, 'facts', lambda *_: facts(git=None, config={}))
    (tmp_path / 'checkpoints' / '2').mkdir(parents=True)
    (tmp_path / 'reproduce.json').write_text('{"config": ')
    for act in (
        lambda: reproduce.note(Config(task=Crowd()), tmp_path, None),
        lambda: reproduce.complete(tmp_path, {}),
        lambda: reproduce.check_new(tmp_path, 'a'),
    ):
        with pytest.raises(UserError, match='reproduce.json cannot be read') as caught:
            act()
        assert '\n' not in str(caught.value)


def test_a_run_that_has_not_ended_cannot_be_compared_with(smoke_run, tmp_path):
    made = noted(smoke_run(QUICK).workdir) | {'params_sha256': None}
    (tmp_path / 'reproduce.json').write_text(json.dumps(made))
    with pytest.raises(UserError, match='is of a run that has not ended'):
        reproduce.read(str(tmp_path / 'reproduce.json'))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--config=experiments/quickstart.py'], 'has a config of its own: leave --config out'),
        (['--config.seed=3'], '--config.seed=3: --reproduce has a config of its own; beside it'),
        (['junk'], 'junk is no flag; --reproduce takes a file and --workdir a folder'),
        (['--workdir='], '--workdir is missing: name a new folder for the second run'),
    ],
)
def test_mistakes_of_the_command(run_main, tmp_path, arguments, message):
    words = [f'--reproduce={tmp_path}/x.json', f'--workdir={tmp_path}/new', *arguments]
    if arguments == ['--workdir=']:
        words.pop(1)
    done = run_main(words)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_beside_reproduce_only_places_may_be_set():
    importlib.import_module('rank_ssl.main')  # defines the flag

    def parsed(*words):
        argv = ['main.py', '--workdir', 'data.data_dir', '--reproduce=x.json', *words]
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            return cli.parse_flags(argv, program='rank_ssl.main', instead='reproduce')

    assert parsed() == ['main.py']
    words = ('--config.model.weights=', '--config.data.unlabeled_dirs', 'a b,c=d', '--process=1')
    assert parsed(*words) == ['main.py', 'data.unlabeled_dirs=a b,c=d', 'model.weights=']
    for word in ('--config.data.part=B', '--noconfig.data.allow_partial', '--config.data.fold'):
        with pytest.raises(UserError, match=f'{word}: .* of its own; .*config.data.data_dir'):
            parsed('--config.data.manual_dir=D', word)
    with pytest.raises(UserError, match='Missing value for flag --config.data.manual_dir'):
        parsed('--config.data.manual_dir')


def test_a_run_is_run_again_on_data_that_lie_elsewhere(run_main, tmp_path):
    """It gets as far as the data of the other folder, which are not there."""
    config = Config(task=Crowd(), data=Data(dataset='shanghaitech', manual_dir='/gone'))
    path = tmp_path / 'reproduce.json'
    path.write_text(json.dumps({'config': config.to_dict(), 'params_sha256': 'a' * 64}))
    words = [f'--reproduce={path}', f'--config.data.manual_dir={tmp_path}']
    done = run_main([*words, f'--workdir={tmp_path / "new"}'])
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: shanghaitech part_A is not in {tmp_path};')


def test_the_revision_is_that_of_the_code():
    found = reproduce.revision()
    head = subprocess.run(
        ['git', '-C', str(ROOT), 'rev-parse', 'HEAD'], capture_output=True, text=True, check=False
    )
    if head.returncode:
        assert found is None
    else:
        assert found is not None and found['revision'] == head.stdout.strip()


def test_the_flag_for_gpus_is_one_that_xla_knows():
    code = 'import jax; jax.numpy.zeros(1).block_until_ready()'
    environment = {'XLA_FLAGS': '--xla_gpu_deterministic_ops=true', 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
