"""The operators that Earmark's graphs use, each as the numpy calls that compute it.

That the inputs fit is not asked again: :mod:`earmark.runtime.graph_check` has found the shape and
type of every tensor before.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ..errors import EarmarkError
from ..onnx_file import KINDS
from .numpy_conv import Weights, conv, conv_quantized, encoded
from .numpy_program import Operation

Rule = Callable[[Operation], list[np.ndarray]]


def compute(operation: Operation, weights: Weights | None) -> list[np.ndarray]:
    """Add the calls of one operator and return the arrays of its outputs.

    Args:
        operation: any that :mod:`earmark.runtime.graph_check` lets pass.
        weights: of a convolution.
    """
    if weights is not None:
        convolve = conv if operation.node.operator == "Conv" else conv_quantized
        return [convolve(operation, weights)]
    return RULES[operation.node.operator](operation)


def _elementwise(function: np.ufunc, operation: Operation) -> list[np.ndarray]:
    first, *others = operation.inputs
    shape = np.broadcast_shapes(*(x.shape for x in operation.inputs))
    y = operation.new(shape, first.dtype)
    if function.nin == 1:
        operation.program.do(function, first, out=y)
    elif not others:
        operation.program.do(np.copyto, y, first)
    for other in others:
        operation.program.do(function, first, other, out=y)
        first = y
    return [y]


def _relu(operation: Operation) -> list[np.ndarray]:
    x = operation.x
    y = operation.new(x.shape, x.dtype)
    operation.program.do(np.maximum, x, x.dtype.type(0), out=y)
    return [y]


def _cast(operation: Operation) -> list[np.ndarray]:
    x = operation.x
    y = operation.new(x.shape, KINDS[operation.number("to")])
    operation.program.do(np.copyto, y, x, "unsafe")
    return [y]


def _quantize(operation: Operation) -> list[np.ndarray]:
    x, scale, zero = operation.inputs
    y = operation.new(x.shape, np.float32)
    operation.program.do(np.divide, x, scale, y)
    return [encoded(operation, y, int(zero))]


def _dequantize(operation: Operation) -> list[np.ndarray]:
    x, scale, zero = operation.inputs
    values = (np.arange(256, dtype=np.float32) - np.float32(zero)) * scale
    y = operation.new(x.shape, np.float32)
    operation.program.do(values.take, x, None, y, "clip")
    return [y]


def _concat(operation: Operation) -> list[np.ndarray]:
    axis, inputs = operation.number("axis"), operation.inputs
    sides = list(inputs[0].shape)
    sides[axis] = sum(x.shape[axis] for x in inputs)
    y = operation.new(tuple(sides), inputs[0].dtype)
    operation.program.do(np.concatenate, inputs, axis, y)
    return [y]


def _slice(operation: Operation) -> list[np.ndarray]:
    start, end, axis, *step = (int(x[0]) for x in operation.inputs[1:])
    return [operation.x[_along(axis, slice(start, end, *step))]]


def _split(operation: Operation) -> list[np.ndarray]:
    axis, start, parts = operation.number("axis"), 0, []
    for size in operation.inputs[1].tolist():
        parts.append(operation.x[_along(axis, slice(start, start + size))])
        start += size
    return parts


def _along(axis: int, cut: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, cut)


def _reshape(operation: Operation) -> list[np.ndarray]:
    target = operation.inputs[1].tolist()
    sides = (operation.x.shape[place] if side == 0 else side for place, side in enumerate(target))
    return [operation.reshaped(tuple(sides))]


def _flatten(operation: Operation) -> list[np.ndarray]:
    axis, shape = operation.number("axis", 1), operation.x.shape
    before, after = (math.prod(part) for part in (shape[:axis], shape[axis:]))
    return [operation.reshaped((before, after))]


def _unsqueeze(operation: Operation) -> list[np.ndarray]:
    return [np.expand_dims(operation.x, int(operation.inputs[1][0]))]


def _transpose(operation: Operation) -> list[np.ndarray]:
    return [operation.x.transpose(operation.numbers("perm"))]


def _gather(operation: Operation) -> list[np.ndarray]:
    x, places = operation.inputs
    axis = operation.number("axis")
    size = x.shape[axis]
    if places.min(initial=0) < -size or places.max(initial=-size) >= size:
        raise EarmarkError(f"Gather takes what lies beyond the {size} numbers of an axis")
    places = np.where(places < 0, places + size, places)
    shape = (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    y = operation.new(shape, x.dtype)
    operation.program.do(np.take, x, places, axis, y, "clip")
    return [y]


def _reduce_mean(operation: Operation) -> list[np.ndarray]:
    x, axes = operation.x, operation.numbers("axes")
    y = operation.new(tuple(np.delete(x.shape, axes).tolist()), x.dtype)
    operation.program.do(np.mean, x, axes, None, y)
    return [y]


def _matmul(operation: Operation) -> list[np.ndarray]:
    left, right = operation.inputs[:2]
    shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2])
    y = operation.new((*shape, right.shape[-1]), np.float32)
    operation.program.multiply(operation.by_row(left), right, operation.by_row(y))
    return [y]


def _gemm(operation: Operation) -> list[np.ndarray]:
    (y,) = _matmul(operation)
    operation.program.do(np.add, y, operation.inputs[2], y)
    return [y]


RULES: dict[str, Rule] = {
    "Add": partial(_elementwise, np.add),
    "Cast": _cast,
    "Concat": _concat,
    "DequantizeLinear": _dequantize,
    "Div": partial(_elementwise, np.divide),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Log": partial(_elementwise, np.log),
    "MatMul": _matmul,
    "Min": partial(_elementwise, np.minimum),
    "Mod": partial(_elementwise, np.remainder),
    "Mul": partial(_elementwise, np.multiply),
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Sub": partial(_elementwise, np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
