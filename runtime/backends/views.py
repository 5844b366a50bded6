"""The operators that only look at their input in another way, and the windows of convolutions.

They are the same for every backend that keeps tensors in numpy's arrays.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..errors import EarmarkError
from .program import Operation, P


def patches(
    operation: Operation[P], kind: np.dtype, padding: float
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
        program.copy(inside, x)
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
    program.copy(rows, windows)
    return rows.reshape(len(x), sides[0] * sides[1], -1), (sides[0], sides[1])


def joined(operation: Operation[P]) -> tuple[int, ...]:
    """The shape of all inputs behind one another."""
    axis, sides = operation.number("axis"), list(operation.x.shape)
    sides[axis] = sum(x.shape[axis] for x in operation.inputs)
    return tuple(sides)


def places(operation: Operation[P]) -> np.ndarray:
    """What a ``Gather`` takes, int64, counted from the start of the axis.

    Raises:
        EarmarkError: some lie beyond it.
    """
    x, taken = operation.inputs
    size = x.shape[operation.number("axis")]
    if taken.min(initial=0) < -size or taken.max(initial=-size) >= size:
        raise EarmarkError(f"Gather takes what lies beyond the {size} numbers of an axis")
    return np.where(taken < 0, taken + size, taken)


def along(axis: int, cut: slice) -> tuple[slice, ...]:
    """The index that cuts one axis."""
    return (*(slice(None),) * axis, cut)


def _slice(operation: Operation[P]) -> list[np.ndarray]:
    start, end, axis, *step = (int(x[0]) for x in operation.inputs[1:])
    return [operation.x[along(axis, slice(start, end, *step))]]


def _split(operation: Operation[P]) -> list[np.ndarray]:
    axis, start, parts = operation.number("axis"), 0, []
    for size in operation.inputs[1].tolist():
        parts.append(operation.x[along(axis, slice(start, start + size))])
        start += size
    return parts


def _reshape(operation: Operation[P]) -> list[np.ndarray]:
    target = operation.inputs[1].tolist()
    sides = (operation.x.shape[place] if side == 0 else side for place, side in enumerate(target))
    return [operation.reshaped(tuple(sides))]


def _flatten(operation: Operation[P]) -> list[np.ndarray]:
    axis, shape = operation.number("axis", 1), operation.x.shape
    before, after = (math.prod(part) for part in (shape[:axis], shape[axis:]))
    return [operation.reshaped((before, after))]


def _unsqueeze(operation: Operation[P]) -> list[np.ndarray]:
    return [np.expand_dims(operation.x, int(operation.inputs[1][0]))]


def _transpose(operation: Operation[P]) -> list[np.ndarray]:
    return [operation.x.transpose(operation.numbers("perm"))]


VIEWS: Mapping[str, Callable[[Operation[Any]], list[np.ndarray]]] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
