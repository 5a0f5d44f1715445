"""Table 3: the numbers of seen and unseen types against arithmetic by hand."""

from pathlib import Path

import numpy as np
import pytest

from rank_ssl import compare, metrics
from rank_ssl.predictions import Values
from tests.made_runs import QUALITY, cells_of, finish, tabulated

pytestmark = pytest.mark.usefixtures('given')

KINDS = ['white_noise', 'jpeg', 'rain', 'white_noise'] * 4
SCORES = np.arange(16.0)


def run_table3(workdir: Path) -> dict[tuple[str, int], np.ndarray]:
    """Finished cells of Table 3; what each predicted."""
    rng = np.random.default_rng(1)
    made = {}
    for cell in cells_of(QUALITY, 'table3', workdir):
        width = {'baseline': 9, 'types_7': 5, 'types_11': 3}.get(cell.arm, 1)
        made[cell.arm, cell.seed] = SCORES + width * rng.normal(size=16)
        columns = {'kind': KINDS, 'reference': list('aaaabbbbccccdddd')}
        finish(cell, QUALITY, made[cell.arm, cell.seed], true=SCORES, columns=columns)
    return made


def test_table_3_has_seen_and_unseen_types_apart_and_claims_by_the_papers_metric(
    tmp_path, given, capsys
):
    made = run_table3(tmp_path)
    given(table='table3')
    text = tabulated(QUALITY, tmp_path, capsys)
    row = next(line for line in text.splitlines() if line.startswith('| types_7 | 2 '))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    kinds = np.array(KINDS)

    def lcc(arm: str, where: np.ndarray) -> np.ndarray:
        return np.array([metrics.lcc(made[arm, s][where], SCORES[where]) for s in (0, 1)])

    def told(values: np.ndarray, sign: str = '') -> str:
        return f'{values.mean():{sign}.3f} ± {values.std(ddof=1):.3f}'

    seen = kinds == 'white_noise'  # jpeg is the eighth type
    gains = [lcc('types_7', where) - lcc('baseline', where) for where in (seen, ~seen)]
    by_type = [lcc('types_7', kinds == k) - lcc('baseline', kinds == k) for k in ('jpeg', 'rain')]
    assert cells == [
        'types_7', '2', told(lcc('types_7', SCORES >= 0)), '0.803',
        told(lcc('types_7', seen)), told(gains[0], '+'), told(gains[0], '+'), '+0.102',
        told(lcc('types_7', ~seen)), told(gains[1], '+'), told(np.mean(by_type, 0), '+'), '+0.016',
    ]  # fmt: skip
    assert "in the order of TID2013's numbers: the paper does not name its sets" in text
    words = next(line for line in text.splitlines() if line.startswith('- types_7 ranks white '))
    assert 'gaussian blur, denoising; the test images have none of colour noise, high' in words
    assert '; unseen there: jpeg, rain; ' in words
    references = np.repeat(list('abcd'), 4)
    for name, where, gain in (('seen', seen, gains[0]), ('unseen', ~seen, gains[1])):
        pairs = [
            tuple(
                Values(SCORES[where], made[arm, s][where], SCORES[where], references[where])
                for arm in ('baseline', 'types_7')
            )
            for s in (0, 1)
        ]
        low, high = compare.interval(QUALITY.task, pairs, name='lcc')
        assert (
            f'; gain on {name} types {gain.mean():+.3f}, 95 % over 2 seeds and 4 references of 8 '
            f'images [{low:+.3f}, {high:+.3f}]'
        ) in words
    ours = np.mean([
        metrics.lcc(made['types_7', s], SCORES) - metrics.lcc(made['baseline', s], SCORES)
        for s in (0, 1)
    ])  # fmt: skip
    assert f'- types_7 better than baseline: paper +0.116, ours {ours:+.3f} [' in text
    assert "**The paper's order by LCC** on TID2013" in text


def test_table_3_leaves_out_a_seed_that_its_baseline_lacks(tmp_path, given, capsys):
    made = run_table3(tmp_path)
    (tmp_path / 'baseline' / 'seed_0' / 'result.json').unlink()
    given(table='table3', arms=['baseline', 'types_7'])
    text = tabulated(QUALITY, tmp_path, capsys)
    value = metrics.lcc(made['types_7', 1], SCORES)
    assert f'| types_7 | 1 | {value:.3f} | 0.803 |' in text


def test_a_set_without_unseen_types_has_no_number_of_them(tmp_path, given, capsys):
    run_table3(tmp_path)
    for path in tmp_path.glob('*/*/predictions.csv'):
        path.write_text(path.read_text().replace('rain', 'jpeg'))
    given(table='table3')
    text = tabulated(QUALITY, tmp_path, capsys)
    row = next(line for line in text.splitlines() if line.startswith('| types_all | 2 '))
    assert row.endswith('|  |  |  | +0.075 |')
    words = next(line for line in text.splitlines() if line.startswith('- types_all ranks '))
    assert '; unseen there: none; gain on seen' in words and 'gain on unseen' not in words


def test_table_3_without_its_baseline_has_no_gains(tmp_path, given, capsys):
    run_table3(tmp_path)
    given(table='table3', arms=['types_7', 'types_all'])
    text = tabulated(QUALITY, tmp_path, capsys)
    assert 'unseen' not in text and '| types_7 | 2 |' in text
