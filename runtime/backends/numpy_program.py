"""A graph as a list of numpy calls over memory that is taken beforehand.

All shapes are known when a program is made. So every tensor has its array from the start, what only
looks at another tensor in another way (a slice, a transposition) is a view that costs nothing, and
a run is nothing but the calls that compute.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..onnx_file import Node

GEMM_ONE_THREAD = 4 * 65536
"""Multiplications up to which OpenBLAS, which numpy's wheels contain, forms a product of matrices
on the calling thread, whatever its number of threads (its GEMM_MULTITHREAD_THRESHOLD is 4)."""
GEMV_ONE_THREAD = 4 * 2304 - 1
"""The same of a matrix and a vector."""


class Memory:
    """Memory of programs of one graph that differ in their rows alone and of which one runs at a
    time: what one of them keeps in a place, the others keep there, too."""

    def __init__(self, rows: int) -> None:
        """``rows``: those of the program that has most."""
        self.rows = rows
        self._blocks: dict[tuple[str, int], np.ndarray] = {}

    def take(self, place: tuple[str, int], size: int, rows: int) -> np.ndarray:
        """So many bytes for a program of so many rows."""
        if place not in self._blocks:
            self._blocks[place] = np.zeros(-(-size * self.rows // rows), np.uint8)
        return self._blocks[place][:size]


class Program:
    """Calls in their order."""

    def __init__(self, rows: int = 1, memory: Memory | None = None) -> None:
        """``rows``: chunks in a run."""
        self.rows = rows
        self.memory = memory or Memory(rows)
        self.calls: list[Callable[[], Any]] = []

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Add a call."""
        self.calls.append(partial(function, *arguments, **named))

    def multiply(self, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """Add the calls of ``left @ right``, in parts small enough for one thread.

        For a chunk that takes a fraction of a millisecond, a BLAS that wakes other threads takes
        many times as long where the processor has other work, and burns it while they wait.
        """
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        most = GEMV_ONE_THREAD if 1 in (rows, columns) else GEMM_ONE_THREAD
        bands = _even(rows, most // max(1, inner))
        height = max((band.stop - band.start for band in bands), default=0)
        for band in bands:
            some = np.s_[..., band, :]
            for part in _even(columns, most // max(1, inner * height)):
                self.do(np.matmul, left[some], right[..., part], out[some][..., part])

    def run(self) -> None:
        """Make the calls."""
        with np.errstate(all="ignore"):  # infinities are the business of who reads the result
            for call in self.calls:
                call()


def _even(count: int, most: int) -> list[slice]:
    """As few parts of ``count`` as can be of at most ``most``, but at least 1, each.

    They differ by one at most: a last part of a single column would be a vector.
    """
    parts = -(-count // max(1, min(count, most)))
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


class Operation:
    """One operator of a graph with the arrays of its inputs, and where to add what computes it."""

    def __init__(self, program: Program, node: Node, inputs: list[np.ndarray]) -> None:
        self.program = program
        self.node = node
        self.inputs = inputs
        self._arrays = 0

    def new(self, shape: tuple[int, ...], kind: Any, fill: float | None = None) -> np.ndarray:
        """An array to compute into. What ``fill`` puts there stays where no call writes."""
        size = np.dtype(kind).itemsize * math.prod(shape)
        place = (self.node.outputs[0], self._arrays)
        self._arrays += 1
        memory, rows = self.program.memory, self.program.rows
        array = memory.take(place, size, rows).view(kind).reshape(shape)
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
        self.program.do(np.copyto, copy.reshape(x.shape), x)
        return copy

    def by_row(self, x: np.ndarray) -> np.ndarray:
        """``x`` [rows of all chunks, n] as [chunks, rows, n], so that a product of it takes chunk
        by chunk and gives each what it would give it alone, to the last bit."""
        rows = self.program.rows
        if x.ndim != 2 or rows == 1 or len(x) % rows:
            return x
        return x.reshape(rows, -1, x.shape[1])
