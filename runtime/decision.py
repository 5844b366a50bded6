"""From posteriors to detections: moving average, threshold, hysteresis, refractory period.

Posterior smoothing over a fixed window follows Chen, Parada and Heigold, "Small-footprint keyword
spotting using deep neural networks" (ICASSP 2014); the re-arm level is the hysteresis that voice
activity detectors use. All times are audio time, counted in steps, never a clock on the wall.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .errors import EarmarkError
from .manifest import Decision

# Posteriors are held as integers in units of 2**-32. Integer sums are exact, so a running sum
# cannot drift over a year of audio and cannot depend on how the audio was cut into calls.
UNIT = 1 << 32
SCALE = np.float32(UNIT)
NEVER = np.iinfo(np.int64).max
MAX_WINDOW_VALUES = 1 << 22
"""Most numbers kept for the moving average (32 MiB)."""
BLOCK = 1024
"""Steps that one pass of the update takes."""


class Firing(NamedTuple):
    """A keyword that fired within one call of :meth:`Decider.update`."""

    label: int
    """Index into the labels."""
    row: int
    """Row of the posteriors of that call, from 0."""
    score: float
    """Smoothed posterior at that step."""


class Decider:
    """Decision state of one stream.

    A keyword fires at a step where it is armed, its smoothed posterior is at or above its
    threshold and its refractory period is over. Firing disarms it; it re-arms at the first step
    where the smoothed posterior is below ``release * threshold`` (zero suffices when ``release``
    is 0). Keywords do not influence one another.

    The smoothed posterior is the causal mean over ``max(1, round(smoothing / step))`` steps, with
    zeros before the start. Results do not depend on how the steps are spread over calls.
    """

    window: int
    """Steps of the moving average."""

    def __init__(self, decision: Decision, labels: Sequence[str], step_seconds: float) -> None:
        """
        Args:
            decision: a threshold for each keyword, and the settings that all of them share.
            labels: class names in the order of the posteriors' columns.
            step_seconds: audio between two rows of posteriors.

        Raises:
            EarmarkError: the smoothing window would take unreasonable memory.
        """
        window = max(1, round(decision.smoothing / step_seconds))
        if window * len(labels) > MAX_WINDOW_VALUES:
            raise EarmarkError(
                f"decision.smoothing: {decision.smoothing:g} s is {window} steps of "
                f"{step_seconds:g} s for {len(labels)} labels, which is too much: choose less"
            )
        self.window = window
        self._refractory = math.ceil(decision.refractory / step_seconds - 1e-9)
        self._full = window * UNIT
        self._fire = np.full(len(labels), NEVER)
        self._rearm = np.zeros(len(labels), np.int64)
        for index, label in enumerate(labels):
            threshold = decision.thresholds.get(label)
            if threshold is not None:
                # Truncation loses less than one unit per row, so a mean of exactly the threshold
                # still fires.
                need = max(1, math.ceil(threshold * self._full) - window)
                self._fire[index] = need
                self._rearm[index] = min(
                    need, max(1, math.ceil(decision.release * threshold * self._full))
                )
        # The last `window` rows end at `_end`; rows are appended until the buffer is full, and only
        # then moved to its front.
        block = max(BLOCK, window)
        self._rows = np.zeros((window + block, len(labels)), np.int64)
        self._reset_window()
        self._armed = [True] * len(labels)
        self._ready = [0] * len(labels)
        self._all_armed = True
        self._clock = 0

    @property
    def smoothed(self) -> np.ndarray:
        """Smoothed posteriors of the last step: float64 [labels], zero at the start."""
        return self._total / self._full

    @property
    def at_rest(self) -> bool:
        """Whether every keyword is armed, so that no step but one that fires changes anything."""
        return self._all_armed

    def update(self, posteriors: np.ndarray) -> list[Firing]:
        """Take the next steps and return what fires, in the order of the steps.

        Args:
            posteriors: float [steps, labels], each in [0, 1].
        """
        steps = len(posteriors)
        if steps <= len(self._rows) - self.window:
            return self._advance(posteriors) if steps else []
        firings = []
        for start in range(0, steps, BLOCK):
            for firing in self._advance(posteriors[start : start + BLOCK]):
                firings.append(firing._replace(row=firing.row + start))
        return firings

    def restore(self, posteriors: np.ndarray) -> None:
        """Put the steps that the last gap skipped into the moving average, deciding nothing.

        Args:
            posteriors: float [steps, labels] of the end of the gap, at most 1024 rows.
        """
        self._shift(posteriors)

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
        self._rows[: self.window] = 0
        self._end = self.window
        self._total = np.zeros(self._rows.shape[1], np.int64)

    def _advance(self, posteriors: np.ndarray) -> list[Firing]:
        totals = self._shift(posteriors)
        clock = self._clock
        self._clock += len(totals)
        above = totals >= self._fire
        if self._all_armed and not np.count_nonzero(above):
            return []
        return self._decide(totals, above, clock)

    def _shift(self, posteriors: np.ndarray) -> np.ndarray:
        """Move the window over the next steps and return its sums, int64 [steps, labels]."""
        steps, window, rows = len(posteriors), self.window, self._rows
        end = self._end
        if end + steps > len(rows):
            rows[:window] = rows[end - window : end]
            end = window
        new = rows[end : end + steps]
        new[:] = posteriors * SCALE  # exact for float32, as a change of the exponent alone
        totals = np.subtract(new, rows[end - window : end - window + steps])
        np.add.accumulate(totals, axis=0, out=totals)
        totals += self._total
        self._end = end + steps
        self._total = totals[-1].copy()
        return totals

    def _decide(self, totals: np.ndarray, above: np.ndarray, clock: int) -> list[Firing]:
        """The rare case: some keyword is at its threshold or waits to be re-armed."""
        firings = []
        for label in range(len(self._armed)):
            candidates = above[:, label]
            if self._armed[label] and not candidates.any():
                continue
            below = totals[:, label] < self._rearm[label]
            row = 0
            while True:
                if self._armed[label]:
                    row = max(row, self._ready[label] - clock)
                    row += _first(candidates[row:])
                    if row >= len(totals):
                        break
                    firings.append(Firing(label, row, float(totals[row, label] / self._full)))
                    self._armed[label] = False
                    self._ready[label] = clock + row + self._refractory
                row += _first(below[row:])
                if row >= len(totals):
                    break
                self._armed[label] = True
        self._all_armed = all(self._armed)
        firings.sort(key=lambda firing: firing.row)
        return firings


def _first(flags: np.ndarray) -> int:
    """Index of the first true value, or the length where there is none."""
    if not len(flags):
        return 0
    index = int(flags.argmax())
    return index if flags[index] else len(flags)
