"""The published ShanghaiTech files themselves; skipped where they are absent."""

import json
import pathlib

import pytest

LEAKS = {(2, 173), (121, 98), (60, 40), (139, 82), (154, 181), (97, 142)}
TWICE_IN_TRAIN = {(167, 169), (118, 283)}


def number(entry):
    return int(entry[1].rsplit('_', 1)[1])


def test_part_a_has_its_published_totals_and_leaks(real_data, run, read_back):
    code, out, err = run('shanghaitech', f'--manual_dir={real_data}')
    assert code == 0, err
    record, splits = read_back(out.strip())
    assert record['splits'] == {'train': 300, 'test': 182} and record['partial'] is False
    assert record['persons'] == {'train': 162_413, 'test': 78_862}
    assert record['outside'] == {'train': 0, 'test': 0}
    assert record['notes'] == record['bad_files'] == []  # no count differs from its points
    assert all(e['count'] == len(e['points']) for e in splits['train'] + splits['test'])
    found = {(d['first'][0], d['second'][0], number(d['first']), number(d['second']))
             for d in record['near_duplicates']}  # fmt: skip
    assert {(a, b) for s, t, a, b in found if (s, t) == ('train', 'test')} == LEAKS
    assert {(a, b) for s, t, a, b in found if (s, t) == ('train', 'train')} == TWICE_IN_TRAIN
    assert len(found) == len(LEAKS) + len(TWICE_IN_TRAIN)
    assert '6 near-duplicates between train and test: IMG_2 = test IMG_173' in err
    assert run('shanghaitech', f'--manual_dir={real_data}')[:2] == (0, out)


def test_the_part_of_part_b_is_refused_or_partial(real_data, run):
    manual_dir = f'--manual_dir={real_data}'
    code, _, err = run('shanghaitech', '--part=part_B', manual_dir)
    if code == 0:
        pytest.skip('part B is complete here')
    assert code == 2 and 'train 60 of 400, test 40 of 316' in err
    code, out, _ = run('shanghaitech', '--part=part_B', manual_dir, '--allow_partial')
    record = json.loads((pathlib.Path(out.strip()) / 'prepared.json').read_text())
    assert code == 0 and record['partial'] is True
    assert record['splits'] == {'train': 60, 'test': 40}
    assert sum(record['persons'].values()) == 12_938
    assert record['notes'] == record['bad_files'] == record['near_duplicates'] == []
