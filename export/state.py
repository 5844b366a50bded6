"""What a graph keeps from one chunk to the next, in the one tensor that its contract has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ..train.student import Student
from .fold import Layer
from .nodes import Graph, tail


@dataclass
class State:
    """The cache in parts, [batch, numbers] each, as read and then as they are to be written."""

    tail: str
    """Audio."""
    rows: list[str]
    """Logits before the moving average, in pieces of which the chunk drops the first."""
    stem: list[str]
    """Inputs of the layers of the stem; of a quantized graph only of the first."""
    others: str
    """Inputs of the other convolutions with a context. Quantized, their 8-bit codes as float32: a
    code of 0 is a value of 0 there, because a ReLU precedes."""

    @classmethod
    def read(cls, g: Graph, student: Student, apart: Sequence[Layer], steps: int) -> Self:
        """``apart`` are the layers of the stem whose inputs are parts of their own."""
        features = student.mfcc.settings
        kept = (student.average - 1) * student.labels
        dropped = steps * student.labels
        rows = [dropped, kept - dropped] if dropped < kept else [kept]
        sizes = [
            features.window - features.hop,
            *rows,
            *(layer.context * layer.row for layer in apart),
        ]
        total = sum(math.prod(shape) for shape in student.cache_shapes)
        tail, *parts, others = g.split("cache", [*sizes, total - sum(sizes)])
        return cls(tail, parts[: len(rows)], parts[len(rows) :], others)

    def write(self, g: Graph) -> None:
        """Add ``cache_out``."""
        parts = [self.tail, *self.rows, *self.stem, self.others]
        g.node("Concat", *parts, axis=1, output="cache_out")

    def extend_rows(self, g: Graph, x: str, kept: int) -> str:
        """The kept rows and those of the chunk, flat; ``kept`` numbers are to be kept of them."""
        rows = g.node("Concat", *self.rows, x, axis=1)
        # Where the chunk is the shorter, no operator is needed to drop as much as it brings.
        self.rows = [*self.rows[1:], x] if len(self.rows) > 1 else [tail(g, rows, kept)]
        return rows


class Histories:
    """Past inputs of several layers in one tensor, [batch, rows, 1, unit], so that one operator
    takes it apart and one puts it together. All are [batch, time, bands, channels]."""

    def __init__(self, g: Graph, flat: str, layers: Sequence[Layer], steps: int) -> None:
        self._g, self._steps = g, steps
        self._unit = math.gcd(*(layer.row for layer in layers))
        self._heights = [layer.context * layer.row // self._unit for layer in layers]
        self._whole = g.node("Reshape", flat, g.array([-1, sum(self._heights), 1, self._unit]))
        self._parts = iter(zip(layers, g.split(self._whole, self._heights), strict=True))
        self._inputs: list[str] = []
        self._rows: list[int] = []
        self._new = 0

    def prepend(self, x: str) -> str:
        """The input ``x`` of the next layer with its past before it."""
        g, (layer, part) = self._g, next(self._parts)
        index, height = len(self._inputs), self._steps * layer.row // self._unit
        old, new = sum(self._heights[:index]), sum(self._heights) + self._new
        both = [*range(old, old + self._heights[index]), *range(new, new + height)]
        self._rows += both[height:]
        self._new += height
        rows = x
        if layer.sides != (1, self._unit):
            part = g.node("Reshape", part, g.array([-1, layer.context, *layer.sides]))
            rows = g.node("Reshape", x, g.array([-1, height, 1, self._unit]))
        self._inputs.append(rows)
        return g.node("Concat", part, x, axis=1)

    def following(self) -> str:
        """The next state, flat: of each layer the last of its past and its input."""
        g = self._g
        everything = g.node("Concat", self._whole, *self._inputs, axis=1)
        return g.node("Flatten", g.node("Gather", everything, g.array(self._rows), axis=1))
