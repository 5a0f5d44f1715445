"""Decoding of every mode, damaged files and bombs; resizing."""

import concurrent.futures
import io
import json
import struct
import subprocess
import sys
import zlib

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from rank_ssl.ops import images

_RNG = np.random.default_rng(0)
# Smooth, so that lossy codecs keep it within a few levels.
_Y, _X = np.mgrid[0:24, 0:40]
_RGB = np.stack([_X * 6, _Y * 10, 255 - _X * 3 - _Y * 4], axis=-1).astype(np.uint8)
_GRAY = _RGB[..., 0]


def _encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _of(array: np.ndarray, mode: str = 'RGB') -> Image.Image:
    image = Image.fromarray(array)
    return image if image.mode == mode else image.convert(mode)


@pytest.mark.parametrize(
    ('form', 'options', 'tolerance'),
    [
        ('PNG', {}, 0),
        ('BMP', {}, 0),
        ('TIFF', {}, 0),
        ('TIFF', {'compression': 'tiff_lzw'}, 0),
        ('PPM', {}, 0),
        ('WEBP', {'lossless': True}, 0),
        ('JPEG', {'quality': 95, 'subsampling': 0}, 8),
        ('JPEG', {'quality': 95, 'progressive': True, 'subsampling': 0}, 8),
        ('WEBP', {'quality': 95}, 24),
    ],
)
def test_rgb_of_each_format(form, options, tolerance):
    decoded = images.decode(_encode(_of(_RGB), form, **options))
    assert decoded.dtype == np.uint8
    assert decoded.shape == _RGB.shape
    assert decoded.flags.writeable
    assert decoded.flags.c_contiguous
    assert np.abs(decoded.astype(int) - _RGB).max() <= tolerance


def test_jpeg_pixels_are_those_of_pillow():
    data = _encode(_of(_RGB), 'JPEG', quality=60)
    np.testing.assert_array_equal(images.decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.fault(row=7, injected='grey', outcome='three equal channels')
@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'BMP', 'TIFF', 'GIF', 'PPM'])
def test_gray_becomes_three_equal_channels(form):
    decoded = images.decode(_encode(_of(_GRAY, 'L'), form))
    assert decoded.shape == (24, 40, 3)
    assert (decoded == decoded[..., :1]).all()
    tolerance = 4 if form == 'JPEG' else 0
    assert np.abs(decoded[..., 0].astype(int) - _GRAY).max() <= tolerance


def test_one_bit_becomes_black_and_white():
    bits = _RNG.integers(0, 2, (9, 13)).astype(bool)
    decoded = images.decode(_encode(Image.fromarray(bits), 'PNG'))
    np.testing.assert_array_equal(decoded, np.repeat(bits[..., None] * 255, 3, axis=-1))


@pytest.mark.fault(row=7, injected='16-bit grey', outcome='scaled to 8 bit')
@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'PPM'])
def test_16_bit_gray_is_divided_by_257_not_clipped(form):
    wide = np.array([[0, 128, 129, 256, 257], [385, 386, 32768, 65406, 65535]], np.uint16)
    decoded = images.decode(_encode(Image.fromarray(wide), form))
    np.testing.assert_array_equal(decoded[..., 0], np.rint(wide / 257))
    assert (decoded == decoded[..., :1]).all()


def test_32_bit_gray_within_16_bits_is_scaled_and_beyond_refused():
    values = np.array([[0, 257, 65535]], np.int32)
    decoded = images.decode(_encode(Image.fromarray(values), 'TIFF'))
    np.testing.assert_array_equal(decoded[0, :, 1], [0, 1, 255])
    with pytest.raises(images.ImageError, match='outside 0..65535'):
        images.decode(_encode(Image.fromarray(values + 1), 'TIFF'))
    with pytest.raises(images.ImageError, match='outside 0..65535'):
        images.decode(_encode(Image.fromarray(values - 1), 'TIFF'))


def test_floating_point_is_refused():
    with pytest.raises(images.ImageError, match='floating-point'):
        images.decode(_encode(Image.fromarray(np.ones((3, 3), np.float32)), 'TIFF'))


def test_lab_becomes_rgb():
    # Lightness, a and b in 0..255 with 128 as no colour.
    data = _encode(Image.new('LAB', (4, 4), (255, 128, 128)), 'TIFF')
    assert images.decode(data).min() >= 254


@pytest.mark.fault(row=7, injected='a palette', outcome='its colours')
@pytest.mark.parametrize('form', ['PNG', 'GIF', 'BMP', 'TIFF'])
def test_palette_becomes_its_colours(form):
    colours = np.array([[255, 0, 0], [0, 200, 10], [3, 4, 250], [9, 9, 9]], np.uint8)
    index = _RNG.integers(0, 4, (8, 11)).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    np.testing.assert_array_equal(images.decode(_encode(image, form)), colours[index])


@pytest.mark.fault(row=7, injected='CMYK', outcome='RGB')
@pytest.mark.parametrize('form', ['TIFF', 'JPEG'])
def test_cmyk_becomes_rgb(form):
    # Cyan, magenta, yellow, key: full ink of one takes its complement out of white.
    inks = np.zeros((8, 64, 4), np.uint8)
    for channel in range(4):
        inks[:, channel * 16 : (channel + 1) * 16, channel] = 255
    options = {'quality': 95} if form == 'JPEG' else {}
    decoded = images.decode(_encode(Image.fromarray(inks, 'CMYK'), form, **options)).astype(int)
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]
    assert np.abs(decoded[4, 8::16] - expected).max() <= 6


@pytest.mark.fault(row=7, injected='an alpha channel', outcome='laid over white')
@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'WEBP'])
def test_alpha_is_laid_over_white(form):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, :3] = (200, 100, 0)
    rgba[0, :, 3] = (255, 0, 51)
    options = {'lossless': True, 'exact': True} if form == 'WEBP' else {}
    decoded = images.decode(_encode(_of(rgba, 'RGBA'), form, **options))
    blended = np.array([200, 100, 0]) * 0.2 + 255 * 0.8
    expected = [(200, 100, 0), (255, 255, 255), np.rint(blended)]
    assert np.abs(decoded[0].astype(int) - np.array(expected)).max() <= 1


def test_gray_with_alpha_and_transparent_palette_are_laid_over_white():
    gray = Image.merge('LA', [_of(_GRAY, 'L'), Image.new('L', (40, 24), 0)])
    assert (images.decode(_encode(gray, 'PNG')) == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    decoded = images.decode(_encode(palette, 'PNG', transparency=0))
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [0, 0, 255]]])


@pytest.mark.parametrize(
    ('mode', 'pixel', 'expected'),
    [('LA', (100, 128), [227] * 3), ('RGBA', (100, 0, 128, 128), [227, 127, 255])],
)
def test_premultiplied_alpha_is_laid_over_white(mode, pixel, expected):
    data = bytearray(_encode(Image.new(mode, (3, 2), pixel), 'TIFF'))
    # ExtraSamples: 2 is straight alpha, 1 is premultiplied.
    straight = struct.pack('<HHIH', 338, 3, 1, 2)
    assert data.count(straight) == 1
    data = data.replace(straight, struct.pack('<HHIH', 338, 3, 1, 1))
    assert np.abs(images.decode(bytes(data)).astype(int) - expected).max() <= 2


@pytest.mark.fault(row=7, injected='an animation', outcome='its first frame')
@pytest.mark.parametrize('form', ['GIF', 'PNG', 'WEBP', 'TIFF'])
def test_animation_gives_its_first_frame(form):
    frames = [Image.new('RGB', (12, 10), colour) for colour in ('red', 'lime', 'blue')]
    options = {'lossless': True} if form == 'WEBP' else {}
    data = _encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    decoded = images.decode(data)
    assert decoded.shape == (10, 12, 3)
    assert (decoded == (255, 0, 0)).all()


def test_multi_picture_jpeg_gives_its_first_picture():
    first, second = Image.new('RGB', (16, 8), 'white'), Image.new('RGB', (16, 8), 'black')
    data = _encode(first, 'MPO', save_all=True, append_images=[second])
    assert (images.decode(data) == 255).all()


_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.fault(row=7, injected='each EXIF orientation', outcome='upright, turned once')
@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('orientation', list(_UPRIGHT))
def test_exif_orientation_is_applied_once(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'lossless': True} if form == 'WEBP' else {}
    decoded = images.decode(_encode(_of(_RGB), form, exif=exif, **options))
    np.testing.assert_array_equal(decoded, _UPRIGHT[orientation](_RGB))


def test_jpeg_orientation_six_turns_clockwise():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = images.decode(_encode(_of(_RGB), 'JPEG'))
    turned = images.decode(_encode(_of(_RGB), 'JPEG', exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


@pytest.mark.filterwarnings('ignore:Corrupt EXIF')
@pytest.mark.parametrize('exif', [b'Exif\0\0garbage', b'Exif\0\0MM\0*\0\0\0\x08\xff\xff', b'x'])
def test_broken_exif_leaves_the_pixels_as_stored(exif):
    plain = images.decode(_encode(_of(_RGB), 'JPEG'))
    broken = images.decode(_encode(_of(_RGB), 'JPEG', exif=exif))
    np.testing.assert_array_equal(broken, plain)


@pytest.mark.fault(row=7, injected='1x1 px', outcome='one pixel')
def test_one_pixel_image():
    assert images.decode(_encode(Image.new('RGB', (1, 1), (7, 8, 9)), 'PNG')).tolist() == [
        [[7, 8, 9]]
    ]


@pytest.mark.fault(row=7, injected='empty files and garbage', outcome='an error of one line')
@pytest.mark.parametrize(
    'data',
    [b'', b'\0', b'garbage' * 100, b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'P6\n3 3\n255\n'],
)
def test_garbage_is_an_image_error_of_one_line(data):
    with pytest.raises(images.ImageError) as caught:
        images.decode(data)
    message = str(caught.value)
    assert message
    assert '\n' not in message
    assert '0x' not in message


def test_other_formats_are_refused():
    for form in ('ICNS', 'TGA', 'PDF'):
        image = Image.new('RGB', (32, 32))
        with pytest.raises(images.ImageError, match='not a readable JPEG'):
            images.decode(_encode(image, form))


@pytest.mark.fault(row=7, injected='each format cut off', outcome='an error of one line')
@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'PPM'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(form, share):
    noise = _RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = _encode(_of(noise), form)
    with pytest.raises(images.ImageError):
        images.decode(data[: int(len(data) * share)])


def _small_files() -> list[bytes]:
    gif = _of(_RGB).quantize(8)
    files = [_encode(_of(_RGB), form) for form in ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'PPM')]
    return [*files, _encode(gif, 'GIF'), _encode(_of(_GRAY.astype(np.uint16), 'I;16'), 'PNG')]


@pytest.mark.fault(
    row=7,
    injected='200 mutations of each format (hypothesis)',
    outcome='pixels or an error of one line',
)
@pytest.mark.filterwarnings('ignore')
@hypothesis.settings(max_examples=200, derandomize=True)
@hypothesis.given(
    st.sampled_from(_small_files()),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4),
    st.floats(0.3, 1),
)
def test_any_damage_gives_an_image_or_an_image_error(data, patches, share):
    damaged = bytearray(data)
    for position, patch in patches:
        # Half of the damage in the first bytes, where the structure is.
        at = int(position * position * len(damaged))
        damaged[at : at + len(patch)] = patch
    try:
        decoded = images.decode(bytes(damaged[: int(len(damaged) * share)]), max_pixels=100_000)
    except images.ImageError as error:
        assert '\n' not in str(error)
    else:
        assert decoded.dtype == np.uint8
        assert decoded.ndim == 3
        assert decoded.shape[2] == 3
        assert 0 < decoded.shape[0] * decoded.shape[1] <= 100_000


def test_max_pixels_is_the_limit_itself():
    data = _encode(_of(_RGB), 'PNG')
    assert images.decode(data, max_pixels=24 * 40).shape == (24, 40, 3)
    with pytest.raises(images.ImageError, match='40x24 image is above the limit of 959 pixels'):
        images.decode(data, max_pixels=24 * 40 - 1)


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    data = b'\x89PNG\r\n\x1a\n'
    for kind, body in ((b'IHDR', header), *chunks):
        check = struct.pack('>I', zlib.crc32(kind + body))
        data += struct.pack('>I', len(body)) + kind + body + check
    return data


def _png_bomb(width: int, height: int) -> bytes:
    return _png(width, height, (b'IDAT', zlib.compress(bytes(2_000_000))))


def _zip_bomb() -> bytes:
    text = b'Comment\0\0' + zlib.compress(bytes(100_000_000), 1)
    return _png(2, 2, (b'zTXt', text), (b'IDAT', zlib.compress(bytes(14))))


def _jpeg_bomb() -> bytes:
    data = bytearray(_encode(_of(_RGB), 'JPEG'))
    at = data.index(b'\xff\xc0')
    data[at + 5 : at + 9] = struct.pack('>HH', 65000, 65000)
    return bytes(data)


def _webp_bomb() -> bytes:
    body = b'\x2f' + struct.pack('<I', 16382 | 16382 << 14) + bytes(64)
    chunk = b'VP8L' + struct.pack('<I', len(body)) + body + b'\0' * (len(body) % 2)
    return b'RIFF' + struct.pack('<I', 4 + len(chunk)) + b'WEBP' + chunk


def _bmp_bomb() -> bytes:
    data = bytearray(_encode(_of(_RGB), 'BMP'))
    data[18:26] = struct.pack('<ii', 40000, 40000)
    return bytes(data)


def _tiff_bomb() -> bytes:
    data = bytearray(_encode(_of(_RGB), 'TIFF'))
    long = 4
    for tag in (256, 257):
        at = data.index(struct.pack('<HHI', tag, long, 1))
        data[at + 8 : at + 12] = struct.pack('<I', 40000)
    return bytes(data)


_DECODE_ALL = """
import json, pathlib, resource, sys, time
from rank_ssl.ops import images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    start = time.perf_counter()
    try:
        images.decode(data)
        reason = 'decoded'
    except images.ImageError as error:
        reason = str(error)
    rows[path.name] = [reason, time.perf_counter() - start]
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({'rows': rows, 'grown_mb': grown}))
"""


def test_bombs_are_refused_from_the_header(tmp_path):
    bombs = {
        'png': _png_bomb(40000, 40000),
        'png_below_pillows_limit': _png_bomb(12000, 12000),
        'jpeg': _jpeg_bomb(),
        'webp': _webp_bomb(),
        'bmp': _bmp_bomb(),
        'tiff': _tiff_bomb(),
        'gif': b'GIF89a' + struct.pack('<HH', 65000, 65000) + bytes(3) + b',' + bytes(9) + b';',
        'compressed_text': _zip_bomb(),
        'ppm': b'P6\n40000 40000\n255\n' + bytes(1000),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, '-c', _DECODE_ALL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    for name, (reason, seconds) in result['rows'].items():
        assert ('too large' if name == 'compressed_text' else 'limit of') in reason, name
        assert seconds < 1, name
    assert result['rows'].keys() == bombs.keys()
    assert result['grown_mb'] < 100
    # No warning beside the error, which is the one line a user gets.
    assert done.stderr == ''


def test_threads_decode_the_same_pixels():
    files = [data for data in _small_files() for _ in range(8)]
    expected = [images.decode(data) for data in files]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(images.decode, files), expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_opencv_stays_on_one_thread():
    assert cv2.getNumThreads() == 1


def test_shrinking_by_a_whole_factor_is_the_block_mean():
    image = _RNG.integers(0, 256, (30, 60, 3)).astype(np.uint8)
    mean = image.reshape(10, 3, 20, 3, 3).mean(axis=(1, 3))
    assert np.abs(images.resize(image, (10, 20)) - mean).max() <= 0.51


def test_growing_interpolates_between_pixel_centres():
    row = np.repeat(np.array([0, 100], np.uint8)[None, :, None], 3, axis=2)
    grown = images.resize(row, (1, 4))
    # New centres at old coordinates -0.25, 0.25, 0.75, 1.25; the ends repeat.
    np.testing.assert_array_equal(grown[0, :, 0], [0, 25, 75, 100])


def test_an_axis_that_shrinks_is_averaged_where_the_other_grows():
    # Stripes of one pixel: sampling every 15th would keep them black and white, means are gray.
    stripes = np.zeros((4, 60, 3), np.uint8)
    stripes[:, ::2] = 255
    for image, size in ((stripes, (8, 4)), (stripes.swapaxes(0, 1), (4, 8))):
        resized = images.resize(image, size)
        assert resized.shape == (*size, 3)
        assert np.abs(resized.astype(int) - 127.5).max() <= 255 / 30 + 1


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (24, 40), (100, 3), (3, 100), (224, 224)])
def test_resize_gives_the_size_and_keeps_a_constant(size):
    constant = np.full((24, 40, 3), 77, np.uint8)
    resized = images.resize(constant, size)
    assert resized.shape == (*size, 3)
    assert resized.dtype == np.uint8
    assert (resized == 77).all()


def test_resize_to_its_own_size_is_the_image():
    np.testing.assert_array_equal(images.resize(_RGB, (24, 40)), _RGB)


@pytest.mark.parametrize(
    ('shape', 'side', 'expected'),
    [
        ((600, 1200), 300, (150, 300)),
        ((1200, 600), 300, (300, 150)),
        ((50, 100), 300, (50, 100)),
        ((50, 100), 0, (50, 100)),
        ((300, 300), 300, (300, 300)),
        ((2, 4000), 100, (1, 100)),
    ],
)
def test_fit_within(shape, side, expected):
    image = np.zeros((*shape, 3), np.uint8)
    assert images.fitted_shape(*shape, side) == expected
    assert images.fit_within(image, side).shape == (*expected, 3)


def test_fit_within_refuses_a_negative_side():
    with pytest.raises(ValueError, match='side=-1'):
        images.fit_within(_RGB, -1)
    with pytest.raises(ValueError, match='side=-1 must be at least 0 px; use 0 to keep the size'):
        images.fitted_shape(24, 40, -1)


@pytest.mark.parametrize('shape', [(5, 9), (9, 5), (3, 4), (1, 1), (8, 8), (20, 3)])
def test_extend_mirrors_what_is_missing(shape):
    image = np.arange(np.prod(shape) * 3, dtype=np.uint8).reshape(*shape, 3)
    found = images.extend(image, 8)
    assert found.shape == (max(shape[0], 8), max(shape[1], 8), 3)
    # Along an axis of n px place i shows i, then n - 1, n - 2, ..., 0, 0, 1, ...
    mirrored = [
        [*range(n), *reversed(range(n))] * (side // n + 1)
        for n, side in zip(shape, found.shape, strict=False)
    ]
    for y in range(found.shape[0]):
        for x in range(found.shape[1]):
            assert (found[y, x] == image[mirrored[0][y], mirrored[1][x]]).all()


def test_extend_leaves_a_large_image_alone():
    image = np.zeros((8, 9, 3), np.uint8)
    assert images.extend(image, 8) is image
