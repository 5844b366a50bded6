"""A graph run by compiled code of Earmark's own, which is built with the package.

The code knows nothing of ONNX: :mod:`earmark.runtime.backends.native_ops` turns a graph into a list
of instructions over memory that stays where it is, and a chunk is one call.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from ..graph_ends import INPUT, OUTPUT, S16_STEP
from ..manifest import Manifest
from ..onnx_file import OnnxFile
from .backend import Arrays
from .folded import folded
from .native_library import library
from .native_ops import compute, native_weights
from .native_program import Instruction, NativeOperation, NativeProgram
from .program import Memory

_ACTIVATIONS = {"softmax": Instruction.SOFTMAX, "sigmoid": Instruction.SIGMOID}


class NativeBackend:
    """See :class:`~earmark.runtime.backends.backend.Backend`."""

    name = "native"

    def __init__(self, file: OnnxFile, manifest: Manifest, vectors: bool = True) -> None:
        """See :func:`earmark.runtime.backends.backend.load`.

        Args:
            file: see there.
            manifest: see there.
            vectors: use AVX2 on x86 and 8-bit dot products on ARM where the processor has them.
        """
        self._activation = _ACTIVATIONS[manifest.activation]
        self._run = library().earmark_native_run
        self._vectors = int(vectors and library().earmark_native_vectors())
        nodes, self._constants = folded(file)
        quads = bool(self._vectors)
        self._nodes = [(node, native_weights(node, self._constants, quads)) for node in nodes]

    def bind(self, inputs: Arrays, outputs: Arrays) -> list[Callable[[], None]]:
        """The first row is made ready at once, all others when they first run. Rows run one after
        the other, in the same memory: weights stay in the caches, and nothing else would be gained.
        """
        rows = len(next(iter(inputs.values())))
        memory = Memory(1)

        @cache
        def row(place: int) -> Callable[[], None]:
            cut = slice(place, place + 1)
            program = self._program(
                memory,
                {name: x[cut] for name, x in inputs.items()},
                {name: x[cut] for name, x in outputs.items()},
            )
            words = program.words()
            call = partial(self._run, words.ctypes.data, self._vectors)
            vars(call)["alive"] = program, words
            return call

        def run(count: int) -> None:
            for place in range(count):
                row(place)()

        return [row(0), *(partial(run, count) for count in range(2, rows + 1))]

    def _program(self, memory: Memory, inputs: Arrays, outputs: Arrays) -> NativeProgram:
        program = NativeProgram(memory, outputs)
        tensors = self._constants | dict(inputs)
        if INPUT in inputs:
            s16 = tensors[INPUT]
            # No operator has an output without a name.
            scaled = program.take(("", 0), s16.nbytes).view(s16.dtype)
            tensors["pcm"] = scaled.reshape(s16.shape)
            step = np.array(S16_STEP, np.float32)
            program.loop(Instruction.MULTIPLY, tensors["pcm"], s16, step)
        for node, weights in self._nodes:
            operation = NativeOperation(program, node, [tensors[name] for name in node.inputs])
            tensors |= zip(node.outputs, compute(operation, weights), strict=True)
        for name, array in outputs.items():
            if name == OUTPUT:
                # Of a copy, which lies in C order whatever the graph made the logits of.
                logits = program.take(("", 1), array.nbytes).view(array.dtype)
                logits = logits.reshape(array.shape)
                program.copy(logits, tensors["logits"])
                program.posteriors(self._activation, logits, array)
            elif not _same(array, tensors[name]):
                program.copy(array, tensors[name])
        return program


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are the same numbers in memory."""
    return a.__array_interface__ == b.__array_interface__
