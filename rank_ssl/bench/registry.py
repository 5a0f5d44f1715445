"""The table of peers: which library makes which distortion, and what their code shares."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from rank_ssl.ops import images  # noqa: F401 (sets OpenCV to one thread)

Peer = Callable[[np.ndarray, float], np.ndarray]

LIBRARIES = {  # name in the tables -> module
    'OpenCV': 'cv2',
    'NumPy': 'numpy',
    'Pillow': 'PIL',
    'albumentations': 'albumentations',
    'imagecodecs': 'imagecodecs',
}
OPTIONAL = ('albumentations', 'imagecodecs')  # of the `bench` extra
PEERS: dict[str, dict[str, Peer]] = {}  # type of distortion -> library -> its peer

# Type -> the library that can't make quite the same distortion, and why.
UNLIKE = {
    'denoising': ('OpenCV', 'filters in CIELAB, with the windows of ours: up to 3 dB less clean'),
    'jpeg2000': ('OpenCV', 'no colour transform: 1 to 3 dB worse; sizes in whole 1/1000'),
    'live_jpeg2000': ('OpenCV', 'as its jpeg2000'),
    'colour_quantization': ('Pillow', 'median cut alone: 1 to 3 dB worse; refining takes longer'),
}

cv: Any = cv2  # its type stubs know no scalars
module = functools.cache(importlib.import_module)


def installed() -> list[str]:
    """The libraries of LIBRARIES that can be imported here."""
    return [name for name, package in LIBRARIES.items() if importlib.util.find_spec(package)]


def peer_of(library: str, *types: str) -> Callable[[Peer], Peer]:
    """Decorator that enters a function in PEERS as the library's peer for these types."""

    def add(peer: Peer) -> Peer:
        for name in types:
            PEERS.setdefault(name, {})[library] = peer
        return peer

    return add


@functools.cache
def buffer(shape: tuple[int, ...]) -> np.ndarray:
    """An array to write to again and again, float32 of this shape."""
    return np.empty(shape, np.float32)


def rounded(pixels: np.ndarray) -> np.ndarray:
    """The nearest uint8 pixels, of the same shape."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@functools.cache
def transform(name: str, **options: Any) -> Callable[..., dict[str, np.ndarray]]:
    """An albumentations transform that always applies."""
    return getattr(module('albumentations'), name)(p=1, **options)
