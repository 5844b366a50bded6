"""The operators of Earmark's graphs as instructions for compiled code.

Each is here what :mod:`earmark.runtime.backends.numpy_ops` says that it is. What only looks at its
input in another way is the same in both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..errors import EarmarkError
from ..onnx_file import KINDS, Node
from .native_program import (
    MOST_INSTRUCTIONS,
    PANEL,
    Instruction,
    Layer,
    NativeOperation,
    filled_up,
    in_panels,
    zeros,
)
from .numpy_conv import matrix
from .views import VIEWS, along, joined, patches, places

MOST_WEIGHT = 128
"""Sum of weights of one sign whose products with codes may be added in 16 bits."""

Rule = Callable[[NativeOperation], list[np.ndarray]]


class Product(NamedTuple):
    """The right side of a product of matrices that does not depend on the audio."""

    panels: np.ndarray
    """Of :func:`~earmark.runtime.backends.native_program.in_panels`."""
    bias: np.ndarray


Weights = Product | Layer | None


def native_weights(node: Node, constants: Mapping[str, np.ndarray], layout: Instruction) -> Weights:
    """What all programs share of an operator: its weights as the compiled code reads them.

    Args:
        node: any operator.
        constants: of :func:`~earmark.runtime.backends.folded.folded`.
        layout: how the processor takes the weights of a quantized layer.

    Raises:
        EarmarkError: weights that no file of Earmark's has.
    """
    names = node.inputs[1:]
    if node.operator == "Conv":
        weight, bias = (constants[name] for name in names)
        return Product(in_panels(matrix(weight)), filled_up(bias))
    if node.operator == "QLinearConv":
        return _layer(*(constants[name] for name in names), layout=layout)
    if node.operator in ("Gemm", "MatMul") and constants.keys() >= set(names):
        right, *bias = (constants[name] for name in names)
        if right.ndim > 2:
            _few(right.shape)
        given = bias[0] if bias else np.zeros(right.shape[-1], np.float32)
        return Product(in_panels(right), filled_up(given))
    return None


def _layer(
    scale: np.ndarray,
    zero: np.ndarray,
    weight: np.ndarray,
    weight_scale: np.ndarray,
    weight_zero: np.ndarray,
    target_scale: np.ndarray,
    target_zero: np.ndarray,
    bias: np.ndarray,
    layout: Instruction,
) -> Layer:
    if weight_zero.any():
        raise EarmarkError("the native backend has no weights whose code for 0 is another than 0")
    exact = matrix(weight)
    # sum((x - zero) w) + bias = sum(x w) + (bias - zero sum(w)), which wraps as all sums do.
    offset = bias.astype(np.int64) - int(zero) * exact.sum(0, np.int64)
    panels, order = in_panels(exact), np.zeros(1, np.int32)
    if layout == Instruction.QUADS:
        panels = _quads(panels)
    elif layout == Instruction.PAIRS and (paired := _pairs(_quads(panels))):
        panels, order = paired
    else:
        layout = Instruction.CONVOLVE
    least = -np.float32(target_zero)
    return Layer(
        layout,
        panels,
        order,
        filled_up(offset.astype(np.int32)),
        filled_up(scale * weight_scale / target_scale),
        np.array([least, least + 255, target_zero], np.float32),
    )


def _quads(panels: np.ndarray) -> np.ndarray:
    """Int8 [panels, inputs, PANEL] as [panels, inputs / 4, PANEL, 4], filled up with zeros."""
    count, inputs = panels.shape[:2]
    quads = zeros((count, -(-inputs // 4), PANEL, 4), np.int8)
    for place in range(4):
        some = panels[:, place::4]
        quads[:, : some.shape[1], :, place] = some
    return quads


def _pairs(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Quads in the order that ``PAIRS`` takes them in, and that order; None where it cannot be.

    AVX2 adds the products of two inputs in 16 bits, which hold 255 times the sum of the magnitudes
    of one sign where that is at most ``MOST_WEIGHT``; where it is more, there are no pairs. Of most
    quads that stand side by side the products of both can be added so, which saves a third of the
    work.
    """
    count, places = quads.shape[:2]
    halves = quads.reshape(count, places, PANEL, 2, 2).astype(np.int16)
    sums = np.stack([halves.clip(0).sum(4, np.int16), (-halves).clip(0).sum(4, np.int16)])
    if sums.max(initial=0) > MOST_WEIGHT:
        return None
    pairs = places // 2
    both = sums[:, :, : 2 * pairs : 2] + sums[:, :, 1 : 2 * pairs : 2]
    together = np.all(both <= MOST_WEIGHT, axis=(0, 3, 4))
    weights = zeros(quads.shape, np.int8)
    order = zeros((count, 1 + places), np.int32)
    for panel, paired in enumerate(together):
        first = 2 * np.flatnonzero(paired)
        alone = np.setdiff1d(np.arange(places), [first, first + 1])
        starts = np.concatenate([first, alone])
        order[panel, 0] = len(first)
        order[panel, 1 : 1 + len(starts)] = 4 * starts
        # The same, each of a pair with its neighbour.
        taken = np.concatenate([np.stack([first, first + 1], axis=1).ravel(), alone])
        weights[panel] = quads[panel, taken]
    return weights, order


def compute(operation: NativeOperation, weights: Weights) -> list[np.ndarray]:
    """Add the instructions of one operator and return the arrays of its outputs.

    Args:
        operation: any that :mod:`earmark.runtime.graph_check` lets pass.
        weights: of :func:`native_weights`.

    Raises:
        EarmarkError: an operator computes with other numbers than float32 and 8-bit codes.
    """
    if isinstance(weights, Layer):
        return [_conv_quantized(operation, weights)]
    if isinstance(weights, Product):
        if operation.node.operator == "Conv":
            return [_conv(operation, weights)]
        return _matmul(operation, weights)
    return RULES[operation.node.operator](operation)


def _result(operation: NativeOperation, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """An array for what an operator gives, which is written once and whole."""
    out = operation.program.outputs.get(operation.node.outputs[0])
    if out is not None and (out.shape, out.dtype) == (shape, kind):
        return out
    return operation.new(shape, kind)


def _conv(operation: NativeOperation, weights: Product) -> np.ndarray:
    rows, sides = patches(operation, np.dtype(np.float32), 0.0)
    outputs = operation.inputs[1].shape[0]
    y = _result(operation, (*rows.shape[:2], outputs), np.float32)
    _multiply(operation, rows, weights, y)
    return y.reshape(len(rows), *sides, outputs).transpose(0, 3, 1, 2)


def _conv_quantized(operation: NativeOperation, weights: Layer) -> np.ndarray:
    rows, sides = patches(operation, np.dtype(np.uint8), int(operation.inputs[2]))
    outputs = operation.inputs[3].shape[0]
    y = _result(operation, (*rows.shape[:2], outputs), np.uint8)
    operation.program.convolve(rows.reshape(-1, rows.shape[2]), weights, y.reshape(-1, outputs))
    return y.reshape(len(rows), *sides, outputs).transpose(0, 3, 1, 2)


def _matmul(operation: NativeOperation, weights: Product | None = None) -> list[np.ndarray]:
    left, right, *bias = operation.inputs
    shape = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    y = _result(operation, (*shape, left.shape[-2], right.shape[-1]), np.float32)
    left = np.broadcast_to(left, (*shape, *left.shape[-2:]))
    if weights is not None and right.ndim == 2:
        _multiply(operation, left, weights, y)
        return [y]
    # One product for each matrix of the right side.
    inner, columns = right.shape[-2:]
    count = _few((*shape, inner, columns))
    spare: Sequence[np.ndarray] | np.ndarray = ()
    right = np.broadcast_to(right, (*shape, inner, columns))
    if weights is not None:
        panels, given = weights
    else:
        given = operation.new((count * PANEL,), np.float32, 0.0)
        if bias:
            operation.program.copy(given[:columns], bias[0])
        if columns == PANEL and right.strides[-2:] == (4 * PANEL, 4):
            panels = right[..., None, :, :]  # each matrix is a panel as it is
        else:
            panels = spare = operation.new((count, inner, PANEL), np.float32, 0.0)
    panels = np.broadcast_to(panels, (*shape, count, inner, PANEL))
    for place in np.ndindex(*shape):
        for panel, out in enumerate(spare):
            some = right[place][:, panel * PANEL : (panel + 1) * PANEL]
            operation.program.copy(out[:, : some.shape[1]], some)
        _multiply(operation, left[place], Product(panels[place], given), y[place])
    return [y]


def _few(right: tuple[int, ...]) -> int:
    """How many panels a matrix of a right side has.

    Raises:
        EarmarkError: all have too many.
    """
    panels = -(-right[-1] // PANEL)
    if math.prod(right[:-2]) * panels > MOST_INSTRUCTIONS:  # each is one
        raise EarmarkError(
            f"the native backend computes no {math.prod(right[:-2]):,} products of matrices at once"
        )
    return panels


def _multiply(operation: NativeOperation, left: np.ndarray, right: Product, y: np.ndarray) -> None:
    """[..., rows, inner] by a matrix, in one product where memory allows it."""
    rows_apart = left.ndim == 2 and left.strides[1] == left.itemsize
    if not (rows_apart or left.flags.c_contiguous):
        copied = operation.new(left.shape, np.float32)
        operation.program.copy(copied, left)
        left = copied
    if y.size:
        rows = math.prod(left.shape[:-1])
        left = left.reshape(rows, left.shape[-1])
        operation.program.product(left, *right, y.reshape(rows, y.shape[-1]))


def _elementwise(instruction: Instruction, operation: NativeOperation) -> list[np.ndarray]:
    first, *others = operation.inputs
    if any(x.dtype != np.float32 for x in operation.inputs):
        raise EarmarkError(f"the native backend has {operation.node.operator!r} of float32 alone")
    y = _result(operation, np.broadcast_shapes(*(x.shape for x in operation.inputs)), np.float32)
    if not others:
        operation.program.copy(y, first)
    for other in others:
        operation.program.loop(instruction, y, first, other)
        first = y
    return [y]


def _logarithm(operation: NativeOperation) -> list[np.ndarray]:
    y = _result(operation, operation.x.shape, np.float32)
    operation.program.loop(Instruction.LOGARITHM, y, operation.x)
    return [y]


def _relu(operation: NativeOperation) -> list[np.ndarray]:
    y = _result(operation, operation.x.shape, np.float32)
    operation.program.loop(Instruction.MOST, y, operation.x, np.zeros((), np.float32))
    return [y]


def _cast(operation: NativeOperation) -> list[np.ndarray]:
    y = _result(operation, operation.x.shape, KINDS[operation.number("to")])
    operation.program.copy(y, operation.x)
    return [y]


def _quantize(operation: NativeOperation) -> list[np.ndarray]:
    x, scale, zero = operation.inputs
    y = _result(operation, x.shape, np.uint8)
    least = -np.float32(zero)
    limits = np.array([scale, least, least + 255, zero], np.float32)
    operation.program.table(Instruction.ENCODE, y, x, limits)
    return [y]


def _dequantize(operation: NativeOperation) -> list[np.ndarray]:
    x, scale, zero = operation.inputs
    y = _result(operation, x.shape, np.float32)
    values = (np.arange(256, dtype=np.float32) - np.float32(zero)) * scale
    operation.program.table(Instruction.DECODE, y, x, values)
    return [y]


def _concat(operation: NativeOperation) -> list[np.ndarray]:
    y = _result(operation, joined(operation), operation.x.dtype)
    axis, start = operation.number("axis"), 0
    for x in operation.inputs:
        operation.program.copy(y[along(axis, slice(start, start + x.shape[axis]))], x)
        start += x.shape[axis]
    return [y]


def _gather(operation: NativeOperation) -> list[np.ndarray]:
    x, axis, taken = operation.x, operation.number("axis"), places(operation)
    if not x.flags.c_contiguous:
        whole = operation.new(x.shape, x.dtype)
        operation.program.copy(whole, x)
        x = whole
    y = _result(operation, (*x.shape[:axis], *taken.shape, *x.shape[axis + 1 :]), x.dtype)
    operation.program.gather(x, taken, axis, y)
    return [y]


def _reduce_mean(operation: NativeOperation) -> list[np.ndarray]:
    # One after the other, in float32: for the few numbers that a graph takes the mean of.
    x, axes = operation.x, operation.numbers("axes")
    y = _result(operation, tuple(np.delete(x.shape, axes).tolist()), np.float32)
    count = x.size // max(1, y.size)
    zero, share = np.zeros((), np.float32), np.array(1 / max(1, count), np.float32)
    operation.program.copy(y, np.broadcast_to(zero, y.shape))
    sums = np.broadcast_to(np.expand_dims(y, axes), x.shape)
    operation.program.loop(Instruction.ADD, sums, sums, x)
    operation.program.loop(Instruction.MULTIPLY, y, y, share)
    return [y]


RULES: dict[str, Rule] = {
    **VIEWS,
    "Add": partial(_elementwise, Instruction.ADD),
    "Cast": _cast,
    "Concat": _concat,
    "DequantizeLinear": _dequantize,
    "Div": partial(_elementwise, Instruction.DIVIDE),
    "Gather": _gather,
    "Gemm": _matmul,
    "Log": _logarithm,
    "MatMul": _matmul,
    "Min": partial(_elementwise, Instruction.LEAST),
    "Mul": partial(_elementwise, Instruction.MULTIPLY),
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Sub": partial(_elementwise, Instruction.SUBTRACT),
}
