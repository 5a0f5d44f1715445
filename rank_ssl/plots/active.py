"""Figures of active learning: the metric against the labels, and the certainties of the units."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from rank_ssl.plots.parts import COLOURS, GREY

MARKERS = ('o', 's', '^', 'D', 'v', 'P')
BINS = 20
COLUMNS = 5  # panels in a row
NAMES = ('pool', 'labeled')


def label_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    metric: str,
    lower_is_better: bool,
    full: Sequence[float] = (),
) -> Figure:
    """The metric against the labeled share in percent, a line a rule (Fig. 5, 7).

    A curve is its shares [P] and values [seeds, P]: the line is their mean, the bars are one
    deviation over seeds; of one seed there are dots alone. The dashed line and its band are the
    mean and deviation of `full`, by seed: a training with all labels.
    """
    figure = Figure(figsize=(7.4, 4.8), layout='constrained')
    axes = figure.add_subplot()
    for i, (name, (shares, values)) in enumerate(curves.items()):
        x, runs = 100 * np.asarray(shares, np.float64), np.asarray(values, np.float64)
        # Bars of two rules at one share stand side by side.
        moved = x + (i - (len(curves) - 1) / 2) * 0.35
        axes.errorbar(
            moved,
            runs.mean(0),
            yerr=runs.std(0, ddof=1) if len(runs) > 1 else None,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2.5,
            label=f'{name}, {_seeds(len(runs))}',
        )
    if len(full):
        _line(axes, np.asarray(full, np.float64))
    axes.set_xlabel('labeled, % of the training units')
    axes.set_ylabel(f'{metric} ({"lower" if lower_is_better else "higher"} is better)')
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    handles, names = axes.get_legend_handles_labels()
    if len(full):  # matplotlib names lines first, then those with bars
        handles, names = [*handles[1:], handles[0]], [*names[1:], names[0]]
    axes.legend(handles, names, fontsize=9, frameon=False)
    if any(len(np.asarray(values)) > 1 for _, values in curves.values()):
        axes.set_title('mean; bars: one deviation over seeds', fontsize=10)
    return figure


def _line(axes: Axes, values: NDArray) -> None:
    mean, label = float(values.mean()), f'all labels, {_seeds(len(values))}'
    axes.axhline(mean, color=GREY, linestyle='--', linewidth=1.4, label=label)
    if len(values) > 1:
        half = float(values.std(ddof=1))
        axes.axhspan(mean - half, mean + half, color=GREY, alpha=0.13, lw=0)


def _seeds(count: int) -> str:
    return f'{count} seed{"s" if count > 1 else ""}'


def certainty_histograms(panels: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Histograms of the certainty C of the pool and of the labeled units, a panel a cycle (eq. 15).

    A panel has the values of both, C in [0, 1], each of any number of units; nan is left out. Bars
    are shares of the pool, or of the labeled units; below the title stands what is at exactly 1.
    """
    found = {name: [_finite(part) for part in parts] for name, parts in panels.items()}
    every = np.concatenate([np.ones(1), *(part for parts in found.values() for part in parts)])
    low = min(math.floor(10 * every.min() + 1e-9) / 10, 0.8)
    # A value on an edge belongs to the bar above it, however it was rounded.
    edges = np.linspace(low, 1, BINS + 1) - 1e-9
    edges[-1] = 1 + 1e-9
    columns = min(len(found), COLUMNS) or 1
    rows = -(-len(found) // columns) or 1
    size = (max(2.5 * columns + 0.5, 4.2), 2.5 * rows + 0.5)
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, parts) in zip(grid.flat, found.items(), strict=False):
        _panel(axes, name, parts, edges)
    for axes in grid.flat[len(found) :]:
        axes.remove()
    handles = list(grid[0, 0].containers) if found else []
    figure.legend(
        handles,
        NAMES[: len(handles)],
        loc='outside upper center',
        ncols=2,
        fontsize=9,
        frameon=False,
    )
    figure.supxlabel('certainty C', fontsize=10)
    figure.supylabel('share of the units', fontsize=10)
    return figure


def _finite(values: ArrayLike) -> NDArray:
    found = np.asarray(values, np.float64).ravel()
    return found[np.isfinite(found)]


def _panel(axes: Axes, name: str, parts: Sequence[NDArray], edges: NDArray) -> None:
    weights = [np.full(len(part), 1 / max(len(part), 1)) for part in parts]
    axes.hist(list(parts), edges.tolist(), weights=weights, color=COLOURS[:2])
    ones = [
        f'{what} {np.mean(part == 1):.0%}'
        for what, part in zip(NAMES, parts, strict=True)
        if len(part)
    ]
    axes.set_title(f'{name}\nC = 1: {", ".join(ones)}', fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:.0%}'))
    axes.tick_params(labelsize=8, labelbottom=True)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
