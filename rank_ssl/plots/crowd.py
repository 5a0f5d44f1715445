"""Figures of counting: true and predicted density, true and predicted counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from rank_ssl.plots.parts import COLOURS, GREY, picture


def density_rows(
    images: Sequence[NDArray[Any]],
    truths: Sequence[NDArray[Any]],
    predictions: Sequence[NDArray[Any]],
    true_counts: Sequence[float],
    predicted_counts: Sequence[float],
    ids: Sequence[str],
) -> Figure:
    """Image, true and predicted density side by side, one row an image, with both counts (Fig. 6).

    Images are u8[H, W, 3], maps [h, w] in persons per cell. Both maps of a row have one colour
    scale, which starts at 0: a negative prediction shows as 0.
    """
    rows = list(zip(images, truths, predictions, strict=True))
    width = 3.4  # of a column, inches
    heights = [width * min(image.shape[0] / image.shape[1], 1.5) + 0.45 for image in images]
    figure = Figure(figsize=(3 * width + 0.9, sum(heights)), layout='constrained')
    grid = figure.add_gridspec(len(rows), 3, height_ratios=heights)
    for i, (image, truth, prediction) in enumerate(rows):
        if truth.shape != prediction.shape:
            raise ValueError(f'density maps of {ids[i]}: {truth.shape} and {prediction.shape}')
        axes = [figure.add_subplot(grid[i, j]) for j in range(3)]
        shown = {'vmin': 0, 'vmax': max(truth.max(), prediction.max(), 1e-6), 'cmap': 'inferno'}
        shape = image.shape[:2]
        picture(axes[0], image, _shortened(ids[i]))
        picture(axes[1], truth, f'true {_count(true_counts[i])}', shape=shape, **shown)
        picture(axes[2], prediction, f'predicted {predicted_counts[i]:.1f}', shape=shape, **shown)
        bar = figure.colorbar(axes[2].images[0], ax=axes, aspect=25, pad=0.01)
        bar.ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        bar.set_label('persons per cell', fontsize=9)
        bar.ax.tick_params(labelsize=9)
    return figure


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f'…{text[-39:]}'


def _count(value: float) -> str:
    return f'{value:.0f}' if float(value).is_integer() else f'{value:.1f}'


def counts(true: ArrayLike, predicted: ArrayLike, *, title: str, unit: str = 'persons') -> Figure:
    """Predicted against true values, one dot an image; the title gives MAE and MSE (eq. 20, 21).

    Both axes are logarithmic where all values are positive and span more than two decades.
    """
    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    figure = Figure(figsize=(5.2, 5.4), layout='constrained')
    axes = figure.add_subplot()
    error = y - x
    mae, mse = np.abs(error).mean(), np.sqrt(np.square(error).mean())
    axes.set_title(f'{title}\nMAE {mae:.3g}, MSE {mse:.3g} {unit}, n = {len(x)}', fontsize=11)
    both = np.concatenate([x, y])
    both = both[np.isfinite(both)]
    low, high = (both.min(), both.max()) if both.size else (0.0, 1.0)
    if low > 0 and high / low > 100:
        limits = (low / 1.3, high * 1.3)
        axes.set(xscale='log', yscale='log')
    else:
        margin = 0.05 * (high - low) or 1.0
        limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, linewidth=1, linestyle='--', zorder=1)
    axes.scatter(x, y, s=22, color=COLOURS[0], alpha=0.7, edgecolors='none', zorder=2)
    axes.set(xlim=limits, ylim=limits, xlabel=f'true, {unit}', ylabel=f'predicted, {unit}')
    axes.set_box_aspect(1)
    axes.grid(alpha=0.25)
    return figure
