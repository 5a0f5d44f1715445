"""Pristine images with what their ladders need, made in threads: order and bytes stay the same."""

from __future__ import annotations

import collections
import io
import os
import pathlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from data_prep.source import BadFile, Item, Source, read_image

if TYPE_CHECKING:
    import numpy as np

LEAST_SIDE = 16  # px; below, no codec at ladder rates leaves more than one flat colour
UNCOMPRESSED = frozenset(('BMP', 'DIB', 'TIFF', 'PPM'))  # Pillow's names of what is kept as PNG


class Made(NamedTuple):
    """One example, its pixels u8[H, W, 3] and the bytes of its image saved as PNG."""

    features: dict[str, Any]
    image: np.ndarray
    png_bytes: int


class LadderReader(Source):
    """A Source of pristine images whose `read` works ahead on as many threads as there are cores.

    OpenCV and Pillow, which do the work, let threads run at once. Subclasses list their examples
    through `_remember`, which gives `read` what comes next.
    """

    def __init__(self, config: str, folder: pathlib.Path | None, **options: int) -> None:
        super().__init__(config, folder, **options)
        self.cores = os.cpu_count() or 1
        self._items: list[Item] = []
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: collections.deque[Future[Made]] = collections.deque()
        self._next = 0
        self._added = self._as_png = self._examples = 0

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._ahead.clear()
        if self._examples and exc[:1] == (None,):
            self.notes.append(
                f'ladders add {self._added} bytes to {self._examples} images of {self._as_png} '
                f'bytes as PNG ({100 * self._added / self._as_png:.0f} %)'
            )

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        made = self._take(item, index)
        self._examples += 1
        self._as_png += made.png_bytes
        self._added += sum(len(made.features[key]) for key in stored_keys())
        return made.features, made.image

    def _remember(self, items: list[Item]) -> list[Item]:
        self._items = items
        return items

    def _take(self, item: Item, index: int) -> Made:
        """The example at `index`; those after it are begun meanwhile."""
        if self._next != index or self._items[index : index + 1] != [item]:
            return make(item)  # not in the listed order
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.cores)
        while len(self._ahead) <= self.cores and self._next + len(self._ahead) < len(self._items):
            following = self._items[self._next + len(self._ahead)]
            self._ahead.append(self._pool.submit(make, following))
        self._next += 1
        return self._ahead.popleft().result()


def stored_keys() -> tuple[str, ...]:
    """The features beside the image's own."""
    from rank_ssl.ops import ladders

    return ('jpeg2000', *ladders.DENOISED)


def make(item: Item) -> Made:
    """The features of one pristine image; raises BadFile."""
    from rank_ssl.ops import ladders

    if item.problem:
        raise BadFile(item.problem)
    path = item.files[0]
    data, image = read_image(path)
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise BadFile(f'{path}: {width}x{height} image has a side below {LEAST_SIDE} px')
    png = _png(image)
    features = {
        'image': png if _format(data) in UNCOMPRESSED else data,
        'id': item.id,
        'height': height,
        'width': width,
        **ladders.costly(image, item.id),
    }
    return Made(features, image, len(png))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def _format(data: bytes) -> str | None:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.format
