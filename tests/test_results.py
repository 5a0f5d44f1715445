"""result.json is the last thing that a run writes: whatever ends it before is made up for."""

import importlib
import json
import os
import pickle
import resource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags

from rank_ssl import data, evaluate, logs, results
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from tests.ended_runs import CROWD, config_of, played

ROOT = Path(__file__).resolve().parent.parent


class Killed(BaseException):
    """What ends a run here as kill -9 does: nothing of the program sees it."""


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp('prepared'))


def smoke(data_dir: str) -> Config:
    """Two steps of the smoke form of counting crowds."""
    return config_of(CROWD, data__data_dir=data_dir, steps=2, figure_count=1)


@pytest.fixture
def play(prepared, in_process):
    """play(workdir): a run of `smoke` in this process."""

    def run(workdir: Path) -> None:
        played(smoke(prepared), workdir)

    return run


def rows_of_test(workdir: Path) -> list[dict]:
    rows = logs.read_metrics(workdir / 'metrics.jsonl')
    return [row for row in rows if 'test/mae' in row]


def assert_finished(workdir: Path) -> None:
    result = json.loads((workdir / 'result.json').read_text())
    assert [row['test/mae'] for row in rows_of_test(workdir)] == [result['test/mae']]
    assert 'figures_failed' not in result and result['steps'] == 2
    names = {path.name for path in (workdir / 'figures').iterdir()}
    assert {'curves.png', 'ranked_set.png', 'counts.png', 'density.png'} <= names
    assert len((workdir / 'predictions.csv').read_text().splitlines()) == 1 + 4


@pytest.mark.fault(
    row=1,
    injected='an end before the predictions, the row of the test, the figures and result.json',
    outcome='no result.json; the same command makes all of them',
)
@pytest.mark.parametrize('module, name', [
    pytest.param(evaluate.Evaluation, 'write_csv', marks=pytest.mark.slow),
    pytest.param(logs, 'write_last', marks=pytest.mark.slow),
    (results, 'draw'),
    (logs, 'write_json'),
])  # fmt: skip
def test_a_run_that_ends_between_its_results_is_not_finished(
    play, tmp_path, monkeypatch, capsys, module, name
):
    whole = getattr(module, name)

    def ends(*arguments):
        if name == 'write_json' and arguments[0] != tmp_path / 'result.json':
            return whole(*arguments)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(module, name, ends)
        play(tmp_path)
    assert not (tmp_path / 'result.json').exists()
    capsys.readouterr()
    play(tmp_path)
    assert 'nothing to do' not in capsys.readouterr().err
    assert_finished(tmp_path)
    play(tmp_path)
    assert 'nothing to do' in capsys.readouterr().err


@pytest.mark.fault(
    row=3,
    injected='RLIMIT_FSIZE below the size of a figure',
    outcome='an error with the path; with room again the figures come',
)
def test_a_disk_that_is_full_when_figures_are_drawn(play, tmp_path, monkeypatch, disk_limit):
    draw = results.draw

    def without_room(*arguments):
        disk_limit(100)
        try:
            draw(*arguments)
        finally:
            disk_limit(resource.RLIM_INFINITY)

    with monkeypatch.context() as patched, pytest.raises(UserError) as caught:
        patched.setattr(results, 'draw', without_room)
        play(tmp_path)
    assert str(caught.value) == (
        f'{tmp_path / "figures"}: cannot write (File too large): free disk space and start the '
        'same command again'
    )
    play(tmp_path)
    assert_finished(tmp_path)


def test_the_facts_of_a_run_name_its_skipped_updates(monkeypatch):
    monkeypatch.setattr(results, 'facts', lambda config, splits: {'seed': config.seed})
    run = SimpleNamespace(
        state=SimpleNamespace(skipped=np.int32(1)),
        seconds=2.00049,
        images_per_second=3.5,
        evaluator=SimpleNamespace(compiled_shapes=4),
        config=SimpleNamespace(seed=5),
        splits=None,
    )
    assert results.run_facts(run) == {
        'skipped_steps': 1,
        'seconds': 2.0,
        'images_per_second': 3.5,
        'compiled_eval_shapes': 4,
        'seed': 5,
    }


@pytest.mark.fault(
    row=15,
    injected='one bit of each prepared file flipped',
    outcome='one line with the folder and its cure, before anything compiles',
)
def test_prepared_data_that_are_damaged_are_told(prepared, play, tmp_path):
    data.prepare(smoke(prepared), str(tmp_path))
    (folder,) = (path.parent for path in Path(prepared).glob('**/prepared.json'))
    names = [path.name for path in folder.glob('*.array_record*')]
    assert len(names) == 2
    for name in (*names, 'features.json', 'dataset_info.json'):
        before = (folder / name).read_bytes()
        at = 200 if name in names else 0  # in the first record
        (folder / name).write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        try:
            with pytest.raises(UserError) as caught:
                play(tmp_path / name)
        finally:
            (folder / name).write_bytes(before)
        told = str(caught.value)
        assert told.startswith(f'{folder} is damaged (') and '\n' not in told
        assert told.endswith('): delete it, and it is prepared again')
        assert {path.name for path in (tmp_path / name).iterdir()} <= {'.lock', 'tiny'}


@pytest.mark.parametrize('workers', [0, 1])
def test_damage_that_is_met_while_batches_are_made_is_told_too(tmp_path, workers):
    config = importlib.import_module('experiments.quickstart').get_config('smoke')
    config.data.workers, config.data.data_dir = workers, str(tmp_path)
    flags.FLAGS.mark_as_parsed()
    prepared, _ = data.prepare(config, str(tmp_path))
    splits = data.load_splits(config, prepared, [])
    (path,) = Path(prepared.path).glob('*-train.array_record*')
    content = bytearray(path.read_bytes())
    content[200::500] = bytes(byte ^ 1 for byte in content[200::500])  # in each of its records
    os.replace(path, path.with_name('whole'))  # what is open stays as it is
    path.write_bytes(content)
    # A copy opens the files again.
    batches = data.Batches(config, pickle.loads(pickle.dumps(splits)), range(config.groups))
    iterator = data.BatchIterator(batches, config.data)
    try:
        with pytest.raises(UserError, match=f'^{prepared.path} is damaged .*: delete it, and it'):
            next(iterator)
    finally:
        iterator.close()
