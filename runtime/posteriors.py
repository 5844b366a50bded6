"""From logits, which a model file gives, to posteriors, which a decision needs."""

from collections.abc import Callable

import numpy as np

from .manifest import Manifest


def activation(manifest: Manifest) -> Callable[[np.ndarray], np.ndarray]:
    """The function that makes posteriors of arrays of the model's logits: :func:`softmax` or
    :func:`sigmoid`. What backends compute themselves differs from it by rounding."""
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
