"""The 19 TID2013 and 4 LIVE chains: tables, order of quality, parts of images, threads."""

import concurrent.futures
import io
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from rank_ssl.errors import UserError
from rank_ssl.ops import blur, codecs, colour, denoise, distortions, dither, local, noise

_CHAINS = distortions.TID2013 | distortions.LIVE
_NOISES = ('white_noise', 'colour_noise', 'high_frequency_noise', 'impulse_noise', 'live_noise')
_RANDOM = (*_NOISES, 'multiplicative_noise', 'denoising')  # drawn anew for a part
_SLOW = ('denoising', 'jpeg2000', 'live_jpeg2000')


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def _drawn(height: int, width: int, seed: int) -> np.ndarray:
    """An image with edges, shading and texture, as photographs have them."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for octave in range(1, 7):
        field = rng.normal(size=(2**octave + 1, 2**octave + 1, 3)) * 60 / 1.6**octave
        y = np.linspace(0, 2**octave, height).astype(int)
        image += field[y][:, np.linspace(0, 2**octave, width).astype(int)]
    image += 60 * np.sin(np.arange(width) / rng.uniform(8, 30))[:, None] * (1, 0.7, 0.3)
    return np.clip(image + rng.uniform(90, 150, 3), 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def pictures() -> list[np.ndarray]:
    return [_drawn(192, 256, seed) for seed in range(3)]


def _psnr(image: np.ndarray, other: np.ndarray) -> float:
    difference = image.astype(float) - other
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def test_the_chains_have_their_names_levels_and_numbers():
    assert list(distortions.TID2013.values()) == [4] * 19
    assert list(distortions.LIVE.values()) == [5] * 4
    assert set(distortions.NUMBERS) == set(distortions.TID2013)
    numbers = '01 02 05 06 07 08 09 10 11 14 15 16 16 17 17 18 19 22 23'
    assert sorted(distortions.NUMBERS.values()) == numbers.split()
    assert distortions.COMPATS == ('paper', 'caffe')


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('white_noise', [0.001, 0.005, 0.01, 0.05]),
        ('colour_noise', [0.0140, 0.0198, 0.0343, 0.0524]),
        ('high_frequency_noise', [0.001, 0.005, 0.01, 0.05]),
        ('impulse_noise', [0.005, 0.01, 0.05, 0.1]),
        ('quantization_noise', [27, 39, 55, 76]),
        ('gaussian_blur', [1.2, 2.5, 6.5, 15.2]),
        ('denoising', [0.001, 0.005, 0.01, 0.05]),
        ('jpeg', [43, 12, 7, 4]),
        ('jpeg2000', [52, 150, 343, 600]),
        ('pattern_noise', [30, 70, 150, 300]),
        ('blockwise', [2, 4, 8, 16]),
        ('mean_shift_down', [-15, -30, -45, -60]),
        ('mean_shift_up', [15, 30, 45, 60]),
        ('contrast_down', [0.85, 0.7, 0.55, 0.4]),
        ('contrast_up', [1.2, 1.4, 1.6, 1.8]),
        ('saturation', [0.4, 0, -0.4, -0.8]),
        ('multiplicative_noise', [0.05, 0.09, 0.13, 0.2]),
        ('colour_quantization', [64, 32, 16, 8]),
        ('chromatic_aberration', [2, 6, 10, 14]),
        ('live_blur', [7 / 6, 15 / 6, 39 / 6, 91 / 6, 199 / 6]),
        ('live_noise', [2**-10, 2**-7.5, 2**-5.5, 2**-3.5, 1]),
        ('live_jpeg', [43, 12, 7, 4, 0]),
        ('live_jpeg2000', [24 / 0.46, 150, 24 / 0.07, 600, 1200]),
    ],
)
def test_values_are_the_papers(name, values):
    assert len(values) == (distortions.TID2013 | distortions.LIVE)[name]
    found = [distortions.value(name, level) for level in range(1, len(values) + 1)]
    np.testing.assert_allclose(found, values)


def test_the_released_values_differ_in_four_types():
    different = {}
    for name, levels in _CHAINS.items():
        pairs = [
            tuple(distortions.value(name, level, compat=compat) for compat in distortions.COMPATS)
            for level in range(1, levels + 1)
        ]
        if any(paper != caffe for paper, caffe in pairs):
            different[name] = [caffe for _, caffe in pairs]
    assert set(different) == {'gaussian_blur', 'jpeg2000', 'quantization_noise'}
    np.testing.assert_allclose(different['gaussian_blur'], [7 / 6, 2.5, 6.5, 91 / 6])
    np.testing.assert_allclose(different['jpeg2000'], 24 / np.array([0.46, 0.16, 0.07, 0.04]))
    assert different['quantization_noise'] == [round(255 / step) for step in (27, 39, 55, 76)]


def _ladder(image: np.ndarray, name: str, seed: int) -> list[float]:
    levels = range(1, _CHAINS[name] + 1)
    made = [distortions.distort(_rng(100 * seed + k), image, name, k) for k in levels]
    return [_psnr(image, distorted) for distorted in made]


@pytest.mark.parametrize('name', _CHAINS)
def test_quality_falls_with_the_level(name, pictures):
    psnr = np.mean([_ladder(image, name, seed) for seed, image in enumerate(pictures)], axis=0)
    assert psnr[0] < 45
    assert (np.diff(psnr) < -0.2).all(), psnr


@pytest.mark.parametrize('name', [name for name in _CHAINS if name not in _SLOW])
def test_quality_falls_with_the_level_on_photographs(name, real_data: Path):
    paths = sorted((real_data / 'pristine' / 'kodak24').glob('*.png'))[::6]
    if not paths:
        pytest.skip('no pictures in pristine/kodak24')
    photographs = [np.asarray(Image.open(path).convert('RGB')) for path in paths]
    psnr = [_ladder(image[100:388, 200:488], name, k) for k, image in enumerate(photographs)]
    assert (np.diff(np.mean(psnr, axis=0)) < -0.2).all(), psnr


# Parameters from little to much, off the tables' values.
_RISING = {
    'white_noise': [0.0001, 0.00033, 0.002, 0.3, 2],
    'colour_noise': [0.0001, 0.001, 0.2],
    'high_frequency_noise': [0.0001, 0.001, 0.2],
    'impulse_noise': [0.00031, 0.0123, 0.5, 1],
    'quantization_noise': [3.3, 10.4, 33.3, 120],
    'gaussian_blur': [0.3, 0.45, 1, 1.05, 5, 5.2, 11.9, 12.1, 25, 50],
    'jpeg': [90, 50.4, 20, 1],
    'pattern_noise': [1, 10.2, 80, 500],
    'blockwise': [1, 3.3, 10, 30],
    'mean_shift_down': [-0.6, -7, -100],
    'mean_shift_up': [1.2, 7, 100],
    'contrast_down': [0.99, 0.5, 0],
    'contrast_up': [1.02, 1.5, 3],
    'saturation': [0.9, 0.1, -1],
    'multiplicative_noise': [0.001, 0.01, 1],
    'colour_quantization': [200, 50.2, 4],
    'chromatic_aberration': [0.5, 1, 1.5, 2, 2.3, 5, 9.9, 20],
    'jpeg2000': [10.5, 100, 800],
    'denoising': [0.0005, 0.02, 0.1],
}


@pytest.mark.parametrize('name', distortions.TID2013)
def test_quality_falls_with_any_parameter(name, pictures):
    psnr = []
    for seed, image in enumerate(pictures[:2]):
        made = [distortions.apply(_rng(seed), image, name, value) for value in _RISING[name]]
        psnr.append([_psnr(image, distorted) for distorted in made])
    assert (np.diff(np.mean(psnr, axis=0)) < 0).all(), psnr


@pytest.mark.parametrize('name', _CHAINS)
def test_a_level_is_the_application_of_its_value(name, pictures):
    image = pictures[0][:64, :80]
    for compat in distortions.COMPATS:
        made = distortions.distort(_rng(1), image, name, 2, compat=compat)
        value = distortions.value(name, 2, compat=compat)
        same = distortions.apply(_rng(1), image, name, value, compat=compat)
        np.testing.assert_array_equal(made, same)


@pytest.mark.parametrize('name', _CHAINS)
def test_level_0_is_the_image_itself(name, pictures):
    for compat in distortions.COMPATS:
        assert distortions.distort(_rng(), pictures[0], name, 0, compat=compat) is pictures[0]
    part = distortions.distort_crop(_rng(), pictures[0], name, 0, (3, 4, 50, 60))
    np.testing.assert_array_equal(part, pictures[0][3:50, 4:60])


def _through_pillow(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=quality)
    return np.asarray(Image.open(buffer))


def test_each_chain_is_its_type_in_the_papers_way(pictures):
    image = pictures[0][:96, :112]

    def made(name: str, level: int = 3) -> np.ndarray:
        return distortions.distort(_rng(2), image, name, level)

    noisy = noise.white(_rng(2), image, 0.01)
    for name, expected in {
        'white_noise': noisy,
        'colour_noise': noise.colour(_rng(2), image, 0.0343),
        'high_frequency_noise': noise.high_frequency(_rng(2), image, 0.01),
        'impulse_noise': noise.impulse(_rng(2), image, 0.05),
        'quantization_noise': colour.quantize(image, 55),
        'gaussian_blur': blur.gaussian(image, 6.5),
        'denoising': denoise.denoise(noisy, 0.01),
        'jpeg': _through_pillow(image, 7),
        'jpeg2000': codecs.jpeg2000(image, 343),
        'pattern_noise': local.pattern(_rng(2), image, 150),
        'blockwise': local.blocks(_rng(2), image, 8),
        'mean_shift_down': np.maximum(image, 45) - 45,
        'mean_shift_up': np.minimum(image, 210) + 45,
        'contrast_down': colour.contrast(image, 0.55, image.mean()),
        'contrast_up': colour.contrast(image, 1.6, image.mean()),
        'saturation': colour.saturate(image, -0.4),
        'multiplicative_noise': noise.multiplicative(_rng(2), image, 0.13),
        'colour_quantization': dither.quantize(image, 16),
        'chromatic_aberration': colour.aberrate(image, 10),
        'live_blur': blur.gaussian(image, 6.5),
        'live_noise': noise.white(_rng(2), image, 2**-5.5),
        'live_jpeg': _through_pillow(image, 7),
        'live_jpeg2000': codecs.jpeg2000(image, 24 / 0.07),
    }.items():
        np.testing.assert_array_equal(made(name), expected, err_msg=name)


def test_each_difference_of_the_released_generator(pictures):
    image = pictures[1][:96, :112]

    def made(name: str, level: int = 3) -> np.ndarray:
        return distortions.distort(_rng(3), image, name, level, compat='caffe')

    means = np.floor(image.mean(axis=(0, 1)) + 0.5).astype(int)
    second = (25 / 255) ** 2
    rng = _rng(3)
    twice = noise.white(rng, noise.white(rng, image, 0.01), second)
    different = {
        'colour_noise': noise.colour(_rng(3), image, 0.0343, studio=True),
        'high_frequency_noise': noise.white(_rng(3), image, 0.01),
        'quantization_noise': colour.quantize_otsu(image, 5),
        'denoising': denoise.denoise(twice, second),
        'jpeg2000': codecs.jpeg2000(image, 24 / 0.07),
        'pattern_noise': local.pattern(_rng(3), image, 150, one_way=True),
        'blockwise': local.blocks(_rng(3), image, 8, colour=(means[0] + 30, means[1], means[2])),
        'contrast_down': np.floor(image * 0.55 + 0.5 + 1e-9),
        'contrast_up': np.floor(np.minimum(image * 1.6, 255) + 0.5 + 1e-9),
        'multiplicative_noise': noise.multiplicative(_rng(3), image, 0.13**2),
        'chromatic_aberration': colour.aberrate(image, 10, channel=1),
    }
    for name, expected in different.items():
        np.testing.assert_array_equal(made(name), expected, err_msg=name)
        if name != 'jpeg2000':  # 342.9 : 1 and 343 : 1 may be the same stream
            assert (made(name) != distortions.distort(_rng(3), image, name, 3)).any(), name
    blurred = made('gaussian_blur', 4)
    np.testing.assert_array_equal(blurred, blur.gaussian(image, 91 / 6))
    for name in set(_CHAINS) - set(different) - {'gaussian_blur'}:
        same = distortions.distort(_rng(3), image, name, 3)
        np.testing.assert_array_equal(made(name), same, err_msg=name)


_BOXES = [(0, 0, 64, 64), (37, 51, 133, 147), (96, 160, 192, 256), (5, 0, 6, 256), (80, 90, 81, 91)]


@pytest.mark.parametrize('compat', distortions.COMPATS)
@pytest.mark.parametrize('name', [name for name in _CHAINS if name not in _RANDOM])
def test_a_part_is_equal_to_the_whole(name, compat, pictures):
    for level in range(1, _CHAINS[name] + 1):
        whole = distortions.distort(_rng(4), pictures[2], name, level, compat=compat)
        for y0, x0, y1, x1 in _BOXES[:: 2 if name in _SLOW else 1]:
            part = distortions.distort_crop(
                _rng(4), pictures[2], name, level, np.array((y0, x0, y1, x1)), compat=compat
            )
            np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


def test_jpeg_parts_are_equal_at_every_offset():
    image = _drawn(75, 83, 5)  # sides that end inside a unit of 16 px
    whole = distortions.distort(_rng(), image, 'jpeg', 4)
    for top, left in [(y, x) for y in range(0, 60, 7) for x in range(0, 66, 5)]:
        box = (top, left, min(top + 15, 75), min(left + 17, 83))
        part = distortions.distort_crop(_rng(), image, 'jpeg', 4, box)
        np.testing.assert_array_equal(part, whole[box[0] : box[2], box[1] : box[3]])


@pytest.mark.parametrize('name', [name for name in _RANDOM if name != 'denoising'])
def test_noise_of_a_part_has_the_distribution_of_the_whole(name, pictures):
    image = np.full((192, 256, 3), 128, np.uint8)
    image[60:130, 80:150] += 20
    box = (40, 60, 140, 160)
    for level in (1, 3):
        draws = [
            [
                distortions.distort(_rng(k), image, name, level)[40:140, 60:160],
                distortions.distort_crop(_rng(k + 50), image, name, level, box),
            ]
            for k in range(12)
        ]
        whole, part = np.swapaxes(np.array(draws, float), 0, 1) - image[40:140, 60:160]
        for moment in (1, 2):
            a, b = whole**moment, part**moment
            # Neighbours of high-pass noise are hardly correlated, and negatively.
            error = (a.var() / a.size + b.var() / b.size) ** 0.5
            assert abs(a.mean() - b.mean()) < 4 * error


@pytest.mark.parametrize('name', ['white_noise', 'impulse_noise', 'multiplicative_noise'])
def test_noise_of_a_part_is_that_of_its_pixels_alone(name, pictures):
    part = distortions.distort_crop(_rng(6), pictures[0], name, 2, (10, 20, 60, 90))
    alone = distortions.distort(_rng(6), pictures[0][10:60, 20:90], name, 2)
    np.testing.assert_array_equal(part, alone)


def test_a_box_ends_at_the_image(pictures):
    image = pictures[0]
    part = distortions.distort_crop(_rng(), image, 'jpeg', 2, (100, 150, 324, 374))
    np.testing.assert_array_equal(
        part, distortions.distort(_rng(), image, 'jpeg', 2)[100:324, 150:374]
    )
    for box in [(-1, 0, 5, 5), (5, 5, 5, 9), (192, 0, 200, 9)]:
        with pytest.raises(ValueError, match='box='):
            distortions.distort_crop(_rng(), image, 'jpeg', 2, box)


_SIDES = st.one_of(st.integers(1, 5), st.integers(6, 48))


@hypothesis.given(
    name=st.sampled_from([name for name in _CHAINS if name not in _SLOW]),
    level=st.integers(1, 5),
    compat=st.sampled_from(distortions.COMPATS),
    shape=st.tuples(_SIDES, _SIDES),
    kind=st.sampled_from(['black', 'white', 'gray', 'noise', 'red']),
)
@hypothesis.settings(max_examples=300)
def test_any_image_keeps_shape_and_type(name, level, compat, shape, kind):
    image = np.zeros((*shape, 3), np.uint8)
    if kind == 'noise':
        image = np.random.default_rng(shape).integers(0, 256, image.shape, dtype=np.uint8)
    else:
        image[:] = {'black': 0, 'white': 255, 'gray': 97, 'red': (255, 0, 0)}[kind]
    before = image.copy()
    image.flags.writeable = False
    level = min(level, _CHAINS[name])
    made = distortions.distort(_rng(), image, name, level, compat=compat)
    assert made.shape == image.shape and made.dtype == np.uint8
    assert not np.shares_memory(made, image)
    np.testing.assert_array_equal(image, before)
    if kind == 'gray' and name in ('saturation', 'contrast_up', 'contrast_down', 'live_blur'):
        assert compat == 'caffe' or (made == 97).all()


@pytest.mark.parametrize('name', _SLOW)
@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (17, 3), (33, 32)])
def test_the_slow_types_keep_shape_and_type(name, shape):
    for image in (np.zeros((*shape, 3), np.uint8), _drawn(*shape, 6)):
        made = distortions.distort(_rng(), image, name, 4)
        assert made.shape == image.shape and made.dtype == np.uint8


@pytest.mark.parametrize('name', [name for name in _CHAINS if name not in _SLOW])
def test_views_are_as_good_as_copies(name, pictures):
    view = pictures[0][3:70, 5:90]
    mirrored = pictures[0][69:2:-1, 89:4:-1]
    for image in (view, mirrored):
        made = distortions.distort(_rng(7), image, name, 3)
        copied = distortions.distort(_rng(7), np.ascontiguousarray(image), name, 3)
        np.testing.assert_array_equal(made, copied)


def test_threads_make_the_same_bytes(pictures):
    work = [(name, level) for name in _CHAINS if name not in _SLOW for level in (1, 4)] * 3

    def make(item: tuple[int, tuple[str, int]]) -> bytes:
        seed, (name, level) = item
        return distortions.distort(_rng(seed), pictures[0], name, level).tobytes()

    alone = [make(item) for item in enumerate(work)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, enumerate(work))) == alone


@pytest.mark.parametrize(
    ('call', 'error', 'words'),
    [
        (lambda im: distortions.distort(_rng(), im, 'rain', 1), UserError, "'rain' is unknown"),
        (lambda im: distortions.distort(_rng(), im, 'rain', 0), UserError, "'rain' is unknown"),
        (lambda im: distortions.value('jpeg', 1, compat='x'), UserError, "compat='x'"),
        (lambda im: distortions.distort(_rng(), im, 'jpeg', 5), ValueError, 'level=5 of jpeg'),
        (lambda im: distortions.distort(_rng(), im, 'jpeg', -1), ValueError, 'level=-1 of jpeg'),
        (lambda im: distortions.value('live_jpeg', 0), ValueError, r'must lie in 1\.\.5'),
        (
            lambda im: distortions.distort(_rng(), im[..., 0], 'jpeg', 1),
            ValueError,
            'must be uint8',
        ),
        (lambda im: distortions.distort(_rng(), im / 255, 'jpeg', 0), ValueError, 'must be uint8'),
        (lambda im: distortions.distort(_rng(), im[:0], 'jpeg', 1), ValueError, 'not empty'),
    ],
)
def test_mistakes_are_named(call, error, words, pictures):
    with pytest.raises(error, match=words) as caught:
        call(pictures[0])
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', [*distortions.TID2013, *distortions.LIVE])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_value_that_is_not_finite_is_refused(name, bad):
    with pytest.raises(ValueError, match=f'{name} value=.* must be finite'):
        distortions.apply(np.random.default_rng(0), np.zeros((8, 8, 3), np.uint8), name, bad)
