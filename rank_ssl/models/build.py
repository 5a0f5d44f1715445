"""The network of a config, and its parameters before the first step."""

from typing import Any

import jax

from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.models import make_network
from rank_ssl.models.network import Network, init_params
from rank_ssl.models.vgg import LAYOUTS
from rank_ssl.models.weights import load_backbone, merge_backbone

SCRATCH_PIXELS = 'torch'  # zero mean, unit variance: what a fresh network expects


def build_network(
    config: Config, *, pixels: str | None = None
) -> tuple[Network, dict[str, Any] | None]:
    """The network, and the pretrained arrays for its backbone (None from scratch).

    A run that goes on names the pixel convention it was trained with: parameters come from its
    checkpoint, and no weights are read. Nothing is compiled. Raises UserError for a wrong field or
    weights file.
    """
    model = config.model
    network = _network(config, pixels or SCRATCH_PIXELS)
    stride = config.task.stride()
    if stride is not None and network.backbone.stride != stride:
        raise UserError(
            f'config.model.blocks={model.blocks} and config.model.last_pool={model.last_pool} give '
            f'a stride of {network.backbone.stride} px, the task needs {stride}: use 5 and False, '
            'or 4 and True'
        )
    path = None if pixels else model.weights_path()
    if path is None:
        return network, None
    layout = LAYOUTS[model.backbone]
    loaded, pixels = load_backbone(path, layout=layout, width=model.width, blocks=model.blocks)
    return _network(config, pixels), loaded


def initial_params(
    network: Network, loaded: dict[str, Any] | None, *, key: jax.Array, size: int
) -> dict[str, Any]:
    """Parameters drawn from the key, the backbone's replaced by the loaded ones."""
    params = init_params(network, key, size)
    return params if loaded is None else merge_backbone(params, loaded)


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
