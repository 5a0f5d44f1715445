"""Distorts an image until it has lost a wanted PSNR: a search over one parameter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from rank_ssl.ops import distortions

PSNR = (33.0, 30.0, 27.0, 24.0, 21.0)  # dB, of TID2013's levels 1 to 5
TOLERANCE = 0.05  # dB; the search ends inside
TRIES = 24  # evaluations per image
FAR = 12.0  # dB; larger errors, such as an unchanged image's, count as this
NARROW = 1e-3  # relative width of the parameter's bracket at which the search ends

Make = Callable[[float], np.ndarray]  # parameter -> distorted u8[H, W, 3]


@dataclasses.dataclass(frozen=True)
class Knob:
    """One type's parameter: where it acts least and most, a guess for 33 dB.

    `slope` is about how many dB a factor of e costs; `whole` parameters are integers.
    """

    weakest: float
    strongest: float
    guess: float
    slope: float
    whole: bool = False

    @property
    def direction(self) -> int:
        """1 where a larger parameter distorts more, -1 where it distorts less."""
        return 1 if self.strongest > self.weakest else -1

    def stronger(self, value: float, decibels: float) -> float:
        """The parameter that should cost that much more than `value`, inside the knob's range."""
        value = value * math.exp(self.direction * decibels / self.slope)
        low, high = sorted((self.weakest, self.strongest))
        value = min(max(value, low), high)
        return round(value) if self.whole else value


# Noise of variance v costs -10 log10(v) dB: 10 / ln 10 = 4.34 per factor of e.
KNOBS = {
    'white_noise': Knob(1e-5, 1.0, 5e-4, 4.34),
    'colour_noise': Knob(1e-5, 1.0, 1.7e-4, 4.34),
    'high_frequency_noise': Knob(1e-5, 1.0, 5e-4, 4.34),
    'impulse_noise': Knob(1e-5, 1.0, 1.5e-3, 4.34),
    'quantization_noise': Knob(2, 255, 20, 8.7),
    'gaussian_blur': Knob(0.1, 100, 0.8, 6),
    'denoising': Knob(1e-5, 1.0, 1e-3, 4.34),
    'jpeg': Knob(100, 1, 60, 3, whole=True),
    'jpeg2000': Knob(1.5, 20_000, 15, 4),
    'multiplicative_noise': Knob(1e-5, 100, 2e-3, 4.34),
    'colour_quantization': Knob(256, 2, 64, 4, whole=True),
    'chromatic_aberration': Knob(0.1, 128, 1.5, 4),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """A distorted image u8[H, W, 3], the parameter that made it and the PSNR it reached in dB."""

    value: float
    psnr: float
    image: np.ndarray


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """10 log10(255^2 / mean squared difference) over all pixels and channels; inf where equal."""
    difference = image.astype(np.int32) - other
    error = np.square(difference).mean(dtype=np.float64)
    return 10 * math.log10(255**2 / error) if error else math.inf


def noise_rng(reference: int, number: int, level: int) -> np.random.Generator:
    """The generator of one image: TID2013's reference, type number and level, nothing else."""
    return np.random.Generator(np.random.Philox(key=2013, counter=[0, reference, number, level]))


def levels(image: np.ndarray, name: str, *, reference: int, number: int) -> Iterator[Found]:
    """The image at each of TID2013's five levels of one type, its noise drawn per level."""
    knob = KNOBS[name]
    guess = knob.guess
    for level, wanted in enumerate(PSNR, start=1):

        def make(value: float, level: int = level) -> np.ndarray:
            # The same draw for every value: only so does the PSNR fall with the parameter.
            rng = noise_rng(reference, number, level)
            return distortions.apply(rng, image, name, value)

        found = calibrate(make, image, wanted, knob, guess=guess)
        yield found
        if level < len(PSNR):
            guess = knob.stronger(found.value, found.psnr - PSNR[level])


def calibrate(
    make: Make, reference: np.ndarray, wanted: float, knob: Knob, *, guess: float | None = None
) -> Found:
    """The image of `make` whose PSNR against `reference` is nearest to `wanted` of those tried.

    Tries end within TOLERANCE, where no parameter is left between two tried ones, or at the knob's
    end: the caller compares `Found.psnr` with what it wanted.
    """
    search = _Search(knob)
    value: float | None = knob.stronger(knob.guess if guess is None else guess, 0)
    best: Found | None = None
    for _ in range(TRIES):
        if value is None:
            break
        image = make(value)
        found = Found(value, psnr(image, reference), image)
        error = found.psnr - wanted
        if best is None or abs(error) < abs(best.psnr - wanted):
            best = found
        if abs(error) <= TOLERANCE:
            break
        value = search.next(value, error)
    assert best is not None
    return best


class _Search:
    """Proposes values: by the knob's slope until the root is bracketed, then by regula falsi.

    `ends` are the weak and the strong end of the bracket, `errors` the dB by which they miss, None
    where that end is not yet tried. The Illinois rule halves the error of an end that stays.
    """

    def __init__(self, knob: Knob) -> None:
        self.knob = knob
        self.ends = [knob.weakest, knob.strongest]
        self.errors: list[float | None] = [None, None]
        self.last = -1
        self.reach = 1.0

    def next(self, value: float, error: float) -> float | None:
        """The next value to try after one whose PSNR is `error` dB too high; None: no use."""
        side = 0 if error > 0 else 1
        if value == self.ends[1 - side]:
            return None  # too weak at the strongest, or too strong at the weakest
        self.ends[side], self.errors[side] = value, min(max(error, -FAR), FAR)
        other = self.errors[1 - side]
        if side == self.last and other is not None:
            self.errors[1 - side] = other / 2
        self.last = side
        return self._whole() if self.knob.whole else self._continuous()

    def _continuous(self) -> float | None:
        weak, strong = self.ends
        if abs(math.log(strong / weak)) < NARROW:
            return None
        return self._estimate()

    def _whole(self) -> float | None:
        """The estimate as an integer not yet tried, None where none is left in the bracket."""
        step = self.knob.direction
        first, final = (
            int(end) + (inward * step if error is not None else 0)
            for end, error, inward in zip(self.ends, self.errors, (1, -1), strict=True)
        )
        if (final - first) * step < 0:
            return None
        low, high = sorted((first, final))
        return min(max(round(self._estimate()), low), high)

    def _estimate(self) -> float:
        weak, strong = self.ends
        weak_error, strong_error = self.errors
        if weak_error is not None and strong_error is not None:
            share = weak_error / (weak_error - strong_error)
            return weak * (strong / weak) ** share
        tried, error = (weak, weak_error) if weak_error is not None else (strong, strong_error)
        assert error is not None
        value = self.knob.stronger(tried, error * self.reach)
        self.reach *= 2  # until the root is passed
        return value
