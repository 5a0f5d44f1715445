"""Pretrained VGG convolutions from a file: our npz, or safetensors with torch's key names.

The second result names the pixel convention that the weights were trained with. One exception
can't be seen in a file: torchvision's IMAGENET1K_FEATURES was trained with other pixels.
"""

import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from rank_ssl.errors import UserError
from rank_ssl.models.vgg import LAYOUTS, block_channels

Convs = dict[str, dict[str, np.ndarray]]
PICKLES = ('.pth', '.pt', '.pkl', '.pickle', '.bin', '.ckpt', '.th')
_NPZ_CONV = re.compile(r'block\d+_conv\d+/')
# torchvision and timm write features.0.weight, timm's features_only features_0.weight.
TORCH_CONV = re.compile(r'(?P<prefix>(?:.*\.)?)features[._](?P<rest>\d+\..+)')
_CHANNELS_CURE = 'use the weights of a VGG with 64, 128, 256, 512, 512 channels'
UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, SyntaxError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error, SafetensorError, tokenize.TokenError),
)


class _Leaf(NamedTuple):
    """One expected array: where it goes, and its key and shape in the file."""

    conv: str  # block1_conv1
    name: str  # kernel or bias
    key: str
    shape: tuple[int, ...]


class _Format(NamedTuple):
    read: Callable[[Path], dict[str, np.ndarray]]  # the convolutions' arrays
    leaves: Callable[[tuple[int, ...]], list[_Leaf]]  # all those of a layout
    axes: tuple[int, ...]  # of a kernel in the file, to give HWIO
    pixels: str


def load_backbone(
    path: str | Path, *, layout: tuple[int, ...], width: float, blocks: int
) -> tuple[Convs, str]:
    """Float32 {block1_conv1: {kernel HWIO, bias}, ...} and the name of their pixel convention.

    Only the first `blocks` are given. Raises UserError for a file that is absent, of another
    kind, damaged or of another network.
    """
    path = Path(path)
    if width != 1:
        cure = 'set config.model.width=1 or config.model.weights=none'
        raise UserError(f'config.model.width={width:g} fits no pretrained weights; {cure}')
    kind = _format_of(path)
    arrays = kind.read(path)
    _check_layout(path, arrays, kind, layout, blocks)
    convs: Convs = {}
    for leaf in _kept(kind.leaves(layout), blocks):
        array = checked(path, leaf.key, arrays[leaf.key], leaf.shape, cure=_CHANNELS_CURE)
        value = array.transpose(kind.axes) if leaf.name == 'kernel' else array
        convs.setdefault(leaf.conv, {})[leaf.name] = np.ascontiguousarray(value)
    return convs, kind.pixels


def merge_backbone(params: dict[str, Any], loaded: Convs) -> dict[str, Any]:
    """params with the backbone's arrays replaced by the loaded ones, which must be just as many."""
    backbone = params['backbone']
    odd = sorted(backbone.keys() ^ loaded.keys())
    if odd:
        side = 'the network' if odd[0] in backbone else 'the weights'
        raise UserError(f'config.model.weights do not fit: {odd[0]} is only in {side}')
    for conv, leaves in backbone.items():
        for name, value in leaves.items():
            found = loaded[conv][name].shape
            if found != value.shape:
                shapes = f'{found}, expected {value.shape}'
                raise UserError(f'config.model.weights: {conv}/{name} has shape {shapes}')
    merged = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), backbone, loaded)
    return {**params, 'backbone': merged}


def _format_of(path: Path) -> _Format:
    field = f'config.model.weights={path}'
    suffix = path.suffix.lower()
    if not path.is_file():
        raise UserError(f'{field} is not a file; give an .npz or .safetensors file, or none')
    if suffix in PICKLES:
        raise UserError(
            f'{field} is a pickle, which can run code on loading; convert it once with '
            'safetensors.torch.save_file(torch.load(FILE, weights_only=True), "FILE.safetensors")'
        )
    if suffix not in _FORMATS:
        raise UserError(f'{field} ends in {suffix or "no suffix"}; use .npz or .safetensors')
    return _FORMATS[suffix]


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # A lone npy would come back as an array; a zip's members are read one by one.
        with zipfile.ZipFile(path):
            pass
        with np.load(path, allow_pickle=False) as file:
            return {key: np.asarray(file[key]) for key in file.files if _NPZ_CONV.match(key)}
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework='numpy') as file:
            keys = file.keys()
            matches = {key: m for key in keys if (m := TORCH_CONV.fullmatch(key)) is not None}
            _check_prefixes(path, {match['prefix'] for match in matches.values()})
            return {f'features.{m["rest"]}': file.get_tensor(key) for key, m in matches.items()}
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _check_prefixes(path: Path, prefixes: set[str]) -> None:
    if len(prefixes) > 1:
        names = ', '.join(repr(p) for p in sorted(prefixes))
        rule = f'holds several networks (prefixes {names} of features.)'
        raise UserError(f'config.model.weights={path} {rule}; keep one')


def damaged(path: Path, error: BaseException) -> UserError:
    """The error for a file that a reader could not read."""
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    return UserError(f'config.model.weights={path} cannot be read ({reason}); fetch it again')


def _conv_sizes(layout: tuple[int, ...]) -> list[tuple[str, int, int]]:
    sizes, inputs = [], 3
    for b, (count, outputs) in enumerate(zip(layout, block_channels(1.0), strict=True), start=1):
        for c in range(1, count + 1):
            sizes.append((f'block{b}_conv{c}', inputs, outputs))
            inputs = outputs
    return sizes


def _npz_leaves(layout: tuple[int, ...]) -> list[_Leaf]:
    leaves = []
    for conv, inputs, outputs in _conv_sizes(layout):
        leaves.append(_Leaf(conv, 'kernel', f'{conv}/kernel', (3, 3, inputs, outputs)))
        leaves.append(_Leaf(conv, 'bias', f'{conv}/bias', (outputs,)))
    return leaves


def _torch_leaves(layout: tuple[int, ...]) -> list[_Leaf]:
    leaves, index, block = [], 0, 'block1'
    for conv, inputs, outputs in _conv_sizes(layout):
        # nn.Sequential counts each convolution, its relu, and the pooling layer after a block.
        index += not conv.startswith(block)
        block = conv.split('_')[0]
        leaves.append(_Leaf(conv, 'kernel', f'features.{index}.weight', (outputs, inputs, 3, 3)))
        leaves.append(_Leaf(conv, 'bias', f'features.{index}.bias', (outputs,)))
        index += 2
    return leaves


def _kept(leaves: Iterable[_Leaf], blocks: int) -> list[_Leaf]:
    return [leaf for leaf in leaves if int(leaf.conv[len('block')]) <= blocks]


def _check_layout(
    path: Path,
    arrays: dict[str, np.ndarray],
    kind: _Format,
    layout: tuple[int, ...],
    blocks: int,
) -> None:
    field = f'config.model.weights={path}'
    for key, array in arrays.items():
        if key.startswith('features.') and (
            key.endswith('running_mean') or (key.endswith('.weight') and array.ndim == 1)
        ):
            why = f'{key} of shape {array.shape} is batch normalisation, which this VGG has not'
            raise UserError(f'{field}: {why}; use the weights of a VGG without it')
    leaves = kind.leaves(layout)
    for leaf in _kept(leaves, blocks):
        if leaf.key not in arrays:
            held = f'holds {len(arrays)} arrays of convolutions'
            rule = f'lacks {leaf.key} of shape {leaf.shape} and {held}'
            raise UserError(f'{field} {rule}; {_layout_cure(arrays, kind)}')
    odd = [key for key in arrays if key not in {leaf.key for leaf in leaves}]
    if odd:
        rule = f'has {odd[0]} of shape {arrays[odd[0]].shape}, which config.model.backbone has not'
        raise UserError(f'{field} {rule}; {_layout_cure(arrays, kind)}')


def _layout_cure(arrays: dict[str, np.ndarray], kind: _Format) -> str:
    for name, layout in LAYOUTS.items():
        if {leaf.key for leaf in kind.leaves(layout)} == arrays.keys():
            return f'it is a {name}: set config.model.backbone={name}'
    return f'use the weights of one of {", ".join(LAYOUTS)}'


def checked(
    path: Path, key: str, array: np.ndarray, shape: tuple[int, ...], *, cure: str
) -> np.ndarray:
    """The array as float32. Raises UserError for another shape, integers or odd values."""
    field = f'config.model.weights={path}: {key}'
    if array.shape != shape:
        raise UserError(f'{field} has shape {array.shape}, expected {shape}; {cure}')
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f'{field} has dtype {array.dtype}; convert it to a floating type')
    with np.errstate(over='ignore'):
        value = array.astype(np.float32)
    if not np.isfinite(value).all():
        bad = int((~np.isfinite(value)).sum())
        raise UserError(f'{field} has {bad} values that are not finite; fetch the file again')
    return value


_FORMATS = {
    '.npz': _Format(_read_npz, _npz_leaves, (0, 1, 2, 3), 'caffe'),
    '.safetensors': _Format(_read_safetensors, _torch_leaves, (2, 3, 1, 0), 'torch'),
}
