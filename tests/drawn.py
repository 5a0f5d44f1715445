"""What compiles fast or not at all: a small network, parameters drawn with NumPy, their norm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rank_ssl.models.network import Network, Params, init_params


def drawn_params(network: Network, size: int, *, head_std: float = 0.001, seed: int = 0) -> Params:
    """In shape and scale as `init_params` of a network whose head is one layer; biases are 0.

    The program of init itself takes about a second to compile.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == 'bias':
            return np.zeros(leaf.shape, leaf.dtype)
        deviation = head_std if path[0].key == 'head' else (2 / np.prod(leaf.shape[:3])) ** 0.5
        return rng.normal(0, deviation, leaf.shape).astype(leaf.dtype)

    shapes = jax.eval_shape(lambda key: init_params(network, key, size), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def he_params(shapes: Any, *, seed: int = 1) -> Any:
    """He kernels; biases away from zero, or errors at the padding would stay hidden."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        return rng.normal(size=shape, scale=(2 / np.prod(shape[:-1])) ** 0.5 if shape[1:] else 1)

    return jax.tree.map(lambda a: draw(a.shape).astype(a.dtype), shapes)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def norm(tree: Any) -> float:
    return float(np.linalg.norm(flat(tree)))


def two_layers(params, image, *, valid=None, key=None):
    """A map of 2 x 2 cells of an image of 32 x 32 px."""
    cells = (image / 255).reshape(2, 16, 2, 16, 3).swapaxes(1, 2).reshape(2, 2, -1)
    return jnp.tanh(cells @ params['hidden']) @ params['output']


def two_layer_params(seed: int = 0) -> Params:
    rng = np.random.default_rng([7, seed])
    params = {'hidden': rng.normal(0, 0.1, (768, 5)), 'output': rng.normal(0, 0.5, 5)}
    return jax.tree.map(np.float32, params)
