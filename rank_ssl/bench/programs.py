"""What a program computes, read from its trace or from its compiled text: convolutions, images."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

# `%name = f32[5,64,64,16]{3,2,1,0} convolution(%a, %b), ...`; a call gives a tuple of it and more.
_DEFINITION = re.compile(r'(%\S+) = \(?\w+\[([\d,]*)\].*? ([\w-]+)\((.*)')
_OPERAND = re.compile(r'%[^\s,)]+')
_LABELS = re.compile(r'dim_labels=(\w+)_(\w+)->(\w+)')

# Primitives that forward images, and the axes of (input, kernel, output) where they are fixed: of
# images, channels, height, width, and of outputs, inputs, height, width.
_LAYOUTS: dict[str, Any] = {
    'conv_general_dilated': None,
    'conv3x3': ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
}


class Convolution(NamedTuple):
    """One convolution of a program."""

    images: int  # forwarded at once
    pixels: int  # of an image's output
    kernel: tuple[int, ...]  # height, width, inputs, outputs

    @property
    def flops(self) -> int:
        """Multiplications and additions, those with the padding's zeros included."""
        return 2 * self.images * self.pixels * math.prod(self.kernel)


def forwards(program: Any, *, kernel: Sequence[int], pixels: int) -> int:
    """How many images pass the convolution with this kernel (h, w, I, O), of so many px each.

    `program` is a traced program (`jax.make_jaxpr(f)(...)`) or the text of a compiled one. A kernel
    that several layers share counts for each of them.
    """
    found = (c for c in convolutions(program) if c.kernel == tuple(kernel))
    # Strips of one image add up to it.
    total = sum(c.images * c.pixels for c in found)
    if total % pixels:
        raise ValueError(f'{total} px pass the kernel {tuple(kernel)}, no multiple of {pixels}')
    return total // pixels


def convolutions(program: Any) -> list[Convolution]:
    """All convolutions of a traced program or of the text of a compiled one.

    Those of gradients are among them, but for gradients that are made of matrix products.
    """
    return list(_compiled(program) if isinstance(program, str) else _traced(program))


def _traced(program: Any, times: int = 1) -> Iterator[Convolution]:
    for equation in getattr(program, 'jaxpr', program).eqns:
        if equation.primitive.name in _LAYOUTS:
            layout = _LAYOUTS[equation.primitive.name]
            _, of_kernel, of_output = layout or equation.params['dimension_numbers']
            kernel, made = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
            outputs, inputs, *sides = (kernel[axis] for axis in of_kernel)
            images, _, *shape = (made[axis] for axis in of_output)
            yield Convolution(times * images, math.prod(shape), (*sides, inputs, outputs))
        inside = jax.tree.leaves(equation.params, is_leaf=_is_program)
        repeats = equation.params['length'] if equation.primitive.name == 'scan' else 1
        for part in filter(_is_program, inside):
            yield from _traced(part, times * repeats)


def _is_program(value: Any) -> bool:
    return hasattr(value, 'eqns') or hasattr(getattr(value, 'jaxpr', None), 'eqns')


def _compiled(text: str) -> Iterator[Convolution]:
    shapes: dict[str, tuple[int, ...]] = {}
    calls: list[tuple[str, str]] = []
    for name, sizes, _, rest in _DEFINITION.findall(text):
        shapes[name] = tuple(int(size) for size in sizes.split(',') if size)
        if 'dim_labels=' in rest:
            calls.append((name, rest))
    for name, rest in calls:
        labels = _LABELS.search(rest)
        assert labels is not None
        _, of_kernel, of_output = labels.groups()
        operands = _OPERAND.findall(rest.partition(')')[0])
        kernel = dict(zip(of_kernel, shapes[operands[1]], strict=True))
        made = dict(zip(of_output, shapes[name], strict=True))
        yield Convolution(made['b'], made['0'] * made['1'], tuple(kernel[axis] for axis in '01io'))
