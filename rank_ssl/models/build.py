"""The network of a config, and its parameters before the first step."""

from typing import Any

import jax

from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.models import make_network, vgg
from rank_ssl.models.dense_weights import DenseSizes, Layers, load_dense, merge_dense
from rank_ssl.models.heads import FCHead
from rank_ssl.models.network import Network, init_params
from rank_ssl.models.vgg import CHANNELS, LAYOUTS, block_channels
from rank_ssl.models.weights import Convs, load_backbone, merge_backbone
from rank_ssl.progress import say

SCRATCH_PIXELS = 'torch'  # zero mean, unit variance: what a fresh network expects


def build_network(
    config: Config, *, pixels: str | None = None
) -> tuple[Network, dict[str, Any] | None]:
    """The network, and the pretrained arrays for `initial_params` (None from scratch).

    A run that goes on names the pixel convention it was trained with: parameters come from its
    checkpoint, and no weights are read. Nothing is compiled. Raises UserError for a wrong field or
    weights file.
    """
    network = _network(config, pixels or SCRATCH_PIXELS)
    stride = config.task.stride()
    if stride is not None and network.backbone.stride != stride:
        raise UserError(
            f'config.model.blocks={config.model.blocks} and config.model.last_pool='
            f'{config.model.last_pool} give a stride of {network.backbone.stride} px, the task '
            f'needs {stride}: {_stride_cure(stride)}'
        )
    path = None if pixels else config.model.weights_path()
    if path is None:
        return network, None
    convs, pixels = _load_convs(config, path)
    network = _network(config, pixels)
    return network, {'backbone': convs, 'dense': _load_dense(config, network, path)}


def build_backbone(config: Config, *, key: jax.Array) -> tuple[Network, dict[str, Any]]:
    """The network, and its backbone's parameters alone: pretrained, or drawn from the key.

    From one key they are the same as those of `initial_params`. Raises UserError as build_network.
    """
    path = config.model.weights_path()
    if path is not None:
        convs, pixels = _load_convs(config, path)
        return _network(config, pixels), convs
    network = _network(config, SCRATCH_PIXELS)
    # What is not returned is not computed: the head may have a hundred times more to draw.
    draw = jax.jit(lambda key: init_params(network, key, config.task.size)['backbone'])
    return network, draw(key)


def initial_params(
    network: Network, loaded: dict[str, Any] | None, *, key: jax.Array, size: int
) -> dict[str, Any]:
    """Parameters drawn from the key, the pretrained layers replaced by the loaded ones."""
    params = init_params(network, key, size)
    if loaded is None:
        return params
    return merge_dense(merge_backbone(params, loaded['backbone']), loaded['dense'])


def _load_convs(config: Config, path: str) -> tuple[Convs, str]:
    model = config.model
    layout = LAYOUTS[model.backbone]
    return load_backbone(path, layout=layout, width=model.width, blocks=model.blocks)


def _load_dense(config: Config, network: Network, path: str) -> Layers:
    """The pretrained layers of a fully connected head; where there are none, stderr says so."""
    if not isinstance(network.head, FCHead):
        return {}
    side = config.task.size // network.backbone.stride
    channels = block_channels(config.model.width)[config.model.blocks - 1]
    layers, why = load_dense(path, DenseSizes((side, side), channels, network.head.features))
    if why and jax.process_index() == 0:
        say(f'fc6 and fc7 start from random values: {why}')
    return layers


def _stride_cure(stride: int) -> str:
    """The fields that give a stride in words."""
    found = [
        f'{blocks} and {last_pool}'
        for last_pool in (False, True)
        for blocks in range(1, len(CHANNELS) + 1)
        if vgg.stride(blocks=blocks, last_pool=last_pool) == stride
    ]
    return f'use {", or ".join(found)}' if found else 'no blocks of a VGG give that'


def _network(config: Config, expected_pixels: str) -> Network:
    model = config.model
    return make_network(
        backbone=model.backbone,
        width=model.width,
        blocks=model.blocks,
        last_pool=model.last_pool,
        frozen_blocks=model.frozen_blocks,
        dtype=model.dtype,
        remat=model.remat,
        pixels=expected_pixels if model.pixels == 'auto' else model.pixels,
        head=config.task.head(),
    )
