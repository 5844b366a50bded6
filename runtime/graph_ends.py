"""What the runtime puts before and behind the graph of a model file.

A file takes samples in [-1, 1) and gives logits. A stream brings int16 and decides by posteriors.
What lies between is one multiplication for each sample and a few numbers for each chunk, which an
operator of the graph does in a fraction of the time of numpy: right after the network the
processor's caches hold nothing of numpy.

Messages of protocol buffers that follow one another are one message, whose repeated fields, such as
the operators of a graph, are lengthened (Protocol Buffers documentation, "Encoding", "Last One
Wins"). So nothing of the file has to be rewritten but a name.
"""

import numpy as np

from .audio import FULL_SCALE
from .manifest import Manifest
from .onnx_file import fields

INPUT = "s16"
"""Float32 [batch, chunk]: samples in units of an int16 step. As many letters as ``pcm``, in whose
place it is written."""
OUTPUT = "posteriors"
"""Float32 [batch, steps, labels]."""
S16_STEP = np.float32(1 / FULL_SCALE)
_STEP = "s16_step"
NAMES = frozenset((INPUT, OUTPUT, _STEP))
"""Those that no file may have: one that had them would mean something else in onnxruntime than in
the other backends."""
_OPERATORS = {"softmax": "Softmax", "sigmoid": "Sigmoid"}
# Fields of onnx.proto by number.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_WEIGHTS, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_TENSOR_KIND, _TENSOR_NAME, _TENSOR_RAW = 2, 8, 9
_VALUE_NAME = 1
_FLOAT32 = 1


def with_ends(data: bytes, manifest: Manifest) -> bytes:
    """A model file whose graph takes ``s16`` in the place of ``pcm`` and also gives ``posteriors``.

    Args:
        data: a file that :func:`~earmark.runtime.graph_check.check_graph` accepts.
        manifest: that of the file.
    """
    weights = [
        bytes([_TENSOR_KIND << 3, _FLOAT32]),
        _text(_TENSOR_NAME, _STEP),
        _message(_TENSOR_RAW, S16_STEP.astype("<f4").tobytes()),
    ]
    step = _message(_GRAPH_WEIGHTS, b"".join(weights))
    # Operators stand behind those whose outputs they take.
    before = _message(_MODEL_GRAPH, step + _node("Mul", (INPUT, _STEP), "pcm"))
    # A file may be large: no more copies of it than must be.
    file = bytearray().join((before, data, _posteriors(manifest)))
    for graph in _find(memoryview(file), _MODEL_GRAPH):
        for value in _find(graph, _GRAPH_INPUT):
            for name in _find(value, _VALUE_NAME):
                if name == b"pcm":
                    name[:] = INPUT.encode()
    return bytes(file)


def _posteriors(manifest: Manifest) -> bytes:
    node = _node(_OPERATORS[manifest.activation], ("logits",), OUTPUT)
    return _message(_MODEL_GRAPH, node + _message(_GRAPH_OUTPUT, _text(_VALUE_NAME, OUTPUT)))


def _find(message: memoryview, number: int) -> list[memoryview]:
    """The values of a field of messages, as views of its bytes."""
    return [value for n, value in fields(message) if n == number and isinstance(value, memoryview)]


def _node(operator: str, inputs: tuple[str, ...], output: str) -> bytes:
    texts = [_text(_NODE_INPUT, name) for name in inputs]
    texts += [_text(_NODE_OUTPUT, output), _text(_NODE_OPERATOR, operator)]
    return _message(_GRAPH_NODE, b"".join(texts))


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    # One byte holds a length below 128.
    return bytes([number << 3 | 2, len(content)]) + content
