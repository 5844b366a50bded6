"""What each operator gives and what that takes, found from the shapes of its inputs.

The operators are those that ``earmark export`` writes, and their attributes too. A new operator in
the exporter needs its rule here; :mod:`earmark.export` loads what it wrote and so would notice.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .backends.native_program import PANEL
from .onnx_file import KINDS, MAX_PARTS, MAX_RANK, Node


class Tensor(NamedTuple):
    """What is known of a tensor before it is computed."""

    kind: str
    """numpy's name of the element type."""
    shape: tuple[int, ...]


class Result(NamedTuple):
    """What an operator gives, and what that takes."""

    tensors: list[Tensor]
    work: int = 0
    """Multiplications beyond one for each element."""
    held: int = 0
    """Most numbers in the copies that a backend makes of its inputs."""


class OperatorError(Exception):
    """What is wrong with an operator: the end of a sentence that begins with its name."""


def infer(node: Node, known: dict[str, Tensor], weights: dict[str, np.ndarray]) -> Result:
    """What an operator gives, by the rule that its name has.

    Args:
        node: the operator as the file has it.
        known: every tensor that was given before it, weights included, by name.
        weights: the values of those that are weights, by name.

    Raises:
        OperatorError: it is none of Earmark's graphs, or has other inputs or attributes.
        ValueError: its shapes do not fit, or it has another number of values than the rule takes.
        IndexError: an input is missing an axis.
    """
    if node.operator not in OPERATORS:
        raise OperatorError("is none that Earmark's graphs use")
    fewest, most, attributes, rule = OPERATORS[node.operator]
    if not fewest <= len(node.inputs) <= most:
        raise OperatorError(f"has {len(node.inputs)} inputs")
    unknown = set(node.attributes) - set(attributes)
    if unknown:
        raise OperatorError(f"has the attribute {min(unknown)[:100]!r}")
    missing = [name for name in node.inputs if name not in known]
    if missing:
        raise OperatorError(f"has the input {missing[0][:100]!r}, which nothing gives")
    inputs = [known[name] for name in node.inputs]
    result = rule(_Call(inputs, [weights.get(n) for n in node.inputs], node.attributes))
    if any(len(tensor.shape) > MAX_RANK for tensor in result.tensors):
        raise OperatorError("gives a tensor of too many axes")
    return result


class _Call(NamedTuple):
    """One operator with what is known of its inputs."""

    inputs: list[Tensor]
    constants: list[np.ndarray | None]
    """The inputs that are weights."""
    attributes: dict[str, int | tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input."""
        return self.inputs[0].shape

    def number(self, name: str, default: int = 0) -> int:
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise OperatorError(f"has a list as its {name}")
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        value = self.attributes.get(name)
        if not isinstance(value, tuple):
            raise OperatorError(f"has no list as its {name}")
        return value

    def list_input(self, place: int) -> list[int]:
        """An input that is a short list of integers in the file."""
        array = self.constants[place]
        if array is None or array.dtype != np.int64 or array.ndim != 1 or len(array) > 10_000:
            raise OperatorError(f"has no list of integers as its input {place}")
        return array.tolist()

    def axis(self, value: int) -> int:
        if not 0 <= value < len(self.shape):
            raise OperatorError(f"has no axis {value}")
        return value


def _elementwise(call: _Call) -> Result:
    kinds = {tensor.kind for tensor in call.inputs}
    if len(kinds) != 1:
        raise OperatorError("mixes types")
    return Result([Tensor(kinds.pop(), _broadcast(*(t.shape for t in call.inputs)))])


def _of_floats(call: _Call) -> Result:
    # Integer division can trap: by zero, and of the least number by -1.
    if any(tensor.kind != "float32" for tensor in call.inputs):
        raise OperatorError("is not of float32")
    return _elementwise(call)


def _modulo(call: _Call) -> Result:
    divisor = call.constants[1]
    if divisor is None or call.inputs[1].kind != "int64" or divisor.min(initial=1) < 1:
        raise OperatorError("has no positive integers to divide by")
    return _elementwise(call)


def _cast(call: _Call) -> Result:
    kind = KINDS.get(call.number("to"))
    if kind is None:
        raise OperatorError("gives an unknown type")
    return Result([Tensor(kind, call.shape)])


def _quantize(call: _Call) -> Result:
    _of_kinds(call, "float32", "float32", "uint8")
    _scalars(call, 1, 2)
    return Result([Tensor("uint8", call.shape)])


def _dequantize(call: _Call) -> Result:
    _of_kinds(call, "uint8", "float32", "uint8")
    _scalars(call, 1, 2)
    return Result([Tensor("float32", call.shape)])


def _transpose(call: _Call) -> Result:
    perm = call.numbers("perm")
    if sorted(perm) != list(range(len(call.shape))):
        raise OperatorError("has no permutation of its axes")
    return Result([call.inputs[0]._replace(shape=tuple(call.shape[axis] for axis in perm))])


def _concat(call: _Call) -> Result:
    axis = call.axis(call.number("axis", -1))
    rests = {(t.kind, t.shape[:axis], t.shape[axis + 1 :]) for t in call.inputs}
    if len(rests) != 1 or len({len(t.shape) for t in call.inputs}) != 1:
        raise OperatorError("joins tensors that do not fit")
    return Result([_resized(call, axis, sum(t.shape[axis] for t in call.inputs))])


def _slice(call: _Call) -> Result:
    (start,), (end,), (axis,) = (call.list_input(place) for place in (1, 2, 3))
    (step,) = call.list_input(4) if len(call.inputs) > 4 else (1,)
    size = len(range(*slice(start, end, step).indices(call.shape[call.axis(axis)])))
    return Result([_resized(call, axis, size)])


def _split(call: _Call) -> Result:
    axis, sizes = call.axis(call.number("axis")), call.list_input(1)
    if min(sizes, default=-1) < 0 or sum(sizes) != call.shape[axis]:
        raise OperatorError("cuts into parts that do not fit")
    return Result([_resized(call, axis, size) for size in sizes])


def _reshape(call: _Call) -> Result:
    target, total = call.list_input(1), math.prod(call.shape)
    sides = [call.shape[i] if side == 0 else side for i, side in enumerate(target)]
    if sides.count(-1) == 1:
        rest = -math.prod(sides)
        sides[sides.index(-1)] = total // rest if rest else -1
    if min(sides, default=0) < 0 or math.prod(sides) != total:
        raise OperatorError(f"turns the shape {list(call.shape)} into another size")
    return Result([call.inputs[0]._replace(shape=tuple(sides))])


def _flatten(call: _Call) -> Result:
    axis = call.axis(call.number("axis", 1))
    sides = math.prod(call.shape[:axis]), math.prod(call.shape[axis:])
    return Result([call.inputs[0]._replace(shape=sides)])


def _unsqueeze(call: _Call) -> Result:
    (axis,) = call.list_input(1)
    if not 0 <= axis <= len(call.shape):
        raise OperatorError(f"has no axis {axis}")
    shape = (*call.shape[:axis], 1, *call.shape[axis:])
    return Result([call.inputs[0]._replace(shape=shape)])


def _gather(call: _Call) -> Result:
    if call.inputs[1].kind != "int64":
        raise OperatorError("has indices that are no int64")
    axis = call.axis(call.number("axis"))
    shape = (*call.shape[:axis], *call.inputs[1].shape, *call.shape[axis + 1 :])
    return Result([call.inputs[0]._replace(shape=shape)], held=math.prod(call.shape))


def _reduce_mean(call: _Call) -> Result:
    axes = [call.axis(axis) for axis in call.numbers("axes")]
    if len(set(axes)) < len(axes):
        raise OperatorError("takes the mean of an axis twice")
    if call.number("keepdims", 1) or call.inputs[0].kind != "float32":
        raise OperatorError("is not of float32 without keepdims")
    shape = tuple(side for axis, side in enumerate(call.shape) if axis not in axes)
    return Result([Tensor("float32", shape)], math.prod(call.shape))


def _matmul(call: _Call) -> Result:
    _of_kinds(call, "float32", "float32")
    left, right = (tensor.shape for tensor in call.inputs)
    if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
        raise OperatorError(f"multiplies shapes {list(left)} and {list(right)}")
    shape = (*_broadcast(left[:-2], right[:-2]), left[-2], right[-1])
    return _multiplied(shape, right)


def _gemm(call: _Call) -> Result:
    _of_kinds(call, "float32", "float32", "float32")
    left, right, bias = (tensor.shape for tensor in call.inputs)
    if (len(left), len(right)) != (2, 2) or left[1] != right[0] or bias != right[1:]:
        raise OperatorError(f"multiplies shapes {list(left)} and {list(right)}, adds {list(bias)}")
    return _multiplied((left[0], right[1]), right)


def _multiplied(shape: tuple[int, ...], right: tuple[int, ...]) -> Result:
    """A product of matrices of this shape, by matrices of the shape ``right``."""
    inner, columns = right[-2:]
    left = math.prod(shape[:-1]) * inner
    return Result([Tensor("float32", shape)], left * columns, left + _in_panels(right))


def _in_panels(matrices: tuple[int, ...]) -> int:
    """Numbers of matrices whose columns are filled up, however many operators share them."""
    return math.prod(matrices[:-1]) * -(-matrices[-1] // PANEL) * PANEL


def _conv(call: _Call) -> Result:
    _of_kinds(call, "float32", "float32", "float32")
    shape, work, held = _convolved(call, call.shape, call.inputs[1].shape)
    if call.inputs[2].shape != shape[1:2]:
        raise OperatorError("has a bias that does not fit")
    return Result([Tensor("float32", shape)], work, held)


def _conv_quantized(call: _Call) -> Result:
    _of_kinds(
        call, *("uint8", "float32", "uint8", "int8", "float32", "int8", "float32", "uint8", "int32")
    )
    _scalars(call, 1, 2, 6, 7)
    shape, work, held = _convolved(call, call.shape, call.inputs[3].shape)
    if any(call.inputs[place].shape != shape[1:2] for place in (4, 5, 8)):
        raise OperatorError("has scales or a bias that do not fit")
    return Result([Tensor("uint8", shape)], work, held)


def _convolved(
    call: _Call, x: tuple[int, ...], weight: tuple[int, ...]
) -> tuple[tuple[int, ...], int, int]:
    """Shape [batch, outputs, height, width] and multiplications of a convolution, and how many
    numbers are held: its input padded, the rows of :func:`~earmark.runtime.backends.views.patches`,
    and its weights."""
    if len(x) != 4 or len(weight) != 4 or x[1] != weight[1] or 0 in weight:
        raise OperatorError(f"has weights {list(weight)} for an input {list(x)}")
    kernel, strides, dilations, pads = (
        call.numbers(name) for name in ("kernel_shape", "strides", "dilations", "pads")
    )
    if kernel != weight[2:] or (len(strides), len(dilations), len(pads)) != (2, 2, 4):
        raise OperatorError("has attributes that do not fit")
    if min(*strides, *dilations) < 1 or min(pads) < 0 or max(*strides, *dilations, *pads) > 1 << 20:
        raise OperatorError("has attributes out of range")
    padded = [x[2 + axis] + pads[axis] + pads[2 + axis] for axis in (0, 1)]
    sides = []
    for axis in (0, 1):
        span = padded[axis] - dilations[axis] * (kernel[axis] - 1) - 1
        if span < 0:
            raise OperatorError("has an input shorter than its kernel")
        sides.append(span // strides[axis] + 1)
    rows = x[0] * math.prod(sides) * math.prod(weight[1:])
    held = math.prod(x[:2]) * math.prod(padded) + rows + _in_panels((*weight[1:], weight[0]))
    return (x[0], weight[0], *sides), rows * weight[0], held


def _of_kinds(call: _Call, *kinds: str) -> None:
    if tuple(tensor.kind for tensor in call.inputs) != kinds:
        raise OperatorError(f"has other types than {', '.join(kinds)}")


def _scalars(call: _Call, *places: int) -> None:
    if any(call.inputs[place].shape for place in places):
        raise OperatorError("has a scale or zero point that is no single number")


def _resized(call: _Call, axis: int, size: int) -> Tensor:
    """The first input with another size along ``axis``."""
    return call.inputs[0]._replace(shape=(*call.shape[:axis], size, *call.shape[axis + 1 :]))


def _broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    # numpy refuses products beyond an address, with the ValueError that the caller expects.
    return np.broadcast_shapes(*map(tuple, shapes))


_CONV = ("kernel_shape", "strides", "dilations", "pads")
# Operator: least and most inputs, attributes, and the rule for its shapes.
OPERATORS: dict[str, tuple[int, int, Sequence[str], Callable[[_Call], Result]]] = {
    "Add": (2, 2, (), _elementwise),
    "Cast": (1, 1, ("to",), _cast),
    "Concat": (1, MAX_PARTS, ("axis",), _concat),
    "Conv": (3, 3, _CONV, _conv),
    "DequantizeLinear": (3, 3, (), _dequantize),
    "Div": (2, 2, (), _of_floats),
    "Flatten": (1, 1, ("axis",), _flatten),
    "Gather": (2, 2, ("axis",), _gather),
    "Gemm": (3, 3, (), _gemm),
    "Log": (1, 1, (), _of_floats),
    "MatMul": (2, 2, (), _matmul),
    "Min": (1, 8, (), _elementwise),
    "Mod": (2, 2, (), _modulo),
    "Mul": (2, 2, (), _elementwise),
    "QLinearConv": (9, 9, _CONV, _conv_quantized),
    "QuantizeLinear": (3, 3, (), _quantize),
    "ReduceMean": (1, 1, ("axes", "keepdims"), _reduce_mean),
    "Relu": (1, 1, (), _of_floats),
    "Reshape": (2, 2, (), _reshape),
    "Slice": (4, 5, (), _slice),
    "Split": (2, 2, ("axis",), _split),
    "Sub": (2, 2, (), _elementwise),
    "Transpose": (1, 1, ("perm",), _transpose),
    "Unsqueeze": (2, 2, (), _unsqueeze),
}
