"""Pristine images with what their ladders need, made in threads: order and bytes stay the same."""

from __future__ import annotations

import collections
import io
import itertools
import os
import pathlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from data_prep.source import BadFile, Item, Source, read_image

if TYPE_CHECKING:
    import numpy as np

# px: two blocks of JPEG. Larger images may still have equal JPEG2000 levels: up to about 130 px
# the last layers have hardly a byte of their own.
LEAST_SIDE = 16
UNCOMPRESSED = frozenset(('BMP', 'DIB', 'TIFF', 'PPM'))  # Pillow's names of what is kept as PNG


class Made(NamedTuple):
    """One example, its pixels u8[H, W, 3], the bytes of its image saved as PNG and three facts.

    `dropped`: something is not stored; `equal`: neighbouring JPEG2000 levels have equal pixels;
    `gray`: the channels are equal.
    """

    features: dict[str, Any]
    image: np.ndarray
    png_bytes: int
    dropped: bool
    equal: bool
    gray: bool


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
        self._dropped = self._equal = self._gray = 0

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._ahead.clear()
        if self._examples and exc[:1] == (None,):
            self.notes += self._facts()

    def _facts(self) -> list[str]:
        of = f'of {self._examples} images'
        facts = [
            f'ladders add {self._added} bytes to {self._examples} images of {self._as_png} '
            f'bytes as PNG ({100 * self._added / self._as_png:.0f} %)',
            f'{self._equal} {of} have neighbouring JPEG2000 levels with equal pixels, as small '
            f'ones may; {self._gray} {of} are gray, which saturation does not change',
        ]
        if self._dropped:
            facts.append(
                f'{self._dropped} {of} lack stored levels, as all would take no less than the '
                'image as PNG: these are made in training'
            )
        return facts

    def read(self, item: Item, split: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        made = self._take(item, index)
        self._examples += 1
        self._as_png += made.png_bytes
        self._added += sum(len(made.features[key]) for key in stored_keys())
        self._dropped += made.dropped
        self._equal += made.equal
        self._gray += made.gray
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
    try:
        costly = ladders.costly(image, item.id)
    except OSError as error:  # of Pillow's encoder
        raise BadFile(f'{path}: its levels were not encoded ({error})') from error
    stored = below(costly, len(png))
    features = {
        'image': png if _format(data) in UNCOMPRESSED else data,
        'id': item.id,
        'height': height,
        'width': width,
        **stored,
    }
    gray = bool((image == image[..., :1]).all())
    equal = _equal_levels(costly['jpeg2000'])
    return Made(features, image, len(png), stored != costly, equal, gray)


def below(costly: dict[str, bytes], limit: int) -> dict[str, bytes]:
    """What is stored: the largest are left empty until the sum is below `limit` bytes."""
    stored = dict(costly)
    for key in sorted(costly, key=lambda key: len(costly[key]), reverse=True):
        if sum(map(len, stored.values())) < limit:
            break
        stored[key] = b''
    return stored


def _equal_levels(stream: bytes) -> bool:
    """Whether two neighbouring levels of a JPEG2000 stream have equal pixels."""
    from rank_ssl.ops import codecs, ladders

    levels = [codecs.decode_layer(stream, k) for k in range(len(ladders.JPEG2000_RATIOS))]
    return any(bool((a == b).all()) for a, b in itertools.pairwise(levels))


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def _format(data: bytes) -> str | None:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.format
