"""A graph as a list of what is to be computed over memory that is taken beforehand.

All shapes are known when a program is made. So every tensor has its array from the start, what only
looks at another tensor in another way (a slice, a transposition) is a view that costs nothing, and
a run is nothing but what computes. What a program's entries are is the business of each backend.
"""

import math
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ..onnx_file import Node

ALIGNMENT = 64
"""Bytes of a line of the caches: what a vector reads does not lie in two."""
SLACK = 16
"""Bytes that may be read, but are not used, behind those that were asked for."""


def aligned(size: int) -> np.ndarray:
    """So many bytes, zero, uint8."""
    block = np.zeros(size + ALIGNMENT + SLACK, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


class Memory:
    """Memory of programs of one graph that differ in their rows alone and of which one runs at a
    time: what one of them keeps in a place, the others keep there, too."""

    def __init__(self, rows: int) -> None:
        """``rows``: those of the program that has most."""
        self.rows = rows
        self._blocks: dict[tuple[str, int], np.ndarray] = {}

    @property
    def blocks(self) -> list[np.ndarray]:
        """What was taken, uint8."""
        return list(self._blocks.values())

    def take(self, place: tuple[str, int], size: int, rows: int) -> np.ndarray:
        """So many bytes for a program of so many rows."""
        if place not in self._blocks:
            self._blocks[place] = aligned(-(-size * self.rows // rows))
        return self._blocks[place][:size]


class Program(Protocol):
    """What a backend makes of a graph."""

    def take(self, place: tuple[str, int], size: int, kept: bool = False) -> np.ndarray:
        """So many bytes to compute into.

        Args:
            place: the tensor that is computed and the number of the array for it.
            size: bytes.
            kept: what is there before the first run and no call writes stays there.
        """
        ...

    def copy(self, out: np.ndarray, x: np.ndarray) -> None:
        """Add a copy of numbers from one array to another of their shape, also of another type."""
        ...


P = TypeVar("P", bound=Program)


class Operation(Generic[P]):
    """One operator of a graph with the arrays of its inputs, and where to add what computes it."""

    def __init__(self, program: P, node: Node, inputs: list[np.ndarray]) -> None:
        self.program = program
        self.node = node
        self.inputs = inputs
        self._arrays = 0

    def new(self, shape: tuple[int, ...], kind: Any, fill: float | None = None) -> np.ndarray:
        """An array to compute into. What ``fill`` puts there stays where no call writes."""
        size = np.dtype(kind).itemsize * math.prod(shape)
        place = (self.node.outputs[0], self._arrays)
        self._arrays += 1
        array = self.program.take(place, size, fill is not None).view(kind).reshape(shape)
        if fill is not None:
            array[...] = fill
        return array

    @property
    def x(self) -> np.ndarray:
        """The first input."""
        return self.inputs[0]

    def number(self, name: str, default: int = 0) -> int:
        """An attribute that is a number; its type has been checked."""
        value = self.node.attributes.get(name, default)
        assert isinstance(value, int)
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a list; its type has been checked."""
        value = self.node.attributes[name]
        assert isinstance(value, tuple)
        return value

    def reshaped(self, shape: tuple[int, ...]) -> np.ndarray:
        """The first input in another shape: a view where its memory allows it."""
        x = self.x
        view = x.reshape(shape)
        if np.may_share_memory(view, x) or not x.size:
            return view
        copy = self.new(view.shape, x.dtype)
        self.program.copy(copy.reshape(x.shape), x)
        return copy
