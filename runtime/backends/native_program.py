"""A graph as a list of instructions for compiled code, over memory that is taken beforehand.

``native/native.c`` runs such a list: numbers of 64 bits that name an operation, sizes, addresses
and the steps between neighbours in bytes. It checks nothing. That all addresses are those of arrays
that live as long as the list, and no step leaves them, is seen to here.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import EarmarkError
from .program import Memory, Operation, aligned

PANEL = 16
"""Columns of a product that are computed together."""
MOST_AXES = 6
MOST_INSTRUCTIONS = 2048
"""Graphs of Earmark have a hundred. The time to make a program grows with their square."""


class Instruction(enum.IntEnum):
    """As in ``native/native.c``."""

    END = 0
    COPY_FLOATS = 1
    COPY_CODES = 2
    CODES_TO_FLOATS = 3
    FLOATS_TO_CODES = 4
    ADD = 5
    SUBTRACT = 6
    MULTIPLY = 7
    DIVIDE = 8
    LEAST = 9
    MOST = 10
    LOGARITHM = 11
    ENCODE = 12
    DECODE = 13
    PRODUCT = 14
    CONVOLVE = 15
    QUADS = 16
    PAIRS = 17
    GATHER = 18
    SOFTMAX = 19
    SIGMOID = 20


_COPIES = {
    ("float32", "float32"): Instruction.COPY_FLOATS,
    ("uint8", "uint8"): Instruction.COPY_CODES,
    ("uint8", "float32"): Instruction.CODES_TO_FLOATS,
    ("float32", "uint8"): Instruction.FLOATS_TO_CODES,
}


class Layer(NamedTuple):
    """A quantized convolution, its columns filled up to whole panels."""

    instruction: Instruction
    """How ``weights`` lie: ``CONVOLVE`` [panels, inputs, PANEL], ``QUADS`` and ``PAIRS``
    [panels, inputs / 4, PANEL, 4], a quad for every four inputs."""
    weights: np.ndarray
    order: np.ndarray
    """Int32, of ``PAIRS`` [panels, 1 + inputs / 4]: how many pairs of quads the weights of a panel
    begin with, and the first input of each pair and then of each other quad."""
    bias: np.ndarray
    """Int32, with the zero point of the input in it."""
    scale: np.ndarray
    """Float32: steps of an output's code in one of the sum."""
    limits: np.ndarray
    """Float32: the least and the greatest step, and the code that stands for 0."""


class NativeProgram:
    """Instructions in their order. See :class:`~earmark.runtime.backends.program.Program`."""

    words: list[int]
    """The list, which is valid as long as the program lives. Behind it belongs ``END``."""
    addresses: list[int]
    """Which words are addresses."""
    starts: list[int]
    """Which words are instructions."""
    memory: Memory
    kept: list[np.ndarray]
    """What of the memory holds numbers that no call writes."""
    outputs: Mapping[str, np.ndarray]
    """Arrays in C order that tensors may be computed into at once, by name."""

    def __init__(self, outputs: Mapping[str, np.ndarray]) -> None:
        self.words, self.addresses, self.starts = [], [], []
        self.memory = Memory(1)
        self.kept = []
        self.outputs = outputs
        self._alive: list[np.ndarray] = []

    def take(self, place: tuple[str, int], size: int, kept: bool = False) -> np.ndarray:
        """See :class:`~earmark.runtime.backends.program.Program`."""
        taken = self.memory.take(place, size, 1)
        if kept:
            self.kept.append(taken)
        return taken

    def copy(self, out: np.ndarray, x: np.ndarray) -> None:
        """See :class:`~earmark.runtime.backends.program.Program`.

        Raises:
            EarmarkError: of types that no graph of Earmark's copies audio in.
        """
        kinds = (x.dtype.name, out.dtype.name)
        if kinds not in _COPIES:
            raise EarmarkError(f"the native backend makes no {kinds[1]} of {kinds[0]}")
        self.loop(_COPIES[kinds], out, x)

    def loop(
        self, instruction: Instruction, out: np.ndarray, a: np.ndarray, b: np.ndarray | None = None
    ) -> None:
        """Add what computes each number of ``out`` from those of its inputs."""
        b = a if b is None else b
        steps = [np.broadcast_to(x, out.shape).strides for x in (out, a, b)]
        self._loop(instruction, out, a, b, steps)

    def table(
        self, instruction: Instruction, out: np.ndarray, x: np.ndarray, values: np.ndarray
    ) -> None:
        """Add what computes each number of ``out`` from one of ``x`` and all ``values``."""
        self._loop(instruction, out, x, values, [out.strides, x.strides, (0,) * x.ndim])

    def product(
        self, left: np.ndarray, panels: np.ndarray, bias: np.ndarray, out: np.ndarray
    ) -> None:
        """Add a product of matrices.

        Args:
            left: float32 [rows, inner].
            panels: the right side, of :func:`in_panels`.
            bias: float32 [columns], filled up to whole panels.
            out: float32 [rows, columns].
        """
        rows, inner = left.shape
        assert left.strides[1] == out.strides[1] == 4 or inner <= 1 or out.shape[1] == 1
        step, out_step = left.strides[0] // 4, out.strides[0] // 4
        self._add(Instruction.PRODUCT, rows, out.shape[1], inner, left, step, panels, bias, out)
        self.words.append(out_step)

    def convolve(self, left: np.ndarray, layer: Layer, out: np.ndarray) -> None:
        """Add a quantized product: uint8 [rows, inputs] to uint8 [rows, columns], C order."""
        rows, inputs = left.shape
        sizes = (rows, out.shape[1], inputs, left, inputs)
        self._add(layer.instruction, *sizes, layer.weights, layer.bias, layer.scale, layer.limits)
        self._add(out, layer.order)

    def gather(self, x: np.ndarray, places: np.ndarray, axis: int, out: np.ndarray) -> None:
        """Add what takes ``places``, int64, of an axis. ``x`` and ``out`` are in C order."""
        outer, inner = x.shape[:axis], x.shape[axis + 1 :]
        size = x.itemsize * int(np.prod(inner))
        whole = size * x.shape[axis]
        self._add(Instruction.GATHER, int(np.prod(outer)), places.size, size, x, whole, size)
        self._add(np.ascontiguousarray(places, np.int64), out)

    def posteriors(self, instruction: Instruction, logits: np.ndarray, out: np.ndarray) -> None:
        """Add a softmax or a sigmoid along the last axis, float32 in C order both."""
        labels = logits.shape[-1]
        self._add(instruction, logits.size // labels, labels, logits, out)

    def _loop(
        self,
        instruction: Instruction,
        out: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        steps: Sequence[Sequence[int]],
    ) -> None:
        if not out.size:
            return
        # The last axis first. What lies in memory as one axis is one.
        axes: list[list[int]] = []
        for size, *step in reversed(list(zip(out.shape, *steps, strict=True))):
            if size == 1:
                continue
            if axes and [axes[-1][0] * s for s in axes[-1][1:]] == step:
                axes[-1][0] *= size
            else:
                axes.append([size, *step])
        if len(axes) > MOST_AXES:
            raise EarmarkError(f"the native backend has no tensors of {len(axes)} axes")
        axes = axes or [[1, out.itemsize, a.itemsize, b.itemsize]]
        self._add(instruction, len(axes), out, a, b)
        self.words += (number for axis in axes for number in axis)

    def _add(self, *words: int | np.ndarray) -> None:
        for word in words:
            if isinstance(word, Instruction):
                if len(self.starts) == MOST_INSTRUCTIONS:
                    raise EarmarkError(
                        f"the native backend takes no more than {MOST_INSTRUCTIONS:,} instructions"
                    )
                self.starts.append(len(self.words))
            elif isinstance(word, np.ndarray):
                self._alive.append(word)
                self.addresses.append(len(self.words))
                word = address(word)
            # A number of numpy's own would be taken for an address further down.
            assert type(word) in (int, Instruction)
            self.words.append(word)


NativeOperation = Operation[NativeProgram]


def address(x: np.ndarray) -> int:
    """Where the first number of an array lies."""
    return x.__array_interface__["data"][0]


def in_panels(matrix: np.ndarray) -> np.ndarray:
    """[..., inner, columns] as [..., panels, inner, PANEL], filled up with zeros."""
    *places, inner, columns = matrix.shape
    panels = -(-columns // PANEL)
    out = zeros((*places, panels, inner, PANEL), matrix.dtype)
    for panel in range(panels):
        some = matrix[..., panel * PANEL : (panel + 1) * PANEL]
        out[..., panel, :, : some.shape[-1]] = some
    return out


def filled_up(vector: np.ndarray) -> np.ndarray:
    """[columns] filled up to whole panels with zeros."""
    out = zeros((-(-len(vector) // PANEL) * PANEL,), vector.dtype)
    out[: len(vector)] = vector
    return out


def zeros(shape: tuple[int, ...], kind: np.dtype | type) -> np.ndarray:
    """As numpy's, from the start of a line of the caches on."""
    kind = np.dtype(kind)
    return aligned(kind.itemsize * int(np.prod(shape))).view(kind).reshape(shape)
