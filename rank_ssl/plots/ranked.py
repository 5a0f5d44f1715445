"""Figures of the data pipeline: images of known order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from rank_ssl.plots.parts import COLOURS, picture


def ranked_set(
    image: NDArray[Any],
    images: Sequence[NDArray[Any]] | NDArray[Any],
    phi: ArrayLike,
    boxes: ArrayLike | None = None,
    *,
    name: str = 'source',
) -> Figure:
    """A source image and its K ranked images in order of phi, largest first (Fig. 2, 4).

    `name` stands above the source. `boxes`, i[K, 4] as (y0, x0, y1, x1) in px of the source, are
    drawn on it.
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
    picture(axes[0], image, name)
    for i, k in enumerate(order):
        picture(axes[i + 1], images[k], f'φ = {values[k]:g}'.replace('-', '\N{MINUS SIGN}'))
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


def ladders(
    image: NDArray[Any],
    chains: Mapping[str, Sequence[NDArray[Any]] | NDArray[Any]],
    captions: Mapping[str, Sequence[str]],
) -> Figure:
    """One row a chain (Fig. 2): the pristine `image` under the chain's name, then its levels.

    `chains` are u8[K, h, w, 3] of any K, `captions` their K texts. Squares of 1.6 inches, so the
    figure of 19 chains with four levels is 8 by 35 inches.
    """
    side, gap, text = 1.6, 0.06, 0.24  # inches
    first = min(side * image.shape[1] / image.shape[0], 2 * side)
    longest = max((len(made) for made in chains.values()), default=0)
    width = first + longest * (side + gap) + 2 * gap
    height = max(len(chains), 1) * (side + text) + gap
    figure = Figure(figsize=(width, height))
    for row, (name, made) in enumerate(chains.items()):
        bottom = height - (row + 1) * (side + text)
        titles = [name.replace('_', ' '), *captions[name]]
        left = gap
        for shown, title in zip([image, *made], titles, strict=True):
            wide = side if left > gap else first
            axes = figure.add_axes((left / width, bottom / height, wide / width, side / height))
            axes.imshow(shown)
            axes.set_axis_off()
            axes.set_title(title, fontsize=9, pad=3, fontweight='normal' if left > gap else 'bold')
            left += wide + gap
    return figure
