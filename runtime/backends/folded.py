"""The operators of a file that depend on the audio, and the numbers that they take.

What does not depend on it (a file holds the Fourier and mel matrices as small expressions) is
computed here, by numpy, whichever backend runs the rest.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import EarmarkError, first_line
from ..onnx_file import Node, OnnxFile
from .backend import CANNOT_HOLD
from .numpy_conv import numpy_weights
from .numpy_ops import compute
from .numpy_program import NumpyOperation, NumpyProgram

_FIXED = {
    "Conv": (1, 2),
    "DequantizeLinear": (1, 2),
    "Gather": (1,),
    "QLinearConv": (1, 2, 3, 4, 5, 6, 7, 8),
    "QuantizeLinear": (1, 2),
}
"""Inputs of operators that must be known when a program is made."""


def folded(file: OnnxFile) -> tuple[Sequence[Node], dict[str, np.ndarray]]:
    """The operators in their order, and the constants that they or the file's outputs take.

    Raises:
        EarmarkError: an operator computes from the audio what has to be known before.
    """
    # The file's bytes may lie at any address and in another order than the machine's.
    constants = {
        name: array.astype(array.dtype.newbyteorder("=")) for name, array in file.weights.items()
    }
    nodes: list[Node] = []
    for place, node in enumerate(file.nodes):
        fixed = _FIXED.get(node.operator, ())
        if not constants.keys() >= {node.inputs[i] for i in fixed}:
            raise EarmarkError(
                f"operator {place} of the graph, {node.operator!r}, computes its weights from the "
                "audio, which nothing but onnxruntime does: export it again"
            )
        if constants.keys() >= set(node.inputs):
            program = NumpyProgram()
            operation = NumpyOperation(program, node, [constants[name] for name in node.inputs])
            try:
                outputs = compute(operation, numpy_weights(node, constants))
                program.run()
            except CANNOT_HOLD as error:
                raise EarmarkError(
                    f"operator {place} of the graph, {node.operator!r}, cannot be computed "
                    f"({first_line(error)})"
                ) from error
            constants |= zip(node.outputs, outputs, strict=True)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.inputs} | set(file.outputs)
    return nodes, {name: x for name, x in constants.items() if name in used}
