"""Figures of training: curves of one run, and the paired metrics of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rank_ssl.plots.parts import COLOURS, GREY


def curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, ranking accuracy and validation metrics over the step, from metrics.jsonl's rows.

    A panel without any value is left out, and so are metrics of a part (val/srocc/jpeg); NaN
    leaves a gap.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    validation = [key for key in keys if key.startswith('val/') and key.count('/') == 1]
    panels = {
        'loss': 'train/loss',
        'regression loss': 'train/regression',
        'ranking loss': 'train/ranking',
        'ranking accuracy': 'train/rank_accuracy',
        **{f'validation {key[4:]}'.replace('_', ' '): key for key in validation},
    }
    panels = {title: key for title, key in panels.items() if _has_values(rows, key)}
    columns = 2 if len(panels) > 1 else 1
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 2.9 * max(height, 1)), layout='constrained')
    for i, (title, key) in enumerate(panels.items()):
        _curve(figure.add_subplot(height, columns, i + 1), rows, title, key)
    return figure


def _has_values(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(np.isfinite(row.get(key, np.nan)) for row in rows)


def _curve(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str, key: str) -> None:
    points = [(row['step'], row[key]) for row in rows if key in row]
    step, value = np.array(points, np.float64).T
    if len(step) > 200:
        # A hundred points wide: what the eye follows; the raw values stay behind it.
        width = max(len(step) // 100, 2)
        axes.plot(step, value, color=COLOURS[0], alpha=0.25, linewidth=0.7)
        axes.plot(*_means(step, value, width), color=COLOURS[0], linewidth=1.6)
    else:
        axes.plot(
            step, value, color=COLOURS[0], linewidth=1.4, marker='.' if len(step) < 50 else ''
        )
    axes.set_title(title, fontsize=11)
    axes.set_xlabel('step')
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def _means(
    step: NDArray[Any], value: NDArray[Any], width: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    whole = len(step) // width * width
    return step[:whole].reshape(-1, width).mean(1), value[:whole].reshape(-1, width).mean(1)


def paired(arms: Mapping[str, Sequence[float]], *, metric: str, lower_is_better: bool) -> Figure:
    """One column of dots an arm, a line joining what one seed gave in each; the bars are means.

    Where an arm lacks a seed, nan stands for it.
    """
    names = list(arms)
    table = np.array([arms[name] for name in names], np.float64)
    many = len(names) > 4
    width = 1.6 + (1.05 if many else 1.5) * len(names)
    figure = Figure(figsize=(max(width, 4.2), 4.2), layout='constrained')
    axes = figure.add_subplot()
    x = np.arange(len(names))
    for seed in table.T:
        axes.plot(x, seed, color=GREY, linewidth=1, alpha=0.6, zorder=1)
    for i, values in enumerate(table):
        colour = COLOURS[i % len(COLOURS)]
        axes.scatter(np.full(len(values), i), values, s=34, color=colour, zorder=3)
        axes.hlines(np.nanmean(values), i - 0.22, i + 0.22, color=colour, linewidth=2.5, zorder=2)
    axes.set_xticks(x, [name.replace('_', '\n' if many else ' ') for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    direction = 'lower' if lower_is_better else 'higher'
    axes.set_ylabel(f'{metric} ({direction} is better)')
    axes.set_title(f'{table.shape[1]} seeds; a line joins one seed, a bar is the mean', fontsize=10)
    axes.grid(axis='y', alpha=0.25)
    return figure
