"""Figures of image quality: true and predicted scores, and scores over the level of distortion."""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from rank_ssl.plots.parts import COLOURS, GREY

# 8 colours and 3 shapes: 24 kinds differ in one or both, neighbours in both.
KIND_COLOURS = (*COLOURS, '#56b4e9', '#4d4d4d')
MARKERS = ('o', '^', 's')
COLUMNS = 6  # panels in a row


def scores(true: ArrayLike, predicted: ArrayLike, kinds: Sequence[str], *, unit: str) -> Figure:
    """Predicted against true scores, one dot an image in the colour and shape of its kind.

    The title gives LCC and SROCC of all images (eq. 18, 19). Each axis has its own range, because
    the scores of a network that only ranked have a scale of their own; the dashed line is
    predicted = true. `kinds` is empty or has one text an image, '' where unknown.
    """
    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    names = np.asarray(kinds if len(kinds) else [''] * len(x), str)
    figure = Figure(figsize=(7.2 if names.any() else 5.2, 5.2), layout='constrained')
    axes = figure.add_subplot()
    for i, name in enumerate(np.unique(names)):
        some = names == name
        axes.scatter(
            x[some],
            y[some],
            s=20,
            color=KIND_COLOURS[i % len(KIND_COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            alpha=0.75,
            edgecolors='none',
            label=_words(name),
        )
    ranks = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
    lcc, srocc = _correlation(x, y), _correlation(*ranks)
    axes.set_title(f'LCC {lcc:.3f}, SROCC {srocc:.3f}, n = {len(x)}', fontsize=11)
    axes.set(xlim=_limits(x), ylim=_limits(y), xlabel=f'true, {unit}', ylabel=f'predicted, {unit}')
    axes.axline((0, 0), slope=1, color=GREY, linewidth=1, linestyle='--', zorder=0)
    axes.set_box_aspect(1)
    axes.grid(alpha=0.25)
    if names.any():
        figure.legend(loc='outside right upper', fontsize=8, frameon=False)
    return figure


def levels(
    scores: ArrayLike,
    levels: ArrayLike,
    kinds: Sequence[str],
    *,
    true: ArrayLike | None = None,
) -> Figure:
    """Mean predicted score at each level of distortion, one panel a kind; the band is a deviation.

    All panels share the scale at the left, and that of `true` at the right, whose means are dashed.
    A kind '' or of a single level is left out.
    """
    y, steps, names = np.asarray(scores, np.float64), np.asarray(levels), np.asarray(kinds, str)
    shown = [n for n in np.unique(names) if n and len(np.unique(steps[names == n])) > 1]
    columns = min(COLUMNS, max(len(shown), 1))
    rows = max(-(-len(shown) // columns), 1)
    size = max(1.8 * columns + 1.2, 4.0), 1.7 * rows + 0.9
    figure = Figure(figsize=size, layout='constrained')
    panels: list[Axes] = []
    for i, name in enumerate(shown):
        axes = figure.add_subplot(rows, columns, i + 1, sharey=panels[0] if panels else None)
        _level_line(axes, steps[names == name], y[names == name])
        axes.set_title(_words(name), fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=8, labelleft=i % columns == 0)
        if i % columns == 0:
            axes.set_ylabel('predicted', fontsize=9, color=COLOURS[0])
        axes.grid(alpha=0.25)
        panels.append(axes)
    if true is not None:
        values = np.asarray(true, np.float64)
        _true_lines(panels, [(steps[names == n], values[names == n]) for n in shown], columns)
    figure.supxlabel('level of distortion', fontsize=9)
    return figure


def _level_line(axes: Axes, steps: NDArray, values: NDArray) -> None:
    where, means, spread = _over_levels(steps, values)
    axes.fill_between(where, means - spread, means + spread, color=COLOURS[0], alpha=0.18, lw=0)
    axes.plot(where, means, color=COLOURS[0], marker='o', markersize=3.5, linewidth=1.4)


def _true_lines(
    panels: Sequence[Axes], groups: Sequence[tuple[NDArray, NDArray]], columns: int
) -> None:
    """Dashed means on a scale of their own, labelled at the right end of each row."""
    lines = [_over_levels(steps, values)[:2] for steps, values in groups]
    limits = _limits(np.concatenate([means for _, means in lines])) if lines else (0.0, 1.0)
    for i, (axes, (where, means)) in enumerate(zip(panels, lines, strict=True)):
        twin = axes.twinx()
        twin.plot(where, means, color=COLOURS[1], linestyle='--', marker='.', linewidth=1.4)
        last = i % columns == columns - 1 or i == len(panels) - 1
        twin.tick_params(labelsize=8, labelright=last, colors=COLOURS[1])
        twin.set_ylim(limits)
        if last:
            twin.set_ylabel('true', fontsize=9, color=COLOURS[1])


def _over_levels(steps: NDArray, values: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """The levels there are, and the mean and deviation at each."""
    where = np.unique(steps)
    groups = [values[steps == level] for level in where]
    return where, np.array([g.mean() for g in groups]), np.array([g.std() for g in groups])


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's correlation; nan where it is not defined."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _words(name: str) -> str:
    return name.replace('_', ' ') or 'unknown'
