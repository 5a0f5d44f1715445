"""How informative the ranking task stayed, from made metrics."""

import json
from types import SimpleNamespace

from rank_ssl.report.signal import signal_table


def run(folder, arm, ranking, *, stage=''):
    """A run whose metrics.jsonl has a ranking loss and accuracy for each logged step."""
    place = folder / stage
    place.mkdir(parents=True)
    lines = [{'step': n, 'train/ranking': loss, 'train/rank_accuracy': 1 - loss / 10}
             for n, loss in enumerate(ranking, 1)]  # fmt: skip
    lines.insert(2, {'step': 2, 'val/mae': 3.0})
    (place / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return SimpleNamespace(arm=arm, seed=0, folders=(folder,)), {}


def test_the_second_half_by_arm_and_the_stage_of_ranking(tmp_path):
    tuned = run(tmp_path / 'c', 'finetune', [9, 4], stage='ranking')
    (tmp_path / 'c' / 'metrics.jsonl').write_text('{"step": 1, "train/regression": 2}\n')
    results = [
        run(tmp_path / 'a', 'multitask', [9, 9, 0, 2]),
        run(tmp_path / 'b', 'multitask', [9, 9, 0, 0]),
        tuned,
    ]
    lines = signal_table(results).splitlines()
    ours, tuned_line = lines[4:]
    assert ours == '| multitask | 2 | 0.5 | 75% | 0.950 |'
    assert tuned_line == '| finetune | 1 | 4 | 0% | 0.600 |'


def test_arms_that_rank_nothing_have_no_table(tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "train/regression": 2}\n')
    assert signal_table([(SimpleNamespace(arm='baseline', folders=(tmp_path,)), {})]) == ''
