"""The metrics file, TensorBoard, and files that are replaced as a whole."""

import errno
import json
import math
import os
import re
import resource
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from rank_ssl import logs
from rank_ssl.errors import UserError


def steps_of(path):
    return [row['step'] for row in logs.read_metrics(path)]


def test_lines_are_json_objects_with_the_step_first_and_on_disk_at_once(tmp_path):
    with logs.MetricsLog(tmp_path, resume_step=None) as log:
        log.write(3, {'train/loss': np.float32(0.5), 'train/pairs': jnp.asarray(40)})
        text = (tmp_path / 'metrics.jsonl').read_text()
    assert text == '{"step": 3, "train/loss": 0.5, "train/pairs": 40}\n'


def test_numbers_that_json_lacks_are_null_and_read_as_nan(tmp_path):
    with logs.MetricsLog(tmp_path, resume_step=None) as log:
        log.write(0, {'a': math.nan, 'b': math.inf, 'c': np.float32('-inf'), 'd': 1.5})
    path = tmp_path / 'metrics.jsonl'

    def refuse(word):
        raise AssertionError(f'{word} is not JSON')

    row = json.loads(path.read_text(), parse_constant=refuse)
    assert row == {'step': 0, 'a': None, 'b': None, 'c': None, 'd': 1.5}
    (read,) = logs.read_metrics(path)
    assert math.isnan(read['a']) and math.isnan(read['b']) and read['d'] == 1.5


def test_a_resumed_run_drops_later_steps_and_a_torn_line(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    with logs.MetricsLog(tmp_path, resume_step=None) as log:
        for step in range(6):
            log.write(step, {'train/loss': step / 2})
    before = path.read_bytes().splitlines(keepends=True)
    with path.open('a') as file:
        file.write('{"step": 6, "train/l')
    with logs.MetricsLog(tmp_path, resume_step=3) as log:
        assert path.read_bytes() == b''.join(before[:4])
        log.write(4, {'train/loss': 9.0})
    assert steps_of(path) == [0, 1, 2, 3, 4]


def test_a_fresh_run_does_not_keep_an_older_runs_lines(tmp_path):
    for _ in range(2):
        with logs.MetricsLog(tmp_path, resume_step=None) as log:
            log.write(0, {'train/loss': 1.0})
    assert steps_of(tmp_path / 'metrics.jsonl') == [0]


def test_read_metrics_leaves_out_a_torn_last_line_and_refuses_a_broken_one(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert steps_of(path) == [0, 1]
    for broken in ('nothing', '[1]', '{"loss": 1}', '{"step": null}'):
        path.write_text(f'{{"step": 0}}\n{broken}\n{{"step": 1}}\n')
        with pytest.raises(UserError, match=r'metrics\.jsonl, line 2 is not'):
            logs.read_metrics(path)


def board_events(folder: Path):
    """Every event of every file; a record is length u64, crc u32, the event, crc u32."""
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], 'little')
            yield event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16


def test_tensorboard_gets_the_finite_numbers_and_learns_of_the_resumption(tmp_path):
    with logs.MetricsLog(tmp_path, resume_step=7) as log:
        log.write(8, {'train/loss': 0.25, 'val/mae': math.nan})
    events = list(board_events(tmp_path / 'tensorboard'))
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert scalars == [(8, 'train/loss', 0.25)]
    assert [e.step for e in events if e.HasField('session_log')] == [8]


def test_write_json_takes_arrays_paths_and_what_is_not_finite(tmp_path):
    path = tmp_path / 'result.json'
    value = {'a': np.arange(3), 'b': jnp.float32(0.5), 'c': [math.nan, (1, None)], 'd': Path('x')}
    logs.write_json(path, value)
    assert json.loads(path.read_text()) == {
        'a': [0, 1, 2],
        'b': 0.5,
        'c': [None, [1, None]],
        'd': 'x',
    }


def test_write_json_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / 'result.json'
    logs.write_json(path, {'old': 1})

    def full_disk(_):
        raise OSError(errno.EROFS, 'Read-only file system')

    with monkeypatch.context() as patched, pytest.raises(UserError) as caught:
        patched.setattr(os, 'fsync', full_disk)
        logs.write_json(path, {'new': 1})
    assert str(caught.value) == (
        f'{path}: cannot write 15 bytes (Read-only file system): make its folder one that can be '
        'written to and start the same command again'
    )
    with pytest.raises(TypeError):
        logs.write_json(path, {'new': object()})
    assert json.loads(path.read_text()) == {'old': 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ['result.json']


FULL = '.File too large.: free disk space and start the same command again'


@pytest.mark.fault(
    row=3,
    injected='RLIMIT_FSIZE while metrics.jsonl is written',
    outcome='an error with path and bytes; with room again no line is lost, cut off or twice',
)
@pytest.mark.parametrize('scalars, which', [(1, 'tensorboard'), (40, 'metrics.jsonl')])
def test_a_full_disk_is_told_with_path_and_bytes(tmp_path, disk_limit, scalars, which):
    # A number that JSON has no word for is 4 bytes there and none in TensorBoard's file.
    row = {'a': 0.5} if which == 'tensorboard' else {f'name_{n}': math.nan for n in range(scalars)}
    path, told = tmp_path / 'metrics.jsonl', None
    with logs.MetricsLog(tmp_path, resume_step=None) as log:
        disk_limit(2000)
        for step in range(1000):
            try:
                log.write(step, row)
            except UserError as error:
                told = str(error)
                break
        disk_limit(resource.RLIM_INFINITY)
    assert re.fullmatch(f'{tmp_path / which}: cannot write [0-9]+ bytes {FULL}', told)
    assert 0 < step < 100
    with logs.MetricsLog(tmp_path, resume_step=step - 1) as log:
        assert steps_of(path) == list(range(step))
        log.write(step, row)
    assert steps_of(path) == list(range(step + 1))


def test_files_that_are_replaced_are_told_too_and_stay(tmp_path, disk_limit):
    path = tmp_path / 'metrics.jsonl'
    for step in range(30):
        logs.write_last(path, step, {f'test/{step}': 1.0})
    before = path.read_bytes()
    disk_limit(len(before))
    with pytest.raises(UserError, match=f'{path}: cannot write [0-9]+ bytes {FULL}'):
        logs.write_last(path, 30, {'test/30': 1.0})
    disk_limit(resource.RLIM_INFINITY)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


def test_a_line_is_on_disk_before_the_next_step(tmp_path, monkeypatch):
    synced = []
    with logs.MetricsLog(tmp_path, resume_step=None) as log:
        sync = os.fsync
        monkeypatch.setattr(os, 'fsync', lambda n: (synced.append(os.fstat(n).st_ino), sync(n)))
        log.write(0, {'train/loss': 1.0})
        assert (tmp_path / 'metrics.jsonl').stat().st_ino in synced


def test_a_json_file_is_an_object_or_told(tmp_path):
    path = tmp_path / 'result.json'
    assert logs.read_json(path, cure='mend it') is None
    path.write_text('{"é": [1, null]}', encoding='utf-8')
    assert logs.read_json(path, cure='mend it') == {'é': [1, None]}
    for content, fault in (
        (b'', 'cannot be read .Expecting value.*'),
        (b'{"a": 1', 'cannot be read .Expecting .*'),
        (b'\xff{}', 'cannot be read .*'),
        (b'[' * 100_000, 'cannot be read .*recursion.*'),
        (b'[1]', 'holds no JSON object'),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f'^{path} {fault}: mend it$') as caught:
            logs.read_json(path, cure='mend it')
        assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match='cannot be read .Is a directory.: mend it'):
        logs.read_json(tmp_path, cure='mend it')


def test_the_last_line_stands_once_whatever_stood_before(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    logs.write_last(path, 3, {})
    assert not path.exists()
    with logs.MetricsLog(tmp_path, resume_step=None) as log:
        log.write(3, {'train/loss': 0.5})
        log.write(3, {'val/mae': 2.0})
    before = path.read_text()
    with path.open('a') as file:
        file.write('{"step": 4, "tr')  # of a killed run
    for step, mae in ((3, 7.0), (3, math.nan), (8, 6.0)):
        logs.write_last(path, step, {'test/mae': np.float32(mae), 'test/mse': 8})
        last = {'step': step, 'test/mae': None if math.isnan(mae) else mae, 'test/mse': 8}
        assert path.read_text() == f'{before}{json.dumps(last)}\n'
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ['metrics.jsonl']
