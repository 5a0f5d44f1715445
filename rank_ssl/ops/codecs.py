"""JPEG and JPEG2000 there and back, and one JPEG2000 stream that holds a whole ladder.

Images are uint8 RGB [H, W, 3]. JPEG2000 is OpenJPEG's irreversible 9/7 transform with the colour
transform, in one tile; a ratio is the size of the pixels, 3 bytes each, over that of the stream.
"""

import io
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image, Jpeg2KImagePlugin, JpegImagePlugin  # noqa: F401 (registers the formats)

from rank_ssl.ops import images  # noqa: F401 (sets OpenCV to one thread)

# A layer is one packet per component and resolution, with a header of at least a byte each.
_HEADER_BYTES = 3 * 6
_ALLOWANCE = 1.01

# Markers of a code stream: coding style, start of the first tile.
_COD, _SOT = b'\xff\x52', b'\xff\x90'


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The image after 4:2:0 JPEG, uint8 [H, W, 3]; quality 0 (worst) to 100."""
    if not 0 <= quality <= 100:
        raise ValueError(f'{quality=} must lie in 0..100')
    # OpenCV's codec gives Pillow's pixels at nearly twice its speed.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    options.append(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
    _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return _decoded(data)


def encode_fine(image: np.ndarray, step: int) -> bytes:
    """A 4:4:4 JPEG file with one quantization step, 1 to 255, for all coefficients.

    At equal size its squared error is less than with tables made for the eye.
    """
    if not 1 <= step <= 255:
        raise ValueError(f'{step=} must lie in 1..255')

    def save(*, optimize: bool) -> bytes:
        buffer, tables = io.BytesIO(), [[step] * 64] * 2
        Image.fromarray(image).save(
            buffer, 'JPEG', qtables=tables, subsampling='4:4:4', optimize=optimize
        )
        return buffer.getvalue()

    try:
        return save(optimize=True)
    except OSError:  # noise that outgrows the buffer Pillow has for an optimized file
        return save(optimize=False)


def decode_jpeg(data: bytes) -> np.ndarray:
    """The pixels of a JPEG file, uint8 [H, W, 3]."""
    return _decoded(np.frombuffer(data, np.uint8))


def jpeg2000(image: np.ndarray, ratio: float) -> np.ndarray:
    """The image after JPEG2000 at `ratio` : 1, uint8 [H, W, 3]."""
    return decode_layer(encode_layers(image, [ratio]), 0)


def encode_layers(image: np.ndarray, ratios: Sequence[float]) -> bytes:
    """One raw JPEG2000 code stream with a quality layer for each of the ratios.

    Every layer adds to those of higher ratio. A layer after the first gets 1 % more than its ratio
    gives and the bytes that the earlier ones take for packet headers: then its PSNR is that of an
    encode at its ratio alone, to 0.1 dB from sides of about 300 px on. Below 100 px the last layers
    of a ladder have no bytes of their own, and may be equal.
    """
    if not len(ratios) or not all(ratio >= 1 for ratio in ratios):
        raise ValueError(f'ratios={list(ratios)} must be one or more numbers of at least 1')
    worst, *better = sorted(map(float, ratios), reverse=True)
    sizes = [
        image.size / ratio * _ALLOWANCE + before * _HEADER_BYTES
        for before, ratio in enumerate(better, 1)
    ]
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer,
        'JPEG2000',
        no_jp2=True,
        irreversible=True,
        mct=1,
        quality_mode='rates',
        quality_layers=[worst, *(image.size / size for size in sizes)],
        progression='LRCP',
    )
    return buffer.getvalue()


def decode_layer(data: bytes, layer: int) -> np.ndarray:
    """Pixels of the `layer`-th lowest ratio of an `encode_layers` stream; 0 is the best image."""
    return _pixels(_truncate(data, layer))


def _truncate(data: bytes, layer: int) -> bytes:
    """The stream of the layers up to `layer`.

    A stream in layer order is also a stream of fewer layers: the decoder stops after those that
    the header names. Pillow's `layers` attribute works only together with a smaller resolution.
    """
    at = 6 + next(start for marker, start in _segments(data) if marker == _COD)
    layers = int.from_bytes(data[at : at + 2], 'big')
    if not 0 <= layer < layers:
        raise ValueError(f'{layer=} must lie in 0..{layers - 1}: the stream has {layers} layers')
    return data[:at] + (layers - layer).to_bytes(2, 'big') + data[at + 2 :]


def _segments(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(marker, position) of the main header's segments and of the first tile's start."""
    at = 2
    while at < len(data):
        yield data[at : at + 2], at
        if data[at : at + 2] == _SOT:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')


def _pixels(data: bytes) -> np.ndarray:
    """All pixels of a raw code stream: OpenCV decodes as Pillow does, a third faster."""
    # OpenCV asks for the boxes of a file, which name the colour space.
    width, height = data[8:12], data[12:16]
    header = _box(b'ihdr', height + width + b'\0\3\7\7\0\0')
    colours = _box(b'colr', b'\1\0\0' + (16).to_bytes(4, 'big'))  # sRGB
    signature = _box(b'jP  ', b'\r\n\x87\n') + _box(b'ftyp', b'jp2 \0\0\0\0jp2 ')
    file = signature + _box(b'jp2h', header + colours) + _box(b'jp2c', data)
    return _decoded(np.frombuffer(file, np.uint8))


def _box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, 'big') + kind + content


def _decoded(data: np.ndarray) -> np.ndarray:
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(f'{data.size} bytes are no image that OpenCV reads')
    return np.asarray(image, np.uint8)
