"""The one-file graph: raw audio and a cache in, logits and the next cache out.

Written node by node from the student's weights, because the graph's form decides its speed: batch
norms and the residual sums are folded into the convolutions, the MFCC is matrix products, and the
state of all layers travels in one tensor.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..runtime.errors import EarmarkError
from ..runtime.graph_check import OPSET
from ..train.student import Student
from .fold import fold, to_array
from .front_end import log_mel
from .network import Affine, network_float, network_int8
from .nodes import Graph
from .state import State

IR_VERSION = 8


def build(student: Student, chunk: int, encodings: list[Affine] | None = None) -> onnx.ModelProto:
    """The streaming graph of a student.

    Args:
        student: trained, in evaluation mode.
        chunk: samples per call, a multiple of the student's step.
        encodings: for int8, the encoding of the input of each convolution and of the output of the
            last (see :mod:`earmark.export.quantize`); None for float32.

    Returns:
        A checked model without a manifest, of the form that
        :class:`earmark.runtime.manifest.Manifest` describes.

    Raises:
        EarmarkError: ``chunk`` is no multiple of the step, or the window is odd or no longer than
            the hop.
    """
    features = student.mfcc.settings
    geometry = student.geometry(chunk)
    if chunk < geometry.step or chunk % geometry.step:
        raise EarmarkError(
            f"chunk of {chunk} samples: expected a multiple of the model's step, "
            f"{geometry.step} samples ({1000 * geometry.step / geometry.sample_rate:g} ms)"
        )
    if features.window % 2 or features.window <= features.hop:
        raise EarmarkError("recipe field features.window: expected an even length beyond a hop")
    matrix, bias, layers = fold(student)
    g = Graph()
    count = len(student.stem)
    parts = layers[:count], layers[count], layers[count + 1 :]
    apart = parts[0] if encodings is None else parts[0][:1]
    state = State.read(g, student, apart, geometry.steps)

    x = log_mel(g, student, state, chunk)
    x = g.node("Gemm", x, g.array(matrix), g.array(bias))
    if encodings is None:
        x = network_float(g, parts, state, x, geometry.steps)
    else:
        x = network_int8(g, parts, encodings, state, x, geometry.steps)

    head = to_array(student.head.weight[:, :, 0].T)
    x = g.node("Gemm", x, g.array(head), g.array(to_array(student.head.bias)))
    labels = student.labels
    x = g.node("Reshape", x, g.array([-1, geometry.steps * labels]))
    rows = state.extend_rows(g, x, (student.average - 1) * labels)
    # The moving average as a product with a banded matrix.
    average = np.zeros((geometry.steps, student.average - 1 + geometry.steps), np.float32)
    for step in range(geometry.steps):
        average[step, step : step + student.average] = 1 / student.average
    rows = g.node("Reshape", rows, g.array([0, average.shape[1], labels]))
    g.node("MatMul", g.array(average), rows, output="logits")
    state.write(g)

    def value(name: str, *sides: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sides])

    model = helper.make_model(
        helper.make_graph(
            g.nodes,
            "earmark",
            [value("pcm", chunk), value("cache", geometry.cache)],
            [value("logits", geometry.steps, labels), value("cache_out", geometry.cache)],
            g.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="earmark",
    )
    onnx.checker.check_model(model, full_check=True)
    return model
