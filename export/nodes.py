"""The nodes and constants of a graph while it is written."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

LAST = np.iinfo(np.int64).max
"""The end of an axis, for slices."""


@dataclass
class Graph:
    """Nodes in their order, each constant once."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    known: dict[bytes, str] = field(default_factory=dict)

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node; the name of its output."""
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def split(self, x: str, sizes: list[int]) -> list[str]:
        """The parts of a tensor along its axis 1."""
        outputs = [f"{x}_part{i}" for i in range(len(sizes))]
        self.nodes.append(
            helper.make_node("Split", [x, self.array(sizes)], outputs, name=f"{x}_split", axis=1)
        )
        return outputs

    def array(self, values: np.ndarray | list[int]) -> str:
        """The name of a constant; a list is one of int64."""
        array = np.asarray(values, np.int64) if isinstance(values, list) else values
        key = repr((array.dtype, array.shape)).encode() + array.tobytes()
        if key not in self.known:
            self.known[key] = f"const_{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, self.known[key]))
        return self.known[key]


def tail(g: Graph, x: str, length: int, axis: int = 1) -> str:
    """The last numbers along an axis."""
    return cut(g, x, -length, LAST, axis)


def cut(g: Graph, x: str, start: int, end: int, axis: int = 1) -> str:
    """The numbers from ``start`` to before ``end`` along an axis."""
    return g.node("Slice", x, g.array([start]), g.array([end]), g.array([axis]))
