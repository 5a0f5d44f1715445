"""3x3 convolutions of a mini-batch and their weight gradients for the CPU, exact, in blocks.

XLA's weight gradient runs at a fifth of the CPU's matmul speed where images are large and channels
few: here it is a matrix product for each strip of rows, which stays in the cache. Where channels
are many, all convolutions take Winograd's form F(2x2, 3x3), 16 multiplications for 2x2 outputs in
place of 36 (Lavin and Gray, arXiv:1509.09308, 4.1). Its constants are 0, 1 and 1/2, so it rounds as
the plain sum does. The loops are no loops of convolutions, which XLA runs on one thread.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

STRIP = 800  # pixels of a strip
TILES = 800  # of 2x2 pixels, in a block of Winograd's form
# Below, XLA's convolution is as fast, or takes less time than a longer program to compile.
LEAST_PRODUCTS = 1e8  # multiplications of the convolution as the plain sum
LEAST_CHANNELS = 2048  # inputs times outputs
# One of Winograd's takes half a second more to compile than XLA's. Training steps win that back;
# single images don't, whose evaluation has a program for each size.
WINOGRAD_PRODUCTS = 4e9
WINOGRAD_CHANNELS = 128 * 256
WINOGRAD_IMAGES = 4
LEAST_LOOP = 2**21  # values of an array that is worked on image by image

Cells = Sequence[Sequence[jax.Array]]


def form(x: jax.Array, outputs: int) -> str:
    """'winograd', 'strips' (of a weight gradient) or 'xla': the fastest. x is [N, H, W, I]."""
    channels = x.shape[-1] * outputs
    products = 9 * x.size * outputs
    if products < LEAST_PRODUCTS or x.dtype not in (jnp.float32, jnp.float64):
        return 'xla'
    if (
        products >= WINOGRAD_PRODUCTS
        and channels >= WINOGRAD_CHANNELS
        and len(x) >= WINOGRAD_IMAGES
    ):
        return 'winograd'
    return 'strips' if channels >= LEAST_CHANNELS else 'xla'


def by_image(function: Callable, made: jax.Array, *images: jax.Array) -> jax.Array:
    """function(image, ...) of each image [1, ...], written over `made` [N, ...], maybe its input.

    XLA can't take anything out of the loop: a mask to keep from the forward to the backward pass,
    or what it would compute twice and keep the inputs of.
    """

    def of_image(k: jax.Array, made: jax.Array) -> jax.Array:
        image = function(*(_take(x, k, 1) for x in images or (made,)))
        return lax.dynamic_update_slice_in_dim(made, image, k, 0)

    return lax.fori_loop(0, len(made), of_image, made)


def unset(like: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """An array to be overwritten, made no earlier than `like`, of its type.

    Zeros XLA would make once for all layers, keep, and copy for each.
    """
    return jnp.broadcast_to(like[(0,) * like.ndim], shape)


def strip_weight_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    """Sum over images and pixels of x, shifted by -1 .. 1, times dy. -> [3, 3, I, O]."""
    n, h, w, i = x.shape
    o = dy.shape[-1]

    def of_image(image: Any, count: int, total: jax.Array) -> jax.Array:
        del count
        inputs = jnp.pad(_take(x, image, 1)[0], ((1, 1), (1, 1), (0, 0)))
        outputs = jnp.pad(_take(dy, image, 1)[0], ((2, 2), (0, 0), (0, 0)))

        def of_rows(top: Any, rows: int, total: jax.Array) -> jax.Array:
            strip, near = _take(inputs, top, rows), _take(outputs, top, rows + 2)
            # A row of x meets three rows of dy, so three copies of each make all nine shifts.
            left = jnp.concatenate([strip[:, b : b + w] for b in range(3)], -1)
            right = jnp.concatenate([near[2 - a : 2 - a + rows] for a in range(3)], -1)
            return total + _product(left, right)

        return _in_blocks(of_rows, h + 2, max(1, STRIP // w), total)

    total = _in_blocks(of_image, n, 1, jnp.zeros((3 * i, 3 * o), x.dtype))
    return total.reshape(3, i, 3, o).transpose(2, 0, 1, 3)


def winograd_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution with zero padding 1. [N, H, W, I], [3, 3, I, O] -> [N, H, W, O]."""
    n, h, w, _ = x.shape
    o = kernel.shape[-1]
    factors = _factors(kernel, x)
    images, rows, down, across = _blocking(h, w)

    def of_images(first: Any, count: int, made: jax.Array) -> jax.Array:
        inputs = _even(_take(x, first, count), border=1)

        def of_rows(top: Any, rows: int, made: jax.Array) -> jax.Array:
            spots = _both(_input_to_spots, _tiles(inputs, top, rows, across, size=4))
            sums = [
                [spots[a][b] @ factors[a][b] for b in range(4)]  # each over the input channels
                for a in range(4)
            ]
            pixels = _both(_spots_to_output, sums)
            woven = jnp.stack([jnp.stack(row, 3) for row in pixels], 2)
            strip = woven.reshape(count, 2 * rows, 2 * across, o)
            return lax.dynamic_update_slice(made, strip, (first, 2 * top, 0, 0))

        return _in_blocks(of_rows, down, rows, made)

    made = unset(x, (n, 2 * down, 2 * across, o))
    return _in_blocks(of_images, n, images, made)[:, :h, :w]


def winograd_weight_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    """The transpose of `winograd_conv` for its kernel. -> [3, 3, I, O]."""
    n, h, w, i = x.shape
    images, rows, down, across = _blocking(h, w)

    def of_images(first: Any, count: int, totals: list[list[jax.Array]]) -> list[list[jax.Array]]:
        inputs = _even(_take(x, first, count), border=1)
        outputs = _even(_take(dy, first, count), border=0)

        def of_rows(top: Any, rows: int, totals: list[list[jax.Array]]) -> list[list[jax.Array]]:
            left = _both(_input_to_spots, _tiles(inputs, top, rows, across, size=4))
            right = _both(_output_to_spots, _tiles(outputs, top, rows, across, size=2))
            return [
                [totals[a][b] + _product(left[a][b], right[a][b]) for b in range(4)]
                for a in range(4)
            ]

        return _in_blocks(of_rows, down, rows, totals)

    totals = [[jnp.zeros((i, dy.shape[-1]), x.dtype) for _ in range(4)] for _ in range(4)]
    kernel = _both(_spots_to_kernel, _in_blocks(of_images, n, images, totals))
    return jnp.stack([jnp.stack(row) for row in kernel])


def _factors(kernel: jax.Array, x: jax.Array) -> list[list[jax.Array]]:
    """The kernel at the 4x4 spots of a tile, [I, O] each, made no earlier than x.

    XLA would make those of all layers at first, and keep them.
    """

    def of_inputs(first: Any, count: int, made: list[list[jax.Array]]) -> list[list[jax.Array]]:
        part = lax.dynamic_slice_in_dim(kernel, first, count, 2)
        spots = _both(_kernel_to_spots, [[part[a, b] for b in range(3)] for a in range(3)])
        return [
            [lax.dynamic_update_slice_in_dim(made[a][b], spots[a][b], first, 0) for b in range(4)]
            for a in range(4)
        ]

    inputs = kernel.shape[2]
    made = [[unset(x, kernel.shape[2:]) for _ in range(4)] for _ in range(4)]
    return _in_blocks(of_inputs, inputs, -(-inputs // 2), made)


def _kernel_to_spots(g: Sequence[jax.Array]) -> list[jax.Array]:
    half = (g[0] + g[2]) / 2
    return [g[0], half + g[1] / 2, half - g[1] / 2, g[2]]


def _spots_to_kernel(u: Sequence[jax.Array]) -> list[jax.Array]:
    half = (u[1] + u[2]) / 2
    return [u[0] + half, (u[1] - u[2]) / 2, half + u[3]]


def _input_to_spots(d: Sequence[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output_to_spots(y: Sequence[jax.Array]) -> list[jax.Array]:
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _spots_to_output(m: Sequence[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _both(transform: Callable, cells: Cells) -> list[list[jax.Array]]:
    """A transform of the tiles' columns and then of their rows."""
    columns = [transform(column) for column in zip(*cells, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _tiles(image: jax.Array, top: Any, rows: int, across: int, *, size: int) -> Cells:
    """The pixel (a, b) of each tile size x size, two apart, by a and b. [n, rows, across, C]."""
    strip = lax.dynamic_slice_in_dim(image, 2 * top, 2 * rows + size - 2, 1)
    last = 2 * across - 1
    return [
        [strip[:, a : a + 2 * rows - 1 : 2, b : b + last : 2] for b in range(size)]
        for a in range(size)
    ]


def _blocking(h: int, w: int) -> tuple[int, int, int, int]:
    """Images and rows of tiles of a block; rows and columns of tiles of an image."""
    down, across = -(-h // 2), -(-w // 2)
    return max(1, TILES // (down * across)), max(1, TILES // across), down, across


def _even(images: jax.Array, *, border: int) -> jax.Array:
    """Images with zeros around them, and to an even number of rows and columns."""
    h, w = images.shape[1:3]
    return jnp.pad(images, ((0, 0), (border, border + h % 2), (border, border + w % 2), (0, 0)))


def _take(x: jax.Array, start: Any, count: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, start, count)


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Sum over all pixels of the outer products. [..., I], [..., O] -> [I, O]."""
    # As two axes: XLA transposes what is summed over more before it multiplies.
    flat, other = (x.reshape(-1, x.shape[-1]) for x in (left, right))
    return lax.dot_general(flat, other, (((0,), (0,)), ((), ())))


def _in_blocks(step: Callable, length: int, block: int, total: Any) -> Any:
    """`total = step(start, count, total)` over 0 .. length-1 in blocks, the last what is left."""
    whole, rest = divmod(length, block)
    if whole == 1:
        total = step(0, block, total)
    elif whole:
        total = lax.fori_loop(0, whole, lambda k, total: step(k * block, block, total), total)
    return step(whole * block, rest, total) if rest else total
