"""Crowd scenes in perspective with head points: ground, clutter and people painted far to near."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from data_prep.synthetic_crowd import backgrounds, clutter, light, people
from data_prep.synthetic_crowd.canvas import CLUTTER, Camera, Canvas

SUPERSAMPLING = 2
QUALITY = 90  # JPEG
MAX_COUNT = 250
EMPTY_SHARE = 0.04
VISIBLE = 0.35  # share of a head's pixels that must be seen for it to be annotated
LARGE_AT_MOST = 0.25  # of the image's height: mean person beside a car, a tree or a stall
SHAPES = ((192, 256), (216, 288), (240, 320), (224, 256), (240, 240))  # (H, W) px


def image_rng(seed: int, split: int, index: int) -> np.random.Generator:
    """The generator of one image: it depends on nothing but its arguments."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, split, index]))


def draw_shape(rng: np.random.Generator) -> tuple[int, int]:
    """An image size (H, W) px."""
    return SHAPES[rng.integers(len(SHAPES))]


def draw_count(rng: np.random.Generator) -> int:
    """A long-tailed number of persons to place, 0 to MAX_COUNT, median 40."""
    if rng.random() < EMPTY_SHARE:
        return 0
    return int(np.clip(rng.lognormal(np.log(40), 0.95), 1, MAX_COUNT))


def encode(image: np.ndarray, *, gray: bool = False) -> bytes:
    """JPEG bytes of u8[H, W, 3]."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    (picture.convert('L') if gray else picture).save(buffer, 'JPEG', quality=QUALITY)
    return buffer.getvalue()


def draw(
    rng: np.random.Generator, shape: tuple[int, int], *, count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A scene u8[H, W, 3] and the heads seen in it, f64[P, 2] as (x, y) px inside the image.

    `count` persons are placed where there is room; a head that is mostly hidden is not annotated.
    """
    count = draw_count(rng) if count is None else count
    camera = make_camera(rng, shape, count)
    crowd = place(rng, camera, count)
    things = place_clutter(rng, camera)
    night = rng.random() < 0.12
    sun = (rng.uniform(-0.9, 0.9), rng.uniform(-0.25, 0.3))
    pixels = backgrounds.paint(rng, camera)
    feet = [(person.x, person.y, person.height) for person in crowd]
    feet += [(x, y, 0.5 * h) for _, x, y, h in things]
    if rng.random() < 0.7 and feet:
        pixels = light.cast_shadows(rng, pixels, np.array(feet), sun)
    canvas = Canvas(pixels)
    _paint(rng, canvas, crowd, things, lit_from=-sun[0])
    small = cv2.resize(canvas.pixels, shape[::-1], interpolation=cv2.INTER_AREA)
    image = light.relight(rng, small, horizon=camera.horizon / camera.height, night=night)
    return light.expose(rng, image, night), visible_heads(canvas.owners, crowd) / SUPERSAMPLING


def make_camera(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Camera:
    """A random view; large crowds are seen from somewhat further away."""
    height, width = shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING
    pitch = float(rng.uniform(0, 1))
    horizon = height * (rng.uniform(0.25, 0.45) - 0.75 * pitch)
    far = 0.55 * (60 / (60 + count)) ** 0.45
    near = height * float(np.clip(far * rng.lognormal(0, 0.3), 0.13, 0.6))
    return Camera(height, width, float(horizon), near, pitch)


def place(rng: np.random.Generator, camera: Camera, count: int) -> list[people.Person]:
    """Persons in groups and alone, heads half a head apart, each with its head in the image."""
    smallest = 12 * SUPERSAMPLING
    lowest = camera.height + 0.5 * camera.near
    highest = min(max(camera.row(smallest), camera.horizon + 2), 0.85 * camera.height)
    pull = rng.uniform(-0.5, 1.3)  # how strongly the crowd gathers far away
    centres = rng.uniform(0, 1, (int(rng.integers(1, 6)), 2))
    gathered, spread = rng.uniform(0, 1), rng.uniform(0.05, 0.25)
    placed: list[people.Person] = []
    for _ in range(count * 12):
        if len(placed) == count:
            break
        x, depth = rng.uniform(0, 1, 2)
        if rng.random() < gathered:
            x, depth = centres[rng.integers(len(centres))] + rng.normal(0, spread, 2)
        if not (0 <= x <= 1 and 0 <= depth <= 1):
            continue
        y = highest + (lowest - highest) * depth ** np.exp(pull)
        person = people.stand(rng, camera, x * camera.width, float(y))
        if _fits(camera, placed, person):
            placed.append(person)
    return placed


def _fits(camera: Camera, placed: list[people.Person], person: people.Person) -> bool:
    inside = 1 <= person.head_x < camera.width - 1 and 1 <= person.head_y < camera.height - 1
    if not inside:
        return False
    for other in placed:
        gap = max(person.radius, other.radius) * 1.1 + 1.5
        if abs(other.head_x - person.head_x) < gap and abs(other.head_y - person.head_y) < gap:
            return False
    return True


def place_clutter(
    rng: np.random.Generator, camera: Camera
) -> list[tuple[clutter.Painter, float, float, float]]:
    """(painter, x, y, person height) of each thing: few kinds, from none to over a hundred."""
    kinds = rng.choice(len(clutter.PAINTERS), int(rng.integers(1, 6)), replace=False)
    amount = float(rng.gamma(1.0, 22.0))
    highest = max(camera.row(9 * SUPERSAMPLING), camera.horizon + 2, 0)
    things = []
    for kind in kinds:
        painter, share = clutter.PAINTERS[kind]
        for _ in range(min(int(rng.poisson(amount * share)), 120)):
            y = highest + (1.05 * camera.height - highest) * rng.uniform(0, 1) ** 1.3
            h, x = float(camera.person(y)), rng.uniform(0, 1) * camera.width
            if painter not in clutter.LARGE or h < LARGE_AT_MOST * camera.height:
                things.append((painter, x, y, h))
    return things


def _paint(
    rng: np.random.Generator,
    canvas: Canvas,
    crowd: list[people.Person],
    things: list[tuple[clutter.Painter, float, float, float]],
    *,
    lit_from: float,
) -> None:
    """Paints all from far to near; persons own their pixels by number, from 1."""
    cheer = float(rng.choice([0.03, 0.08, 0.5], p=[0.5, 0.35, 0.15]))
    order: list[tuple[float, int, clutter.Painter | None]]
    order = [(person.y, i, None) for i, person in enumerate(crowd)]
    order += [(y, i, painter) for i, (painter, _, y, _) in enumerate(things)]
    for _, i, painter in sorted(order, key=lambda entry: entry[0]):
        if painter is None:
            canvas.owner = i + 1
            people.draw(rng, canvas, crowd[i], cheer=cheer, light=lit_from)
        else:
            canvas.owner = CLUTTER
            _, x, y, h = things[i]
            painter(rng, canvas, x, y, h)


def visible_heads(owners: np.ndarray, crowd: list[people.Person]) -> np.ndarray:
    """Canvas points f64[P, 2] of the heads of which at least VISIBLE is seen."""
    points = []
    for number, person in enumerate(crowd, start=1):
        r = max(1, round(person.radius))
        x, y = int(person.head_x), int(person.head_y)
        window = owners[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1]
        if (window == number).mean() >= VISIBLE:
            points.append((person.head_x, person.head_y))
    return np.array(points, np.float64).reshape(-1, 2)
