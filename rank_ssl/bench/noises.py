"""Peers for the noises: TID2013's types 01, 02, 05, 06 and 19, and LIVE's GN."""

import functools

import cv2
import numpy as np

from rank_ssl.bench.registry import buffer, cv, peer_of, rounded, transform

RNG = np.random.default_rng(0)
CUTOFF = 10.0  # cycles per image side, of the high-pass filter

# ITU-R BT.601 on full range, as in JPEG: rows Y, Cb, Cr over R, G, B.
YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
RGB = np.linalg.inv(YCBCR).astype(np.float32)


def _normal(image: np.ndarray, variance: float) -> np.ndarray:
    noise = RNG.standard_normal(dtype=np.float32, out=buffer(image.shape))
    noise *= np.float32(255 * variance**0.5)
    return noise


def _cv_normal(image: np.ndarray, variance: float) -> np.ndarray:
    return cv.randn(buffer(image.shape), (0,) * 3, (255 * variance**0.5,) * 3)


@peer_of('OpenCV', 'white_noise', 'live_noise')
def cv_white_noise(image: np.ndarray, variance: float) -> np.ndarray:
    """Image plus white Gaussian noise of `variance` on [0, 1], uint8 [H, W, 3]."""
    return cv2.add(image, _cv_normal(image, variance), dtype=cv2.CV_8U)


@peer_of('NumPy', 'white_noise', 'live_noise')
def _np_white_noise(image: np.ndarray, variance: float) -> np.ndarray:
    return rounded(image + _normal(image, variance))


@peer_of('albumentations', 'white_noise', 'live_noise')
def _al_white_noise(image: np.ndarray, variance: float) -> np.ndarray:
    deviation = (variance**0.5,) * 2
    return transform('GaussNoise', std_range=deviation, mean_range=(0, 0))(image=image)['image']


@peer_of('OpenCV', 'colour_noise')
def _cv_colour_noise(image: np.ndarray, variance: float) -> np.ndarray:
    noise = cv2.transform(_cv_normal(image, variance), RGB)
    return cv2.add(image, noise, dtype=cv2.CV_8U)


@peer_of('NumPy', 'colour_noise')
def _np_colour_noise(image: np.ndarray, variance: float) -> np.ndarray:
    return rounded((image @ YCBCR.T + _normal(image, variance)) @ RGB.T)


@functools.cache
def _high_pass(height: int, width: int) -> np.ndarray:
    down = np.fft.fftfreq(height)[:, None] * height
    across = np.fft.rfftfreq(width)[None] * width
    return (1 - np.exp(-(down**2 + across**2) / (2 * CUTOFF**2)))[:, :, None]


@peer_of('NumPy', 'high_frequency_noise')
def _np_high_frequency_noise(image: np.ndarray, variance: float) -> np.ndarray:
    height, width = image.shape[:2]
    spectrum = np.fft.rfft2(_normal(image, variance), axes=(0, 1))
    spectrum *= _high_pass(height, width)
    return rounded(image + np.fft.irfft2(spectrum, (height, width), axes=(0, 1)))


@peer_of('OpenCV', 'high_frequency_noise')
def _cv_high_frequency_noise(image: np.ndarray, variance: float) -> np.ndarray:
    noise = _cv_normal(image, variance)
    sigmas = [side / (2 * np.pi * CUTOFF) for side in image.shape[:2]]
    low = cv2.GaussianBlur(noise, (0, 0), sigmas[1], sigmaY=sigmas[0])
    return cv2.add(image, cv.subtract(noise, low), dtype=cv2.CV_8U)


@peer_of('OpenCV', 'impulse_noise')
def _cv_impulse_noise(image: np.ndarray, density: float) -> np.ndarray:
    flat = image.reshape(len(image), -1)
    draw = cv.randu(buffer(flat.shape), 0, 1)
    pepper = cv.compare(draw, density / 2, cv2.CMP_LT)
    salt = cv.compare(draw, 1 - density / 2, cv2.CMP_GT)
    return cv2.bitwise_or(cv.subtract(flat, pepper), salt).reshape(image.shape)


@peer_of('NumPy', 'impulse_noise')
def _np_impulse_noise(image: np.ndarray, density: float) -> np.ndarray:
    draw = RNG.random(dtype=np.float32, out=buffer(image.shape))
    noisy = image.copy()
    noisy[draw < density / 2] = 0
    noisy[draw > 1 - density / 2] = 255
    return noisy


@peer_of('albumentations', 'impulse_noise')
def _al_impulse_noise(image: np.ndarray, density: float) -> np.ndarray:
    limits = {'amount': (density, density), 'salt_vs_pepper': (0.5, 0.5)}
    return transform('SaltAndPepper', **limits)(image=image)['image']


@peer_of('OpenCV', 'multiplicative_noise')
def _cv_multiplicative_noise(image: np.ndarray, variance: float) -> np.ndarray:
    factors = cv.randn(buffer(image.shape), (1,) * 3, (variance**0.5,) * 3)
    return cv2.multiply(image, factors, dtype=cv2.CV_8U)


@peer_of('NumPy', 'multiplicative_noise')
def _np_multiplicative_noise(image: np.ndarray, variance: float) -> np.ndarray:
    return rounded(image * (1 + _normal(image, variance) / 255))
