"""Figures of what training has reached after so many forwards."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from rank_ssl.plots.parts import COLOURS, GREY

NAMES = {'all': 'ours, all pairs', 'random': 'random pairs', 'hard': 'hard pairs'}
LEFT_OUT = 1.1  # a panel's top over what is reached after the first look: the start is far above


def convergence(
    forwards: ArrayLike,
    loss: Mapping[str, ArrayLike],
    accuracy: Mapping[str, ArrayLike],
    *,
    levels: int,
) -> Figure:
    """Mean hinge and share of pairs in order over the images forwarded, one line a pair sampler.

    Curves are [seeds, looks]: the line is their mean, the band from the lowest to the highest. The
    dashed line is all pairs in a two-branch network, whose steps are the same and take `levels` - 1
    times the forwards.
    """
    x = np.asarray(forwards, np.float64)
    figure = Figure(figsize=(10, 3.9), layout='constrained')
    left, right = figure.subplots(1, 2)
    for axes, curves in ((left, loss), (right, accuracy)):
        for i, (name, runs) in enumerate(curves.items()):
            _band(axes, x, np.asarray(runs, np.float64), COLOURS[i], NAMES.get(name, name))
        if 'all' in curves:
            mean = np.mean(np.asarray(curves['all'], np.float64), 0)
            label = f'two branches, all pairs (x {levels - 1})'
            axes.plot(x * (levels - 1), mean, color=GREY, linestyle='--', lw=1.3, label=label)
        axes.set_xlim(0, x[-1])
        axes.set_xlabel('images forwarded')
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(alpha=0.25)
    seeds = max(len(np.asarray(runs)) for runs in loss.values())
    title = f'mean hinge of all held-out pairs (band: {seeds} seeds)'
    left.set_title(title, fontsize=11)
    right.set_title('share of held-out pairs in order', fontsize=11)
    reached = [np.asarray(runs, np.float64)[:, 1:] for runs in loss.values()]
    left.set_ylim(0, LEFT_OUT * max(float(runs.max(initial=0)) for runs in reached) or 1)
    right.legend(loc='lower right', fontsize=9)
    return figure


def _band(axes: Axes, x: NDArray, runs: NDArray, colour: str, name: str) -> None:
    axes.fill_between(x, runs.min(0), runs.max(0), color=colour, alpha=0.15, lw=0)
    axes.plot(x, runs.mean(0), color=colour, linewidth=1.6, label=name)
