"""People drawn with clothing, hair, hats and gait; the head's centre is the annotation."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.synthetic_crowd.canvas import Camera, Canvas, Colour, jitter, random_colour, shade

SKIN: tuple[Colour, ...] = (
    (236, 200, 175), (222, 178, 145), (198, 150, 115), (160, 112, 80), (115, 78, 55), (80, 54, 40),
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (25, 22, 22), (45, 33, 26), (80, 55, 35), (130, 95, 55), (190, 160, 105), (150, 148, 145),
    (110, 50, 30),
)  # fmt: skip
SIMPLE_BELOW = 26  # canvas px of height below which limbs are not seen


@dataclasses.dataclass(frozen=True)
class Person:
    """One person: feet at (x, y), `height` px tall on the canvas."""

    x: float
    y: float
    height: float
    head_x: float
    head_y: float
    radius: float  # half the head's width, px


def stand(rng: np.random.Generator, camera: Camera, x: float, y: float) -> Person:
    """A person of random size with feet at (x, y)."""
    size = float(np.clip(rng.normal(1.0, 0.09), 0.6, 1.25))
    if rng.random() < 0.07:
        size *= rng.uniform(0.5, 0.75)  # a child
    full = float(camera.person(y)) * size
    height = full * (1 - 0.45 * camera.pitch)
    radius = full * rng.uniform(0.066, 0.08) * (1 + 0.15 * camera.pitch)
    lean = rng.normal(0, 0.03) * height
    return Person(x, y, height, x + lean, y - height + radius * 1.2, radius)


def draw(
    rng: np.random.Generator, canvas: Canvas, person: Person, *, cheer: float, light: float
) -> None:
    """Paints one person.

    `cheer` is the chance of raised arms, `light` the side the light comes from, -1 to 1.
    """
    top = random_colour(rng)
    trousers = jitter(
        rng, ((40, 42, 60), (55, 50, 48), (90, 85, 80), (30, 30, 32))[rng.integers(4)], 18
    )
    skin = jitter(rng, SKIN[rng.integers(len(SKIN))], 10)
    if person.height >= SIMPLE_BELOW:
        _legs(rng, canvas, person, trousers)
        _torso(rng, canvas, person, top, light)
        _arms(rng, canvas, person, top, skin, cheer)
    else:
        _small_body(canvas, person, top, trousers)
    _head(rng, canvas, person, skin, light)


def _small_body(canvas: Canvas, person: Person, top: Colour, trousers: Colour) -> None:
    h, x = person.height, person.x
    canvas.box(x - 0.07 * h, person.y - 0.45 * h, x + 0.07 * h, person.y, trousers)
    canvas.ellipse(x, person.y - 0.6 * h, 0.13 * h, 0.26 * h, top)


def _legs(rng: np.random.Generator, canvas: Canvas, person: Person, colour: Colour) -> None:
    h, x, y = person.height, person.x, person.y
    step = abs(rng.normal(0, 0.07)) * h
    hip = y - 0.48 * h
    for side in (-1, 1):
        tone = shade(colour, 1.0 if side < 0 else 0.8)
        canvas.line(
            x + side * 0.05 * h, hip, x + side * (0.05 * h + step), y - 0.02 * h, 0.09 * h, tone
        )
        canvas.ellipse(x + side * (0.06 * h + step), y, 0.055 * h, 0.025 * h, (30, 28, 28))


def _torso(
    rng: np.random.Generator, canvas: Canvas, person: Person, colour: Colour, light: float
) -> None:
    h, x = person.height, person.x
    shoulder_y, neck_x = person.head_y + person.radius * 1.75, (person.x + 2 * person.head_x) / 3
    shoulder, hip = h * rng.uniform(0.115, 0.15), h * rng.uniform(0.08, 0.12)
    bottom = person.y - h * (
        rng.uniform(0.15, 0.38) if rng.random() < 0.25 else rng.uniform(0.42, 0.48)
    )
    if bottom > person.y - 0.4 * h:
        hip *= rng.uniform(1.0, 1.5)  # a coat or a dress
    canvas.ellipse(neck_x, shoulder_y + 0.05 * h, shoulder, 0.07 * h, colour)
    outline = [
        (neck_x - shoulder, shoulder_y + 0.05 * h),
        (neck_x + shoulder, shoulder_y + 0.05 * h),
    ]
    canvas.polygon([*outline, (x + hip, bottom), (x - hip, bottom)], colour)
    lit, dark = shade(colour, 1.25), shade(colour, 0.7)
    left, right = (lit, dark) if light < 0 else (dark, lit)
    canvas.line(
        neck_x - 0.75 * shoulder, shoulder_y + 0.06 * h, x - 0.75 * hip, bottom, 0.04 * h, left
    )
    canvas.line(
        neck_x + 0.75 * shoulder, shoulder_y + 0.06 * h, x + 0.75 * hip, bottom, 0.04 * h, right
    )
    extra = rng.random()
    if extra < 0.15:  # a backpack or a bag
        canvas.ellipse(neck_x, shoulder_y + 0.17 * h, shoulder * 0.75, 0.12 * h, random_colour(rng))
    elif extra < 0.25:  # a stripe, a vest or a badge
        canvas.line(neck_x - 0.8 * shoulder, shoulder_y + 0.16 * h, neck_x + 0.8 * shoulder,
                    shoulder_y + 0.16 * h, 0.05 * h, random_colour(rng))  # fmt: skip


def _arms(
    rng: np.random.Generator,
    canvas: Canvas,
    person: Person,
    sleeve: Colour,
    skin: Colour,
    cheer: float,
) -> None:
    h = person.height
    neck_x = (person.x + 2 * person.head_x) / 3
    y = person.head_y + person.radius * 1.9 + 0.05 * h
    for side in (-1, 1):
        x = neck_x + side * 0.125 * h
        if rng.random() < cheer:
            hand = (x + side * rng.uniform(0, 0.12) * h, y - rng.uniform(0.2, 0.4) * h)
        else:
            hand = (x + side * rng.uniform(-0.05, 0.08) * h, y + rng.uniform(0.22, 0.36) * h)
        elbow = ((x + hand[0]) / 2 + side * 0.03 * h, (y + hand[1]) / 2)
        canvas.line(x, y, *elbow, 0.065 * h, shade(sleeve, 0.85))
        canvas.line(*elbow, *hand, 0.05 * h, skin if rng.random() < 0.5 else shade(sleeve, 0.8))
        canvas.ellipse(*hand, 0.025 * h, 0.025 * h, skin)


def _head(
    rng: np.random.Generator, canvas: Canvas, person: Person, skin: Colour, light: float
) -> None:
    x, y, r = person.head_x, person.head_y, person.radius
    tall = r * 1.22
    hair = jitter(rng, HAIR[rng.integers(len(HAIR))], 12)
    canvas.line(x, y, x, y + tall * 1.3, 0.9 * r, shade(skin, 0.75))
    facing = rng.random()
    if facing < 0.4:  # from behind
        canvas.ellipse(x, y, r, tall, hair if rng.random() < 0.92 else skin)
        canvas.ellipse(x, y - 0.45 * r, 0.5 * r, 0.4 * r, shade(hair, 1.35))
    else:
        long_hair = rng.random() < 0.3
        if long_hair:
            canvas.ellipse(x, y + 0.35 * r, 1.15 * r, tall * 1.15, hair)
        canvas.ellipse(x, y, r, tall, skin)
        dark_side = -np.sign(light) or 1
        canvas.ellipse(x + dark_side * 0.55 * r, y + 0.1 * r, 0.4 * r, 0.8 * tall, shade(skin, 0.8))
        turn = 0.0 if facing < 0.75 else rng.choice([-50.0, 50.0])
        canvas.ellipse(x, y - 0.12 * r, 1.05 * r, tall, hair, angle=turn, arc=(185, 355))
        if r > 5 and turn == 0:
            for side in (-1, 1):
                canvas.ellipse(x + side * 0.38 * r, y + 0.1 * r, 0.13 * r, 0.1 * r, (35, 28, 25))
    if rng.random() < 0.22:
        _hat(rng, canvas, person)


def _hat(rng: np.random.Generator, canvas: Canvas, person: Person) -> None:
    x, y, r = person.head_x, person.head_y, person.radius
    colour = random_colour(rng)
    kind = rng.random()
    canvas.ellipse(x, y - 0.25 * r, 1.1 * r, 1.05 * r, colour, arc=(180, 360))
    if kind < 0.4:  # brim all round
        canvas.ellipse(x, y - 0.3 * r, rng.uniform(1.4, 1.9) * r, 0.3 * r, shade(colour, 0.85))
    elif kind < 0.7:  # peak to one side
        side = rng.choice([-1, 1])
        canvas.ellipse(x + side * 0.8 * r, y - 0.25 * r, 0.8 * r, 0.2 * r, shade(colour, 0.7))
    elif kind < 0.85:  # scarf round the face
        canvas.ellipse(x, y + 0.9 * r, 1.15 * r, 0.6 * r, colour)
