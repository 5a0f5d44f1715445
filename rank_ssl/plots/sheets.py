"""A contact sheet: small pictures in a grid, each with its lines of text."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

SHOWN = 60  # pictures at most: ten rows
COLUMNS = 6
SIDE = 1.75  # of a picture's square, inches
GAP, LINE, TOP = 0.12, 0.17, 0.42  # inches: between squares, of a line of text, of the title
LONGEST = 26  # characters of a line that fit below a picture


def sheet(
    images: Sequence[NDArray[Any]], captions: Sequence[str], *, title: str = '', total: int = 0
) -> Figure:
    """The first 60 images, u8[H, W, 3] of any sizes, row by row; captions of any number of lines.

    Where that are not all, or not all of `total`, the title says so.
    """
    if len(images) != len(captions):
        raise ValueError(f'{len(images)} images and {len(captions)} captions')
    total = max(total, len(images))
    images, texts = images[:SHOWN], [_short(caption) for caption in captions[:SHOWN]]
    if len(images) < total:
        title = f'{title} (the first {len(images)} of {total})'.lstrip()
    columns = min(len(images), COLUMNS) or 1
    rows = -(-len(images) // columns)
    below = LINE * max((text.count('\n') + 1 for text in texts), default=0)
    width = max(columns, 3) * (SIDE + GAP) + GAP
    height = rows * (SIDE + below + GAP) + GAP + TOP
    figure = Figure(figsize=(width, height))
    figure.text(GAP / width, 1 - TOP / 2 / height, title, va='center', fontsize=11)
    for n, (image, text) in enumerate(zip(images, texts, strict=True)):
        left = GAP + n % columns * (SIDE + GAP)
        bottom = height - TOP - (n // columns + 1) * (SIDE + below + GAP) + below + GAP
        box = (left / width, bottom / height, SIDE / width, SIDE / height)
        axes = figure.add_axes(box, anchor='S')  # pictures stand on their captions
        axes.imshow(image)
        axes.set_axis_off()
        middle = (left + SIDE / 2) / width
        top = (bottom - 0.03) / height
        figure.text(middle, top, text, ha='center', va='top', fontsize=8, parse_math=False)
    return figure


def _short(caption: str) -> str:
    """Each line by its end where it is too long: there a path's name stands."""
    lines = caption.split('\n')
    return '\n'.join(s if len(s) <= LONGEST else f'…{s[1 - LONGEST :]}' for s in lines)
