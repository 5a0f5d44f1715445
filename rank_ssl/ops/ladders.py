"""Distortion ladders: crops of one image at levels 0 (pristine), 1, 2, ... of one distortion.

Images are uint8 RGB. Two distortions cost more than all others together, so a data set may keep
what they need beside each image: `costly` makes it once, `ladder` decodes it.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from rank_ssl.errors import UserError
from rank_ssl.ops import codecs, crops, distortions, images

# LIVE's rates of 24-bit pixels. The first four are TID2013's ratios to 0.4 %.
JPEG2000_RATIOS = tuple(24 / bits for bits in (0.46, 0.16, 0.07, 0.04, 0.02))
DENOISED = tuple(f'denoised_{level}' for level in range(1, distortions.TID2013['denoising'] + 1))
STORED_PSNR = 40.0  # dB, the least that a stored level keeps of the denoiser's output
_STEPS = 32  # quantization steps to search below; 40 dB mostly needs 6 to 14

CROPS = ('independent', 'aligned')

_JPEG2000 = ('jpeg2000', 'live_jpeg2000')


def chains(kind: str) -> tuple[str, ...]:
    """The distortions of one kind of ladder: 19 of 'tid2013' or 4 of 'live'; else a UserError."""
    if kind not in distortions.LADDERS:
        raise UserError(f'{kind=} must be one of {", ".join(distortions.LADDERS)}')
    return tuple(distortions.LADDERS[kind])


def levels(chain: str) -> int:
    """How many levels one distortion has, the pristine image not counted: 4 or 5."""
    for table in distortions.LADDERS.values():
        if chain in table:
            return table[chain]
    raise UserError(
        f'{chain=} must be one of {", ".join(c for t in distortions.LADDERS.values() for c in t)}'
    )


def frozen_rng(id: str) -> np.random.Generator:
    """The image's own generator: the same draws for the same id, whenever and wherever."""
    digest = hashlib.sha256(id.encode('utf-8')).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], 'little')))


def costly(image: np.ndarray, id: str) -> dict[str, bytes]:
    """What is kept beside an image: 'jpeg2000' and 'denoised_1' to 'denoised_4', each encoded.

    'jpeg2000' is one code stream with a quality layer per ratio of JPEG2000_RATIOS. 'denoised_k'
    is level k of denoising, its noise drawn from `frozen_rng(id)`, as a JPEG of STORED_PSNR or
    more: 4:4:4 with one quantization step for all coefficients, the largest that suffices. That
    is what keeps the error of a size least, and it decodes as fast as any JPEG.
    """
    rng = frozen_rng(id)
    kept = {'jpeg2000': codecs.encode_layers(image, JPEG2000_RATIOS)}
    for level, key in enumerate(DENOISED, 1):
        kept[key] = _compress(distortions.distort(rng, image, 'denoising', level))
    return kept


def ladder(
    rng: np.random.Generator,
    image: np.ndarray,
    chain: str,
    *,
    size: int,
    stored: Mapping[str, bytes] | None = None,
    crop: str = 'independent',
    compat: str = 'paper',
) -> np.ndarray:
    """Crops of the image at levels 0 (pristine), 1, 2, ..., uint8 [levels + 1, size, size, 3].

    The whole image is distorted, then cropped; one smaller than `size` is mirrored up to it after
    the distortion. Each level's noise is its own. The crops' positions depend on `rng` and the
    image's shape alone.

    Args:
      stored: may hold keys of `costly`, which then replace the same levels' computation; denoised
        levels only where compat is 'paper'.
      crop: 'independent' positions of all levels, or 'aligned', one position.

    Raises:
      UserError: an unknown chain, crop or compat.
    """
    if crop not in CROPS:
        raise UserError(f'{crop=} must be one of {", ".join(CROPS)}')
    count = levels(chain)
    boxes = _boxes(rng, image.shape[:2], count + 1, size, aligned=crop == 'aligned')
    stored = dict(stored or {})
    if chain in _JPEG2000 and not stored.get('jpeg2000'):
        # One encode serves all levels.
        stored['jpeg2000'] = codecs.encode_layers(image, JPEG2000_RATIOS[:count])
    made = np.empty((len(boxes), size, size, 3), np.uint8)
    for level, box in enumerate(boxes):
        made[level] = _level(rng, image, chain, level, box, stored, compat)
    return made


def _boxes(
    rng: np.random.Generator, shape: tuple[int, int], count: int, size: int, *, aligned: bool
) -> list[list[int]]:
    """All positions, drawn before anything else so that the distortions' draws can't move them."""
    if aligned:
        return [crops.sub_box(rng, shape, size).tolist()] * count
    return [crops.sub_box(rng, shape, size).tolist() for _ in range(count)]


def _level(
    rng: np.random.Generator,
    image: np.ndarray,
    chain: str,
    level: int,
    box: list[int],
    stored: Mapping[str, bytes],
    compat: str,
) -> np.ndarray:
    """The box of one level, mirrored where it ends beyond the image."""
    part = _decode(stored, chain, level, box, compat)
    if part is None:
        part = distortions.distort_crop(rng, image, chain, level, box, compat=compat)
    # The box starts at 0 along every side that is too short, so its part is that whole side.
    return images.extend(part, box[2] - box[0])


def _decode(
    stored: Mapping[str, bytes], chain: str, level: int, box: list[int], compat: str
) -> np.ndarray | None:
    """The box of a level, cut off at the image's border, from what is stored; else None."""
    y0, x0, y1, x1 = box
    if level == 0:
        return None
    if chain in _JPEG2000:
        return codecs.decode_layer(stored['jpeg2000'], level - 1)[y0:y1, x0:x1]
    key = DENOISED[level - 1] if chain == 'denoising' else ''
    if compat == 'paper' and stored.get(key):
        return codecs.decode_jpeg(stored[key])[y0:y1, x0:x1]
    return None


def _compress(image: np.ndarray) -> bytes:
    """A JPEG of at least STORED_PSNR dB with about the largest quantization step that gives it."""
    limit = 255**2 / 10 ** (STORED_PSNR / 10)
    best = codecs.encode_fine(image, 1)  # above 50 dB
    low, high = 1, _STEPS
    while high - low > 1:
        step = (low + high) // 2
        data = codecs.encode_fine(image, step)
        error = codecs.decode_jpeg(data).astype(np.float32) - image
        if np.square(error).mean() <= limit:
            low, best = step, data
        else:
            high = step
    return best
