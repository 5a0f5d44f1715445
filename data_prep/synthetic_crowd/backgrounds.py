"""Ground in perspective, sky and what stands on the horizon."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.synthetic_crowd.canvas import Camera, Colour, jitter, random_colour, shade

GROUNDS: dict[str, Colour] = {
    'asphalt': (95, 95, 98),
    'tiles': (160, 150, 138),
    'brick': (150, 105, 85),
    'grass': (85, 120, 55),
    'sand': (205, 185, 145),
    'snow': (225, 228, 235),
    'concrete': (140, 142, 140),
}


def fractal_noise(rng: np.random.Generator, size: int, octaves: int = 5) -> np.ndarray:
    """Tileable noise f32[size, size] of mean 0 and standard deviation 1."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = max(2, size >> (octaves - octave))
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        wrapped = np.pad(coarse, 2, mode='wrap')
        scale = size // cells
        fine = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += fine[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size] * 0.7**octave
    return (total - total.mean()) / total.std()


def paint(rng: np.random.Generator, camera: Camera) -> np.ndarray:
    """The empty scene, u8[H, W, 3]."""
    image = np.zeros((camera.height, camera.width, 3), np.float32)
    top = int(np.clip(np.ceil(camera.horizon), 0, camera.height))
    if top:
        image[:top] = _sky(rng, camera, top)
    ground = _ground(rng, camera, top)
    image[top:] = cv2.resize(ground, (camera.width, camera.height - top))
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if top and rng.random() < 0.85:
        _skyline(rng, camera, pixels, top)
    elif not top and rng.random() < 0.4:
        _wall(rng, pixels, int(camera.height * rng.uniform(0.05, 0.2)))
    return pixels


def _sky(rng: np.random.Generator, camera: Camera, top: int) -> np.ndarray:
    zenith = np.array(
        jitter(rng, ((110, 150, 210), (190, 195, 200), (240, 180, 130))[rng.integers(3)], 25)
    )
    low = zenith * 0.4 + np.array([225, 225, 225]) * 0.6
    ramp = np.linspace(0, 1, top, dtype=np.float32)[:, None, None]
    sky = zenith * (1 - ramp) + low * ramp + np.zeros((1, camera.width, 1), np.float32)
    noise = cv2.resize(fractal_noise(rng, 128, 5), (camera.width, camera.width // 2))
    clouds = np.clip(noise[:top] * 0.5, 0, 1)
    clouds = np.pad(clouds, ((0, top - clouds.shape[0]), (0, 0)))[..., None] * rng.uniform(0, 0.9)
    return sky * (1 - clouds) + 245 * clouds


def _ground(rng: np.random.Generator, camera: Camera, top: int) -> np.ndarray:
    """Ground at half size in perspective: a row s below the horizon shows depth 1 / s."""
    name = list(GROUNDS)[rng.integers(len(GROUNDS))]
    base = np.array(jitter(rng, GROUNDS[name], 22), np.float32)
    s = (np.arange(top, camera.height, 2, dtype=np.float32) - camera.horizon) / (
        camera.height - camera.horizon
    )
    s = np.maximum(s, 0.02)[:, None]
    x = (np.arange(0, camera.width, 2, dtype=np.float32) - camera.width / 2)[None] / camera.near
    turn = rng.uniform(-0.6, 0.6)
    side, depth = x / s, (camera.height - camera.horizon) / camera.near / s
    u = (np.cos(turn) * side - np.sin(turn) * depth) + rng.uniform(0, 9)
    v = (np.sin(turn) * side + np.cos(turn) * depth) + rng.uniform(0, 9)
    fade = np.clip(s * 1.6, 0.15, 1)  # far texture is finer than a pixel
    noise = _lookup(fractal_noise(rng, 256, 6), u * 48, v * 48)
    stains = _lookup(fractal_noise(rng, 128, 3), u * 6, v * 6)
    light = noise * rng.uniform(3, 14) * fade + stains * rng.uniform(2, 14)
    light = light + _pattern(rng, name, u, v) * fade
    return base + light[..., None] * np.array([1, 1, 0.9], np.float32)


def _lookup(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    size = texture.shape[0]
    return cv2.remap(
        texture,
        np.mod(u, size).astype(np.float32),
        np.mod(v, size).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


def _pattern(rng: np.random.Generator, name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Joints, chequers and lane marks in grey levels; u, v in person heights."""
    result = np.zeros_like(u)
    if name in ('tiles', 'brick', 'concrete'):
        size = rng.uniform(0.25, 1.4)
        long = size * (2 if name == 'brick' else 1)
        row = np.floor(v / size)
        shifted = u / long + (0.5 * row if name == 'brick' else 0)
        joint = (np.mod(shifted, 1) < 0.07) | (np.mod(v / size, 1) < 0.07)
        result -= joint * rng.uniform(10, 45)
        chequer = np.mod(np.floor(shifted) + row, 2) * rng.choice([0.0, rng.uniform(5, 60)])
        tone = np.sin(np.floor(shifted) * 12.9898 + row * 78.233) * rng.uniform(0, 12)
        result += chequer + tone
    if name == 'asphalt' or rng.random() < 0.15:
        lane = rng.uniform(1.8, 4)
        mark = (np.mod(u, lane) < 0.12) & (np.mod(v, 2.0) < rng.choice([1.0, 2.0]))
        zebra = (np.mod(u, 0.6) < 0.3) & (np.abs(v - rng.uniform(2, 8)) < 1.0)
        result += mark * rng.uniform(40, 110)
        result += zebra * rng.choice([0.0, rng.uniform(40, 110)])
    return result


def _skyline(rng: np.random.Generator, camera: Camera, pixels: np.ndarray, top: int) -> None:
    """Buildings, hedges or hills along the horizon, over the sky alone."""
    kind = rng.choice(['buildings', 'trees', 'hills', 'stand'])
    sky = pixels[:top]
    if kind == 'hills':
        xs = np.arange(camera.width)
        waves = [np.sin(xs / rng.uniform(20, 90) + rng.uniform(0, 6)) for _ in range(3)]
        heights = (np.sum(waves, axis=0) + 3) / 6 * top * rng.uniform(0.2, 0.7)
        colour = np.array(jitter(rng, (90, 110, 95), 30))
        sky[np.arange(top)[:, None] > top - heights[None]] = colour
    elif kind == 'trees':
        for _ in range(int(rng.integers(15, 60))):
            centre = (int(rng.integers(camera.width)), int(top - rng.uniform(0, 0.3) * top))
            radius = int(rng.uniform(0.1, 0.35) * top) + 2
            cv2.circle(sky, centre, radius, jitter(rng, (55, 85, 45), 25), -1)
    elif kind == 'stand':
        _wall(rng, sky, top)
    else:
        x = -10
        while x < camera.width:
            width = int(rng.uniform(0.08, 0.35) * camera.width)
            height = int(rng.uniform(0.3, 1.2) * top)
            _facade(rng, sky, x, max(0, top - height), x + width, top)
            x += width + int(rng.choice([0, 0, rng.uniform(0, 30)]))


def _facade(
    rng: np.random.Generator, pixels: np.ndarray, x0: int, y0: int, x1: int, y1: int
) -> None:
    wall = jitter(
        rng,
        ((150, 120, 100), (175, 170, 160), (120, 125, 135), (190, 175, 140))[rng.integers(4)],
        25,
    )
    cv2.rectangle(pixels, (x0, y0), (x1, y1), wall, -1)
    step_x, step_y = int(rng.integers(7, 24)), int(rng.integers(9, 26))
    pane = shade(wall, rng.choice([0.45, 0.6, 1.35]))
    for y in range(y0 + 4, y1 - step_y // 2, step_y):
        for x in range(x0 + 3, x1 - step_x // 2, step_x):
            lit = shade(pane, rng.uniform(0.7, 1.4))
            cv2.rectangle(pixels, (x, y), (x + step_x // 2, y + step_y // 2), lit, -1)


def _wall(rng: np.random.Generator, pixels: np.ndarray, height: int) -> None:
    """A wall, fence or shop front across the top `height` rows."""
    width = pixels.shape[1]
    cv2.rectangle(pixels, (0, 0), (width, height), jitter(rng, (140, 130, 120), 45), -1)
    step = int(rng.integers(6, 60))
    for x in range(int(rng.integers(step)), width, step):
        colour = random_colour(rng) if step > 25 else jitter(rng, (90, 85, 80), 40)
        cv2.rectangle(pixels, (x, height // 6), (x + step * 2 // 3, height - 1), colour, -1)
