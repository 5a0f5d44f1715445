"""What all figures share: colours, one picture in its frame, and the writing of a file."""

import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

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


def picture(
    axes: Axes, image: NDArray[Any], title: str, *, shape: tuple[int, ...] = (), **options: Any
) -> None:
    """The image in a frame of `shape`, (height, width) in px; its own where not given."""
    height, width = shape or image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), **options)
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()
