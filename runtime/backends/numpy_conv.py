"""Convolutions as products of matrices, in integers where the graph is quantized.

The products of 8-bit numbers and their sums are integers, and floating point holds integers exactly
as long as they are small enough. Which type does is decided by the weights themselves, not by what
weights usually are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..onnx_file import Node
from .numpy_program import NumpyOperation
from .views import patches

EXACT_FLOAT32 = 1 << 24
"""Integers up to this are exact in float32, and so is every sum of them that stays within it."""


@dataclass(frozen=True)
class Weights:
    """What a convolution needs of its weights, made once for all programs."""

    matrix: np.ndarray
    """[height * width * channels, outputs], of the type that sums are made in."""
    bias: np.ndarray
    """[outputs]. For integers the input's zero point is in it; it is float32 where sums are, else
    int64."""


def numpy_weights(node: Node, constants: Mapping[str, np.ndarray]) -> Weights | None:
    """The weights of a convolution; None for other operators."""
    if node.operator == "Conv":
        weight, bias = (constants[name] for name in node.inputs[1:])
        return float_weights(weight, bias)
    if node.operator == "QLinearConv":
        _, zero, weight, _, weight_zero, _, _, bias = (constants[name] for name in node.inputs[1:])
        return integer_weights(weight, weight_zero, bias, int(zero))
    return None


def float_weights(weight: np.ndarray, bias: np.ndarray) -> Weights:
    """Of a float32 convolution: [outputs, channels, height, width] and [outputs]."""
    return Weights(matrix(weight), bias)


def integer_weights(
    weight: np.ndarray, weight_zero: np.ndarray, bias: np.ndarray, zero: int
) -> Weights:
    """Of a quantized convolution.

    Args:
        weight: int8 [outputs, channels, height, width].
        weight_zero: int8 [outputs].
        bias: int32 [outputs].
        zero: code of the input that stands for 0, which is also what pads it.
    """
    exact = matrix(weight.astype(np.int64) - weight_zero[:, None, None, None])
    # sum((x - zero) w) + bias = sum(x w) + (bias - zero sum(w))
    offset = bias - zero * exact.sum(0)
    # Codes reach 255. No partial sum, in whatever order, exceeds the sum of all magnitudes.
    bound = 255 * np.abs(exact).sum(0) + np.abs(offset)
    if bound.max(initial=0) <= EXACT_FLOAT32:
        return Weights(exact.astype(np.float32), offset.astype(np.float32))
    return Weights(exact.astype(np.float64), offset)


def conv(operation: NumpyOperation, weights: Weights) -> np.ndarray:
    """A float32 convolution, [batch, channels, height, width] both."""
    program = operation.program
    rows, sides = patches(operation, np.dtype(np.float32), 0.0)
    sums = operation.new((*rows.shape[:2], len(weights.bias)), np.float32)
    program.multiply(rows, weights.matrix, sums)
    program.do(np.add, sums, weights.bias, sums)
    return sums.reshape(len(rows), *sides, -1).transpose(0, 3, 1, 2)


def conv_quantized(operation: NumpyOperation, weights: Weights) -> np.ndarray:
    """A quantized convolution: sums in int32, each scaled in float32 and rounded half to even."""
    program = operation.program
    _, scale, zero, _, weight_scale, _, target_scale, target_zero, _ = operation.inputs
    rows, sides = patches(operation, weights.matrix.dtype, int(zero))
    shape = (*rows.shape[:2], len(weights.bias))
    sums = operation.new(shape, weights.matrix.dtype)
    program.multiply(rows, weights.matrix, sums)
    if weights.bias.dtype == sums.dtype:
        program.do(np.add, sums, weights.bias, sums)
    else:
        sums = _wrapped(operation, sums, weights.bias)
    program.do(np.multiply, sums, scale * weight_scale / target_scale, sums)
    codes = encoded(operation, sums, int(target_zero))
    return codes.reshape(len(rows), *sides, -1).transpose(0, 3, 1, 2)


def encoded(operation: NumpyOperation, x: np.ndarray, zero: int) -> np.ndarray:
    """8-bit codes of ``x``, float32 in steps of a code, which is overwritten. NaN becomes 0."""
    program = operation.program
    codes = operation.new(x.shape, np.uint8)
    program.do(np.fmax, x, np.float32(-zero), x)
    program.do(np.fmin, x, np.float32(255 - zero), x)
    program.do(np.rint, x, x)
    if zero:
        program.do(np.add, x, np.float32(zero), x)
    program.do(np.copyto, codes, x, "unsafe")
    return codes


def _wrapped(operation: NumpyOperation, sums: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Sums that may be large, float64, as float32: added up and rounded as int32 are."""
    program = operation.program
    long, integer, single = (
        operation.new(sums.shape, kind) for kind in (np.int64, np.int32, np.float32)
    )
    program.do(np.copyto, long, sums, "unsafe")
    program.do(np.add, long, bias, long)
    program.do(np.copyto, integer, long, "unsafe")
    program.do(np.copyto, single, integer, "unsafe")
    return single


def matrix(weight: np.ndarray) -> np.ndarray:
    """[outputs, channels, height, width] as [height * width * channels, outputs]."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))
