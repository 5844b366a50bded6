"""What the benchmark of few recordings found, as a table and a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...export.drawing import PALETTE
from ...export.intervals import poisson_interval
from ..tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS = 1 / (1 + np.exp(-np.linspace(-4.0, 8.0, 121)))
"""Evenly spaced on the scale of log odds."""
FALSE_ACCEPTS = (0, 1, 3, 10)
"""The table gives the misses at so many false accepts in all that was measured without the word."""


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

    @property
    def hours(self) -> float:
        """Of audio without the word."""
        return self.speech_hours + self.other_hours

    @property
    def accepts(self) -> NDArray[np.int64]:
        """Detections in it, int64 [thresholds]: a threshold that speech alone allows may be one
        that a bark or a creak passes."""
        return np.array(self.speech_accepts) + np.array(self.other_accepts)

    def miss_rate(self, false_accepts: int, in_speech: bool = False) -> float:
        """Share of the word missed at the lowest threshold from which on there are no more false
        accepts than these; 1 where there is none."""
        above = np.flatnonzero(self.accepts > false_accepts)
        place = int(above[-1]) + 1 if len(above) else 0
        misses = self.misses_in_speech if in_speech else self.misses
        return misses[place] / self.words if place < len(misses) else 1.0


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
    hours = [curve.hours for curve in curves]
    other = max(curve.other_hours for curve in curves)
    lines += [
        "",
        f"Measured: {curves[0].words} recordings; {min(hours):.2f} to {max(hours):.2f} h without "
        f"the word for each seed, {other:.2f} h of it no speech. False accepts per hour, with the "
        "95 % upper bound:",
    ]
    bounds = []
    for count in FALSE_ACCEPTS:
        # The upper end of the two-sided interval of 90 % is the one-sided bound of 95 %.
        upper = poisson_interval(count, 0.9)[1]
        bounds.append(
            f"{count}: {count / np.mean(hours):.1f} (at most {upper / np.mean(hours):.1f})"
        )
    lines[-1] += f" {'; '.join(bounds)}."
    return "\n".join(lines) + "\n"


def det(word: str, curves: Sequence[Curve]) -> "Figure":
    """Misses against false accepts per hour without the word, one line for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.subplots()
    sizes = sorted({curve.size for curve in curves})
    for curve in curves:
        rates = curve.accepts / curve.hours
        color = PALETTE[sizes.index(curve.size) % len(PALETTE)]
        axes.step(
            np.maximum(rates, 0.5 / curve.hours),
            100 * np.array(curve.misses) / curve.words,
            color=color,
            linewidth=1.4,
            alpha=0.8,
            label=None if curve.seed else f"{curve.size} recordings",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.3, 100)
    axes.set_xlabel("false accepts per hour without the word (none: at the left end)")
    axes.set_ylabel("missed, %")
    axes.set_title(f"{word}: one line for each seed")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend()
    return figure
