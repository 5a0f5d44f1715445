"""A canvas that remembers which thing each pixel shows, so that hidden heads are not counted."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

SUBPIXEL = 4  # bits of OpenCV's fixed-point coordinates
Colour = tuple[int, int, int]
CLUTTER = -1


def _fixed(*values: float) -> list[int]:
    return [round(value * (1 << SUBPIXEL)) for value in values]


class Canvas:
    """Pixels u8[H, W, 3] and their owners i16[H, W].

    An owner is a person's number from 1, CLUTTER, or 0 for the ground.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = np.ascontiguousarray(pixels)
        self.owners = np.zeros(pixels.shape[:2], np.int16)
        self.owner = CLUTTER

    def ellipse(
        self,
        x: float,
        y: float,
        a: float,
        b: float,
        colour: Colour,
        *,
        angle: float = 0.0,
        arc: tuple[float, float] = (0.0, 360.0),
    ) -> None:
        """A filled ellipse with half axes a, b px; `arc` in degrees from +x, clockwise."""
        centre, axes = _fixed(x, y), _fixed(max(a, 0.3), max(b, 0.3))
        for target, value in ((self.pixels, colour), (self.owners, self.owner)):
            cv2.ellipse(target, centre, axes, angle, *arc, value, -1, cv2.LINE_8, SUBPIXEL)

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """A filled convex polygon of (x, y) px."""
        corners = np.array([_fixed(x, y) for x, y in points], np.int32)
        for target, value in ((self.pixels, colour), (self.owners, self.owner)):
            cv2.fillConvexPoly(target, corners, value, cv2.LINE_8, SUBPIXEL)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A filled upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def line(
        self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour
    ) -> None:
        """A straight stroke `width` px wide."""
        start, end, thickness = _fixed(x0, y0), _fixed(x1, y1), max(1, round(width))
        for target, value in ((self.pixels, colour), (self.owners, self.owner)):
            cv2.line(target, start, end, value, thickness, cv2.LINE_8, SUBPIXEL)


@dataclasses.dataclass(frozen=True)
class Camera:
    """A view of flat ground.

    A person's height in px grows linearly from 0 at the horizon to `near` at the lower edge.
    """

    height: int
    width: int
    horizon: float  # row; may lie above the image
    near: float  # px
    pitch: float  # 0 level view to 1 steep view from above, which shortens bodies but not heads

    def person(self, y: float | np.ndarray) -> float | np.ndarray:
        """Height in px of an upright person of mean size whose feet are at row y."""
        return self.near * (y - self.horizon) / (self.height - self.horizon)

    def row(self, person: float) -> float:
        """The row at which a mean person is that many px high."""
        return self.horizon + person / self.near * (self.height - self.horizon)


def jitter(rng: np.random.Generator, colour: Colour, amount: int) -> Colour:
    """The colour with each channel moved by up to `amount`."""
    moved = np.asarray(colour) + rng.integers(-amount, amount + 1, 3)
    r, g, b = np.clip(moved, 0, 255).tolist()
    return r, g, b


def shade(colour: Colour, factor: float) -> Colour:
    """The colour times a brightness factor."""
    r, g, b = (min(255, int(channel * factor)) for channel in colour)
    return r, g, b


def random_colour(rng: np.random.Generator) -> Colour:
    """A clothing or paint colour: often dull, sometimes vivid."""
    hue, saturation = rng.uniform(0, 180), rng.beta(1.2, 2.0) * 255
    value = rng.uniform(30, 245)
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    r, g, b = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return r, g, b
