"""f of the paper: backbone and head as one network for ONE image, and labels for its optimiser."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from rank_ssl.errors import UserError
from rank_ssl.models.pixels import preprocess
from rank_ssl.shared import shared

Params = dict[str, Any]

# The layers of a head that belong to the pretrained network, not to the task (4.3).
PRETRAINED = ('fc6', 'fc7')


class Apply(Protocol):
    """apply(params, image u8[H, W, 3]) -> the head's output; `key` turns dropout on."""

    def __call__(
        self,
        params: Params,
        image: jax.Array,
        *,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Any:
        """The head's output; `valid` as in Network."""


class Network(nn.Module):
    """The head's output for one RGB image u8[H, W, 3]; parameters {'backbone': ..., 'head': ...}.

    `valid` = (height, width) px is the real, top-left part of a padded image. The backbone zeroes
    the rest, after the mean is subtracted here, as a convolution's own padding is.
    """

    backbone: nn.Module  # with a property `stride`, called as vgg.VGG is
    head: nn.Module  # called as heads.py says
    pixels: str  # a name in pixels.CONVENTIONS

    def __call__(
        self, image: jax.Array, *, valid: jax.Array | None = None, train: bool = False
    ) -> Any:
        """The head's output; `train` turns a head's dropout on (a 'dropout' key is then needed)."""
        return self.output(self.features(image, valid=valid), valid=valid, train=train)

    def features(self, image: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
        """What the backbone makes of the image. [h, w, C]."""
        return self.backbone(preprocess(image, self.pixels), valid=valid)

    def output(
        self, features: jax.Array, *, valid: jax.Array | None = None, train: bool = False
    ) -> Any:
        """What the head makes of the features; `valid` is in px of the image."""
        cells = None if valid is None else valid // self.backbone.stride
        return self.head(features, valid=cells, train=train)


@shared
def make_apply(network: Network) -> Apply:
    """A pure apply(params, image, *, valid, key); without a key it is deterministic.

    Of equal networks it is the same function, and programs made of it are compiled once.
    """

    def apply(
        params: Params,
        image: jax.Array,
        *,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Any:
        rngs = None if key is None else {'dropout': key}
        train = key is not None
        return network.apply({'params': params}, image, valid=valid, train=train, rngs=rngs)

    return apply


def init_params(network: Network, key: jax.Array, size: int) -> Params:
    """Float32 parameters {'backbone', 'head'} for images of size x size px, from the key alone."""
    if size < network.backbone.stride:
        cell = network.backbone.stride
        raise UserError(f'input size {size} px is below one cell of {cell} px; use {cell} or more')
    image = jnp.zeros((size, size, 3), jnp.uint8)
    return _compiled_init(network)(key, image)['params']


@shared
def _compiled_init(network: Network) -> Callable[..., Any]:
    # Op by op, VGG-16's forward pass would be dispatched just to learn the shapes.
    return jax.jit(network.init)


def param_groups(params: Params, *, frozen_blocks: int) -> Params:
    """A tree like params with a label per array: 'frozen', 'backbone' or 'head'.

    Frozen are the backbone's block1_conv1 .. up to block number `frozen_blocks`. A head's fc6 and
    fc7 are 'backbone', also where they were drawn: 'head' are the layers that the task adds.
    """
    frozen = tuple(f'block{b}_' for b in range(1, frozen_blocks + 1))

    def label(path: tuple[Any, ...], leaf: Any) -> str:
        top, name = path[0].key, path[1].key
        if top != 'backbone':
            return 'backbone' if name in PRETRAINED else 'head'
        return 'frozen' if frozen and name.startswith(frozen) else 'backbone'

    return jax.tree_util.tree_map_with_path(label, params)


def decay_mask(params: Params) -> Params:
    """A tree like params: True for kernels, False for the rest, which has no weight decay."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key == 'kernel', params)
