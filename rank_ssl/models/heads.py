"""Heads that turn a backbone's features of ONE image into a task's output.

A head is called as head(features [h, w, C], valid=cells or None, train=bool), where `valid` counts
the cells (rows, columns) of the real, top-left part. Its last layer is computed in float32 whatever
the dtype of the features.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from rank_ssl.models.vgg import conv3x3, keep_valid

# Most cells hold no head, so the map should start near 0. ImageNet's conv5_3 has a mean of .8 and
# peaks of 140: at a deviation of .01, as in CSRNet, the first map is .7 +- 2.6 persons per cell and
# its gradient silences the features for good.
INIT_STD = 0.001
# A score starts near the bias. Under ImageNet's convolutions He normal fc6 and fc7 give a fc7 of
# length 480 for a photo: at .01, as VGG's own fc8, the first scores are -7 +- 6.
SCORE_STD = 0.001
# Added to a variance before its root is taken; a millionth of what conv5_3's channels have.
VARIANCE_FLOOR = 1e-6


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


class FCHead(nn.Module):
    """A score by VGG-16's fc6 and fc7 and one output in place of fc8 (4.3). [h, w, C] -> [].

    fc6 joins all cells, so every image has as many of them as the one it was initialised with.
    """

    dropout: float = 0.5  # share of fc6's and of fc7's values left out in training
    features: int = 4096  # of fc6 and of fc7
    init_std: float = SCORE_STD  # of the output's kernel
    init_bias: float = 0.0  # of the output: the score it starts around

    @nn.compact
    def __call__(
        self, features: jax.Array, *, valid: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """The score f32[]; dropout where `train`. Beyond `valid` the backbone has left zeros."""
        del valid
        x = features.reshape(-1)
        for name in ('fc6', 'fc7'):
            layer = nn.Dense(
                self.features,
                dtype=x.dtype,
                kernel_init=nn.initializers.he_normal(),
                name=name,
            )
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(layer(x)))
        return _output(x, std=self.init_std, bias=self.init_bias)


class PoolHead(nn.Module):
    """A score from each channel's mean and standard deviation over cells. [h, w, C] -> [].

    For convolution weights without fully connected ones. Any size of image has these statistics.
    """

    dropout: float = 0.5  # share of the 2 C statistics left out in training
    init_std: float = SCORE_STD  # of the output's kernel
    init_bias: float = 0.0  # of the output: the score it starts around

    @nn.compact
    def __call__(
        self, features: jax.Array, *, valid: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """The score f32[] by the valid cells alone; dropout where `train`."""
        x = nn.Dropout(self.dropout, deterministic=not train)(_statistics(features, valid))
        return _output(x, std=self.init_std, bias=self.init_bias)


def _statistics(features: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Mean and standard deviation of each channel over the valid cells. [h, w, C] -> f32[2 C]."""
    x = features.astype(jnp.float32)
    inside = keep_valid(jnp.ones((*x.shape[:2], 1), jnp.float32), valid)
    count = jnp.maximum(inside.sum(), 1)
    mean = (x * inside).sum((0, 1)) / count
    variance = (jnp.square(x - mean) * inside).sum((0, 1)) / count
    # The root has no finite slope at 0, the variance of a channel that is silent.
    return jnp.concatenate([mean, jnp.sqrt(variance + VARIANCE_FLOOR)])


def _output(x: jax.Array, *, std: float, bias: float) -> jax.Array:
    """The layer `output`, a new one in every task. [F] -> f32[]."""
    layer = nn.Dense(
        1,
        dtype=jnp.float32,
        kernel_init=nn.initializers.normal(std),
        bias_init=nn.initializers.constant(bias),
        name='output',
    )
    return layer(x)[0]
