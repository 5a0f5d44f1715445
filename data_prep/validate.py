"""Near-duplicate images: equal bytes, or close 64-bit dHash and alike thumbnails."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

HAMMING = 4  # of 64 bits
CORRELATION = 0.85  # of 64x64 grayscale thumbnails: true pairs of ShanghaiTech A have .89 and above
PAIRWISE_LIMIT = 20_000  # images; above, only equal bytes and equal hashes are compared
THUMBNAIL = 64


@dataclasses.dataclass(frozen=True)
class Duplicate:
    """Two examples that show one picture; `same_bytes` where the files are equal."""

    first: tuple[str, str]  # (split, id)
    second: tuple[str, str]
    same_bytes: bool

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return dataclasses.asdict(self)


def dhash(gray: np.ndarray) -> int:
    """64 bits: whether each of 8x8 cells is darker than its right neighbour. u8[H, W] -> int."""
    small = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), 'big')


def thumbnail(gray: np.ndarray) -> np.ndarray:
    """u8[64, 64], the whole image squeezed to a square."""
    return cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


class Validator:
    """Takes every example once, then lists the near-duplicates; 4 KiB of memory an image."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, str]] = []
        self.groups: list[str] = []
        self.digests: list[bytes] = []
        self.hashes: list[int] = []
        self.thumbnails: list[np.ndarray] = []

    def add(self, split: str, id: str, data: bytes, image: np.ndarray, *, group: str = '') -> None:
        """Remembers one example: its encoded bytes' digest and its u8[H, W, 3] pixels' hash.

        Within one `group` of a split (versions of one picture) only equal bytes count.
        """
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self.keys.append((split, id))
        self.groups.append(group)
        self.digests.append(hashlib.sha256(data).digest())
        self.hashes.append(dhash(gray))
        if len(self.keys) <= PAIRWISE_LIMIT:
            self.thumbnails.append(thumbnail(gray))

    def duplicates(self) -> list[Duplicate]:
        """All pairs of near-duplicates in the order of adding."""
        found = []
        for i, j in self._candidates():
            same = self.digests[i] == self.digests[j]
            if same or not self._related(i, j) and self._alike(i, j):
                found.append(Duplicate(self.keys[i], self.keys[j], same))
        return found

    def _candidates(self) -> Iterator[tuple[int, int]]:
        if len(self.keys) > PAIRWISE_LIMIT:
            return _equal_pairs(self.hashes)
        return close_pairs(np.array(self.hashes, np.uint64))

    def _related(self, i: int, j: int) -> bool:
        """Whether two examples are versions of one picture in the same split."""
        one_split = self.keys[i][0] == self.keys[j][0]
        return one_split and self.groups[i] == self.groups[j] != ''

    def _alike(self, i: int, j: int) -> bool:
        if len(self.keys) > PAIRWISE_LIMIT:
            return self.hashes[i] == self.hashes[j]
        a, b = (self.thumbnails[k].astype(np.float64).ravel() for k in (i, j))
        a, b = a - a.mean(), b - b.mean()
        scale = np.sqrt((a @ a) * (b @ b))
        return bool(scale > 0 and (a @ b) / scale >= CORRELATION)


def close_pairs(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Index pairs i < j whose hashes u64[N] differ in at most HAMMING bits."""
    for i in range(len(hashes) - 1):
        distance = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
        for j in np.flatnonzero(distance <= HAMMING):
            yield i, i + 1 + int(j)


def _equal_pairs(hashes: list[int]) -> Iterator[tuple[int, int]]:
    groups: dict[int, list[int]] = {}
    for i, value in enumerate(hashes):
        groups.setdefault(value, []).append(i)
    for group in groups.values():
        yield from itertools.pairwise(group)


def summary(duplicates: list[dict[str, Any]], *, shown: int = 10) -> list[str]:
    """One line per pair of splits, from `Duplicate.as_json` records.

    Such as '6 near-duplicates between train and test: IMG_2 = test IMG_173, ...'.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for duplicate in duplicates:
        groups.setdefault((duplicate['first'][0], duplicate['second'][0]), []).append(duplicate)
    return [_group_line(splits, group, shown) for splits, group in groups.items()]


def _group_line(splits: tuple[str, str], group: list[dict[str, Any]], shown: int) -> str:
    first, second = splits
    where = f'inside {first}' if first == second else f'between {first} and {second}'
    prefix = '' if first == second else f'{second} '
    names = [[d[key][1].rsplit('/', 1)[-1] for key in ('first', 'second')] for d in group[:shown]]
    pairs = [f'{a} = {prefix}{b}' for a, b in names]
    more = [f'{len(group) - shown} more'] if len(group) > shown else []
    noun = 'near-duplicate' if len(group) == 1 else 'near-duplicates'
    return f'{len(group)} {noun} {where}: {", ".join(pairs + more)}'
