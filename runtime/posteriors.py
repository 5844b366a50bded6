"""From logits, which a model file gives, to posteriors, which a decision needs.

onnxruntime gives a stream both, by one more operator of the graph: numpy takes ten times as long
for the few numbers of a chunk.
"""

from collections.abc import Callable

import numpy as np

from .manifest import Manifest

OUTPUT = "posteriors"
_OPERATORS = {"softmax": "Softmax", "sigmoid": "Sigmoid"}


def with_posteriors(data: bytes, manifest: Manifest) -> bytes:
    """A model file whose graph also gives posteriors, shaped as its logits.

    Messages of protocol buffers that follow one another are one message: repeated fields, such as
    the operators of a graph, are lengthened (Protocol Buffers documentation, "Encoding", "Last One
    Wins"), so that nothing of the file has to be rewritten.

    Args:
        data: a file that :func:`~earmark.runtime.graph_check.check_graph` accepts.
        manifest: that of the file.
    """
    # Fields of onnx.proto: ModelProto.graph; GraphProto.node, .output; NodeProto.input, .output,
    # .op_type; ValueInfoProto.name.
    node = _text(1, "logits") + _text(2, OUTPUT) + _text(4, _OPERATORS[manifest.activation])
    return data + _message(7, _message(1, node) + _message(12, _text(1, OUTPUT)))


def activation(manifest: Manifest) -> Callable[[np.ndarray], np.ndarray]:
    """The function that makes posteriors of arrays of the model's logits: :func:`softmax` or
    :func:`sigmoid`. Those of the session differ from it by rounding."""
    return {"softmax": softmax, "sigmoid": sigmoid}[manifest.activation]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Posteriors of logits whose labels exclude one another, both float32 [rows, labels]."""
    with np.errstate(over="ignore"):  # beyond the least float32 lies minus infinity: posterior 0
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Posteriors of logits whose labels do not exclude one another, both float32 [rows, labels]."""
    # By the hyperbolic tangent, which does not overflow.
    half = np.float32(0.5)
    return half * np.tanh(half * logits) + half


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    # One byte holds a length below 128.
    return bytes([number << 3 | 2, len(content)]) + content
