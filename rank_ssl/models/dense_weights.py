"""fc6 and fc7 of a pretrained VGG, from the file that holds its convolutions.

torchvision and timm join the cells channel by channel (CHW), our npz as they lie in the features
(HWC). timm keeps both layers as convolutions; the numbers are torchvision's.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

from rank_ssl.errors import UserError
from rank_ssl.models.weights import TORCH_CONV, UNREADABLE, checked, damaged

Layers = dict[str, dict[str, np.ndarray]]
Inputs = tuple[int, int, int]  # channels, rows and columns that a layer joins


class DenseSizes(NamedTuple):
    """What fc6 joins, and how many values fc6 and fc7 give."""

    cells: tuple[int, int]  # rows, columns
    channels: int
    features: int


class _Naming(NamedTuple):
    """How a kind of file calls the two layers, and the shape that it keeps a kernel in."""

    fc6: str
    fc7: str
    kernel: str
    shape: Callable[[Inputs, int], tuple[int, ...]]  # of the inputs and the outputs


class _Leaf(NamedTuple):
    """One expected array: where it goes, and its key and shape in the file."""

    layer: str  # fc6 or fc7
    name: str  # kernel or bias
    key: str
    shape: tuple[int, ...]
    inputs: Inputs


_NAMINGS = (
    _Naming('classifier.0.', 'classifier.3.', 'weight', lambda i, o: (o, math.prod(i))),
    _Naming('pre_logits.fc1.', 'pre_logits.fc2.', 'weight', lambda i, o: (o, *i)),
    _Naming('fc6/', 'fc7/', 'kernel', lambda i, o: (math.prod(i), o)),
)


def load_dense(path: str | Path, sizes: DenseSizes) -> tuple[Layers, str]:
    """Float32 {fc6: {kernel [h * w * C, F], bias}, fc7: ...}, and '' or why there are none.

    None ({}) for a file without such layers, or with a fc6 of other sizes. Raises UserError where
    they are incomplete or damaged.
    """
    path = Path(path)
    arrays = _read(path)
    naming = next((n for n in _NAMINGS if any(k.startswith(n[:2]) for k in arrays)), None)
    if naming is None:
        return {}, f'{path.name} holds convolutions alone'
    leaves = list(_leaves(naming, sizes))
    for leaf in leaves:
        if leaf.key not in arrays:
            held = f'lacks {leaf.key} of shape {leaf.shape} and holds {min(arrays)}'
            raise UserError(f'config.model.weights={path} {held}; fetch the whole file again')
    first = leaves[0]
    if arrays[first.key].shape != first.shape:
        shapes = f'{arrays[first.key].shape}, the head takes {first.shape}'
        return {}, f'{first.key} of {path.name} has shape {shapes}'
    layers: Layers = {}
    for leaf in leaves:
        array = arrays.pop(leaf.key)  # a kernel of fc6 takes 400 MB
        value = checked(path, leaf.key, array, leaf.shape, cure='fetch the file again')
        if naming.kernel == 'weight' and leaf.name == 'kernel':
            value = _to_kernel(value, leaf.inputs)
        layers.setdefault(leaf.layer, {})[leaf.name] = value
    return layers, ''


def merge_dense(params: dict[str, Any], layers: Layers) -> dict[str, Any]:
    """params with these layers of the head replaced; the shapes must be the same."""
    head = dict(params['head'])
    for layer, leaves in layers.items():
        for name, value in leaves.items():
            expected = head[layer][name].shape
            if value.shape != expected:
                shapes = f'{value.shape}, expected {expected}'
                raise UserError(f'config.model.weights: {layer}/{name} has shape {shapes}')
        head[layer] = jax.tree.map(jnp.asarray, leaves)
    return {**params, 'head': head}


def _to_kernel(weight: np.ndarray, inputs: Inputs) -> np.ndarray:
    """A weight [O, C * h * w] or [O, C, h, w] as a kernel [h * w * C, O]."""
    outputs = weight.shape[0]
    hwc_first = weight.reshape(outputs, *inputs).transpose(2, 3, 1, 0)
    return np.ascontiguousarray(hwc_first.reshape(-1, outputs))


def _leaves(naming: _Naming, sizes: DenseSizes) -> Iterator[_Leaf]:
    """The expected arrays, the kernel of fc6 first."""
    outputs = sizes.features
    parts: dict[str, tuple[str, Inputs]] = {
        'fc6': (naming.fc6, (sizes.channels, *sizes.cells)),
        'fc7': (naming.fc7, (outputs, 1, 1)),
    }
    for layer, (stem, inputs) in parts.items():
        shape = naming.shape(inputs, outputs)
        yield _Leaf(layer, 'kernel', stem + naming.kernel, shape, inputs)
        yield _Leaf(layer, 'bias', f'{stem}bias', (outputs,), inputs)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays of these layers, without the prefix that its convolutions have too."""
    stems = tuple(stem for naming in _NAMINGS for stem in naming[:2])
    try:
        if path.suffix.lower() == '.npz':
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files if key.startswith(stems)}
        with safe_open(path, framework='numpy') as file:
            keys = file.keys()
            # Under another prefix is another network, such as a classifier on top of this one.
            prefix = next((m['prefix'] for k in keys if (m := TORCH_CONV.fullmatch(k))), '')
            named = {key.removeprefix(prefix): key for key in keys if key.startswith(prefix)}
            return {n: file.get_tensor(k) for n, k in named.items() if n.startswith(stems)}
    except UNREADABLE as error:
        raise damaged(path, error) from error
