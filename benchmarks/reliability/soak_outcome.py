"""What came of a soak: whether it is sound, and its line in the table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WARM_UP = 0.1
"""Share of the run before which memory still settles."""
MAX_GROWTH_KB = 4000.0
"""Growth over the rest of it from which memory is not flat: over 24 h, 4 bytes for each chunk."""
LEAST_SECONDS = 3600.0
"""Audio of less does not tell growth from what still settles."""


@dataclass
class Outcome:
    """What came of one way through which the audio went."""

    audio_seconds: float
    """Audio time at the last sample of memory, or that was sent."""
    detections: int = 0
    different: int = 0
    """Detections that the one-pass run has not, or that are missing, or differ in a value."""
    drift_ms: float = 0.0
    """Greatest difference of audio time from samples over rate."""
    resident_mb: float | None = None
    """Most memory of the process that listens, MB of 1e6 bytes; None where it is not told."""
    slope_kb_per_hour: float | None = None
    """Growth of that memory per hour of audio after the first tenth, least squares."""
    cpu_ms_per_second: float | None = None
    """Processor time of the process that listens per second of audio."""
    resident: list[int] = field(default_factory=list)
    """Bytes at every minute of audio."""

    @property
    def sound(self) -> bool:
        """Whether what had to be the same is, and memory as well."""
        hours = (1 - WARM_UP) * self.audio_seconds / 3600
        grown = (self.slope_kb_per_hour or 0) * hours
        flat = grown <= MAX_GROWTH_KB or self.audio_seconds < LEAST_SECONDS
        return not self.different and not self.drift_ms and self.detections > 0 and flat


def slope(resident: Sequence[int]) -> float | None:
    """Growth in kB of 1000 bytes per hour of audio, by least squares.

    Args:
        resident: bytes at every minute; the first tenth is left out.
    """
    kept = np.array(resident[round(WARM_UP * len(resident)) :], np.float64)
    if len(kept) < 2:
        return None
    hours = np.arange(len(kept)) / 60
    return float(np.polyfit(hours, kept / 1000, 1)[0])


HEADS = (
    "path",
    "audio h",
    "detections",
    "different",
    "drift ms",
    "most memory MB",
    "growth kB per h",
    "CPU ms per s",
)


def row(path: str, outcome: dict[str, Any]) -> list[str]:
    """A line of the table, from the JSON form of an :class:`Outcome`."""

    def text(name: str, digits: int) -> str:
        value = outcome[name]
        return "-" if value is None else f"{value:,.{digits}f}"

    return [
        path,
        f"{outcome['audio_seconds'] / 3600:.2f}",
        text("detections", 0),
        text("different", 0),
        text("drift_ms", 3),
        text("resident_mb", 1),
        text("slope_kb_per_hour", 1),
        text("cpu_ms_per_second", 2),
    ]
