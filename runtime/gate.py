"""The energy gate: which chunks of a quiet stream need no network, exactly.

A row of posteriors, smoothed, depends on a finite piece of audio. While all of that piece lies
below the gate's level, chunks are skipped and the latest piece is kept; when a chunk reaches the
level, the kept ones go through the network from a zero cache first. Network and moving average
then are, to the bit, where they would be without the gate. So detections are those of an ungated
stream, except that audio which stayed below the level throughout detects nothing.
"""

import math
from collections.abc import Iterator

import numpy as np

from .audio import FULL_SCALE
from .errors import EarmarkError
from .manifest import Geometry

LEAST_DB, MOST_DB = -120.0, -20.0
"""Levels that make sense: at the most, ordinary speech would be skipped."""
MAX_CHUNKS = 1024
"""Most chunks that opening replays."""


class Gate:
    """The level of one stream, and the chunks that it keeps."""

    closed: bool
    """Whether chunks have been skipped since the last that was not."""
    warm_up: int
    """Chunks of a replay before network output is what it would be without the gate."""

    def __init__(self, level: float, geometry: Geometry, window: int) -> None:
        """
        Args:
            level: dB relative to full scale; a chunk whose root mean square is below it is quiet.
                A full-scale sine has -3 dB, the least int16 step -90 dB.
            geometry: of the model.
            window: steps of the moving average over posteriors.

        Raises:
            EarmarkError: ``level`` is out of range or the model's memory too long to be replayed.
        """
        if not LEAST_DB <= level <= MOST_DB:
            raise EarmarkError(
                f"gate of {level:g} dB: give a level from {LEAST_DB:g} to {MOST_DB:g} dB of full "
                "scale"
            )
        self.warm_up = math.ceil((geometry.receptive_field - geometry.step) / geometry.chunk)
        chunks = max(1, self.warm_up + math.ceil((window - 1) / geometry.steps))
        if chunks > MAX_CHUNKS:
            raise EarmarkError(
                f"gate: the model and its smoothing remember {chunks} chunks, more than "
                f"{MAX_CHUNKS}: leave the gate off"
            )
        self._limit = geometry.chunk * FULL_SCALE**2 * 10 ** (level / 10)
        self._kept = np.zeros((chunks, geometry.chunk), np.float32)
        self.reset()

    def skips(self, chunk: np.ndarray, at_rest: bool) -> bool:
        """Whether the next chunk needs no network.

        Args:
            chunk: the audio, float32 [chunk] in units of an int16 step.
            at_rest: whether the decision waits for nothing (:attr:`Decider.at_rest`).
        """
        if np.dot(chunk, chunk) >= self._limit:
            self._oldest = self._quiet % len(self._kept)
            self._quiet = 0
            return False
        if self._quiet >= len(self._kept) and at_rest:
            self.closed = True
        self._kept[self._quiet % len(self._kept)] = chunk
        self._quiet += 1
        return self.closed

    def reopen(self) -> Iterator[np.ndarray]:
        """Give the kept chunks, oldest first, once a chunk was not skipped, and be open."""
        self.closed = False
        for place in range(len(self._kept)):
            yield self._kept[(self._oldest + place) % len(self._kept)]

    def reset(self) -> None:
        """Return to the start of a stream: open."""
        self.closed = False
        self._quiet = 0
        self._oldest = 0
