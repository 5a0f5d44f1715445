"""Commands at once: their cores, their order, their log, and how they end."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rank_ssl import jobs
from rank_ssl.errors import Stopped, UserError
from rank_ssl.jobs import Crew, Job, core_shares

ROOT = Path(__file__).resolve().parent.parent
PINS = hasattr(os, 'sched_setaffinity')


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(jobs, 'POLL', 0.01)


@pytest.fixture
def job(tmp_path):
    """Makes a job of Python code; it runs in tmp_path and `note(text)` adds a line to its notes."""

    def make(number: int, code: str = '', *, after=()) -> Job:
        begin = f"""
            import os, sys, time
            os.chdir({str(tmp_path)!r})
            def note(text):
                with open('notes', 'a') as file:
                    file.write(f'{{text}}\\n')
        """
        whole = textwrap.dedent(begin) + textwrap.dedent(code or f'note({number})')
        command = (sys.executable, '-S', '-c', whole)
        log = tmp_path / str(number) / 'log.txt'
        return Job(number, f'job {number}', command, log, frozenset(after))

    return make


def notes(folder: Path) -> list[str]:
    path = folder / 'notes'
    return path.read_text().split() if path.exists() else []


def crew(count: int, total: int = 4) -> Crew:
    return Crew([[]] * count, noun='cell', total=total)


def test_one_after_another_in_their_order(tmp_path, job, capfd):
    tell = 'note(f"{n} begins"); print("said", file=sys.stderr); note(f"{n} ends")'
    crew(1).run([job(n, tell.replace('{n}', str(n))) for n in (3, 1, 2)])
    assert notes(tmp_path) == [
        '3',
        'begins',
        '3',
        'ends',
        '1',
        'begins',
        '1',
        'ends',
        '2',
        'begins',
        '2',
        'ends',
    ]
    lines = [line for line in capfd.readouterr().err.splitlines() if line != 'said']
    assert [re.sub(r'ETA of all \d:\d\d', 'ETA of all TIME', line) for line in lines] == [
        '== cell 3/4: job 3 (ETA of all ?)',
        '== cell 1/4: job 1 (ETA of all TIME)',
        '== cell 2/4: job 2 (ETA of all TIME)',
    ]
    assert not (tmp_path / '1').exists()


def test_as_many_at_once_as_there_are_shares(tmp_path, job):
    """Each of the first two waits until it sees the other."""
    meet = """
        note('{n}-here')
        end = time.time() + 20
        open('{n}.here', 'w').close()
        while not os.path.exists('{other}.here') and time.time() < end:
            time.sleep(.01)
        note('{n}-met' if time.time() < end else '{n}-alone')
    """
    both = [job(n, meet.replace('{n}', str(n)).replace('{other}', str(3 - n))) for n in (1, 2)]
    crew(2).run([*both, job(3)])
    found = notes(tmp_path)
    assert set(found[:2]) == {'1-here', '2-here'} and '3' in found
    assert {'1-met', '2-met'} < set(found)


def test_never_more_at_once_than_there_are_shares(tmp_path, job):
    code = 'note("+"); time.sleep(.1); note("-")'
    crew(2).run([job(n, code) for n in range(5)])
    running = [notes(tmp_path)[: n + 1].count('+') - notes(tmp_path)[: n + 1].count('-')
               for n in range(10)]  # fmt: skip
    assert max(running) == 2 and running[-1] == 0


def test_several_write_into_their_logs_and_tell_when_they_end(tmp_path, job, capfd):
    for _ in range(2):
        crew(2, 2).run(
            [job(n, f'print("said {n}", file=sys.stderr); print("out")') for n in (1, 2)]
        )
    assert (tmp_path / '1' / 'log.txt').read_text() == 'said 1\nsaid 1\n'
    assert (tmp_path / '2' / 'log.txt').read_text() == 'said 2\nsaid 2\n'
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == '' and len(lines) == 8
    assert lines[0] == '== cell 1/2: job 1 started (ETA of all ?)'
    assert re.fullmatch(r'== cell [12]/2: job [12] done in 0:0\d \(ETA of all 0:0\d\)', lines[3])


def test_what_is_left_is_estimated_from_those_that_ended(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(jobs.time, 'perf_counter', lambda: now[0])
    made = crew(2, 9)
    made._times = [40.0, 80.0]  # 60 on average
    child = jobs._Child(Job(4, 'job 4', (), Path('log')), None, 90.0)
    made._running = {0: child, 1: jobs._Child(child.job, None, 20.0)}
    # Three wait, one has 50 s to go and one should have ended: (3 x 60 + 50) / 2.
    made._say(child, ' started', 3)
    assert capsys.readouterr().err == '== cell 4/9: job 4 started (ETA of all 1:55)\n'


@pytest.mark.parametrize('count', [1, 2])
def test_a_job_waits_for_those_it_comes_after(tmp_path, job, count):
    crew(count).run([job(1, after=[2, 3]), job(2), job(3, 'time.sleep(.2); note(3)', after=[9])])
    assert notes(tmp_path)[-1] == '1' and len(notes(tmp_path)) == 3


def test_jobs_that_wait_for_one_another_are_told(tmp_path, job):
    with pytest.raises(UserError, match='^job 1; job 2: each starts from a cell that waits for it'):
        crew(2).run([job(1, after=[2]), job(2, after=[1]), job(3)])
    assert notes(tmp_path) == ['3']


def test_one_that_fails_ends_all_and_is_named(tmp_path, job):
    with pytest.raises(UserError) as caught:
        crew(1).run([job(1), job(2, 'sys.exit(3)'), job(4)])
    assert str(caught.value) == (
        'cell job 2 ended with exit code 3: mend what it said above; the same command goes on '
        'from there'
    )
    assert notes(tmp_path) == ['1']


def test_beside_one_that_fails_the_running_ones_end_and_none_is_started(tmp_path, job, capfd):
    jobs_ = [job(1, 'time.sleep(.5); note("ended")'), job(2, 'sys.exit(2)'), job(3)]
    with pytest.raises(UserError) as caught:
        crew(2).run(jobs_)
    assert str(caught.value) == (
        f'cell job 2 ended with exit code 2: mend what it said in {tmp_path / "2" / "log.txt"}; '
        'the same command goes on from there'
    )
    assert notes(tmp_path) == ['ended']
    assert '== cell 2/4: job 2 failed after 0:0' in capfd.readouterr().err


def test_all_that_fail_are_named(job):
    with pytest.raises(UserError, match=r'^cell job \d ended with exit code 1 \(and job \d\): '):
        crew(2).run([job(n, 'time.sleep(.3); sys.exit(1)') for n in (1, 2)])


@pytest.mark.skipif(not PINS, reason='this system does not pin processes')
def test_each_has_its_own_share_of_the_cores(tmp_path, job, monkeypatch):
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        pytest.skip('one core')
    tell = 'time.sleep(.3); note(",".join(map(str, sorted(os.sched_getaffinity(0)))))'
    Crew(core_shares(2), noun='cell', total=2).run([job(1, tell), job(2, tell)])
    half = len(own) - len(own) // 2
    assert set(notes(tmp_path)) == {','.join(map(str, own[:half])), ','.join(map(str, own[half:]))}
    assert sorted(os.sched_getaffinity(0)) == own


@pytest.mark.parametrize('cores, count, shares', [
    ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
    ([2, 5, 7], 2, [[2, 5], [7]]),
    ([2, 5, 7], 3, [[2], [5], [7]]),
    ([2, 5, 7], 1, [[]]),
])  # fmt: skip
def test_the_cores_of_this_process_are_shared_out(monkeypatch, cores, count, shares):
    monkeypatch.setattr(os, 'sched_setaffinity', print, raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(cores), raising=False)
    assert core_shares(count) == shares


def test_a_system_that_does_not_pin_runs_them_all_the_same(monkeypatch):
    for name in ('sched_setaffinity', 'sched_getaffinity'):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 4)
    assert core_shares(3) == [[], [], []]


@pytest.mark.parametrize('count, use', [(0, 1), (-1, 1), (4, 3)])
def test_more_jobs_than_cores_are_refused(monkeypatch, count, use):
    monkeypatch.setattr(os, 'sched_setaffinity', print, raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {1, 4, 6}, raising=False)
    with pytest.raises(UserError) as caught:
        core_shares(count)
    assert str(caught.value) == (
        f'--jobs={count} must lie between 1 and the 3 cores that this process may use; use {use}'
    )


STOPPED = """
import pathlib, signal, sys
# A suite that runs in the background has SIGINT ignored, and so has what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
from rank_ssl import cli
from rank_ssl.jobs import Crew, Job
child = '''
import os, pathlib, signal, sys, time
def save(number, frame):
    pathlib.Path(sys.argv[1] + ".saving").touch()
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end and not pathlib.Path(sys.argv[1] + ".go").exists():
        time.sleep(.01)
    pathlib.Path(sys.argv[1] + ".saved").write_text(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
'''
folder = pathlib.Path(sys.argv[1])
def job(n):
    command = (sys.executable, '-S', '-c', child, str(folder / str(n)), sys.argv[2])
    return Job(n, str(n), command, folder / f'{n}.log')
made = [job(n) for n in (1, 2, 3)]
cli.guarded(lambda: Crew([[], []], noun='cell', total=3).run(made))
"""


def wait_for(folder: Path, *names: str) -> None:
    end = time.monotonic() + 60
    while not all((folder / name).exists() for name in names) and time.monotonic() < end:
        time.sleep(0.02)
    assert all((folder / name).exists() for name in names)


def stoppable(folder: Path, saves: float) -> subprocess.Popen:
    """A crew of two whose children have started; they take so many seconds to save, or to go."""
    command = [sys.executable, '-c', STOPPED, str(folder), str(saves)]
    parent = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(folder, '1', '2')
    return parent


def assert_saved_and_gone(folder: Path) -> None:
    for n in (1, 2):
        assert (folder / f'{n}.saved').read_text() == str(int(signal.SIGTERM))
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / str(n)).read_text()), 0)
    assert not (folder / '3').exists()


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_children_which_save_their_state(tmp_path, number, code):
    parent = stoppable(tmp_path, 0.3)
    parent.send_signal(number)
    _, told = parent.communicate(timeout=30)
    assert parent.returncode == code
    # Whether a child had a state to save its parent does not know.
    assert (f'SIGTERM: {jobs.STOPPED}\n' in told) == (number == signal.SIGTERM)
    assert 'saved' not in told
    assert_saved_and_gone(tmp_path)


@pytest.mark.parametrize('first, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_another_sigterm_leaves_those_that_save_alone(tmp_path, first, code):
    parent = stoppable(tmp_path, 60)
    parent.send_signal(first)
    wait_for(tmp_path, '1.saving', '2.saving')
    parent.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        parent.wait(0.5)
    for n in (1, 2):
        (tmp_path / f'{n}.go').touch()
    parent.communicate(timeout=30)
    assert parent.returncode == code
    assert_saved_and_gone(tmp_path)


def test_a_sigint_after_a_sigterm_ends_at_once(tmp_path):
    parent = stoppable(tmp_path, 60)
    parent.send_signal(signal.SIGTERM)
    wait_for(tmp_path, '1.saving', '2.saving')
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=30)
    assert parent.returncode == 130
    for n in (1, 2):
        assert not (tmp_path / f'{n}.saved').exists()


@pytest.mark.fault(
    row=2,
    injected='SIGINT and SIGTERM to a grid of runs at the instant when it starts one',
    outcome='that one ends too',
)
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_child_starts_ends_that_child(job, monkeypatch, number):
    started = []
    popen = subprocess.Popen

    def interrupted(*words, **options) -> subprocess.Popen:
        started.append(popen(*words, **options))
        os.kill(os.getpid(), number)
        return started[0]

    monkeypatch.setattr(jobs.subprocess, 'Popen', interrupted)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Stopped):
        Crew([[], []], noun='cell', total=2).run([job(n, 'time.sleep(60)') for n in (1, 2)])
    (child,) = started
    assert child.returncode is not None
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_a_child_that_does_not_end_is_killed(tmp_path, job, monkeypatch):
    monkeypatch.setattr(jobs, 'STOP', 0.2)
    code = 'import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); note(os.getpid())'
    seen = []

    def interrupted(seconds: float) -> None:
        if seen := notes(tmp_path):
            raise KeyboardInterrupt(seen)

    monkeypatch.setattr(jobs.time, 'sleep', interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        crew(1).run([job(1, f'{code}; time.sleep(60)')])
    (seen,) = caught.value.args
    # A killed child stays known to the system until its parent asks for it.
    assert os.waitpid(int(seen[0]), 0)[1] == signal.SIGKILL
