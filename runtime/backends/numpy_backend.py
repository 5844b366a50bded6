"""A graph run by numpy alone, for machines that onnxruntime has no wheel for.

Quantized convolutions are exact: they give the codes that onnxruntime gives. Sums of floating-point
numbers are made in another order than there.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from ..errors import EarmarkError
from ..graph_ends import INPUT, OUTPUT, S16_STEP
from ..manifest import Manifest
from ..onnx_file import Node, OnnxFile
from ..posteriors import activation
from .backend import Arrays
from .numpy_conv import Weights, float_weights, integer_weights
from .numpy_ops import compute
from .numpy_program import Memory, Operation, Program

_FIXED = {
    "Conv": (1, 2),
    "DequantizeLinear": (1, 2),
    "Gather": (1,),
    "QLinearConv": (1, 2, 3, 4, 5, 6, 7, 8),
    "QuantizeLinear": (1, 2),
}
"""Inputs of operators that must be known when a program is made."""


class NumpyBackend:
    """See :class:`~earmark.runtime.backends.backend.Backend`."""

    name = "numpy"

    def __init__(self, file: OnnxFile, manifest: Manifest) -> None:
        """See :func:`earmark.runtime.backends.backend.load`."""
        self._activation = activation(manifest)
        # The file's bytes may lie at any address and in another order than the machine's.
        self._constants = {
            name: array.astype(array.dtype.newbyteorder("="))
            for name, array in file.weights.items()
        }
        self._nodes: list[tuple[Node, Weights | None]] = []
        for place, node in enumerate(file.nodes):
            fixed = _FIXED.get(node.operator, ())
            if not self._constants.keys() >= {node.inputs[i] for i in fixed}:
                raise EarmarkError(
                    f"operator {place} of the graph, {node.operator!r}, computes its weights from "
                    "the audio, which the numpy backend does not do: export it again"
                )
            weights = self._conv_weights(node)
            if self._constants.keys() >= set(node.inputs):
                # What does not depend on the audio is computed once, here.
                program = Program()
                self._add(program, node, weights, self._constants)
                program.run()
            else:
                self._nodes.append((node, weights))
        used = {name for node, _ in self._nodes for name in node.inputs} | set(file.outputs)
        self._constants = {name: x for name, x in self._constants.items() if name in used}

    def bind(self, inputs: Arrays, outputs: Arrays) -> list[Callable[[], None]]:
        """The programs share their memory, and each is made when it first runs."""
        rows = len(next(iter(inputs.values())))
        memory = Memory(rows)

        @cache
        def program(count: int) -> Program:
            made = Program(count, memory)
            tensors = self._constants | {name: x[:count] for name, x in inputs.items()}
            if INPUT in inputs:
                s16 = tensors[INPUT]
                # No operator has an output without a name.
                scaled = memory.take(("", 0), s16.nbytes, count).view(s16.dtype)
                tensors["pcm"] = scaled.reshape(s16.shape)
                made.do(np.multiply, s16, S16_STEP, tensors["pcm"])
            for node, weights in self._nodes:
                self._add(made, node, weights, tensors)
            for name, array in outputs.items():
                if name == OUTPUT:
                    made.do(self._give_posteriors, tensors["logits"], array[:count])
                else:
                    made.do(np.copyto, array[:count], tensors[name])
            return made

        def run(count: int) -> None:
            program(count).run()

        return [partial(run, count) for count in range(1, rows + 1)]

    def _add(
        self, program: Program, node: Node, weights: Weights | None, tensors: dict[str, np.ndarray]
    ) -> None:
        """Add an operator's calls to a program, and its outputs to ``tensors``."""
        operation = Operation(program, node, [tensors[name] for name in node.inputs])
        tensors |= zip(node.outputs, compute(operation, weights), strict=True)

    def _conv_weights(self, node: Node) -> Weights | None:
        """The weights of a convolution, which all programs share; None for other operators."""
        if node.operator == "Conv":
            weight, bias = (self._constants[name] for name in node.inputs[1:])
            return float_weights(weight, bias)
        if node.operator == "QLinearConv":
            _, zero, weight, _, weight_zero, _, _, bias = (
                self._constants[name] for name in node.inputs[1:]
            )
            return integer_weights(weight, weight_zero, bias, int(zero))
        return None

    def _give_posteriors(self, logits: np.ndarray, out: np.ndarray) -> None:
        labels = logits.shape[-1]
        out.reshape(-1, labels)[...] = self._activation(logits.reshape(-1, labels))
