"""How much a graph would compute and hold, found from its shapes before anything is computed.

The operators are those that ``earmark export`` writes, and their attributes too. A new operator in
the exporter needs its rule here; :mod:`earmark.export` loads what it wrote and so would notice.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .backends.native_program import PANEL
from .errors import EarmarkError
from .graph_ends import NAMES
from .manifest import Manifest
from .onnx_file import KINDS, MAX_PARTS, MAX_RANK, Node, OnnxFile

OPSET = 17
"""Version of the ONNX operators that models use."""
MAX_ELEMENTS = 1 << 26
"""Most numbers that a graph computes in one call (256 MiB of float32), in all its tensors and in
what backends make of the inputs of operators."""
MAX_WORK = 1 << 32
"""Most multiplications in one call."""


class Tensor(NamedTuple):
    """What is known of a tensor before it is computed."""

    kind: str
    """numpy's name of the element type."""
    shape: tuple[int, ...]


class _WrongError(Exception):
    pass


def check_graph(file: OnnxFile, manifest: Manifest) -> None:
    """Refuse a graph that is not what its manifest says, or that takes unreasonable resources.

    Raises:
        EarmarkError: it has other inputs, outputs, operators or attributes than Earmark's graphs
            have, shapes that do not fit, or computes too much. The message names no file.
    """
    if file.opset != OPSET:
        raise EarmarkError(f"the graph is of opset {file.opset}, expected {OPSET}: export it again")
    expected = _check_declared(file, manifest)
    known = {name: Tensor(array.dtype.name, array.shape) for name, array in file.weights.items()}
    known |= {name: tensor for (side, name), tensor in expected.items() if side == "input"}
    if len(known) < len(file.weights) + 2:
        raise EarmarkError("the graph has weights in the place of an input: export it again")
    taken = NAMES & {*file.weights, *(name for node in file.nodes for name in node.outputs)}
    if taken:
        raise EarmarkError(
            f"the graph has a tensor {min(taken)!r}, a name that the runtime gives: export it again"
        )
    elements = work = 0
    for place, node in enumerate(file.nodes):
        try:
            tensors, multiplications, held = _infer(node, known, file.weights)
            elements += held + sum(math.prod(tensor.shape) for tensor in tensors)
            work += multiplications
            if elements > MAX_ELEMENTS or work > MAX_WORK:
                raise _WrongError("takes unreasonable memory or time")
            for name, tensor in zip(node.outputs, tensors, strict=True):
                if not name or name in known:
                    raise _WrongError("has an output without a name of its own")
                known[name] = tensor
        except (_WrongError, ValueError, IndexError) as error:
            raise EarmarkError(
                f"operator {place} of the graph, {node.operator[:100]!r}, {error}: export it again"
            ) from error
    for (side, name), tensor in expected.items():
        if side == "output" and known.get(name) != tensor:
            raise EarmarkError(
                f"the graph computes another {name} than it declares: export it again"
            )


def _check_declared(file: OnnxFile, manifest: Manifest) -> dict[tuple[str, str], Tensor]:
    """Check inputs and outputs against the manifest; the tensors that it asks for."""
    geometry = manifest.geometry
    shapes = {
        ("input", "pcm"): (geometry.chunk,),
        ("input", "cache"): (geometry.cache,),
        ("output", "logits"): (geometry.steps, len(manifest.labels)),
        ("output", "cache_out"): (geometry.cache,),
    }
    found = {("input", name): value for name, value in file.inputs.items()}
    found |= {("output", name): value for name, value in file.outputs.items()}
    for (side, name), shape in shapes.items():
        value = found.pop((side, name), None)
        if value is None:
            raise EarmarkError(f"the graph has no {side} {name}: export it again")
        if value.kind != "float32":
            raise EarmarkError(f"{side} {name} of the graph is {value.kind}, expected float32")
        batch, *rest = value.shape or [0]
        if tuple(rest) != shape or not (isinstance(batch, str) or batch == 1):
            raise EarmarkError(
                f"{side} {name} of the graph has shape {list(value.shape)}, the manifest says "
                f"{['batch', *shape]}: export it again"
            )
    if found:
        (side, name), _ = next(iter(found.items()))
        raise EarmarkError(
            f"the graph has an {side} {name[:100]!r} that the manifest does not describe"
        )
    return {key: Tensor("float32", (1, *shape)) for key, shape in shapes.items()}


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
            raise _WrongError(f"has a list as its {name}")
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        value = self.attributes.get(name)
        if not isinstance(value, tuple):
            raise _WrongError(f"has no list as its {name}")
        return value

    def list_input(self, place: int) -> list[int]:
        """An input that is a short list of integers in the file."""
        array = self.constants[place]
        if array is None or array.dtype != np.int64 or array.ndim != 1 or len(array) > 10_000:
            raise _WrongError(f"has no list of integers as its input {place}")
        return array.tolist()

    def axis(self, value: int) -> int:
        if not 0 <= value < len(self.shape):
            raise _WrongError(f"has no axis {value}")
        return value


class _Result(NamedTuple):
    """What an operator gives, and what that takes."""

    tensors: list[Tensor]
    work: int = 0
    """Multiplications beyond one for each element."""
    held: int = 0
    """Most numbers in the copies that a backend makes of its inputs."""


def _infer(node: Node, known: dict[str, Tensor], weights: dict[str, np.ndarray]) -> _Result:
    if node.operator not in _OPERATORS:
        raise _WrongError("is none that Earmark's graphs use")
    fewest, most, attributes, rule = _OPERATORS[node.operator]
    if not fewest <= len(node.inputs) <= most:
        raise _WrongError(f"has {len(node.inputs)} inputs")
    unknown = set(node.attributes) - set(attributes)
    if unknown:
        raise _WrongError(f"has the attribute {min(unknown)[:100]!r}")
    missing = [name for name in node.inputs if name not in known]
    if missing:
        raise _WrongError(f"has the input {missing[0][:100]!r}, which nothing gives")
    inputs = [known[name] for name in node.inputs]
    result = rule(_Call(inputs, [weights.get(n) for n in node.inputs], node.attributes))
    if any(len(tensor.shape) > MAX_RANK for tensor in result.tensors):
        raise _WrongError("gives a tensor of too many axes")
    return result


def _elementwise(call: _Call) -> _Result:
    kinds = {tensor.kind for tensor in call.inputs}
    if len(kinds) != 1:
        raise _WrongError("mixes types")
    return _Result([Tensor(kinds.pop(), _broadcast(*(t.shape for t in call.inputs)))])


def _of_floats(call: _Call) -> _Result:
    # Integer division can trap: by zero, and of the least number by -1.
    if any(tensor.kind != "float32" for tensor in call.inputs):
        raise _WrongError("is not of float32")
    return _elementwise(call)


def _modulo(call: _Call) -> _Result:
    divisor = call.constants[1]
    if divisor is None or call.inputs[1].kind != "int64" or divisor.min(initial=1) < 1:
        raise _WrongError("has no positive integers to divide by")
    return _elementwise(call)


def _cast(call: _Call) -> _Result:
    kind = KINDS.get(call.number("to"))
    if kind is None:
        raise _WrongError("gives an unknown type")
    return _Result([Tensor(kind, call.shape)])


def _quantize(call: _Call) -> _Result:
    _of_kinds(call, "float32", "float32", "uint8")
    _scalars(call, 1, 2)
    return _Result([Tensor("uint8", call.shape)])


def _dequantize(call: _Call) -> _Result:
    _of_kinds(call, "uint8", "float32", "uint8")
    _scalars(call, 1, 2)
    return _Result([Tensor("float32", call.shape)])


def _transpose(call: _Call) -> _Result:
    perm = call.numbers("perm")
    if sorted(perm) != list(range(len(call.shape))):
        raise _WrongError("has no permutation of its axes")
    return _Result([call.inputs[0]._replace(shape=tuple(call.shape[axis] for axis in perm))])


def _concat(call: _Call) -> _Result:
    axis = call.axis(call.number("axis", -1))
    rests = {(t.kind, t.shape[:axis], t.shape[axis + 1 :]) for t in call.inputs}
    if len(rests) != 1 or len({len(t.shape) for t in call.inputs}) != 1:
        raise _WrongError("joins tensors that do not fit")
    return _Result([_resized(call, axis, sum(t.shape[axis] for t in call.inputs))])


def _slice(call: _Call) -> _Result:
    (start,), (end,), (axis,) = (call.list_input(place) for place in (1, 2, 3))
    (step,) = call.list_input(4) if len(call.inputs) > 4 else (1,)
    size = len(range(*slice(start, end, step).indices(call.shape[call.axis(axis)])))
    return _Result([_resized(call, axis, size)])


def _split(call: _Call) -> _Result:
    axis, sizes = call.axis(call.number("axis")), call.list_input(1)
    if min(sizes, default=-1) < 0 or sum(sizes) != call.shape[axis]:
        raise _WrongError("cuts into parts that do not fit")
    return _Result([_resized(call, axis, size) for size in sizes])


def _reshape(call: _Call) -> _Result:
    target, total = call.list_input(1), math.prod(call.shape)
    sides = [call.shape[i] if side == 0 else side for i, side in enumerate(target)]
    if sides.count(-1) == 1:
        rest = -math.prod(sides)
        sides[sides.index(-1)] = total // rest if rest else -1
    if min(sides, default=0) < 0 or math.prod(sides) != total:
        raise _WrongError(f"turns the shape {list(call.shape)} into another size")
    return _Result([call.inputs[0]._replace(shape=tuple(sides))])


def _flatten(call: _Call) -> _Result:
    axis = call.axis(call.number("axis", 1))
    sides = math.prod(call.shape[:axis]), math.prod(call.shape[axis:])
    return _Result([call.inputs[0]._replace(shape=sides)])


def _unsqueeze(call: _Call) -> _Result:
    (axis,) = call.list_input(1)
    if not 0 <= axis <= len(call.shape):
        raise _WrongError(f"has no axis {axis}")
    shape = (*call.shape[:axis], 1, *call.shape[axis:])
    return _Result([call.inputs[0]._replace(shape=shape)])


def _gather(call: _Call) -> _Result:
    if call.inputs[1].kind != "int64":
        raise _WrongError("has indices that are no int64")
    axis = call.axis(call.number("axis"))
    shape = (*call.shape[:axis], *call.inputs[1].shape, *call.shape[axis + 1 :])
    return _Result([call.inputs[0]._replace(shape=shape)], held=math.prod(call.shape))


def _reduce_mean(call: _Call) -> _Result:
    axes = [call.axis(axis) for axis in call.numbers("axes")]
    if len(set(axes)) < len(axes):
        raise _WrongError("takes the mean of an axis twice")
    if call.number("keepdims", 1) or call.inputs[0].kind != "float32":
        raise _WrongError("is not of float32 without keepdims")
    shape = tuple(side for axis, side in enumerate(call.shape) if axis not in axes)
    return _Result([Tensor("float32", shape)], math.prod(call.shape))


def _matmul(call: _Call) -> _Result:
    _of_kinds(call, "float32", "float32")
    left, right = (tensor.shape for tensor in call.inputs)
    if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
        raise _WrongError(f"multiplies shapes {list(left)} and {list(right)}")
    shape = (*_broadcast(left[:-2], right[:-2]), left[-2], right[-1])
    return _multiplied(shape, right)


def _gemm(call: _Call) -> _Result:
    _of_kinds(call, "float32", "float32", "float32")
    left, right, bias = (tensor.shape for tensor in call.inputs)
    if (len(left), len(right)) != (2, 2) or left[1] != right[0] or bias != right[1:]:
        raise _WrongError(f"multiplies shapes {list(left)} and {list(right)}, adds {list(bias)}")
    return _multiplied((left[0], right[1]), right)


def _multiplied(shape: tuple[int, ...], right: tuple[int, ...]) -> _Result:
    """A product of matrices of this shape, by matrices of the shape ``right``."""
    inner, columns = right[-2:]
    left = math.prod(shape[:-1]) * inner
    return _Result([Tensor("float32", shape)], left * columns, left + _in_panels(right))


def _in_panels(matrices: tuple[int, ...]) -> int:
    """Numbers of matrices whose columns are filled up, however many operators share them."""
    return math.prod(matrices[:-1]) * -(-matrices[-1] // PANEL) * PANEL


def _conv(call: _Call) -> _Result:
    _of_kinds(call, "float32", "float32", "float32")
    shape, work, held = _convolved(call, call.shape, call.inputs[1].shape)
    if call.inputs[2].shape != shape[1:2]:
        raise _WrongError("has a bias that does not fit")
    return _Result([Tensor("float32", shape)], work, held)


def _conv_quantized(call: _Call) -> _Result:
    _of_kinds(
        call, *("uint8", "float32", "uint8", "int8", "float32", "int8", "float32", "uint8", "int32")
    )
    _scalars(call, 1, 2, 6, 7)
    shape, work, held = _convolved(call, call.shape, call.inputs[3].shape)
    if any(call.inputs[place].shape != shape[1:2] for place in (4, 5, 8)):
        raise _WrongError("has scales or a bias that do not fit")
    return _Result([Tensor("uint8", shape)], work, held)


def _convolved(
    call: _Call, x: tuple[int, ...], weight: tuple[int, ...]
) -> tuple[tuple[int, ...], int, int]:
    """Shape [batch, outputs, height, width] and multiplications of a convolution, and how many
    numbers are held: its input padded, the rows of :func:`~earmark.runtime.backends.views.patches`,
    and its weights."""
    if len(x) != 4 or len(weight) != 4 or x[1] != weight[1] or 0 in weight:
        raise _WrongError(f"has weights {list(weight)} for an input {list(x)}")
    kernel, strides, dilations, pads = (
        call.numbers(name) for name in ("kernel_shape", "strides", "dilations", "pads")
    )
    if kernel != weight[2:] or (len(strides), len(dilations), len(pads)) != (2, 2, 4):
        raise _WrongError("has attributes that do not fit")
    if min(*strides, *dilations) < 1 or min(pads) < 0 or max(*strides, *dilations, *pads) > 1 << 20:
        raise _WrongError("has attributes out of range")
    padded = [x[2 + axis] + pads[axis] + pads[2 + axis] for axis in (0, 1)]
    sides = []
    for axis in (0, 1):
        span = padded[axis] - dilations[axis] * (kernel[axis] - 1) - 1
        if span < 0:
            raise _WrongError("has an input shorter than its kernel")
        sides.append(span // strides[axis] + 1)
    rows = x[0] * math.prod(sides) * math.prod(weight[1:])
    held = math.prod(x[:2]) * math.prod(padded) + rows + _in_panels((*weight[1:], weight[0]))
    return (x[0], weight[0], *sides), rows * weight[0], held


def _of_kinds(call: _Call, *kinds: str) -> None:
    if tuple(tensor.kind for tensor in call.inputs) != kinds:
        raise _WrongError(f"has other types than {', '.join(kinds)}")


def _scalars(call: _Call, *places: int) -> None:
    if any(call.inputs[place].shape for place in places):
        raise _WrongError("has a scale or zero point that is no single number")


def _resized(call: _Call, axis: int, size: int) -> Tensor:
    """The first input with another size along ``axis``."""
    return call.inputs[0]._replace(shape=(*call.shape[:axis], size, *call.shape[axis + 1 :]))


def _broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    # numpy refuses products beyond an address, with the ValueError that the caller expects.
    return np.broadcast_shapes(*map(tuple, shapes))


_CONV = ("kernel_shape", "strides", "dilations", "pads")
# Operator: least and most inputs, attributes, and the rule for its shapes.
_OPERATORS: dict[str, tuple[int, int, Sequence[str], Callable[[_Call], _Result]]] = {
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
