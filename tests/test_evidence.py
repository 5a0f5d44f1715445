"""Paired runs as a command, and its table's arithmetic in closed form."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from rank_ssl import evidence, jobs
from rank_ssl.errors import UserError
from rank_ssl.evidence import make_table, settings
from rank_ssl.grid import Cell, make_cells
from tests.made_runs import BASE, TASK, TRUE, finish, made_cell

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def given(monkeypatch):
    """Sets flags of the grid."""
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(sys, 'argv', ['evidence.py', '--config=exp.py'])

    def choose(**values) -> None:
        for name, value in values.items():
            monkeypatch.setattr(flags.FLAGS[name], 'value', value)

    return choose


def test_the_table(tmp_path):
    cells = [
        made_cell(tmp_path, 'baseline', 0, np.full(8, 3.0), **{'best/val/mae': 6.0}),
        made_cell(tmp_path, 'multitask', 0, np.full(8, 1.0)),
        made_cell(tmp_path, 'baseline', 1, np.full(8, 5.0), **{'best/val/mae': 8.0}),
        made_cell(tmp_path, 'multitask', 1, np.full(8, 2.0), best_step=8),
    ]
    assert make_table(TASK, cells).splitlines() == [
        '| arm | seed | test mae | test mse | val mae | best step |',
        '| --- | --- | --- | --- | --- | --- |',
        '| baseline | 0 | 3.00 | 3.00 | 6.00 | 4 |',
        '| baseline | 1 | 5.00 | 5.00 | 8.00 | 4 |',
        '| **baseline** | 2 seeds | 4.00 ± 1.41 | 4.00 ± 1.41 | 7.00 ± 1.41 |  |',
        '| multitask | 0 | 1.00 | 1.00 | 7.00 | 4 |',
        '| multitask | 1 | 2.00 | 2.00 | 7.00 | 8 |',
        '| **multitask** | 2 seeds | 1.50 ± 0.71 | 1.50 ± 0.71 | 7.00 ± 0.00 |  |',
        '',
        'multitask - baseline: test/mae -2.50 (by seed -2.00, -3.00); 95 % over 2 seeds and 8 test '
        'images [-3.00, -2.00]: decided',
    ]


def test_a_table_of_one_arm_and_one_seed(tmp_path):
    lines = make_table(TASK, [made_cell(tmp_path, 'baseline', 0, np.ones(8))]).splitlines()
    assert lines[-1] == '| **baseline** | 1 seeds | 1.00 ± nan | 1.00 ± nan | 7.00 ± nan |  |'


@pytest.mark.parametrize('arms', [None, ['baseline', 'multitask']])
def test_the_program_from_finished_cells(tmp_path, given, capsys, arms):
    for arm, error in (('baseline', 3.0), ('multitask', 1.0)):
        made_cell(tmp_path, arm, 0, np.full(8, error))
    given(arms=arms, seeds=['0'])
    evidence.main(BASE, tmp_path)
    table = (tmp_path / 'table.md').read_text()
    for arm, line in zip(('baseline', 'multitask'), table.split('\n\n'), strict=False):
        assert line.startswith(f'{arm}: synthetic_crowd; ')
        for words in ('4 labeled', '8 for test', '224 px', '10 steps', '1 x cpu'):
            assert words in line
    assert 'multitask - baseline: test/mae -2.00' in table and 'fold' not in table
    assert capsys.readouterr().out == f'{table}\ntable, figure and runs in {tmp_path}\n'
    assert (tmp_path / 'paired.png').stat().st_size > 2000


def test_cells_run_at_once_as_asked(tmp_path, given, monkeypatch):
    asked = []
    monkeypatch.setattr(evidence, 'run_cells', lambda *cells, jobs: asked.append(jobs))
    made_cell(tmp_path, 'baseline', 0, np.ones(8))
    given(arms=['baseline'], seeds=['0'], jobs=3)
    evidence.main(BASE, tmp_path)
    assert asked == [3]


def test_folds_are_pooled_in_the_program(tmp_path, given, capsys):
    cells = make_cells(['baseline', 'multitask'], ['0', '1'], tmp_path, ['1', '2'])
    for cell in cells:
        error = cell.fold * (2.0 if cell.arm == 'baseline' else 1.0) + cell.seed
        true = TRUE if cell.fold == 1 else TRUE[:4]
        ids = [f'{cell.fold}/{n}' for n in range(len(true))]
        finish(cell, BASE, true + error, true=true, columns={'id': ids})
    given(seeds=['0', '1'], folds=['1', '2'])
    evidence.main(BASE, tmp_path)
    table = capsys.readouterr().out
    assert '12 for test in 2 folds' in table
    # (8 x 2 + 4 x 4) / 12, and 1 more with the other seed.
    assert '| baseline | 0 | 2.67 | 2.83 | 7.00 | 4, 4 |' in table
    assert '| baseline | 2 | 2.50 | 4.50 | 3.17 ± 0.71 |' in table
    assert '| multitask | 2 | 1.50 | 2.50 | 1.83 ± 0.71 |' in table
    assert 'test/mae -1.33 (by seed -1.33, -1.33); 95 % over 2 seeds and 12 test images' in table


def test_the_settings_of_each_arm_are_those_of_its_results(tmp_path):
    cells = [
        made_cell(tmp_path, arm, s, np.ones(8)) for s in (0, 1) for arm in ('wide', 'baseline')
    ]
    for cell, result in cells:
        result['config'] |= {'steps': 77, 'rank_weight': 0.5}
        result['config']['optim'] |= {'name': 'adam', 'rate': 3e-4}
        result['config']['data'] |= {'dataset': 'shanghaitech', 'part': 'part_B'}
        result['config']['model'] |= {'weights': 'none', 'width': 0.25}
        result['labeled_images'] = 30 if cell.arm == 'wide' else 31
        result['partial_data'] = cell.arm == 'wide'
    shared = '2 unlabeled images, 3 for validation, 8 for test; vgg16 of width 0.25 from scratch, '
    scale = '224 px; 77 steps of adam at 0.0003, reduction paper'
    frozen = f'{BASE.model.frozen_blocks} blocks frozen, '
    wide, baseline = settings(cells)
    assert wide == (
        f'wide: shanghaitech part_B (an incomplete copy); 30 labeled and {shared}{frozen}{scale}, '
        'margin 2, rank weight 0.5; 1 x cpu'
    )
    assert baseline == (
        f'baseline: shanghaitech part_B; 31 labeled and {shared}{frozen}{scale}; 1 x cpu'
    )


def test_what_was_run_on_other_data_than_the_rest_is_told(tmp_path, given, monkeypatch):
    given(seeds=['0'])
    made_cell(tmp_path, 'baseline', 0, np.ones(8), data_fingerprint='aaaa')
    monkeypatch.setattr(
        jobs.Crew,
        'run',
        lambda crew, asked: made_cell(
            tmp_path, 'multitask', 0, np.ones(8), data_fingerprint='bbbb'
        ),
    )
    with pytest.raises(UserError, match='were run on other data .data_fingerprint aaaa and bbbb'):
        evidence.main(BASE, tmp_path)


def test_a_run_that_ends_without_its_result_is_told(tmp_path, given, monkeypatch):
    given(arms=['baseline'], seeds=['0'])
    monkeypatch.setattr(jobs.Crew, 'run', lambda crew, asked: None)
    folder = tmp_path / 'baseline' / 'seed_0'
    with pytest.raises(UserError, match=f'{folder} holds no finished run: start the same command'):
        evidence.main(BASE, tmp_path)


@pytest.mark.slow
def test_the_grid_as_a_command(tmp_path):
    command = [
        *(sys.executable, '-m', 'rank_ssl.evidence', '--config=experiments/quickstart.py:smoke'),
        *('--arms=baseline,far:margin=5', '--seeds=0', f'--workdir={tmp_path}'),
    ]
    for cells in (2, 0):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count('== cell ') == cells
        assert 'far - baseline: test/mae ' in done.stdout
    config = json.loads((tmp_path / 'far' / 'seed_0' / 'config.json').read_text())
    assert (config['regime'], config['margin']) == ('multitask', 5)


def made_quality(workdir: Path, arm: str, seed: int, srocc: float) -> tuple[Cell, dict]:
    """A finished cell of image quality whose types score `srocc` and a tenth less."""
    cell, result = made_cell(workdir, arm, seed, np.arange(8.0))
    found = {'test/lcc': srocc, 'test/srocc': srocc}
    for name, kind, less in itertools.product(('lcc', 'srocc'), ('jpeg', 'white_noise'), (0.1,)):
        found[f'test/{name}/{kind}'] = srocc - less * (kind == 'jpeg')
    config = {**result['config'], 'data': {**result['config']['data'], 'dataset': 'tid2013_kodak'}}
    return cell, {**result, **found, 'config': config}


def test_quality_has_the_tables_of_the_paper(tmp_path):
    results = [made_quality(tmp_path, 'baseline', seed, 0.5 + seed / 5) for seed in (0, 1)]
    one, *by_kind = evidence.quality(results)
    assert '0.600' in one and '0.141' in one and '.612' in one
    assert all('0.500' in table and '0.600' in table for table in by_kind) and len(by_kind) == 2
    assert 're-made' in one
    columns = make_table(TASK, results).splitlines()[0]
    assert 'test srocc' in columns and 'jpeg' not in columns


def test_counting_has_no_tables_of_quality(tmp_path):
    assert evidence.quality([made_cell(tmp_path, 'baseline', 0, np.ones(8))]) == []
