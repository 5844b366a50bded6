"""What a GPU cannot do a decision in less than: the time to read a model's weights once.

A bound, not a measurement: it stands where no GPU was at hand, and holds beside one that was. A
decision at batch 1 needs every weight once. Its last cache is taken to be full of them, and
arithmetic, launches and the copies of audio and labels to take no time.
"""

from dataclasses import dataclass

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one weight, in what whole models are run in."""


@dataclass(frozen=True)
class Gpu:
    """What its maker publishes of it."""

    name: str
    bytes_per_second: float
    """Of its memory, at most."""
    cache_bytes: float
    """Of the last cache before that memory."""


GPUS = (
    Gpu("L4", 0.30e12, 48e6),
    Gpu("A100 80 GB", 2.04e12, 40e6),
    Gpu("H100 SXM", 3.35e12, 50e6),
    Gpu("H200", 4.8e12, 50e6),
    Gpu("B200", 8.0e12, 126e6),
)
"""NVIDIA's data sheets and architecture white papers."""


def weights_mb(parameters: int, precision: str) -> float:
    """Size of the weights, MB of 1e6 bytes.

    Args:
        parameters: how many weights.
        precision: one of :data:`BYTES`.
    """
    return parameters * BYTES[precision] / 1e6


def least_us(parameters: int, precision: str, gpu: Gpu) -> float | None:
    """Microseconds to read what the cache cannot hold of the weights; None where it holds them all.

    Args:
        parameters: how many weights.
        precision: one of :data:`BYTES`.
        gpu: that it would run on.
    """
    read = parameters * BYTES[precision] - gpu.cache_bytes
    return 1e6 * read / gpu.bytes_per_second if read > 0 else None
