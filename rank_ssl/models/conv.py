"""Layers of a VGG for ONE image, made for vmap; large ones are computed differently on the CPU.

Each is a primitive, which is compiled as the platform does it best. More images are one larger
mini-batch for all of them. The convolution is bilinear: with its weight gradient, to which it
transposes, it describes itself whole. A `custom_vjp` can't say that: vmapped, it makes a weight
gradient for every image; and a `custom_vmap` around it has no gradient where nothing is vmapped.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from rank_ssl.models import cpu_conv


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution, stride 1, zero padding 1. [H, W, I], [3, 3, I, O] -> [H, W, O]."""
    return _conv_p.bind(x[None], kernel)[0]


@jax.custom_jvp
def bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    """max(0, x + bias), of gradient 0 at 0. [H, W, C], [C] -> [H, W, C]."""
    return _bias_relu_p.bind(x[None], bias)[0]


@jax.custom_vjp
def max_pool2(x: jax.Array) -> jax.Array:
    """2x2 maximum with stride 2. [H, W, C] -> [H // 2, W // 2, C].

    An odd last row or column is left out; equal maxima share the gradient.
    """
    # Not reduce_window, whose backward pass is a scatter.
    return _cells(x).max((1, 3))


@bias_relu.defjvp
def _bias_relu_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    y = bias_relu(*primals)
    return y, jnp.where(y > 0, tangents[0] + tangents[1], 0)


def _max_pool2_fwd(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _cells(x).max((1, 3))
    return y, (x, y)


def _max_pool2_bwd(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    x, y = kept
    return (_unpool_p.bind(x[None], y[None], dy[None])[0],)


max_pool2.defvjp(_max_pool2_fwd, _max_pool2_bwd)


def _cells(x: jax.Array) -> jax.Array:
    """[..., H, W, C] -> [..., H // 2, 2, W // 2, 2, C]."""
    *n, h, w, c = x.shape
    return x[..., : h // 2 * 2, : w // 2 * 2, :].reshape(*n, h // 2, 2, w // 2, 2, c)


def xla_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution. [N, H, W, I], [3, 3, I, O] -> [N, H, W, O]."""
    dims = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=dims)


def xla_weight_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    """XLA's gradient of `xla_conv` for its kernel. [N, H, W, I], [N, H, W, O] -> [3, 3, I, O]."""
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(partial(xla_conv, x), kernel)(dy)[0]


def xla_bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`bias_relu` of many images. [N, H, W, C], [C] -> [N, H, W, C]."""
    return jnp.maximum(x + bias, 0)


def xla_unpool(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient of y = `max_pool2` of many images x for x. -> [N, H, W, C]."""
    _, h, w, _ = x.shape
    found = _cells(x) == y[:, :, None, :, None]
    share = (dy / found.sum((2, 4), dtype=dy.dtype))[:, :, None, :, None]
    dx = jnp.where(found, share, 0)
    dx = dx.reshape(x.shape[0], h // 2 * 2, w // 2 * 2, x.shape[-1])
    return jnp.pad(dx, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))


def _cpu_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    winograd = cpu_conv.form(x, kernel.shape[-1]) == 'winograd'
    return (cpu_conv.winograd_conv if winograd else xla_conv)(x, kernel)


def _cpu_weight_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    forms = {
        'winograd': cpu_conv.winograd_weight_gradient,
        'strips': cpu_conv.strip_weight_gradient,
        'xla': xla_weight_gradient,
    }
    return forms[cpu_conv.form(x, dy.shape[-1])](x, dy)


def _cpu_bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    if x.size < cpu_conv.LEAST_LOOP:
        return xla_bias_relu(x, bias)
    return cpu_conv.by_image(lambda image: xla_bias_relu(image, bias), x)


def _cpu_unpool(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
    if x.size < cpu_conv.LEAST_LOOP:
        return xla_unpool(x, y, dy)
    return cpu_conv.by_image(xla_unpool, cpu_conv.unset(dy, x.shape), x, y, dy)


def _primitive(name: str, shape: Callable, function: Callable, on_cpu: Callable) -> Primitive:
    """A primitive that is compiled as `function`, on the CPU as another."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind))
    primitive.def_abstract_eval(
        lambda *args: jax.core.ShapedArray(shape(*(arg.shape for arg in args)), args[0].dtype)
    )
    for chosen, platform in ((function, None), (on_cpu, 'cpu')):
        lowering = mlir.lower_fun(chosen, multiple_results=False)
        mlir.register_lowering(primitive, lowering, platform=platform)
    return primitive


_conv_p = _primitive('conv3x3', lambda x, kernel: (*x[:-1], kernel[-1]), xla_conv, _cpu_conv)
_weight_p = _primitive(
    'conv3x3_weight_gradient',
    lambda x, dy: (3, 3, x[-1], dy[-1]),
    xla_weight_gradient,
    _cpu_weight_gradient,
)
_bias_relu_p = _primitive('bias_relu', lambda x, bias: x, xla_bias_relu, _cpu_bias_relu)
_unpool_p = _primitive('max_pool2_gradient', lambda x, y, dy: x, xla_unpool, _cpu_unpool)


def _turned(kernel: jax.Array) -> jax.Array:
    """The kernel of the gradient for the input. [3, 3, I, O] -> [3, 3, O, I]."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


ad.defbilinear(
    _conv_p,
    lambda dy, x, kernel: _conv_p.bind(dy, _turned(kernel)),
    lambda dy, x, kernel: _weight_p.bind(x, dy),
)
ad.defbilinear(
    _weight_p,
    lambda kernel, x, dy: _conv_p.bind(dy, _turned(kernel)),
    lambda kernel, x, dy: _conv_p.bind(x, kernel),
)


def _of_images(primitive: Primitive, function: Callable, shared: int) -> Callable:
    """A rule of vmap: one larger mini-batch, unless one of the last `shared` is mapped too."""

    def rule(args: tuple, dims: tuple) -> tuple[jax.Array, int]:
        count = len(args) - shared
        if any(dim is not None for dim in dims[count:]):
            return jax.vmap(function, dims)(*args), 0
        size = next(x.shape[dim] for x, dim in zip(args, dims, strict=True) if dim is not None)
        images = [
            jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)
            for x, dim in zip(args[:count], dims, strict=False)
        ]
        flat = [x.reshape(-1, *x.shape[2:]) for x in images]
        made = primitive.bind(*flat, *args[count:])
        return made.reshape(size, -1, *made.shape[1:]), 0

    return rule


def _of_weight_gradients(args: tuple, dims: tuple) -> tuple[jax.Array, int]:
    """One for each: vmap of a gradient asks for that, the gradient of a vmap never does."""
    return jax.vmap(xla_weight_gradient, dims)(*args), 0


batching.primitive_batchers[_conv_p] = _of_images(_conv_p, xla_conv, 1)
batching.primitive_batchers[_weight_p] = _of_weight_gradients
batching.primitive_batchers[_bias_relu_p] = _of_images(_bias_relu_p, xla_bias_relu, 1)
batching.primitive_batchers[_unpool_p] = _of_images(_unpool_p, xla_unpool, 0)
