"""A graph run by compiled code of Earmark's own, which is built with the package.

The code knows nothing of ONNX: :mod:`earmark.runtime.backends.native_ops` turns a graph into a list
of instructions over memory that stays where it is, and a chunk is one call.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..graph_ends import INPUT, OUTPUT, S16_STEP
from ..manifest import Manifest
from ..onnx_file import OnnxFile
from .backend import Arrays, Ends
from .folded import folded
from .native_library import kinds, library
from .native_ops import compute, native_weights
from .native_program import Instruction, NativeOperation, NativeProgram, address, zeros
from .native_template import Template

_ACTIVATIONS = {"softmax": Instruction.SOFTMAX, "sigmoid": Instruction.SIGMOID}


class NativeBackend:
    """See :class:`~earmark.runtime.backends.backend.Backend`."""

    name = "native"

    def __init__(self, file: OnnxFile, manifest: Manifest, kind: int | None = None) -> None:
        """See :func:`earmark.runtime.backends.backend.load`.

        Args:
            file: see there.
            manifest: see there.
            kind: one of :func:`~earmark.runtime.backends.native_library.kinds`, whose instructions
                are used; the best where it is None. Tests also do with less.

        Raises:
            EarmarkError: there is no compiled code, or the graph has what only others compute.
        """
        self._activation = _ACTIVATIONS[manifest.activation]
        self._run = library().earmark_native_run
        self._kind = max(kinds()) if kind is None else kind
        layout = Instruction(kinds()[self._kind])
        nodes, self._constants = folded(file)
        self._templates: dict[tuple, Template] = {}
        with np.errstate(all="ignore"):  # infinities are the business of who reads the result
            self._nodes = [(node, native_weights(node, self._constants, layout)) for node in nodes]

    def bind(self, *ends: Ends) -> list[list[Callable[[], None]]]:
        """Rows run one after the other, in the same memory: weights stay in the caches, and nothing
        else would be gained."""
        memory = self._template(*ends[0]).memory()
        return [self._calls(memory, *each) for each in ends]

    def _calls(
        self, memory: np.ndarray, inputs: Arrays, outputs: Arrays
    ) -> list[Callable[[], None]]:
        template = self._template(inputs, outputs)
        arrays = [*inputs.values(), *outputs.values()]
        rows = len(arrays[0])
        # The last row first: a run of fewer begins further down.
        lists = [
            template.over([x[row : row + 1] for x in arrays], memory)
            for row in reversed(range(rows))
        ]
        words = np.concatenate([*lists, [Instruction.END]])
        size = words.itemsize * len(lists[0])
        calls = [
            partial(self._run, address(words) + (rows - count) * size, self._kind)
            for count in range(1, rows + 1)
        ]
        for call in calls:
            vars(call)["alive"] = words, template, memory, arrays
        return calls

    def _template(self, inputs: Arrays, outputs: Arrays) -> Template:
        """The program of one row for arrays of these names, shapes and types."""
        key = tuple((name, x.shape[1:], x.dtype) for name, x in (*inputs.items(), *outputs.items()))
        if key not in self._templates:
            one = {name: zeros((1, *x.shape[1:]), x.dtype) for name, x in inputs.items()}
            other = {name: zeros((1, *x.shape[1:]), x.dtype) for name, x in outputs.items()}
            with np.errstate(all="ignore"):
                program = self._program(one, other)
            self._templates[key] = Template(program, [*one.values(), *other.values()])
        return self._templates[key]

    def _program(self, inputs: Arrays, outputs: Arrays) -> NativeProgram:
        program = NativeProgram(outputs)
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
