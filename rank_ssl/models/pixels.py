"""Pixel conventions: what a network's weights expect of an image, from uint8 RGB on disk."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from rank_ssl.errors import UserError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PixelConvention:
    """(pixel * scale - mean) / std, the channels in `order`; mean and std are in that order too."""

    order: str  # 'rgb' or 'bgr'
    scale: float = 1.0  # factor on 0..255
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)


CONVENTIONS: dict[str, PixelConvention] = {
    # The original VGG release, and its Caffe and Keras copies.
    'caffe': PixelConvention('bgr', mean=(103.939, 116.779, 123.68)),
    # torchvision and timm.
    'torch': PixelConvention('rgb', 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # The authors' released code: quality with BGR, counting with RGB, no mean subtracted.
    'raw_bgr': PixelConvention('bgr'),
    'raw_rgb': PixelConvention('rgb'),
}


def check_convention(name: str) -> None:
    """Raises UserError where `name` isn't one of CONVENTIONS."""
    if name not in CONVENTIONS:
        raise UserError(
            f'config.model.pixels={name} is unknown; use one of {", ".join(CONVENTIONS)}'
        )


def preprocess(image: jax.Array | np.ndarray, convention: str) -> jax.Array:
    """Network input f32[..., 3] of RGB images u8[..., 3] in a named convention."""
    check_convention(convention)
    rule = CONVENTIONS[convention]
    x = jnp.asarray(image)
    x = (x[..., ::-1] if rule.order == 'bgr' else x).astype(jnp.float32)
    return (x * rule.scale - jnp.asarray(rule.mean)) / jnp.asarray(rule.std)
