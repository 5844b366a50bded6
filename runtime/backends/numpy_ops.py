"""The operators that Earmark's graphs use, each as the numpy calls that compute it.

That the inputs fit is not asked again: :mod:`earmark.runtime.graph_check` has found the shape and
type of every tensor before.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..onnx_file import KINDS
from .numpy_conv import Weights, conv, conv_quantized, encoded
from .numpy_program import NumpyOperation
from .views import VIEWS, joined, places

Rule = Callable[[NumpyOperation], list[np.ndarray]]


def compute(operation: NumpyOperation, weights: Weights | None) -> list[np.ndarray]:
    """Add the calls of one operator and return the arrays of its outputs.

    Args:
        operation: any that :mod:`earmark.runtime.graph_check` lets pass.
        weights: of a convolution.
    """
    if weights is not None:
        convolve = conv if operation.node.operator == "Conv" else conv_quantized
        return [convolve(operation, weights)]
    return RULES[operation.node.operator](operation)


def _elementwise(function: np.ufunc, operation: NumpyOperation) -> list[np.ndarray]:
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


def _relu(operation: NumpyOperation) -> list[np.ndarray]:
    x = operation.x
    y = operation.new(x.shape, x.dtype)
    operation.program.do(np.maximum, x, x.dtype.type(0), out=y)
    return [y]


def _cast(operation: NumpyOperation) -> list[np.ndarray]:
    x = operation.x
    y = operation.new(x.shape, KINDS[operation.number("to")])
    operation.program.do(np.copyto, y, x, "unsafe")
    return [y]


def _quantize(operation: NumpyOperation) -> list[np.ndarray]:
    x, scale, zero = operation.inputs
    y = operation.new(x.shape, np.float32)
    operation.program.do(np.divide, x, scale, y)
    return [encoded(operation, y, int(zero))]


def _dequantize(operation: NumpyOperation) -> list[np.ndarray]:
    x, scale, zero = operation.inputs
    values = (np.arange(256, dtype=np.float32) - np.float32(zero)) * scale
    y = operation.new(x.shape, np.float32)
    operation.program.do(values.take, x, None, y, "clip")
    return [y]


def _concat(operation: NumpyOperation) -> list[np.ndarray]:
    y = operation.new(joined(operation), operation.x.dtype)
    operation.program.do(np.concatenate, operation.inputs, operation.number("axis"), y)
    return [y]


def _gather(operation: NumpyOperation) -> list[np.ndarray]:
    x, axis, taken = operation.x, operation.number("axis"), places(operation)
    y = operation.new((*x.shape[:axis], *taken.shape, *x.shape[axis + 1 :]), x.dtype)
    operation.program.do(np.take, x, taken.astype(np.intp), axis, y, "clip")
    return [y]


def _reduce_mean(operation: NumpyOperation) -> list[np.ndarray]:
    x, axes = operation.x, operation.numbers("axes")
    y = operation.new(tuple(np.delete(x.shape, axes).tolist()), x.dtype)
    operation.program.do(np.mean, x, axes, None, y)
    return [y]


def _matmul(operation: NumpyOperation) -> list[np.ndarray]:
    left, right = operation.inputs[:2]
    shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2])
    y = operation.new((*shape, right.shape[-1]), np.float32)
    chunks, out = operation.program.rows, y
    # In the exporter's graphs, a left side of as many axes as the right one has the rows of all
    # chunks: a product takes chunk by chunk and gives each what it would alone, to the last bit.
    if left.ndim == right.ndim and chunks > 1 and left.shape[-2] % chunks == 0:
        left, out = (_by_chunk(x, chunks) for x in (left, y))
        right = np.expand_dims(right, -3)
    operation.program.multiply(left, right, out)
    return [y]


def _by_chunk(x: np.ndarray, chunks: int) -> np.ndarray:
    """[..., rows of all chunks, n] as [..., chunks, rows, n]."""
    return x.reshape(*x.shape[:-2], chunks, x.shape[-2] // chunks, x.shape[-1])


def _gemm(operation: NumpyOperation) -> list[np.ndarray]:
    (y,) = _matmul(operation)
    operation.program.do(np.add, y, operation.inputs[2], y)
    return [y]


RULES: dict[str, Rule] = {
    **VIEWS,
    "Add": partial(_elementwise, np.add),
    "Cast": _cast,
    "Concat": _concat,
    "DequantizeLinear": _dequantize,
    "Div": partial(_elementwise, np.divide),
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
    "Sub": partial(_elementwise, np.subtract),
}
