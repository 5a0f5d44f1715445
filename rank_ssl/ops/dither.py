"""Few colours with Floyd-Steinberg error diffusion."""

import numpy as np
from PIL import Image

_GRID = 32  # at least so many samples a side, and fewer than twice as many, make the palette


def quantize(image: np.ndarray, colours: int, *, rows: int | None = None) -> np.ndarray:
    """The image in at most `colours` (2..256) colours, dithered, uint8 [rows or H, W, 3].

    The palette is the k-means refinement of Pillow's median cut over a regular grid of the image's
    pixels. The error of each pixel goes to its right and lower neighbours (7, 3, 5, 1 of 16), row
    by row: `rows` gives the first rows alone, equal to those of the whole image.
    """
    if not 2 <= colours <= 256:
        raise ValueError(f'{colours=} must lie in 2..256')
    palette = _palette(image, colours)
    part = Image.fromarray(image[:rows])
    dithered = part.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    return np.array(dithered.convert('RGB'))


def _palette(image: np.ndarray, colours: int) -> Image.Image:
    step_y, step_x = (max(1, side // _GRID) for side in image.shape[:2])
    grid = Image.fromarray(np.ascontiguousarray(image[::step_y, ::step_x]))
    return grid.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=1)
