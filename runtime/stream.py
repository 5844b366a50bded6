"""Audio in, detections out: one stream of a model."""

from typing import NamedTuple

import numpy as np

from .audio import as_pcm
from .decision import Decider
from .errors import EarmarkError
from .gate import Gate
from .manifest import Manifest
from .scorer import Scorer

MAX_TAIL = 3600.0
"""Most seconds of zeros at the end of a stream."""


class Detection(NamedTuple):
    """A keyword that was detected."""

    keyword: str
    time: float
    """Seconds of audio consumed by the step that fired."""
    score: float
    """Smoothed posterior at that step."""


class Stream:
    """Audio in, detections out. What it returns does not depend on how the audio is cut."""

    skipped: int
    """Samples that the gate kept from the network since the start or the last reset."""

    def __init__(self, scorer: Scorer, manifest: Manifest, gate: float | None = None) -> None:
        """See :meth:`Engine.stream <earmark.runtime.engine.Engine.stream>`.

        Args:
            scorer: a new one of the model, for this stream alone.
            manifest: that of the model, with the decision that is wanted.
            gate: see there.
        """
        geometry = manifest.geometry
        self._labels = manifest.labels
        self._rate = geometry.sample_rate
        self._step = geometry.step
        self._scorer = scorer
        self._decider = Decider(
            manifest.decision, manifest.labels, geometry.step / geometry.sample_rate
        )
        self._posteriors = self._scorer.posteriors
        self._gate = None if gate is None else Gate(gate, geometry, self._decider.window)
        self._origin = 0
        self._scored = 0
        self._lost = 0
        self.skipped = 0

    @property
    def posteriors(self) -> np.ndarray:
        """Smoothed posteriors of the last step: float64 [labels], zero at the start and while the
        gate is closed."""
        return self._decider.smoothed

    @property
    def rate(self) -> int:
        """Samples per second of the audio to push."""
        return self._rate

    @property
    def seconds(self) -> float:
        """Audio time: seconds of audio taken, losses told to :meth:`gap` included."""
        return (self._origin + self._scorer.samples) / self._rate

    def push(self, pcm: np.ndarray) -> list[Detection]:
        """Take audio and return what it completes.

        Args:
            pcm: [samples] at the model's sample rate, any length; int16, or float32/float64 in
                [-1, 1).

        Raises:
            EarmarkError: ``pcm`` has another type or shape, or holds NaN or no audio. The state is
                as before.
        """
        detections = []
        gate, scorer = self._gate, self._scorer
        pcm, taken = as_pcm(pcm), 0
        # Chunk by chunk, so that every array operation has one shape: results are bitwise the same
        # however the audio arrives, and a long push takes no more memory than a short one.
        while taken < len(pcm) and (taken := scorer.take(pcm, taken)) >= 0:
            if gate is not None:
                if gate.skips(scorer.chunk, self._decider.at_rest):
                    self._decider.gap(len(self._posteriors))
                    self._scored += len(scorer.chunk)
                    self.skipped += len(scorer.chunk)
                    continue
                if gate.closed:
                    self._open(gate)
            scorer.score()
            for firing in self._decider.update(self._posteriors):
                end = self._origin + self._scored + (firing.row + 1) * self._step
                time = end / self._rate
                detections.append(Detection(self._labels[firing.label], time, firing.score))
            self._scored += len(scorer.chunk)
        return detections

    def _open(self, gate: Gate) -> None:
        """Bring the network and the moving average to where they were without the gate."""
        for index, _ in enumerate(self._scorer.replay(gate.reopen())):
            if index >= gate.warm_up:
                self._decider.restore(self._posteriors)

    def flush(self, tail: float = 0.0) -> list[Detection]:
        """End the stream: decide what only silence was missing for.

        Args:
            tail: at least so many seconds of zeros follow the audio, then whatever finishes a
                chunk. No detection is given a time beyond the audio itself.

        The stream starts anew with the next push.

        Raises:
            EarmarkError: ``tail`` is not within 0 and :data:`MAX_TAIL`.
        """
        if not 0 <= tail <= MAX_TAIL:
            raise EarmarkError(f"a tail of {tail} s: give 0 to {MAX_TAIL:g}")
        end = self.seconds
        padding = round(tail * self._rate)
        padding += -(self._scorer.samples + padding) % (len(self._posteriors) * self._step)
        detections = [
            detection._replace(time=min(detection.time, end))
            for detection in self.push(np.zeros(padding, np.int16))
        ]
        self.reset()
        return detections

    def reset(self) -> None:
        """Return to the state of a new stream, at audio time 0."""
        self._scorer.reset()
        self._decider.reset()
        if self._gate is not None:
            self._gate.reset()
        self._origin = 0
        self._scored = 0
        self._lost = 0
        self.skipped = 0

    def gap(self, samples: int = 0) -> None:
        """Audio was lost here: about ``samples`` samples, 0 where that is not known.

        The model and the smoothing restart as at the start of a stream, audio time goes on.

        Raises:
            EarmarkError: ``samples`` is below 0.
        """
        if samples < 0:
            raise EarmarkError(f"a gap of {samples} samples: give 0 or more")
        self._origin += self._scorer.samples + samples
        # A loss told in pieces shorter than a step is as long as one told at once.
        lost = self._lost + self._scorer.samples - self._scored + samples
        steps, self._lost = divmod(lost, self._step)
        self._decider.gap(steps)
        self._scorer.reset()
        if self._gate is not None:
            self._gate.reset()
        self._scored = 0
