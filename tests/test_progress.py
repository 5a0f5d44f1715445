"""The rate meter, the progress line, and what is said where nobody reads it."""

import io
import math
import os
import pty
import select
import subprocess
import sys

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_ssl import progress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_leaves_out_the_first_step_and_what_left_the_window():
    clock = Clock()
    meter = progress.RateMeter(window=3, clock=clock)
    assert math.isnan(meter.images_per_second)
    clock.now = 60.0
    meter.add(10)
    assert meter.images_per_second == pytest.approx(10 / 60)
    for seconds in (1.0, 2.0, 2.0, 1.0):
        clock.now += seconds
        meter.add(10)
    assert meter.images_per_second == pytest.approx(30 / 5)


def test_seconds_of_waiting_may_be_told():
    clock = Clock()
    meter = progress.RateMeter(clock=clock)
    for waited in (9.0, 1.0, 2.0):
        clock.now += 4.0
        meter.waited(waited)
        meter.add(5)
    assert meter.waiting_share == pytest.approx(3 / 8)  # the first step is left out


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0, '0:00'),
        (7.4, '0:07'),
        (59.6, '1:00'),
        (200, '3:20'),
        (3600, '1:00:00'),
        (2 * 86400 + 3 * 3600 + 4 * 60 + 5, '2 d 3:04:05'),
        (86400, '1 d 0:00:00'),
        (-1, '?'),
        (math.nan, '?'),
        (math.inf, '?'),
    ],
)
def test_format_duration(seconds, text):
    assert progress.format_duration(seconds) == text


@given(st.integers(0, 10**7))
def test_format_duration_says_every_second(seconds):
    *days, clock = progress.format_duration(seconds).split(' d ')
    total = 0
    for part in clock.split(':'):
        total = 60 * total + int(part)
    assert total + 86400 * sum(map(int, days)) == seconds


def test_a_progress_line_elsewhere_than_on_a_terminal():
    clock, stream = Clock(), io.StringIO()
    line = progress.Progress(400, start=100, stream=stream, clock=clock)
    clock.now = 20.0
    metrics = {
        'train/loss': 1.2345,
        'train/rank_accuracy': jnp.float32(0.93),
        'val/mae': math.nan,
        'train/waiting': 0.012,
    }
    line.line(110, 12.34, metrics)
    line.message('saved')
    line.close()
    assert stream.getvalue() == (
        'step 110/400 | 12.3 images/s | ETA 9:40 | loss 1.23 | rank accuracy 0.93 | val mae nan'
        ' | waiting 1.2 %\nsaved\n'
    )


def test_the_estimate_forgets_a_slow_start():
    clock, stream = Clock(), io.StringIO()
    line = progress.Progress(1000, stream=stream, clock=clock)
    clock.now = 500.0
    for step in range(1, 30):
        line.line(step, 1.0, {})
        clock.now += 1.0
    first, *_, last = stream.getvalue().splitlines()
    assert first.endswith('ETA 5 d 18:45:00')
    assert last.endswith(f'ETA {progress.format_duration(1000 - 29)}')


def test_a_terminal_shows_one_line_rewritten_and_cut_to_its_width():
    leader, follower = pty.openpty()
    with os.fdopen(follower, 'w') as stream:
        line = progress.Progress(10, stream=stream)
        line.line(1, 5.0, {f'train/metric_{i}': i for i in range(30)})
        line.line(2, 5.0, {})
        line.message('saved')
        shown = ''
        while not shown.endswith('saved\r\n'):  # a terminal hands over what it has so far
            assert select.select([leader], [], [], 30)[0], shown
            shown += os.read(leader, 10000).decode()
    os.close(leader)
    _, first, second = shown.split('\r\x1b[K')
    assert len(first) == 79 and first.startswith('step 1/10')
    assert second.startswith('step 2/10') and second.endswith('\r\nsaved\r\n')


RUN = """
import sys
from rank_ssl.progress import Progress
line = Progress(10000, stream={stream})
for step in range(10000):
    line.line(step, 1.0, {{'train/loss': 1.0}})
if {stream} is not None:
    print('another line', file={stream}, flush=True)
open(sys.argv[1], 'w').write('done')
"""


@pytest.mark.fault(
    row=21,
    injected='stdout or stderr closed by the reader',
    outcome='the run goes on',
)
@pytest.mark.parametrize('name', ['stdout', 'stderr'])
def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path, name):
    code = RUN.format(stream=f'sys.{name}')
    end = tmp_path / 'end'
    process = subprocess.Popen(
        [sys.executable, '-c', code, str(end)], **{name: subprocess.PIPE}, text=True
    )
    reader = getattr(process, name)
    assert reader.readline().startswith('step 0/10000')
    reader.close()
    assert process.wait(timeout=60) == 0
    assert end.read_text() == 'done'


SAYS = """
import sys
from rank_ssl import progress
progress.say('one')
sys.stdin.read()
for _ in range(1000):
    progress.say('more')
open(sys.argv[1], 'w').write('done')
"""


def test_what_is_said_ends_nothing_where_nobody_reads_it(tmp_path, capsys):
    progress.say('a line')
    assert capsys.readouterr() == ('', 'a line\n')
    end, pipe = tmp_path / 'end', subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, '-c', SAYS, end], stdin=pipe, stderr=pipe, text=True
    )
    assert process.stderr.readline() == 'one\n'
    process.stderr.close()
    process.stdin.close()
    assert process.wait(timeout=60) == 0 and end.read_text() == 'done'


@pytest.mark.fault(row=21, injected='started without stderr (2>&-)', outcome='the run goes on')
def test_a_closed_stream_does_not_end_the_run(tmp_path):
    end = tmp_path / 'end'
    code = RUN.format(stream='None')
    command = f"exec '{sys.executable}' -c \"$1\" '{end}' 2>&-"
    assert subprocess.run(['bash', '-c', command, 'bash', code], timeout=60).returncode == 0
    assert end.read_text() == 'done'
    stream = io.StringIO()
    line = progress.Progress(2, stream=stream)
    stream.close()
    line.line(1, 1.0, {})
