"""How much the ranking task still taught: a proxy that is solved gives no gradient."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rank_ssl import logs
from rank_ssl.report.parts import Results, head, row


def signal_table(results: Results) -> str:
    """Ranking in the second half of training by arm, mean over runs, as markdown; '' where none.

    The steps are those that were logged, and their pairs fresh ones: images that the step had not
    been trained on in these crops. Silent is a step whose pairs all keep the margin.
    """
    arms: dict[str, list[np.ndarray]] = {}
    for run, _ in results:
        for folder in getattr(run, 'folders', ()):
            found = _second_half(folder)
            if found is not None:
                arms.setdefault(run.arm, []).append(found)
    if not arms:
        return ''
    columns = ['arm', 'runs', 'ranking loss', 'silent steps', 'pairs in order']
    lines = head(columns)
    for arm, values in arms.items():
        loss, silent, accuracy = np.mean(values, axis=0)
        lines.append(row([arm, len(values), f'{loss:.3g}', f'{silent:.0%}', f'{accuracy:.3f}']))
    return '\n'.join(['**The ranking task in the second half of training**', '', *lines])


def _second_half(folder: pathlib.Path) -> np.ndarray | None:
    """Mean ranking loss, share of steps without one, and share of pairs in order. f64[3]."""
    for path in (folder / 'metrics.jsonl', folder / 'ranking' / 'metrics.jsonl'):
        rows = _ranked(logs.read_metrics(path)) if path.exists() else []
        if rows:
            last = rows[len(rows) // 2 :]
            loss = np.array([line['train/ranking'] for line in last])
            accuracy = np.mean([line['train/rank_accuracy'] for line in last])
            return np.array([loss.mean(), np.mean(loss == 0), accuracy])
    return None


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in rows if 'train/ranking' in line]
