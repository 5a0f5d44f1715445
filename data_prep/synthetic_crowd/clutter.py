"""Things that are not people; some look a little like heads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_prep.synthetic_crowd.canvas import Canvas, jitter, random_colour, shade

# Each paints one thing with its foot at (x, y); h is the height in px of a mean person there.
Painter = Callable[[np.random.Generator, Canvas, float, float, float], None]


def lamp(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A post with one or two round lamps."""
    post, tall = jitter(rng, (70, 72, 75), 25), h * rng.uniform(1.6, 2.6)
    canvas.line(x, y, x, y - tall, 0.05 * h, post)
    glass = jitter(rng, (235, 230, 210), 20)
    for side in (-1, 1) if rng.random() < 0.5 else (0,):
        canvas.line(x, y - tall, x + side * 0.18 * h, y - tall, 0.03 * h, post)
        canvas.ellipse(x + side * 0.18 * h, y - tall, 0.09 * h, 0.1 * h, glass)


def sign(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A round or square sign on a post, or a placard."""
    tall = h * rng.uniform(0.9, 1.7)
    canvas.line(x, y, x, y - tall, 0.035 * h, (120, 120, 122))
    colour = random_colour(rng)
    if rng.random() < 0.5:
        canvas.ellipse(x, y - tall, 0.13 * h, 0.13 * h, colour)
        canvas.ellipse(x, y - tall, 0.08 * h, 0.08 * h, (235, 235, 235))
    else:
        canvas.box(x - 0.2 * h, y - tall - 0.15 * h, x + 0.2 * h, y - tall + 0.13 * h, colour)


def bollard(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A post with a ball on top: much like a small person."""
    colour = jitter(rng, ((60, 60, 62), (160, 60, 50), (170, 165, 155))[rng.integers(3)], 20)
    tall = h * rng.uniform(0.35, 0.6)
    canvas.line(x, y, x, y - tall, 0.13 * h, colour)
    canvas.ellipse(x, y - tall, 0.085 * h, 0.085 * h, shade(colour, 1.2))


def stone(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """Litter, a stone or a bag on the ground."""
    colour = random_colour(rng)
    a, b = h * rng.uniform(0.05, 0.13), h * rng.uniform(0.04, 0.09)
    canvas.ellipse(x, y - b, a, b, colour, angle=rng.uniform(-40, 40))
    canvas.ellipse(x - 0.3 * a, y - 1.4 * b, 0.4 * a, 0.35 * b, shade(colour, 1.3))


def pigeon(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A bird on the ground: a body and a small round head."""
    gray = jitter(rng, (105, 108, 118), 35)
    side = rng.choice([-1, 1])
    canvas.ellipse(x, y - 0.06 * h, 0.1 * h, 0.05 * h, gray, angle=side * 15)
    canvas.ellipse(x + side * 0.08 * h, y - 0.12 * h, 0.035 * h, 0.035 * h, shade(gray, 0.7))


def balloons(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A bunch of balloons on strings: round, skin-sized and floating."""
    for _ in range(int(rng.integers(1, 7))):
        bx, by = x + rng.normal(0, 0.18) * h, y - rng.uniform(1.2, 1.9) * h
        colour, r = random_colour(rng), h * rng.uniform(0.07, 0.12)
        canvas.line(x, y - 0.7 * h, bx, by, 1, (200, 200, 200))
        canvas.ellipse(bx, by, r, 1.2 * r, colour)
        canvas.ellipse(bx - 0.3 * r, by - 0.4 * r, 0.25 * r, 0.3 * r, shade(colour, 1.5))


def tree(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A trunk and a crown of leaf clumps."""
    tall = h * rng.uniform(1.6, 3.2)
    canvas.line(x, y, x + rng.normal(0, 0.1) * h, y - tall, 0.16 * h, jitter(rng, (85, 65, 48), 18))
    leaf = jitter(rng, ((60, 95, 45), (110, 120, 50), (150, 100, 45))[rng.integers(3)], 20)
    for _ in range(int(rng.integers(14, 40))):
        r = h * rng.uniform(0.12, 0.4)
        cx, cy = x + rng.normal(0, 0.4) * h, y - tall + rng.normal(-0.2, 0.35) * h
        canvas.ellipse(cx, cy, r, r * 0.8, shade(leaf, rng.uniform(0.65, 1.35)))


def bush(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A low bush with flowers the size of far heads."""
    leaf = jitter(rng, (60, 95, 50), 25)
    flower = random_colour(rng)
    for _ in range(int(rng.integers(8, 22))):
        r = h * rng.uniform(0.06, 0.16)
        cx, cy = x + rng.normal(0, 0.25) * h, y - abs(rng.normal(0.12, 0.1)) * h
        canvas.ellipse(cx, cy, r, r, shade(leaf, rng.uniform(0.6, 1.4)))
        if rng.random() < 0.4:
            canvas.ellipse(cx, cy - 0.4 * r, 0.04 * h, 0.04 * h, flower)


def car(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A car or van from the side."""
    colour, glass = random_colour(rng), (60, 70, 80)
    half, tall = h * rng.uniform(1.0, 1.5), h * rng.uniform(0.75, 1.2)
    canvas.box(x - half, y - 0.55 * tall, x + half, y - 0.1 * h, colour)
    roof = [(x - 0.55 * half, y - tall), (x + 0.45 * half, y - tall)]
    canvas.polygon(
        [*roof, (x + 0.75 * half, y - 0.5 * tall), (x - 0.8 * half, y - 0.5 * tall)],
        shade(colour, 0.9),
    )
    for left, right in ((-0.6, -0.05), (0.05, 0.55)):
        canvas.box(x + left * half, y - 0.92 * tall, x + right * half, y - 0.58 * tall, glass)
    canvas.line(x - half, y - 0.5 * tall, x + half, y - 0.5 * tall, 0.03 * h, shade(colour, 1.3))
    for side in (-0.6, 0.6):
        canvas.ellipse(x + side * half, y - 0.12 * h, 0.18 * h, 0.18 * h, (28, 28, 30))
        canvas.ellipse(x + side * half, y - 0.12 * h, 0.09 * h, 0.09 * h, (150, 150, 152))


def parasol(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A parasol or umbrella with coloured gores."""
    tall, wide = h * rng.uniform(1.1, 1.6), h * rng.uniform(0.45, 0.9)
    colours = (random_colour(rng), jitter(rng, (235, 232, 225), 15))
    canvas.line(x, y, x, y - tall, 0.03 * h, (150, 140, 130))
    steps = np.linspace(180, 360, 7)
    for i, (start, end) in enumerate(zip(steps[:-1], steps[1:], strict=True)):
        canvas.ellipse(x, y - tall, wide, 0.35 * wide, colours[i % 2], arc=(start, end))


def stall(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A market stall with a striped roof and round goods."""
    half, tall = h * rng.uniform(0.7, 1.2), h * 1.3
    canvas.box(x - half, y - 0.5 * h, x + half, y, jitter(rng, (125, 95, 65), 25))
    goods = random_colour(rng)
    for gx in np.arange(x - 0.9 * half, x + 0.9 * half, 0.16 * h):
        canvas.ellipse(gx, y - 0.55 * h, 0.07 * h, 0.07 * h, jitter(rng, goods, 20))
    colours = (random_colour(rng), (230, 228, 222))
    edges = np.linspace(x - half, x + half, 7)
    for i, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        canvas.box(left, y - tall, right, y - tall + 0.28 * h, colours[i % 2])


def fence(rng: np.random.Generator, canvas: Canvas, x: float, y: float, h: float) -> None:
    """A crowd barrier of thin bars, or posts with knobs."""
    half, colour = h * rng.uniform(0.6, 1.6), jitter(rng, (165, 168, 172), 30)
    tall = 0.55 * h
    canvas.line(x - half, y - tall, x + half, y - tall, 0.035 * h, colour)
    canvas.line(x - half, y - 0.12 * h, x + half, y - 0.12 * h, 0.03 * h, colour)
    knobs = rng.random() < 0.3
    for px in np.arange(x - half, x + half + 1, (0.3 if knobs else 0.12) * h):
        canvas.line(px, y, px, y - tall, 0.02 * h, colour)
        if knobs:
            canvas.ellipse(px, y - tall, 0.055 * h, 0.055 * h, colour)


LARGE = frozenset({tree, car, parasol, stall})
"""Things that would hide the scene if they stood close to the camera."""

PAINTERS: tuple[tuple[Painter, float], ...] = (
    (lamp, 0.4), (sign, 0.6), (bollard, 1.0), (stone, 2.0), (pigeon, 1.2), (balloons, 0.5),
    (tree, 0.15), (bush, 0.5), (car, 0.12), (parasol, 0.3), (stall, 0.12), (fence, 0.3),
)  # fmt: skip
"""Each painter with its share of a scene's clutter: small things come in larger numbers."""
