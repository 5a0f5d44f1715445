"""What the tests of figures share."""

import io

import numpy as np
from PIL import Image


def drawn(figure):
    """The figure's pixels, u8[H, W, 3]; nothing that it shows is cut off at its edge."""
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=60)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
    return np.asarray(Image.open(file).convert('RGB'))
