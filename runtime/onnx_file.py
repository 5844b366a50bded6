"""What an ONNX file holds, read from its bytes without onnxruntime, and with no trust in them.

onnxruntime computes whatever a file tells it to while it loads the file, in as much memory as that
takes. So what a file holds is read here first, by the wire format of protocol buffers and the field
numbers of onnx.proto; our own backends know a file by nothing else. Only what ``earmark export``
writes is accepted: one graph of plain operators with integer attributes, and weights inside the
file. All else is refused rather than skipped, so that onnxruntime sees nothing that was not seen
here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import EarmarkError

KINDS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}
"""Element types: onnx.proto's number -> numpy's name."""
MAX_RANK = 8
MAX_NODES = 10_000
"""Most operators, and most weights."""
MAX_PARTS = 1000
"""Most of all else that a file repeats: inputs of one operator, numbers of one list."""

# Fields by number: name and type. A list stands for a field that may be repeated; bytes also for
# text and for messages.
_MODEL = {
    1: ("ir_version", int),
    2: ("producer_name", bytes),
    3: ("producer_version", bytes),
    4: ("domain", bytes),
    5: ("model_version", int),
    6: ("doc_string", bytes),
    7: ("graph", bytes),
    8: ("opset_import", [bytes]),
    14: ("metadata_props", [bytes]),
}
_OPSET = {1: ("domain", bytes), 2: ("version", int)}
_ENTRY = {1: ("key", bytes), 2: ("value", bytes)}
_GRAPH = {
    1: ("node", [bytes]),
    2: ("name", bytes),
    5: ("initializer", [bytes]),
    10: ("doc_string", bytes),
    11: ("input", [bytes]),
    12: ("output", [bytes]),
}
_NODE = {
    1: ("input", [bytes]),
    2: ("output", [bytes]),
    3: ("name", bytes),
    4: ("op_type", bytes),
    5: ("attribute", [bytes]),
    6: ("doc_string", bytes),
    7: ("domain", bytes),
}
_ATTRIBUTE = {1: ("name", bytes), 3: ("i", int), 8: ("ints", [int]), 20: ("type", int)}
_TENSOR = {
    1: ("dims", [int]),
    2: ("data_type", int),
    8: ("name", bytes),
    9: ("raw_data", bytes),
    12: ("doc_string", bytes),
}
_VALUE = {1: ("name", bytes), 2: ("type", bytes), 3: ("doc_string", bytes)}
_TYPE = {1: ("tensor_type", bytes)}
_TENSOR_TYPE = {1: ("elem_type", int), 2: ("shape", bytes)}
_SHAPE = {1: ("dim", [bytes])}
_DIM = {1: ("dim_value", int), 2: ("dim_param", bytes)}


@dataclass(frozen=True)
class Value:
    """An input or output as the graph declares it."""

    kind: str
    """numpy's name of the element type."""
    shape: tuple[int | str, ...]
    """Sizes, or names where the file leaves them open."""


@dataclass(frozen=True)
class Node:
    """One operator."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class OnnxFile:
    """The parts of a file."""

    opset: int
    metadata: dict[str, str]
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    weights: dict[str, np.ndarray]
    """Initializers by name: read-only views of the file's bytes."""
    nodes: tuple[Node, ...]


def read_onnx(data: bytes) -> OnnxFile:
    """Read a file's bytes. Memory is of the order of their length.

    Raises:
        EarmarkError: they are no ONNX model, or it has parts that Earmark's models do not have. The
            message names no file.
    """
    try:
        return _model(memoryview(data))
    except _MalformedError as error:
        if data[:1] != b"\x08":  # ir_version, which programs that write ONNX put first
            raise EarmarkError(
                "is no ONNX model, or a damaged one: name a file that earmark export wrote"
            ) from error
        raise EarmarkError(f"is no ONNX model that Earmark can run: {error}") from error


class _MalformedError(Exception):
    pass


def _model(data: memoryview) -> OnnxFile:
    model = _message(data, _MODEL, "model")
    opsets = [_message(item, _OPSET, "opset") for item in model["opset_import"]]
    if len(opsets) != 1 or opsets[0].get("domain"):
        raise _MalformedError("operators beyond those of the ONNX standard")
    entries = [_message(item, _ENTRY, "metadata") for item in model["metadata_props"]]
    graph = _message(_need(model, "graph"), _GRAPH, "graph", MAX_NODES)
    return OnnxFile(
        opset=opsets[0].get("version", 0),
        metadata=_named((_text(e, "key"), _text(e, "value")) for e in entries),
        inputs=_named(_value(item) for item in graph["input"]),
        outputs=_named(_value(item) for item in graph["output"]),
        weights=_named(_tensor(item) for item in graph["initializer"]),
        nodes=tuple(_node(item) for item in graph["node"]),
    )


def _node(data: memoryview) -> Node:
    node = _message(data, _NODE, "node")
    if node.get("domain"):
        raise _MalformedError("an operator beyond those of the ONNX standard")
    return Node(
        operator=_text(node, "op_type"),
        inputs=tuple(_decoded(item) for item in node["input"]),
        outputs=tuple(_decoded(item) for item in node["output"]),
        attributes=_named(_attribute(item) for item in node["attribute"]),
    )


def _attribute(data: memoryview) -> tuple[str, int | tuple[int, ...]]:
    attribute = _message(data, _ATTRIBUTE, "attribute")
    kind = attribute.get("type")
    if kind == 2 and not attribute["ints"]:
        return _text(attribute, "name"), attribute.get("i", 0)
    if kind == 7 and "i" not in attribute:
        return _text(attribute, "name"), tuple(attribute["ints"])
    raise _MalformedError("an attribute that is no integer")


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    tensor = _message(data, _TENSOR, "weights")
    name, shape = _text(tensor, "name"), tuple(tensor["dims"])
    kind = KINDS.get(tensor.get("data_type", 0))
    if kind is None:
        raise _MalformedError(f"weights {name[:100]!r} of an unknown type")
    raw = tensor.get("raw_data", b"")
    if len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise _MalformedError(f"weights {name[:100]!r} of an impossible shape")
    if math.prod(shape) * np.dtype(kind).itemsize != len(raw):
        raise _MalformedError(f"weights {name[:100]!r} whose size is not that of their shape")
    return name, np.frombuffer(raw, np.dtype(kind).newbyteorder("<")).reshape(shape)


def _value(data: memoryview) -> tuple[str, Value]:
    value = _message(data, _VALUE, "input or output")
    kind = _message(_need(value, "type"), _TYPE, "type")
    tensor = _message(_need(kind, "tensor_type"), _TENSOR_TYPE, "tensor type")
    shape = _message(_need(tensor, "shape"), _SHAPE, "shape")
    sides: list[int | str] = []
    for item in shape["dim"][: MAX_RANK + 1]:
        side = _message(item, _DIM, "shape")
        sides.append(side["dim_value"] if "dim_value" in side else _decoded(side.get("dim_param")))
    return _text(value, "name"), Value(KINDS.get(tensor.get("elem_type", 0), "other"), tuple(sides))


def _message(
    data: memoryview, known: Mapping[int, tuple[str, Any]], where: str, most: int = MAX_PARTS
) -> dict[str, Any]:
    """The fields of a message: lists for those that may be repeated, ``most`` times each, else
    absent or one value."""
    found: dict[str, Any] = {name: [] for name, kind in known.values() if isinstance(kind, list)}
    for number, value in fields(data):
        if number not in known:
            raise _MalformedError(f"field {number} of its {where} is none that Earmark writes")
        name, kind = known[number]
        expected = kind[0] if isinstance(kind, list) else kind
        items: Iterable[int | memoryview] = (value,)
        if kind == [int] and isinstance(value, memoryview):
            items = _packed(value)
        elif isinstance(value, int) != (expected is int):
            raise _MalformedError(f"{name} of its {where} is damaged")
        if isinstance(kind, list):
            # Counted while they are read: an entry takes a hundred times its two bytes.
            for item in items:
                if len(found[name]) == most:
                    raise _MalformedError(f"{name} of its {where} is there more than {most} times")
                found[name].append(item)
        elif name in found:
            raise _MalformedError(f"{name} of its {where} is there twice")
        else:
            found[name] = value
    return found


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers of a message with their values: integers, or views of its bytes."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value - (1 << 64) if value >> 63 else value
        elif kind == 2:
            length, position = _varint(data, position)
            if length > end - position:
                raise _MalformedError("it is cut off")
            yield number, data[position : position + length]
            position += length
        else:
            raise _MalformedError("it is damaged, or something else altogether")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits, and the place after it."""
    value = shift = 0
    while shift < 64 and position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
        shift += 7
    raise _MalformedError("it is cut off or damaged")


def _packed(data: memoryview) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value - (1 << 64) if value >> 63 else value


def _need(message: dict[str, Any], name: str) -> memoryview:
    if name not in message:
        raise _MalformedError(f"it has no {name}")
    return message[name]


def _text(message: dict[str, Any], name: str) -> str:
    return _decoded(message.get(name))


def _decoded(data: memoryview | None) -> str:
    try:
        return str(data or b"", "utf-8")
    except UnicodeDecodeError as error:
        raise _MalformedError("a name is no UTF-8 text") from error


def _named(items: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in items:
        if not name or name in found:
            raise _MalformedError(f"the name {name[:100]!r} is missing or there twice")
        found[name] = item
    return found
