"""Light and camera: shadows, gradients, casts, night, haze, blur and noise."""

from __future__ import annotations

import cv2
import numpy as np

DARKEST = 48.0  # mean grey level: darker scenes hide persons that are annotated


def cast_shadows(
    rng: np.random.Generator, pixels: np.ndarray, feet: np.ndarray, sun: tuple[float, float]
) -> np.ndarray:
    """The ground darkened where things at feet f64[N, 3] = (x, y, height px) keep the sun off."""
    mask = np.zeros(pixels.shape[:2], np.uint8)
    for x, y, h in feet:
        tip = (round(x + sun[0] * h), round(y + sun[1] * h))
        cv2.line(mask, (round(x), round(y)), tip, 255, max(1, round(0.16 * h)))
        cv2.ellipse(
            mask,
            (round(x), round(y)),
            (max(1, round(0.15 * h)), max(1, round(0.05 * h))),
            0,
            0,
            360,
            255,
            -1,
        )
    soft = cv2.GaussianBlur(mask, (0, 0), 1.5).astype(np.float32)[..., None] / 255
    return (pixels * (1 - soft * rng.uniform(0.15, 0.6))).astype(np.uint8)


def relight(
    rng: np.random.Generator, pixels: np.ndarray, *, horizon: float, night: bool
) -> np.ndarray:
    """Large-scale light on the scene, f32[H, W, 3] in 0..255; `horizon` is a share of H."""
    image = pixels.astype(np.float32)
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    if rng.random() < 0.4:
        image *= _big_shadow(rng, height, width)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    ramp = np.cos(angle) * (columns - 0.5) + np.sin(angle) * (rows - 0.5)
    image *= (1 + strength * ramp)[..., None]
    if rng.random() < 0.3:
        image = _haze(rng, image, np.clip((rows - horizon) / (1 - horizon), 0, 1))
    if night:
        image = _night(rng, image, rows, columns)
    image *= rng.normal(1, 0.06, 3).astype(np.float32)
    mean = image.mean()
    image = (image - mean) * rng.uniform(0.65, 1.25) + mean * rng.uniform(0.7, 1.25)
    image *= max(1.0, DARKEST / max(float(image.mean()), 1.0))
    if rng.random() < 0.08:
        image[:] = image.mean(axis=-1, keepdims=True)
    return np.clip(image, 0, 255)


def _big_shadow(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A soft-edged polygon in shade: a building or a cloud beside the scene."""
    mask = np.zeros((height, width), np.uint8)
    corners = rng.uniform(-0.3, 1.3, (4, 2)) * (width, height)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.int32)), 255)
    soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 6)).astype(np.float32) / 255
    return (1 - soft * rng.uniform(0.25, 0.65))[..., None]


def _haze(rng: np.random.Generator, image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Fades the far ground to gray; `near` f32[H, W] is 0 at the horizon, 1 at the bottom."""
    amount = (rng.uniform(0.2, 0.7) * (1 - near) ** rng.uniform(1, 3))[..., None]
    return image * (1 - amount) + rng.uniform(150, 235) * amount


def _night(
    rng: np.random.Generator, image: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Dark and bluish with a few warm pools of light."""
    light = np.full(image.shape, rng.uniform(0.25, 0.45), np.float32)
    light *= np.array([0.85, 0.95, 1.2], np.float32)
    for _ in range(int(rng.integers(1, 6))):
        y, x = rng.uniform(0, 1, 2)
        distance = (rows - y) ** 2 + (columns - x) ** 2
        glow = np.exp(-distance / rng.uniform(0.01, 0.12)) * rng.uniform(0.3, 1.0)
        light += glow[..., None] * np.array([1.1, 0.95, 0.7], np.float32)
    return image * np.minimum(light, 1.2)


def expose(rng: np.random.Generator, image: np.ndarray, night: bool) -> np.ndarray:
    """The sensor: blur, vignette and noise. f32[H, W, 3] at final size -> u8."""
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1))
    height, width = image.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image = image * (1 - rng.uniform(0, 0.2) * (rows**2 + columns**2))[..., None]
    sigma = rng.gamma(1.5, 2.0) * (1.7 if night else 1.0)
    luma = rng.standard_normal((height, width, 1)) * sigma
    chroma = rng.standard_normal((height, width, 3)) * sigma * 0.5
    return np.clip(image + luma + chroma, 0, 255).astype(np.uint8)
