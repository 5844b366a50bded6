"""From posteriors to detections: moving average, threshold, hysteresis, refractory period.

Posterior smoothing over a fixed window follows Chen, Parada and Heigold, "Small-footprint keyword
spotting using deep neural networks" (ICASSP 2014); the re-arm level is the hysteresis that voice
activity detectors use. All times are audio time, counted in steps, never a clock on the wall.
"""

import math
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from .errors import EarmarkError
from .manifest import Decision

# Posteriors are held as integers in units of 2**-32. Integer sums are exact, so a running sum
# cannot drift over a year of audio and cannot depend on how the audio was cut into calls.
UNIT = 1 << 32
SCALE = np.float32(UNIT)
NEVER = np.iinfo(np.int64).max
FLOAT32 = np.dtype(np.float32)
MAX_WINDOW_VALUES = 1 << 22
"""Most numbers kept for the moving average of a stream (32 MiB)."""
MAX_BATCH_VALUES = 1 << 27
"""Most numbers kept for the moving averages of all streams of a batch (1 GiB)."""
BLOCK = 256
"""Steps that one pass of the update takes."""


class Firing(NamedTuple):
    """A keyword that fired within one call of :meth:`Decider.update`."""

    label: int
    """Index into the labels."""
    row: int
    """Row of the posteriors of that call, from 0."""
    score: float
    """Smoothed posterior at that step."""


@dataclass(frozen=True)
class _Rule:
    """The decision settings in steps and in sums over the smoothing window."""

    window: int
    """Steps that are averaged."""
    refractory: int
    full: int
    """The sum of a window of ones."""
    fire: np.ndarray
    """int64 [labels]: the sum at which each fires, ``NEVER`` for one that is no keyword."""
    rearm: np.ndarray
    """int64 [labels]: the sum below which each re-arms."""

    @classmethod
    def of(cls, decision: Decision, labels: Sequence[str], step_seconds: float) -> Self:
        """Raises EarmarkError: the smoothing window would take unreasonable memory."""
        window = max(1, round(decision.smoothing / step_seconds))
        if window * len(labels) > MAX_WINDOW_VALUES:
            raise EarmarkError(
                f"decision.smoothing: {decision.smoothing:g} s is {window} steps of "
                f"{step_seconds:g} s for {len(labels)} labels, which is too much: choose less"
            )
        full = window * UNIT
        fire = np.full(len(labels), NEVER)
        rearm = np.zeros(len(labels), np.int64)
        for index, label in enumerate(labels):
            threshold = decision.thresholds.get(label)
            if threshold is not None:
                # Truncation loses less than one unit per row, so a mean of exactly the threshold
                # still fires.
                need = max(1, math.ceil(threshold * full) - window)
                fire[index] = need
                rearm[index] = min(need, max(1, math.ceil(decision.release * threshold * full)))
        return cls(window, math.ceil(decision.refractory / step_seconds - 1e-9), full, fire, rearm)

    def firings(
        self,
        totals: np.ndarray,
        above: np.ndarray,
        armed: MutableSequence[bool],
        ready: MutableSequence[int],
        clock: int,
    ) -> list[Firing]:
        """The rare case: some keyword is at its threshold or waits to be re-armed.

        Args:
            totals: int64 [steps, labels], sums over the window that ends with each step.
            above: ``totals >= fire``.
            armed: by label; brought up to date.
            ready: by label, the step from which it may fire again; brought up to date.
            clock: number of the first of these steps.
        """
        firings = []
        for label in range(len(armed)):
            candidates = above[:, label]
            if armed[label] and not candidates.any():
                continue
            below = totals[:, label] < self.rearm[label]
            row = 0
            while True:
                if armed[label]:
                    row = max(row, ready[label] - clock)
                    row += _first(candidates[row:])
                    if row >= len(totals):
                        break
                    firings.append(Firing(label, row, float(totals[row, label] / self.full)))
                    armed[label] = False
                    ready[label] = clock + row + self.refractory
                row += _first(below[row:])
                if row >= len(totals):
                    break
                armed[label] = True
        firings.sort(key=lambda firing: firing.row)
        return firings


class Decider:
    """Decision state of one stream.

    A keyword fires at a step where it is armed, its smoothed posterior is at or above its
    threshold and its refractory period is over. Firing disarms it; it re-arms at the first step
    where the smoothed posterior is below ``release * threshold`` (zero suffices when ``release``
    is 0). Keywords do not influence one another.

    The smoothed posterior is the causal mean over ``max(1, round(smoothing / step))`` steps, with
    zeros before the start. Results do not depend on how the steps are spread over calls.
    """

    def __init__(self, decision: Decision, labels: Sequence[str], step_seconds: float) -> None:
        """
        Args:
            decision: a threshold for each keyword, and the settings that all of them share.
            labels: class names in the order of the posteriors' columns.
            step_seconds: audio between two rows of posteriors.

        Raises:
            EarmarkError: the smoothing window would take unreasonable memory.
        """
        self._rule = _Rule.of(decision, labels, step_seconds)
        window = self._rule.window
        # Running sums of the posteriors: what the window holds is the difference of two. They are
        # brought up to date only where a keyword could fire or re-arm. The last `window + 1` end at
        # `_end`; rows are added until the buffer is full, and only then the sums are moved to the
        # front, where the first of them becomes 0.
        block = max(BLOCK, window + 1)
        self._sums = np.zeros((window + 1 + block, len(labels)), np.int64)
        self._new: list[bytes] = []
        """Rows that the sums do not hold yet, float32. Bytes, since a numpy call less is a
        microsecond or two where the model has just run through the processor's caches."""
        levels = np.nextafter((self._rule.fire / self._rule.full).astype(np.float32), np.float32(0))
        self._loud = np.where(self._rule.fire == NEVER, np.float32(np.inf), levels)[np.newaxis]
        """Float32 [steps, labels]: while no posterior in the window reaches it, no mean does. All
        rows are the same, since numpy compares equal shapes in less than half of the time."""
        self._compare(1)
        self._quiet_from = 0
        """The step from which no window holds a posterior that reached ``_loud``."""
        self._reset_window()
        self._armed = [True] * len(labels)
        self._ready = [0] * len(labels)
        self._all_armed = True
        self._clock = 0

    @property
    def smoothed(self) -> np.ndarray:
        """Smoothed posteriors of the last step: float64 [labels], zero at the start."""
        return self._totals(1)[0] / self._rule.full

    @property
    def window(self) -> int:
        """Steps of the moving average."""
        return self._rule.window

    @property
    def at_rest(self) -> bool:
        """Whether every keyword is armed, so that no step but one that fires changes anything."""
        return self._all_armed

    def update(self, posteriors: np.ndarray) -> list[Firing]:
        """Take the next steps and return what fires, in the order of the steps.

        Args:
            posteriors: float32 [steps, labels], each in [0, 1]; another type is converted.
        """
        steps = len(posteriors)
        if not steps:
            return []
        if steps > BLOCK:
            firings = []
            for start in range(0, steps, BLOCK):
                for firing in self.update(posteriors[start : start + BLOCK]):
                    firings.append(firing._replace(row=firing.row + start))
            return firings
        clock = self._clock
        self._clock = clock + steps
        self._append(posteriors)
        if self._all_armed and clock >= self._quiet_from:
            return []
        totals = self._totals(steps)
        above = totals >= self._rule.fire
        if self._all_armed and not np.count_nonzero(above):
            return []
        firings = self._rule.firings(totals, above, self._armed, self._ready, clock)
        self._all_armed = all(self._armed)
        return firings

    def restore(self, posteriors: np.ndarray) -> None:
        """Put the steps that the last gap skipped into the moving average, deciding nothing.

        Args:
            posteriors: float32 [steps, labels] of the end of the gap.
        """
        for start in range(0, len(posteriors), BLOCK):
            self._append(posteriors[start : start + BLOCK])

    def reset(self) -> None:
        """Return to the state of a new stream."""
        self.gap()
        self._ready = [0] * len(self._ready)
        self._clock = 0

    def gap(self, steps: int = 0) -> None:
        """Forget the audio before a loss of about ``steps`` steps.

        The moving average restarts from zeros, which arms every keyword. Refractory periods run on
        over the loss, so that a word cut by it does not fire twice. A gap as long as the moving
        average is the same as so many steps of zeros.
        """
        self._reset_window()
        self._armed = [True] * len(self._armed)
        self._all_armed = True
        self._clock += steps

    def _reset_window(self) -> None:
        self._end = self._rule.window + 1
        self._sums[: self._end] = 0
        self._new.clear()
        self._quiet_from = 0

    def _append(self, posteriors: np.ndarray) -> None:
        """Take rows that end with the step before ``_clock``."""
        if posteriors.dtype != FLOAT32:
            posteriors = posteriors.astype(FLOAT32)
        steps = len(posteriors)
        after = self._end + steps
        if after > len(self._sums):
            self._settle()
            window = self._rule.window
            kept = self._sums[self._end - window - 1 : self._end]
            self._sums[: window + 1] = kept - kept[0]
            after = window + 1 + steps
        self._new.append(posteriors.tobytes())
        self._end = after
        if len(self._loud) != steps:
            self._compare(steps)
        np.greater_equal(posteriors, self._loud, self._is_loud)
        if self._is_loud.tobytes() != self._none_loud:
            self._quiet_from = self._clock + self._rule.window - 1

    def _compare(self, steps: int) -> None:
        """Prepare for so many rows at a time."""
        self._loud = np.repeat(self._loud[:1], steps, axis=0)
        self._is_loud = np.zeros(self._loud.shape, bool)
        self._none_loud = self._is_loud.tobytes()

    def _settle(self) -> None:
        """Bring the sums up to date."""
        if self._new:
            rows = np.frombuffer(b"".join(self._new), np.float32)
            rows = rows.reshape(-1, self._sums.shape[1])
            start = self._end - len(rows)
            # Exact for float32, as a change of the exponent alone.
            self._sums[start : self._end] = rows * SCALE
            new = self._sums[start - 1 : self._end]
            np.add.accumulate(new, axis=0, out=new)
            self._new.clear()

    def _totals(self, steps: int) -> np.ndarray:
        """Sums over the windows that end with the last steps, int64 [steps, labels]."""
        self._settle()
        end, window = self._end, self._rule.window
        return self._sums[end - steps : end] - self._sums[end - steps - window : end - window]


class BatchDecider:
    """Decision states of many streams, which take their next steps together.

    Each stream fires exactly as a :class:`Decider` of its own would. Its state takes less memory
    and, among many, less time.
    """

    def __init__(
        self,
        decision: Decision,
        labels: Sequence[str],
        step_seconds: float,
        streams: int,
        steps: int,
    ) -> None:
        """
        Args:
            decision: see :class:`Decider`.
            labels: see :class:`Decider`.
            step_seconds: see :class:`Decider`.
            streams: number of streams.
            steps: steps that each takes in one update.

        Raises:
            EarmarkError: the smoothing windows would take unreasonable memory.
        """
        self._rule = _Rule.of(decision, labels, step_seconds)
        # A stream's step n is at row n modulo the length, which leaves room for a window of old
        # rows beside the new ones.
        self._length = self._rule.window + steps
        values = self._length * len(labels)
        if streams * values > MAX_BATCH_VALUES:
            raise EarmarkError(
                f"decision.smoothing: {decision.smoothing:g} s for {streams} streams takes "
                f"{streams * values * 8 >> 20} MiB, which is too much: choose less"
            )
        self._rows = np.zeros((streams, self._length, len(labels)), np.int64)
        self._total = np.zeros((streams, len(labels)), np.int64)
        self._armed = np.ones((streams, len(labels)), bool)
        self._ready = np.zeros((streams, len(labels)), np.int64)
        self._clock = np.zeros(streams, np.int64)
        self._steps = np.arange(steps)

    def update(self, streams: np.ndarray, posteriors: np.ndarray) -> list[tuple[int, Firing]]:
        """Take the next steps of some streams.

        Args:
            streams: intp [batch], which streams; none twice.
            posteriors: float [batch, steps, labels], each in [0, 1].

        Returns:
            What fires, with its place in the batch, ordered by it and then by step.
        """
        rule, rows, column = self._rule, self._rows, streams[:, np.newaxis]
        clock = self._clock[streams]
        place = clock[:, np.newaxis] + self._steps
        new = (posteriors * SCALE).astype(np.int64)
        rows[column, place % self._length] = new
        totals = np.subtract(new, rows[column, (place - rule.window) % self._length], out=new)
        np.add.accumulate(totals, axis=1, out=totals)
        totals += self._total[streams][:, np.newaxis]
        self._total[streams] = totals[:, -1]
        self._clock[streams] = clock + len(self._steps)
        above = totals >= rule.fire
        armed = self._armed[streams]
        if armed.all() and not above.any():
            return []
        found = []
        for place in np.flatnonzero(above.any(axis=(1, 2)) | ~armed.all(axis=1)).tolist():
            stream = streams[place]
            states, ready = armed[place].tolist(), self._ready[stream].tolist()
            for firing in rule.firings(
                totals[place], above[place], states, ready, int(clock[place])
            ):
                found.append((place, firing))
            self._armed[stream], self._ready[stream] = states, ready
        return found

    def reset(self, stream: int) -> None:
        """Return a stream to its start."""
        self.gap(stream)
        self._ready[stream] = 0
        self._clock[stream] = 0

    def gap(self, stream: int, steps: int = 0) -> None:
        """As :meth:`Decider.gap`, for one stream."""
        self._rows[stream] = 0
        self._total[stream] = 0
        self._armed[stream] = True
        self._clock[stream] += steps


def _first(flags: np.ndarray) -> int:
    """Index of the first true value, or the length where there is none."""
    if not len(flags):
        return 0
    index = int(flags.argmax())
    return index if flags[index] else len(flags)
