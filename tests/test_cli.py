"""The command line: each mistake of a user is one line that names it and its cure, exit code 2."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep import source, tiny
from experiments import quickstart
from rank_ssl import cli, data
from rank_ssl.errors import Stopped, UserError

ROOT = Path(__file__).resolve().parent.parent
QUICK = 'experiments/quickstart.py:smoke'
FILES = {
    'syntax.py': 'def get_config(:\n',
    'raises.py': 'def get_config():\n    return 1 / 0\n',
    'value.py': 'def get_config():\n    return int("ten")\n',
    'reads.py': 'def get_config():\n    return open("absent.txt")\n',
    'bare.py': 'config = 3\n',
    'number.py': 'def get_config():\n    return 3\n',
    'nothing.py': 'def get_config():\n    pass\n',
    'misspelt.py': (
        'from rank_ssl import config\nfrom rank_ssl.tasks.crowd import Crowd\n\n\n'
        'def get_config():\n'
        '    made = config.Config(task=Crowd())\n'
        '    made.optim.raet = 3\n'
        '    return made\n'
    ),
    'text.py': (
        'from rank_ssl import config\nfrom rank_ssl.tasks.crowd import Crowd\n\n\n'
        'def get_config():\n'
        '    made = config.Config(task=Crowd())\n'
        '    made.steps = "ten"\n'
        '    return made\n'
    ),
}
EXAMPLE = (
    'python -m rank_ssl.main --config=experiments/quickstart.py --workdir=runs/quickstart'
)  # fmt: skip
AS_FIELDS = 'is no flag; fields are set as --config.FIELD=VALUE'
NO_FIELD = (
    "config has no such field; the fields are in rank_ssl/config.py, the task's in rank_ssl/tasks"
)

# Arguments, with $Q for a good --config, $W for a good --workdir and $F for the folder of FILES,
# and the one line that must come out on stderr.
MISTAKES = {
    '$W': f'--config is missing: {EXAMPLE}',
    '$W --config=': f'--config is missing: {EXAMPLE}',
    '$W --config': f'--config is missing: {EXAMPLE}',
    '$Q': f'--workdir is missing: {EXAMPLE}',
    '$Q --workdir=': f'--workdir is missing: {EXAMPLE}',
    '$W --config=experiments/nope.py': (
        '--config=experiments/nope.py does not exist: name an experiment file'
    ),
    '$W --config=experiments/nope.py:smoke --config.steps=3': (
        '--config=experiments/nope.py does not exist: name an experiment file'
    ),
    '$W --config=experiments': '--config=experiments is a folder: name an experiment file',
    '$Q $W --config=$F/number.py': (
        f'--config is given 2 times ({QUICK}, $F/number.py): keep one'
    ),
    '$Q $W --workdir=$F': '--workdir is given 2 times ($F/run, $F): keep one',
    '$W --config=experiments/quickstart.py:smok': (
        'quickstart.py:smok is no argument of quickstart.py; use smoke'
    ),
    '$W --config=experiments/crowd_shtech.py:B,smok': (
        'crowd_shtech.py:smok is no argument of crowd_shtech.py; use A, B, evidence, smoke'
    ),
    '$Q $W junk': f'junk {AS_FIELDS}',
    '$Q $W --steps=3': f'--steps {AS_FIELDS}',
    '$Q $W --config.raet=3': f'--config.raet=3: {NO_FIELD}',
    '$Q $W --config.optim.raet=3': f'--config.optim.raet=3: {NO_FIELD}',
    '$Q $W --config.task.sigmma=3': f'--config.task.sigmma=3: {NO_FIELD}',
    '$Q $W --config.steps=many': '--config.steps=many is no value for this field: it takes one int',
    '$Q $W --config.steps=2.5': '--config.steps=2.5 is no value for this field: it takes one int',
    '$Q $W --config.margin=': '--config.margin= is no value for this field: it takes one float',
    '$Q $W --config.evaluate_test=maybe': (
        '--config.evaluate_test=maybe is no value for this field: it takes one bool'
    ),
    '$Q $W --config.optim=adam': (
        '--config.optim has fields of its own: set them one by one, --config.optim.FIELD=VALUE'
    ),
    '$Q $W --config.task=iqa': (
        '--config.task has fields of its own: set them one by one, --config.task.FIELD=VALUE'
    ),
    '$Q $W --config.steps': 'Missing value for flag --config.steps',
    '$Q $W --config.steps=0': 'config.steps=0 must be greater than 0 and finite',
    '$Q $W --config.regime=both': (
        'config.regime=both is unknown; use multitask, baseline, ranking, finetune, ridge'
    ),
    '$Q $W --config.task.levels=1': 'config.task.levels=1 makes no pair to rank; use 5',
    '$W --config=$F/syntax.py': (
        '--config=$F/syntax.py, line 1: SyntaxError: invalid syntax (syntax.py, line 1); '
        'mend the file'
    ),
    '$W --config=$F/raises.py': (
        '--config=$F/raises.py, line 2: ZeroDivisionError: division by zero; mend the file'
    ),
    '$W --config=$F/value.py': (
        "--config=$F/value.py, line 2: ValueError: invalid literal for int() with base 10: 'ten'; "
        'mend the file'
    ),
    '$W --config=$F/reads.py': (
        "--config=$F/reads.py, line 2: FileNotFoundError: [Errno 2] No such file or directory: "
        "'absent.txt'; mend the file"
    ),
    '$W --config=$F/bare.py': (
        "--config=$F/bare.py: AttributeError: module 'config_config' has no attribute "
        "'get_config'; mend the file"
    ),
    '$W --config=$F/number.py': '--config=$F/number.py: get_config must return a Config, not int',
    '$W --config=$F/nothing.py': (
        '--config=$F/nothing.py: get_config must return a Config, not NoneType'
    ),
    '$W --config=$F/misspelt.py': (
        "--config=$F/misspelt.py, line 7: AttributeError: 'Optim' object has no attribute 'raet'; "
        'mend the file'
    ),
    '$W --config=$F/text.py': "config.steps='ten' must be of type int",
    '$Q --workdir=$F/text.py': (
        '--workdir=$F/text.py: File exists; name a folder that can be written to'
    ),
    '$Q --workdir=$F/text.py/below': (
        '--workdir=$F/text.py/below: Not a directory; name a folder that can be written to'
    ),
}  # fmt: skip

# Mistakes that are found when data and weights are looked at.
LATER = {
    'data before weights': '$Q $W/a --config.data.dataset=nope --config.model.weights=$F/no.npz',
    'data before weights, absent': (
        '$W/b --config=experiments/crowd_shtech.py --config.data.manual_dir=$F/absent '
        '--config.data.data_dir=$F/prepared --config.model.weights=$F/no.npz'
    ),
    'weights': '$Q $W/c --config.model.weights=$F/no.npz',
    'damaged weights': '$Q $W/c --config.model.width=1 --config.model.weights=$F/bad.npz',
    'pickled weights': '$Q $W/c --config.model.width=1 --config.model.weights=$F/bad.pth',
}  # fmt: skip


@pytest.fixture(scope='session')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('cli')
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name in ('bad.npz', 'bad.pth'):
        (folder / name).write_bytes(b'PK\x03\x04 not the weights of a network')
    return folder


@pytest.fixture(scope='session')
def filled(folder):
    """A function that puts the folder's name and the good flags into a text."""
    names = {'$Q': f'--config={QUICK}', '$W': f'--workdir={folder}/run', '$F': str(folder)}

    def fill(text: str) -> str:
        for short, long in names.items():
            text = text.replace(short, long)
        return text

    return fill


@pytest.fixture(scope='session')
def outcomes(filled) -> dict[str, dict]:
    """What the program does with each of the command lines: code, stdout, stderr."""
    cases = {**{text: text for text in MISTAKES}, **LATER}
    done = subprocess.run(
        [sys.executable, ROOT / 'tests' / 'cli_starts.py', 'rank_ssl.main'],
        input=json.dumps([filled(text).split() for text in cases.values()]),
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout), strict=True))


def assert_one_line(outcome: dict, line: str) -> None:
    assert outcome['stderr'] == f'error: {line}\n'
    assert (outcome['code'], outcome['stdout']) == (2, '')


@pytest.mark.parametrize('arguments', MISTAKES)
def test_a_mistake_is_one_line(outcomes, filled, arguments):
    assert_one_line(outcomes[arguments], filled(MISTAKES[arguments]))


def test_a_refused_start_leaves_no_workdir(outcomes, folder):
    assert len(outcomes) > len(MISTAKES)
    # Of those that look at data and weights; the others would have made folder / 'run' theirs.
    assert sorted(path.name for path in (folder / 'run').iterdir()) == ['a', 'b', 'c']


def test_an_unknown_data_set_is_told_before_absent_weights(outcomes):
    outcome = outcomes['data before weights']
    assert outcome['stderr'].startswith("error: data set 'nope' is not known; choose one of ")
    assert (outcome['code'], outcome['stderr'].count('\n')) == (2, 1)


@pytest.mark.fault(
    row=15,
    injected='a data set that is not there',
    outcome='one line with the command that prepares it, then the expected tree; exit code 2',
)
def test_absent_data_are_told_with_the_expected_tree(outcomes, folder):
    outcome = outcomes['data before weights, absent']
    first, *tree = outcome['stderr'].splitlines()
    assert outcome['code'] == 2
    assert first.startswith('error: ') and str(folder / 'absent') in first
    assert 'python -m data_prep.prepare shanghaitech --part=part_A --manual_dir=' in first
    assert tree and all(line.startswith('  ') for line in tree)
    assert any('part_A' in line for line in tree)


def test_absent_weights_name_the_field(outcomes, filled):
    line = outcomes['weights']['stderr'].splitlines()[-1]
    assert line == filled(
        'error: config.model.weights=$F/no.npz does not exist: name an npz or safetensors file, '
        'or none to train from scratch'
    )
    assert outcomes['weights']['code'] == 2


@pytest.mark.fault(
    row=11,
    injected='a pickle and a damaged file as --config.model.weights',
    outcome='one line, exit code 2, before anything compiles',
)
@pytest.mark.parametrize(
    'case, words', [('damaged weights', 'cannot be read ('), ('pickled weights', 'is a pickle')]
)
def test_weights_that_are_no_weights(outcomes, folder, case, words):
    line = outcomes[case]['stderr'].splitlines()[-1]
    assert line.startswith(f'error: config.model.weights={folder}/bad.') and words in line
    assert outcomes[case]['code'] == 2 and 'Traceback' not in outcomes[case]['stderr']


@pytest.mark.fault(
    row=15,
    injected='absent data, absent and damaged weights',
    outcome='told before anything compiles',
)
def test_nothing_is_compiled_before_data_and_weights_are_right(outcomes, folder):
    for name in 'abc':
        made = {path.name for path in (folder / 'run' / name).iterdir()}
        assert made <= {'.lock', 'data', 'tiny'}, name


def test_a_missing_file_as_a_real_command(run_main, tmp_path):
    done = run_main(['--config=experiments/nope.py', f'--workdir={tmp_path}'])
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        'error: --config=experiments/nope.py does not exist: name an experiment file\n'
    )


def test_typed_flags_in_each_form():
    argv = ['main.py', '--config=a.py:x,y', '--config.steps=3', '-workdir', 'w', 'config=b']
    assert cli.typed(argv, 'config') == ['a.py:x,y']
    assert cli.typed(argv, 'workdir') == ['w']
    assert cli.typed([*argv, '--config'], 'config') == ['a.py:x,y', '']
    assert cli.typed(argv, 'steps') == []


@pytest.mark.fault(
    row=20,
    injected='spaces and letters beyond ASCII in --workdir',
    outcome='it works',
)
def test_a_workdir_with_spaces_and_letters(tmp_path, monkeypatch):
    name = tmp_path / 'dépôt 実験' / 'run 1'
    assert cli.make_workdir(str(name)) == name and name.is_dir()
    assert cli.make_workdir(str(name)) == name
    monkeypatch.chdir(tmp_path)
    assert cli.make_workdir('runs') == tmp_path / 'runs'


@pytest.mark.fault(row=20, injected='a workdir that cannot be written to', outcome='one line')
def test_a_workdir_on_a_read_only_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: mode != os.W_OK)
    with pytest.raises(UserError, match=f'--workdir={tmp_path} is read-only; name a folder'):
        cli.make_workdir(str(tmp_path))


@pytest.fixture
def refused(unprivileged):
    """refused(path, mode, *arguments): stderr of a command that finds a path with that mode."""

    def run(path: Path, mode: int, *arguments: str) -> str:
        before = path.stat().st_mode
        path.chmod(mode)
        words = [*unprivileged, sys.executable, '-m', 'rank_ssl.main', *arguments]
        try:
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240)
        finally:
            path.chmod(before)
        assert (done.returncode, done.stdout) == (2, ''), done.stderr
        return done.stderr

    return run


@pytest.mark.fault(
    row=20,
    injected='a workdir without write permission, one below it, one with the lock of another user',
    outcome='one line, exit code 2',
)
@pytest.mark.parametrize('case', ['the folder', 'one below', 'the lock'])
def test_a_workdir_that_is_read_only(refused, tmp_path, case):
    workdir, path, mode = tmp_path, tmp_path, 0o500
    fault = f'--workdir={tmp_path} is read-only; name a folder that can be written to'
    if case == 'one below':
        workdir = tmp_path / 'run'
        fault = f'--workdir={workdir}: Permission denied; name a folder that can be written to'
    elif case == 'the lock':
        path, mode = tmp_path / '.lock', 0o000
        path.touch()
        fault = (
            f'{path} cannot be opened (Permission denied): where it is of another user, name '
            'another --workdir'
        )
    assert refused(path, mode, f'--config={QUICK}', f'--workdir={workdir}') == f'error: {fault}\n'


@pytest.mark.fault(
    row=15,
    injected='a data set folder, and a prepared file, without read permission',
    outcome='one line with the path and why, exit code 2, before anything compiles',
)
@pytest.mark.parametrize('case', ['the folder', 'a prepared file'])
def test_data_that_cannot_be_read_are_told(refused, tmp_path, case):
    workdir, data_dir = tmp_path / 'run', tmp_path / 'prepared'
    fields = [f'--workdir={workdir}', f'--config.data.data_dir={data_dir}']
    if case == 'the folder':
        path = tmp_path / 'set'
        tiny.write(source.load('shanghaitech'), path, config='part_A', count=4, seed=0)
        experiment = 'experiments/crowd_shtech.py'
        fields += [f'--config.data.manual_dir={path}', '--config.model.weights=none']
    else:
        experiment = QUICK
        config = quickstart.get_config('smoke')
        config.data.data_dir = str(data_dir)
        prepared, _ = data.prepare(config, str(workdir))
        (path,) = Path(prepared.path).glob('*-train.array_record*')
    told = refused(path, 0, f'--config={experiment}', *fields).splitlines()[-1]
    assert told.startswith('error: ') and str(path) in told and 'Permission denied' in told
    cures = {
        'the folder': ': make it one that this user can read',
        'a prepared file': ': delete it, and it is prepared again',
    }
    assert told.endswith(cures[case])
    assert {path.name for path in workdir.iterdir()} == {'.lock'}


@pytest.fixture
def guarded_end(capsys) -> Iterator[object]:
    """A function: how `guarded` ends the program when an error is raised in it, and its words."""

    def end(error: BaseException) -> tuple[object, str]:
        def fails() -> None:
            raise error

        with pytest.raises(SystemExit) as caught:
            cli.guarded(fails)
        return caught.value.code, capsys.readouterr().err

    yield end


def test_exit_codes(guarded_end, monkeypatch):
    assert guarded_end(UserError('a: b')) == (2, 'error: a: b\n')
    assert guarded_end(UserError('a\nb/\n  c')) == (2, 'error: a\n  b/\n    c\n')
    assert guarded_end(UserError()) == (2, '')  # said before, by the preparation
    stopped = 'state saved; the same command goes on\n'
    assert guarded_end(Stopped(15)) == (143, f'SIGTERM: {stopped}')
    assert guarded_end(Stopped(2)) == (130, f'SIGINT: {stopped}')
    assert guarded_end(Stopped(15, 'its runs were')) == (143, 'SIGTERM: its runs were\n')
    assert guarded_end(KeyboardInterrupt()) == (130, '')
    assert guarded_end(OSError(28, 'No space left on device', '/disk/metrics.jsonl')) == (
        2,
        'error: /disk/metrics.jsonl: No space left on device: free disk space and start the same '
        'command again\n',
    )
    monkeypatch.setattr(sys, 'argv', ['main.py', '--workdir=runs/a'])
    assert guarded_end(OSError(28, 'No space left on device')) == (
        2,
        'error: a file of --workdir=runs/a: No space left on device: free disk space and start the '
        'same command again\n',
    )
    assert cli.guarded(lambda: 3) == 3


@pytest.mark.fault(
    row=3,
    injected='no space, no quota, a file that is too large',
    outcome='one line with the path, exit code 2',
)
@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line(guarded_end, number):
    fault = os.strerror(number)
    assert guarded_end(OSError(number, fault, '/disk/metrics.jsonl')) == (
        2,
        f'error: /disk/metrics.jsonl: {fault}: free disk space and start the same command again\n',
    )


@pytest.mark.parametrize('error', [OSError(2, 'No such file'), ValueError('a defect')])
def test_a_defect_keeps_its_traceback(error):
    def fails() -> None:
        raise error

    with pytest.raises(type(error)):
        cli.guarded(fails)
