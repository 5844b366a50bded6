"""Convolutions as products of matrices, in integers where the graph is quantized.

The products of 8-bit numbers and their sums are integers, and floating point holds integers exactly
as long as they are small enough. Which type does is decided by the weights themselves, not by what
weights usually are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .numpy_program import Operation

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


def float_weights(weight: np.ndarray, bias: np.ndarray) -> Weights:
    """Of a float32 convolution: [outputs, channels, height, width] and [outputs]."""
    return Weights(_matrix(weight), bias)


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
    exact = _matrix(weight.astype(np.int64) - weight_zero[:, None, None, None])
    # sum((x - zero) w) + bias = sum(x w) + (bias - zero sum(w))
    offset = bias - zero * exact.sum(0)
    # Codes reach 255. No partial sum, in whatever order, exceeds the sum of all magnitudes.
    bound = 255 * np.abs(exact).sum(0) + np.abs(offset)
    if bound.max(initial=0) <= EXACT_FLOAT32:
        return Weights(exact.astype(np.float32), offset.astype(np.float32))
    return Weights(exact.astype(np.float64), offset)


def conv(operation: Operation, weights: Weights) -> np.ndarray:
    """A float32 convolution, [batch, channels, height, width] both."""
    program = operation.program
    rows, sides = _patches(operation, np.dtype(np.float32), 0.0)
    sums = operation.new((*rows.shape[:2], len(weights.bias)), np.float32)
    program.multiply(rows, weights.matrix, sums)
    program.do(np.add, sums, weights.bias, sums)
    return sums.reshape(len(rows), *sides, -1).transpose(0, 3, 1, 2)


def conv_quantized(operation: Operation, weights: Weights) -> np.ndarray:
    """A quantized convolution: sums in int32, each scaled in float32 and rounded half to even."""
    program = operation.program
    _, scale, zero, _, weight_scale, _, target_scale, target_zero, _ = operation.inputs
    rows, sides = _patches(operation, weights.matrix.dtype, int(zero))
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


def encoded(operation: Operation, x: np.ndarray, zero: int) -> np.ndarray:
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


def _wrapped(operation: Operation, sums: np.ndarray, bias: np.ndarray) -> np.ndarray:
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


def _matrix(weight: np.ndarray) -> np.ndarray:
    """[outputs, channels, height, width] as [height * width * channels, outputs]."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))


def _patches(
    operation: Operation, kind: np.dtype, padding: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """The inputs of every output as a row: [batch, outputs, height * width * channels] of a chunk,
    and height and width of the output."""
    program, x = operation.program, operation.x.transpose(0, 2, 3, 1)
    (kernel, strides, dilations, pads) = (
        operation.numbers(name) for name in ("kernel_shape", "strides", "dilations", "pads")
    )
    if any(pads):
        batch, height, width, channels = x.shape
        around = (batch, height + pads[0] + pads[2], width + pads[1] + pads[3], channels)
        padded = operation.new(around, kind, padding)
        inside = padded[:, pads[0] : pads[0] + height, pads[1] : pads[1] + width]
        program.do(np.copyto, inside, x)
        x = padded
    sides = tuple(
        (x.shape[1 + axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        for axis in (0, 1)
    )
    batch, down, right, channel = x.strides
    windows = as_strided(
        x,
        (len(x), *sides, *kernel, x.shape[3]),
        (
            *(batch, down * strides[0], right * strides[1]),
            *(down * dilations[0], right * dilations[1], channel),
        ),
        writeable=False,
    )
    rows = operation.new(windows.shape, kind)
    program.do(np.copyto, rows, windows)
    return rows.reshape(len(x), sides[0] * sides[1], -1), (sides[0], sides[1])
