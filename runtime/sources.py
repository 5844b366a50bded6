"""Where audio comes from: anything that yields pieces of it, and marks what was lost."""

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from .audio import read_blocks, read_pcm
from .engine import Detection, Stream


class Gap(NamedTuple):
    """Audio was lost between the piece before and the piece after."""

    samples: int
    """How much, at the rate of the source; 0 where that is not known."""


class Source(Protocol):
    """Audio at one rate: int16 or float32 [samples], and a :class:`Gap` where some is missing."""

    def __iter__(self) -> Iterator[np.ndarray | Gap]: ...


class FileSource:
    """An audio file of any length, in memory that does not depend on it."""

    def __init__(self, path: str | os.PathLike[str], rate: int) -> None:
        """``rate``: Hz of the samples given out."""
        self._path = path
        self._rate = rate

    def __iter__(self) -> Iterator[np.ndarray | Gap]:
        """Raises EarmarkError as :func:`earmark.runtime.audio.read_blocks`."""
        return read_blocks(self._path, self._rate)


class RawSource:
    """Raw 16-bit little-endian mono samples from a pipe, given out as they arrive."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[np.ndarray | Gap]:
        """Raises EarmarkError as :func:`earmark.runtime.audio.read_pcm`."""
        return read_pcm(self._stream)


def spot(stream: Stream, source: Source, tail: float = 0.0) -> Iterator[Detection]:
    """Run a source through a stream to the source's end and yield what is detected.

    ``tail``: seconds of silence that follow the audio, for a word that ends with it.
    """
    for piece in source:
        if isinstance(piece, Gap):
            stream.gap(piece.samples)
        else:
            yield from stream.push(piece)
    yield from stream.flush(tail)
