"""A graph run by numpy alone, where there is neither a compiler nor a wheel of onnxruntime.

Quantized convolutions are exact: they give the codes that onnxruntime gives. Sums of floating-point
numbers are made in another order than there.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from ..graph_ends import INPUT, OUTPUT, S16_STEP
from ..manifest import Manifest
from ..onnx_file import OnnxFile
from ..posteriors import activation
from .backend import Arrays, Ends
from .folded import folded
from .numpy_conv import numpy_weights
from .numpy_ops import compute
from .numpy_program import NumpyOperation, NumpyProgram
from .program import Memory


class NumpyBackend:
    """See :class:`~earmark.runtime.backends.backend.Backend`."""

    name = "numpy"

    def __init__(self, file: OnnxFile, manifest: Manifest) -> None:
        """See :func:`earmark.runtime.backends.backend.load`."""
        self._activation = activation(manifest)
        nodes, self._constants = folded(file)
        self._nodes = [(node, numpy_weights(node, self._constants)) for node in nodes]

    def bind(self, *ends: Ends) -> list[list[Callable[[], None]]]:
        """See :class:`~earmark.runtime.backends.backend.Backend`."""
        memory = Memory(len(next(iter(ends[0][0].values()))))
        return [self._calls(memory, *each) for each in ends]

    def _calls(self, memory: Memory, inputs: Arrays, outputs: Arrays) -> list[Callable[[], None]]:
        """Each program is made when it first runs."""

        @cache
        def program(count: int) -> NumpyProgram:
            made = NumpyProgram(count, memory)
            tensors = self._constants | {name: x[:count] for name, x in inputs.items()}
            if INPUT in inputs:
                s16 = tensors[INPUT]
                # No operator has an output without a name.
                scaled = made.take(("", 0), s16.nbytes).view(s16.dtype)
                tensors["pcm"] = scaled.reshape(s16.shape)
                made.do(np.multiply, s16, S16_STEP, tensors["pcm"])
            for node, weights in self._nodes:
                operation = NumpyOperation(made, node, [tensors[name] for name in node.inputs])
                tensors |= zip(node.outputs, compute(operation, weights), strict=True)
            for name, array in outputs.items():
                if name == OUTPUT:
                    made.do(self._give_posteriors, tensors["logits"], array[:count])
                else:
                    made.do(np.copyto, array[:count], tensors[name])
            return made

        def run(count: int) -> None:
            program(count).run()

        return [partial(run, count) for count in range(1, memory.rows + 1)]

    def _give_posteriors(self, logits: np.ndarray, out: np.ndarray) -> None:
        labels = logits.shape[-1]
        out.reshape(-1, labels)[...] = self._activation(logits.reshape(-1, labels))
