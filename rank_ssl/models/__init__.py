"""Networks from the fields of config.model."""

import math

import jax.numpy as jnp
from flax import linen as nn

from rank_ssl.errors import UserError
from rank_ssl.models.network import Network
from rank_ssl.models.pixels import check_convention
from rank_ssl.models.vgg import LAYOUTS, VGG

# No float16: its range would need loss scaling.
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def make_network(
    *,
    backbone: str,
    width: float,
    blocks: int,
    last_pool: bool,
    frozen_blocks: int,
    dtype: str,
    remat: bool,
    pixels: str,
    head: nn.Module,
) -> Network:
    """A VGG backbone under a head. Raises UserError naming the field of config.model at fault."""
    _check_choice('backbone', backbone, LAYOUTS)
    _check_choice('dtype', dtype, DTYPES)
    check_convention(pixels)
    layout = LAYOUTS[backbone]
    if not (math.isfinite(width) and width > 0):
        raise UserError(f'config.model.width={width} must be above 0; use 1 for the full network')
    _check_range('blocks', blocks, 1, len(layout), f'the blocks of {backbone}')
    _check_range('frozen_blocks', frozen_blocks, 0, blocks, f'config.model.blocks={blocks}')
    features = VGG(
        layout=layout,
        width=width,
        blocks=blocks,
        last_pool=last_pool,
        frozen_blocks=frozen_blocks,
        dtype=DTYPES[dtype],
        remat=remat,
    )
    return Network(backbone=features, head=head, pixels=pixels)


def _check_choice(field: str, value: str, choices: dict) -> None:
    if value not in choices:
        names = ', '.join(choices)
        raise UserError(f'config.model.{field}={value} is unknown; use one of {names}')


def _check_range(field: str, value: int, low: int, high: int, why: str) -> None:
    if not low <= value <= high:
        raise UserError(f'config.model.{field}={value} must be in {low}..{high} ({why})')
