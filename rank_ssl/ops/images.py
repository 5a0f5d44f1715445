"""Encoded bytes to uint8 RGB arrays [H, W, 3], and resizing.

Pixels come from Pillow alone, so they don't depend on which other codecs are installed. Every
function may be called from several threads at once.
"""

import io
import warnings

import cv2
import numpy as np

# Imported for their registration: Image.open would otherwise load every plugin, in whichever
# thread first meets one of these two formats.
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')

# One thread per call: the loader runs many workers, and each would start a pool of its own as
# wide as the machine. This is the process-wide setting of OpenCV.
cv2.setNumThreads(0)

# decode() has its own, settable limit; Pillow's warning would be a second line about the same
# file. Set once here, because catch_warnings in a call is not safe across threads. Pillow's hard
# limit, an error above twice Image.MAX_IMAGE_PIXELS, stays as it is for everyone.
warnings.simplefilter('ignore', Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """Bytes that are no readable image; the message is one line without the file's name."""


def decode(data: bytes, *, max_pixels: int = 100_000_000) -> np.ndarray:
    """Image as uint8 RGB [H, W, 3], upright as its EXIF orientation says.

    Gray becomes three equal channels; 16-bit gray is divided by 257 and rounded (16-bit colour
    keeps its high byte); palettes, CMYK, YCbCr and LAB become RGB; transparency is laid over
    white; of an animation the first frame is taken. Damage that the codec itself does not notice,
    such as a flipped bit in JPEG data, gives whatever pixels it decodes to.

    Args:
      data: a whole file, in one of FORMATS.
      max_pixels: height * width above which the header alone is enough to refuse the file. Pillow
        refuses above twice `Image.MAX_IMAGE_PIXELS` (179 million) in any case.

    Raises:
      ImageError: empty, truncated, too large, another format, or pixels without an 8-bit meaning
        (floating point, 32-bit integers outside 0..65535).
    """
    if not data:
        raise ImageError('empty file')
    # Damaged files make the plugins raise almost anything (SyntaxError, KeyError, struct.error,
    # zlib.error, ...): all of it means one thing here.
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            image.load()
            upright = _upright(image)
            return np.array(_rgb(upright))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f'not a readable {", ".join(FORMATS[:-1])} or {FORMATS[-1]} file'
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_one_line(error)) from None
    except Exception as error:
        raise ImageError(f'damaged image: {_one_line(error)}') from None


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image at `size` = (height, width), uint8 [h, w, 3].

    A shrinking axis is averaged over each new pixel's footprint (INTER_AREA), since sampling
    would alias; a growing axis is interpolated (INTER_LINEAR), where averaging would repeat
    pixels as blocks.
    """
    (height, width), (new_height, new_width) = image.shape[:2], size
    # OpenCV's INTER_AREA averages only where both axes shrink: with one growing it samples both.
    if new_height < height and new_width > width:
        image = _resize_once(image, (new_height, width))
    elif new_width < width and new_height > height:
        image = _resize_once(image, (height, new_width))
    return _resize_once(image, size)


def extend(image: np.ndarray, side: int) -> np.ndarray:
    """Image with both sides at least `side` px, [max(H, side), max(W, side), 3].

    What is missing is mirrored at the lower and right border, again and again where the image is
    smaller than half of it: never rescaled, since that would change the distortions.
    """
    height, width = image.shape[:2]
    below, beside = max(0, side - height), max(0, side - width)
    if not below and not beside:
        return image
    return np.pad(image, ((0, below), (0, beside), (0, 0)), mode='symmetric')


def fit_within(image: np.ndarray, side: int) -> np.ndarray:
    """Image whose longer side is at most `side` px, [h, w, 3]; never enlarged, 0 = unchanged."""
    height, width = image.shape[:2]
    shape = fitted_shape(height, width, side)
    return image if shape == image.shape[:2] else resize(image, shape)


def fitted_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """The (height, width) that `fit_within` gives an image of this size."""
    if side < 0:
        raise ValueError(f'side={side} must be at least 0 px; use 0 to keep the size')
    longer = max(height, width)
    if side == 0 or longer <= side:
        return height, width
    scale = side / longer
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resize_once(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f'{width}x{height} image is above the limit of {max_pixels} pixels; '
            'shrink it or raise max_pixels'
        )
    if width * height < 1:
        raise ImageError(f'{width}x{height} image has no pixels')


def _upright(image: Image.Image) -> Image.Image:
    # Read after load(): TIFF is turned by Pillow while loading, which removes the tag.
    try:
        method = _ORIENTATION.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # Broken metadata beside sound pixels: the file is shown as stored.
        method = None
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(('I', 'F')):
        image = Image.fromarray(_gray_8_bit(image))
    elif image.mode == 'La':
        image = image.convert('LA')  # Pillow has no way from premultiplied gray to RGBA.
    if not image.has_transparency_data:
        return image.convert('RGB')
    image = image.convert('RGBA')
    canvas = Image.new('RGB', image.size, 'white')
    canvas.paste(image, mask=image.getchannel('A'))
    return canvas


def _gray_8_bit(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    if image.mode == 'F':
        raise ImageError('floating-point pixels have no defined 8-bit scale; save as 8 or 16 bit')
    if values.min() < 0 or values.max() > 65535:
        raise ImageError('32-bit pixels outside 0..65535; save the image as 8 or 16 bit')
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    return text or type(error).__name__
