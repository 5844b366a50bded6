"""Where audio comes from: anything that yields pieces of it, and marks what was lost."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from .audio import read_blocks, read_pcm


class Gap(NamedTuple):
    """Audio was lost between the piece before and the piece after."""

    samples: int
    """How much, at the rate of the source; 0 where that is not known."""


class DeviceLost(NamedTuple):
    """The device delivers nothing any more; the source goes on trying to open it again."""

    device: str
    reason: str
    """One line for people."""


class DeviceBack(NamedTuple):
    """The device delivers again. A :class:`Gap` with what was missed comes before the audio."""

    device: str
    seconds: float
    """How long it was away."""


@dataclass(frozen=True)
class Counters:
    """What a live source has lost, and how far its reader is behind."""

    overflows: int
    """Losses so far, by the driver or because the reader was held up."""
    dropped: float
    """Seconds lost because the reader was held up; what a driver loses it does not tell."""
    queued: float
    """Seconds of audio that wait to be read."""


Piece = np.ndarray | Gap | DeviceLost | DeviceBack
"""Audio, int16 or float32 [samples] at the source's rate, or what happened to it."""


class Source(Protocol):
    """Audio at one rate, with a notice where some is missing."""

    def __iter__(self) -> Iterator[Piece]: ...


class FileSource:
    """An audio file of any length, in memory that does not depend on it."""

    def __init__(self, path: str | os.PathLike[str], rate: int) -> None:
        """``rate``: Hz of the samples given out."""
        self._path = path
        self._rate = rate

    def __iter__(self) -> Iterator[Piece]:
        """Raises EarmarkError as :func:`earmark.runtime.audio.read_blocks`."""
        return read_blocks(self._path, self._rate)


class RawSource:
    """Raw 16-bit little-endian mono samples from a pipe, given out as they arrive."""

    samples: int = 0
    """How many were given out so far."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Piece]:
        """Raises EarmarkError as :func:`earmark.runtime.audio.read_pcm`."""
        for block in read_pcm(self._stream):
            self.samples += len(block)
            yield block
