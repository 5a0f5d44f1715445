"""kill -9 at random instants, many of them inside a save: the end is that of an unbroken run."""

from pathlib import Path

import pytest

from tests.ended_runs import (
    CROWD,
    STEPS,
    Process,
    assert_every_step_once,
    command,
    killed,
    result_of,
    sha256_of,
    whole_checkpoints,
)

OUTCOME = 'the same command ends with the same bits; no step twice or missing, nothing left over'


def finish(workdir: Path, data_dir: Path, steps: int) -> None:
    code, told = Process(command(workdir, data_dir, steps), workdir).wait()
    assert code == 0, told


def assert_equal_runs(found: Path, straight: Path, steps: int) -> None:
    assert sha256_of(found) == sha256_of(straight)
    names = ('test/mae', 'best/val/mae', 'best_step', 'final/val/mae')
    assert [result_of(found)[n] for n in names] == [result_of(straight)[n] for n in names]
    assert_every_step_once(found, steps)
    assert whole_checkpoints(found)
    # The second marks the images that a smoke run makes for itself.
    assert {path.name for path in found.rglob('.*')} <= {'.lock', '.tiny.json'}


@pytest.mark.fault(row=1, injected='3 kills at seeded instants, saving at every step',
                   outcome=OUTCOME)  # fmt: skip
def test_a_killed_run_ends_as_if_it_had_not_been(smoke_run, tmp_path, record_property):
    straight = smoke_run(CROWD).workdir
    inside = killed(tmp_path, straight / 'data', steps=STEPS, kills=3, seed=0)
    record_property('measured', f'{inside} of 3 kills fell inside a save')
    finish(tmp_path, straight / 'data', STEPS)
    assert_equal_runs(tmp_path, straight, STEPS)
    assert inside


@pytest.mark.slow
@pytest.mark.fault(row=1, injected='20 kills at seeded instants, saving at every step',
                   outcome=OUTCOME)  # fmt: skip
def test_20_kills_change_nothing(smoke_run, tmp_path, record_property):
    data_dir, steps = smoke_run(CROWD).workdir / 'data', 24
    straight, broken = tmp_path / 'straight', tmp_path / 'broken'
    finish(straight, data_dir, steps)
    inside = killed(broken, data_dir, steps=steps, kills=20, seed=1)
    record_property('measured', f'{inside} of 20 kills fell inside a save')
    finish(broken, data_dir, steps)
    assert_equal_runs(broken, straight, steps)
    assert inside >= 5
