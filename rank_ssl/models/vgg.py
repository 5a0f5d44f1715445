"""VGG feature extractors for ONE image [H, W, C]: the caller vmaps over the mini-batch."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from rank_ssl.models.conv import bias_relu, conv3x3, max_pool2

# Convolutions per block. VGG-16 is the paper's (sections 4 and 5); the smaller ones are for CPUs.
LAYOUTS: dict[str, tuple[int, ...]] = {
    'vgg16': (2, 2, 3, 3, 3),
    'vgg11': (1, 1, 2, 2, 2),
    'vgg8': (1, 1, 1, 1, 1),
}
CHANNELS = (64, 128, 256, 512, 512)
MIN_CHANNELS = 4

ConvParams = dict[str, jax.Array]


def keep_valid(x: jax.Array, valid: jax.Array | None) -> jax.Array:
    """x with zeros outside its top-left valid = (rows, columns); all of x for None. [H, W, ...]."""
    if valid is None:
        return x
    inside = (jnp.arange(x.shape[0]) < valid[0])[:, None] & (jnp.arange(x.shape[1]) < valid[1])
    return jnp.where(inside.reshape(inside.shape + (1,) * (x.ndim - 2)), x, 0)


def stride(*, blocks: int, last_pool: bool) -> int:
    """Input pixels per output cell, along one side: a factor of two for each pooling layer."""
    return 2 ** (blocks - 1 + last_pool)


def block_channels(width: float) -> tuple[int, ...]:
    """Output channels of each block: 64, 128, 256, 512, 512 times width, rounded, at least 4."""
    return tuple(max(MIN_CHANNELS, round(c * width)) for c in CHANNELS)


class VGG(nn.Module):
    """Features [H // stride, W // stride, C'] of one image [H, W, C].

    `blocks` are kept, with a pooling layer between them and, where `last_pool`, after the last:
    five without it give stride 16 (section 5), and so do four with it (UCSD, section 6.2).
    No gradient enters the first `frozen_blocks`, so their backward pass isn't computed.
    Parameters are float32 under block{b}_conv{c}/{kernel, bias}, kernels HWIO.
    """

    layout: tuple[int, ...] = LAYOUTS['vgg16']
    width: float = 1.0  # factor on the channels
    blocks: int = 5
    last_pool: bool = False
    frozen_blocks: int = 0
    dtype: Any = jnp.float32  # of the computation
    remat: bool = False  # recompute each block in the backward pass

    @property
    def stride(self) -> int:
        """Input pixels per output cell."""
        return stride(blocks=self.blocks, last_pool=self.last_pool)

    @nn.compact
    def __call__(self, image: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
        """Features of the image, zero outside `valid` = (height, width) px of its top-left part.

        There a padded image gives just what the image without the padding would.
        """
        sizes = self._conv_sizes(image.shape[-1])
        kernels = _draw_kernels(self.make_rng('params'), sizes) if self.is_initializing() else {}
        x = keep_valid(image.astype(self.dtype), valid)
        for b in range(1, self.blocks + 1):
            names = [name for name in sizes if name.startswith(f'block{b}_')]
            convs = [self.param(n, _init_conv, sizes[n], kernels.get(n)) for n in names]
            pool = b < self.blocks or self.last_pool
            run: Callable[..., jax.Array] = partial(_run_block, pool=pool, dtype=self.dtype)
            if b <= self.frozen_blocks:
                # Stopped at the weights as well: not even the tangents are traced.
                x = lax.stop_gradient(run(lax.stop_gradient(convs), x, valid))
            else:
                x = (jax.checkpoint(run) if self.remat else run)(convs, x, valid)
            valid = valid // 2 if pool and valid is not None else valid
        return x

    def _conv_sizes(self, inputs: int) -> dict[str, tuple[int, int]]:
        sizes = {}
        channels = block_channels(self.width)
        for b in range(1, self.blocks + 1):
            for c in range(1, self.layout[b - 1] + 1):
                sizes[f'block{b}_conv{c}'] = (inputs, channels[b - 1])
                inputs = channels[b - 1]
        return sizes


def block_features(
    convs: dict[str, ConvParams],
    image: jax.Array,
    *,
    layout: tuple[int, ...],
    blocks: Sequence[int],
    dtype: Any = jnp.float32,
) -> list[jax.Array]:
    """What these blocks of a VGG give before their pooling, in one pass over one image [H, W, C].

    Block b gives [H // 2**(b - 1), W // 2**(b - 1), C_b]. `convs` are the network's parameters.
    """
    found, x = [], image.astype(dtype)
    for b in range(1, max(blocks) + 1):
        x = max_pool2(x) if b > 1 else x
        names = [f'block{b}_conv{c}' for c in range(1, layout[b - 1] + 1)]
        x = _run_block([convs[n] for n in names], x, None, pool=False, dtype=dtype)
        found += [x] if b in blocks else []
    return found


def _draw_kernels(key: jax.Array, sizes: dict[str, tuple[int, int]]) -> dict[str, jax.Array]:
    """He normal kernels: they keep the activations' scale through thirteen relu layers."""
    ends = list(accumulate(9 * i * o for i, o in sizes.values()))
    # One draw cut in pieces: XLA compiles one generator for all, not one per convolution.
    parts = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    shaped = zip(sizes.items(), parts, strict=True)
    return {n: p.reshape(3, 3, i, o) * (2 / (9 * i)) ** 0.5 for (n, (i, o)), p in shaped}


def _init_conv(
    key: jax.Array, size: tuple[int, int], kernel: jax.Array | None
) -> dict[str, jax.Array]:
    # Without a kernel only the shapes are asked: flax compares them when the network is applied.
    del key
    kernel = jnp.zeros((3, 3, *size), jnp.float32) if kernel is None else kernel
    return {'kernel': kernel, 'bias': jnp.zeros(size[1], jnp.float32)}


def _run_block(
    convs: list[ConvParams], x: jax.Array, valid: jax.Array | None, *, pool: bool, dtype: Any
) -> jax.Array:
    for conv in convs:
        x = bias_relu(conv3x3(x, conv['kernel'].astype(dtype)), conv['bias'].astype(dtype))
        # A bias makes padding positive; the next convolution would carry it over the border.
        x = keep_valid(x, valid)
    if not pool:
        return x
    # Again: an odd valid row is dropped without padding, but would be pooled with padding.
    return keep_valid(max_pool2(x), None if valid is None else valid // 2)
