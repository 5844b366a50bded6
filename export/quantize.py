"""Static quantization: the range of every activation, measured on training clips."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ..train.student import Student, whole_steps
from .network import Affine

PERCENTILE = 99.99
"""An activation's range ends here: rare values beyond are clipped, the others get finer steps."""


def calibrate(student: Student, batches: Iterable[Tensor]) -> list[Affine]:
    """Encodings for the int8 graph.

    Args:
        student: in evaluation mode.
        batches: training clips, float32 [batch, samples] in [-1, 1).

    Returns:
        The encoding of the input of each convolution, and of the output of the last.
    """
    seen: list[list[Tensor]] = [[] for _ in student.convolutions] + [[]]
    hooks = [
        layer.register_forward_pre_hook(_observer(seen[index]))
        for index, layer in enumerate(student.convolutions)
    ]
    hooks.append(student.head.register_forward_pre_hook(_observer(seen[-1])))
    try:
        with torch.no_grad():
            for pcm in batches:
                student.classify(student.log_mel(whole_steps(pcm, student.step)))
    finally:
        for hook in hooks:
            hook.remove()
    first, *others = ([t.numpy() for t in tensors] for tensors in seen)
    low = float(np.percentile(np.concatenate([x.ravel() for x in first]), 100 - PERCENTILE))
    high = float(np.percentile(np.concatenate([x.ravel() for x in first]), PERCENTILE))
    return [_signed(low, high), *(_positive(x) for x in others)]


def _observer(into: list[Tensor]) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
    def hook(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        into.append(inputs[0].flatten())

    return hook


def _signed(low: float, high: float) -> Affine:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-6)
    return Affine(scale, int(np.clip(round(-low / scale), 0, 255)))


def _positive(values: list[np.ndarray]) -> Affine:
    """After a ReLU the code 0 is the value 0, which is what the cache of a new stream holds."""
    high = float(np.percentile(np.concatenate(values), PERCENTILE))
    return Affine(max(high / 255, 1e-6), 0)
