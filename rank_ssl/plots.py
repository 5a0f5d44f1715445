"""Figures of a run: arrays in, a matplotlib Figure out, and `save` to write it as PNG.

Figures are made with matplotlib's objects alone: no window system, no global state, so threads and
processes may draw at the same time.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

# Seaborn's colour-blind palette: told apart in grey too.
COLOURS = ('#0173b2', '#de8f05', '#029e73', '#d55e00', '#cc78bc', '#ca9161')
GREY = '#6b6b6b'


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """The figure as a PNG, put in place in one step; missing folders are made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f'.{target.name}.{os.getpid()}')
    try:
        figure.savefig(temporary, format='png', dpi=120)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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
        _picture(axes[0], image, _shortened(ids[i]))
        _picture(axes[1], truth, f'true {_count(true_counts[i])}', shape=shape, **shown)
        _picture(axes[2], prediction, f'predicted {predicted_counts[i]:.1f}', shape=shape, **shown)
        bar = figure.colorbar(axes[2].images[0], ax=axes, aspect=25, pad=0.01)
        bar.ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        bar.set_label('persons per cell', fontsize=9)
        bar.ax.tick_params(labelsize=9)
    return figure


def _picture(
    axes: Axes, image: NDArray[Any], title: str, *, shape: tuple[int, ...] = (), **options: Any
) -> None:
    """The image in a frame of `shape`, (height, width) in px; its own where not given."""
    height, width = shape or image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), **options)
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()


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


def curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, ranking accuracy and validation metrics over the step, from metrics.jsonl's rows.

    A panel without any value is left out; NaN leaves a gap.
    """
    validation = dict.fromkeys(key for row in rows for key in row if key.startswith('val/'))
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


def ranked_set(
    image: NDArray[Any],
    images: Sequence[NDArray[Any]] | NDArray[Any],
    phi: ArrayLike,
    boxes: ArrayLike | None = None,
) -> Figure:
    """A source image and its K ranked images in order of phi, largest first (Fig. 2, 4).

    `boxes`, i[K, 4] as (y0, x0, y1, x1) in px of the source, are drawn on it.
    """
    values = np.asarray(phi, np.float64)
    order = np.argsort(-values, kind='stable')
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(order))]
    side = 2.0  # of a ranked image, inches
    height = 1.5 * side
    width = min(height * image.shape[1] / image.shape[0], 2.2 * height)
    figure = Figure(figsize=(width + side * len(order), height + 0.3))
    figure.set_layout_engine('constrained', w_pad=0.06, h_pad=0.06)  # inches: room for the frames
    ratios = [width] + [side] * len(order)
    axes = figure.subplots(1, len(order) + 1, width_ratios=ratios, squeeze=False)[0]
    _picture(axes[0], image, 'source')
    for i, k in enumerate(order):
        _picture(axes[i + 1], images[k], f'φ = {values[k]:g}'.replace('-', '\N{MINUS SIGN}'))
        if boxes is not None:
            y0, x0, y1, x1 = np.asarray(boxes)[k]
            h, w = images[k].shape[:2]
            _frame(axes[0], (x0, y0, x1, y1), colours[i])
            _frame(axes[i + 1], (0, 0, w, h), colours[i])
    return figure


def _frame(axes: Axes, corners: tuple[float, float, float, float], colour: str) -> None:
    x0, y0, x1, y1 = corners
    frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=2.5)
    frame.set_clip_on(False)  # else the half of a line that lies outside the image is missing
    axes.add_patch(frame)


def paired(arms: Mapping[str, Sequence[float]], *, metric: str, lower_is_better: bool) -> Figure:
    """One column of dots an arm, a line joining what one seed gave in each; the bars are means."""
    names = list(arms)
    table = np.array([arms[name] for name in names], np.float64)
    figure = Figure(figsize=(max(1.5 * len(names) + 1.6, 4.2), 4.2), layout='constrained')
    axes = figure.add_subplot()
    x = np.arange(len(names))
    for seed in table.T:
        axes.plot(x, seed, color=GREY, linewidth=1, alpha=0.6, zorder=1)
    for i, values in enumerate(table):
        colour = COLOURS[i % len(COLOURS)]
        axes.scatter(np.full(len(values), i), values, s=34, color=colour, zorder=3)
        axes.hlines(values.mean(), i - 0.22, i + 0.22, color=colour, linewidth=2.5, zorder=2)
    axes.set_xticks(x, [name.replace('_', ' ') for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    direction = 'lower' if lower_is_better else 'higher'
    axes.set_ylabel(f'{metric} ({direction} is better)')
    axes.set_title(f'{table.shape[1]} seeds; a line joins one seed, a bar is the mean', fontsize=10)
    axes.grid(axis='y', alpha=0.25)
    return figure
