"""Heads that turn a backbone's features of ONE image into a task's output.

A head is called as head(features [h, w, C], valid=cells or None, train=bool), where `valid` counts
the cells (rows, columns) of the real, top-left part.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from rank_ssl.models.vgg import conv3x3, keep_valid

# Most cells hold no head, so the map should start near 0. ImageNet's conv5_3 has a mean of .8 and
# peaks of 140: at a deviation of .01, as in CSRNet, the first map is .7 +- 2.6 persons per cell and
# its gradient silences the features for good.
INIT_STD = 0.001


class DensityHead(nn.Module):
    """Persons per cell by one 3x3 convolution without relu (section 5). [h, w, C] -> [h, w]."""

    init_std: float = INIT_STD

    @nn.compact
    def __call__(
        self, features: jax.Array, *, valid: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Density f32[h, w], zero outside the valid cells; its sum is the count and the score."""
        del train
        init = nn.initializers.normal(self.init_std)
        kernel = self.param('kernel', init, (3, 3, features.shape[-1], 1), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (1,), jnp.float32)
        # float32 whatever the backbone's dtype: a count sums hundreds of small cells.
        density = conv3x3(features.astype(jnp.float32), kernel) + bias
        return keep_valid(density[..., 0], valid)
