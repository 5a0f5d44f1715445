"""Colour quantization: few colours, and errors that go where Floyd and Steinberg send them."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from rank_ssl.ops import dither, images


def _picture(shape: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _off_the_nearest(image: np.ndarray, result: np.ndarray) -> np.ndarray:
    """How much farther each chosen colour lies than the nearest one, [H, W].

    Replays the diffusion pixel by pixel with the colours that were chosen.
    """
    palette = np.unique(result.reshape(-1, 3), axis=0).astype(float)
    height, width = image.shape[:2]
    wanted = np.zeros((height + 1, width + 2, 3))
    wanted[:height, 1:-1] = image
    farther = np.zeros((height, width))
    for y in range(height):
        for x in range(1, width + 1):
            value = np.clip(wanted[y, x], 0, 255)
            chosen = result[y, x - 1].astype(float)
            nearest = np.linalg.norm(palette - value, axis=1).min()
            farther[y, x - 1] = np.linalg.norm(chosen - value) - nearest
            for dy, dx, weight in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                wanted[y + dy, x + dx] += (value - chosen) * weight / 16
    return farther


@pytest.mark.parametrize('colours', [8, 32])
def test_each_pixel_takes_the_colour_nearest_to_it_and_the_errors_it_was_sent(colours):
    image = _picture((40, 48))
    farther = _off_the_nearest(image, dither.quantize(image, colours))
    # Pillow rounds the errors it passes on, looks colours up in cells of a few levels, and treats
    # the end of a row in its own way.
    assert farther[:, :-2].max() < 20
    assert (farther < 1).mean() > 0.85


@pytest.mark.parametrize('colours', [8, 32])
def test_the_nearest_colours_without_diffusion_fail_that(colours):
    image = _picture((40, 48))
    palette = np.unique(dither.quantize(image, colours).reshape(-1, 3), axis=0)
    plain = palette[np.square(image[:, :, None].astype(int) - palette).sum(-1).argmin(-1)]
    farther = _off_the_nearest(image, plain)
    assert farther[:, :-2].max() > 40
    assert (farther < 1).mean() < 0.7


@pytest.mark.parametrize('colours', [2, 8, 16, 32, 64])
def test_at_most_so_many_colours_and_the_mean_stays(colours):
    image = _picture((90, 130))
    result = dither.quantize(image, colours)
    assert result.shape == image.shape and result.dtype == np.uint8
    assert len(np.unique(result.reshape(-1, 3), axis=0)) <= colours
    if colours >= 8:
        blurred = (cv2.GaussianBlur(im, (0, 0), 4).astype(float) for im in (image, result))
        assert np.abs(np.subtract(*blurred)).mean() < 12


def test_more_colours_are_closer_on_real_images(real_data):
    for name in ('kodak24/kodim03.png', 'bsds500/train/100075.jpg'):
        image = images.decode((real_data / 'pristine' / name).read_bytes())
        errors = [
            np.square(image.astype(float) - dither.quantize(image, n)).mean()
            for n in (64, 32, 16, 8)
        ]
        assert errors == sorted(errors)
        assert 28 < 10 * np.log10(255**2 / errors[0]) < 38
        assert 20 < 10 * np.log10(255**2 / errors[3]) < 28


def test_first_rows_are_those_of_the_whole():
    image = _picture((90, 130))
    whole = dither.quantize(image, 16)
    for rows in (1, 37, 90):
        np.testing.assert_array_equal(dither.quantize(image, 16, rows=rows), whole[:rows])


@pytest.mark.parametrize('shape', [(1, 1), (1, 30), (30, 1), (3, 2)])
def test_any_size_and_one_colour(shape):
    image = np.full((*shape, 3), (12, 99, 200), np.uint8)
    np.testing.assert_array_equal(dither.quantize(image, 8), image)


@pytest.mark.parametrize('colours', [-1, 0, 1, 257])
def test_other_numbers_of_colours_are_errors(colours):
    with pytest.raises(ValueError, match=r'2\.\.256'):
        dither.quantize(_picture((8, 8)), colours)


def test_threads_give_the_same_bytes():
    image = _picture((60, 70))
    expected = dither.quantize(image, 16).tobytes()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: dither.quantize(image, 16).tobytes(), range(8)))
    assert made == [expected] * 8
