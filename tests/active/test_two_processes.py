"""Active learning by two processes that work as one, as hosts of a pod do."""

import json
import signal
from pathlib import Path

import pytest

from tests.topologies import ended, start_two, wait_until

QUICK = 'active_quickstart.py:smoke'
# The two agree within a second or so on the step that they end with: there must be one left.
FIELDS = ('--config.active.cycles=1', '--config.figure_count=0', '--config.steps=80')


@pytest.mark.slow
@pytest.mark.fault(
    row=2,
    injected='SIGTERM to the second of two processes in the second cycle of active learning',
    outcome='the same command labels the same and ends with the same bits',
)
def test_two_processes_that_were_stopped_label_the_same(tmp_path):
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    for code, told in ended(start_two(QUICK, whole, *FIELDS)):
        assert code == 0, told
    running = start_two(QUICK, stopped, *FIELDS)
    wait_until(running, (stopped / 'cycle_1' / 'checkpoints' / '2').exists)
    running[1].send_signal(signal.SIGTERM)
    assert [code for code, _ in ended(running)] == [128 + signal.SIGTERM] * 2
    for code, told in ended(start_two(QUICK, stopped, *FIELDS)):
        assert code == 0 and 'cycle 0 is finished' in told, told
    assert (stopped / 'acquired.csv').read_bytes() == (whole / 'acquired.csv').read_bytes()
    assert curve(stopped) == curve(whole)


def curve(workdir: Path) -> list[dict]:
    return json.loads((workdir / 'result.json').read_text())['curve']
