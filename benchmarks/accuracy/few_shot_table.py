"""What the benchmark of few recordings found, as a table and a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...export.drawing import PALETTE
from ...export.intervals import poisson_interval
from ..tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS = 1 / (1 + np.exp(-np.linspace(-4.0, 8.0, 121)))
"""Evenly spaced on the scale of log odds."""
FALSE_ACCEPTS = (0, 1, 3, 10)
"""The table gives the misses at so many false accepts in the measured speech."""


@dataclass(frozen=True)
class Curve:
    """What one model does at each of :data:`THRESHOLDS`."""

    size: int
    seed: int
    words: int
    """Recordings of the word that were measured."""
    misses: tuple[int, ...]
    misses_in_speech: tuple[int, ...]
    """Of the same recordings, the word alone put between pieces of the measured speech."""
    speech_hours: float
    speech_accepts: tuple[int, ...]
    """Detections in free speech: all of them are false."""
    other_hours: float
    other_accepts: tuple[int, ...]
    model_sha256: str

    def place(self, false_accepts: int) -> int:
        """Which is the lowest threshold from which on free speech has no more false accepts than
        these; one past the last where none is."""
        above = np.flatnonzero(np.array(self.speech_accepts) > false_accepts)
        return int(above[-1]) + 1 if len(above) else 0

    def miss_rate(self, false_accepts: int, in_speech: bool = False) -> float:
        """Share of the word missed at that threshold; 1 where there is none."""
        place = self.place(false_accepts)
        misses = self.misses_in_speech if in_speech else self.misses
        return misses[place] / self.words if place < len(misses) else 1.0

    def elsewhere(self, false_accepts: int) -> int:
        """False accepts in other audio at that threshold; 0 where there is none."""
        place = self.place(false_accepts)
        return self.other_accepts[place] if place < len(self.misses) else 0


def table(word: str, curves: Sequence[Curve]) -> str:
    """The misses at a few numbers of false accepts, in Markdown."""
    heads = ["recordings", "the word"]
    heads += [f"missed at {count} false accepts" for count in FALSE_ACCEPTS]
    rows = []
    for size in sorted({curve.size for curve in curves}):
        some = [curve for curve in curves if curve.size == size]
        for in_speech, where in ((False, "alone"), (True, "within speech")):
            cells = [str(size), where]
            for count in FALSE_ACCEPTS:
                rates = [100 * curve.miss_rate(count, in_speech) for curve in some]
                each = ", ".join(f"{rate:.1f}" for rate in rates)
                cells.append(f"{np.mean(rates):.1f} % ({each})")
            rows.append(cells)
    lines = [f"Missed recordings of *{word}*, mean (of each seed)", "", markdown_table(heads, rows)]
    hours = [curve.speech_hours for curve in curves]
    lines += ["", f"Measured: {curves[0].words} recordings; {min(hours):.2f} to {max(hours):.2f} h"]
    lines[-1] += " of free speech for each seed. False accepts per hour, with the 95 % upper bound:"
    bounds = []
    for count in FALSE_ACCEPTS:
        # The upper end of the two-sided interval of 90 % is the one-sided bound of 95 %.
        upper = poisson_interval(count, 0.9)[1]
        bounds.append(
            f"{count}: {count / np.mean(hours):.1f} (at most {upper / np.mean(hours):.1f})"
        )
    lines[-1] += f" {'; '.join(bounds)}."
    if any(curve.other_hours for curve in curves):
        counts = [max(curve.elsewhere(count) for curve in curves) for count in FALSE_ACCEPTS]
        lines[-1] += (
            f" In {max(curve.other_hours for curve in curves):.2f} h of other audio no model had "
            f"more false accepts at those thresholds than {', '.join(map(str, counts))}."
        )
    return "\n".join(lines) + "\n"


def det(word: str, curves: Sequence[Curve]) -> "Figure":
    """Misses against false accepts per hour of free speech, one line for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.subplots()
    sizes = sorted({curve.size for curve in curves})
    for curve in curves:
        rates = np.array(curve.speech_accepts) / curve.speech_hours
        color = PALETTE[sizes.index(curve.size) % len(PALETTE)]
        axes.step(
            np.maximum(rates, 0.5 / curve.speech_hours),
            100 * np.array(curve.misses) / curve.words,
            color=color,
            linewidth=1.4,
            alpha=0.8,
            label=None if curve.seed else f"{curve.size} recordings",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.3, 100)
    axes.set_xlabel("false accepts per hour of free speech (none: at the left end)")
    axes.set_ylabel("missed, %")
    axes.set_title(f"{word}: one line for each seed")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend()
    return figure
