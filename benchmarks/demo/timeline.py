"""A scene as a picture: what was said, what the model made of it, and what it detected."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...export.drawing import keyword_styles
from ...export.matching import Matching, Word
from ...runtime.manifest import Manifest
from ..scene import Heard, Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "#777777"
_WIDTH_INCHES = 12.0
_COLUMNS = 2400
_SIZE = 10


def timeline(scene: Scene, heard: Heard, matching: Matching, manifest: Manifest) -> "Figure":
    """Three panels over one axis of time: the waveform with the words that are said, the smoothed
    posterior of each keyword with its threshold, and the detections, right and false.

    Args:
        scene: what was played.
        heard: what the model made of it.
        matching: its detections against the truth.
        manifest: of the model.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, 5.4), layout="constrained")
    sound, curves, marks = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [2.2, 2.2, 1]}
    )
    styles = keyword_styles(manifest.keywords)
    _draw_sound(sound, scene, styles)
    for keyword, style in styles.items():
        column = heard.posteriors[:, manifest.labels.index(keyword)]
        curves.plot(heard.times, column, label=keyword, linewidth=1.6, **style)
    thresholds = manifest.decision.thresholds
    if len(set(thresholds.values())) == 1:
        curves.axhline(next(iter(thresholds.values())), color=_GREY, linewidth=0.8, linestyle="--")
    else:
        for keyword, level in thresholds.items():
            color = styles[keyword]["color"]
            curves.axhline(level, color=color, linewidth=0.6, linestyle="--")
    curves.set_ylim(0, 1.03)
    curves.set_ylabel("posterior\n(threshold dashed)")
    _draw_marks(marks, matching, styles)
    marks.set_xlabel("seconds of audio")
    marks.set_xlim(0, scene.seconds)
    for axes in (sound, curves, marks):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *curves.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=min(8, len(styles)),
        frameon=False,
        fontsize=_SIZE + 1,
    )
    return figure


def _draw_sound(axes: Any, scene: Scene, styles: dict[str, dict[str, Any]]) -> None:
    low, high = _envelope(scene.pcm)
    times = np.linspace(0, scene.seconds, len(low))
    axes.fill_between(times, low, high, color="#9aa3ad", linewidth=0)
    top = max(0.05, float(np.abs([low, high]).max()))
    axes.set_ylim(-top, 2.1 * top)
    axes.set_yticks([])
    axes.set_ylabel("sound, and\nwhat is said")
    for word in scene.truth:
        _label(axes, word, top, styles[word.keyword]["color"], "bold")
    for word in scene.others:
        _label(axes, word, top, _GREY, "normal")


def _label(axes: Any, word: Word, top: float, color: str, weight: str) -> None:
    axes.axvspan(word.start, word.end, ymax=2 / 3.1, color=color, alpha=0.25, linewidth=0)
    axes.text(
        (word.start + word.end) / 2,
        1.06 * top,
        word.keyword.replace("_", " "),
        color=color,
        fontsize=_SIZE - 1,
        fontweight=weight,
        rotation=40,
        rotation_mode="anchor",
        ha="left",
        va="bottom",
        clip_on=True,
    )


def _draw_marks(axes: Any, matching: Matching, styles: dict[str, dict[str, Any]]) -> None:
    """One row each for hits, false accepts and missed words."""
    rows: Sequence[tuple[str, str, list[tuple[float, str]]]] = (
        ("detected", "^", [(d.time, d.keyword) for d, _ in matching.hits]),
        ("false", "x", [(d.time, d.keyword) for d in matching.false_accepts]),
        ("missed", "o", [((w.start + w.end) / 2, w.keyword) for w in matching.misses]),
    )
    for height, (_, marker, found) in enumerate(reversed(rows)):
        for time, keyword in found:
            color = styles[keyword]["color"]
            axes.plot(
                [time],
                [height],
                marker=marker,
                markersize=9,
                markeredgewidth=2,
                color=color,
                markerfacecolor="none" if marker == "o" else color,
                linestyle="none",
            )
        axes.axhline(height, color="#dddddd", linewidth=0.6, zorder=0)
    names = [f"{name} {len(found)}" for name, _, found in rows]
    axes.set_yticks(range(len(rows)), names[::-1])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="y", length=0)


def _envelope(pcm: NDArray[np.int16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest sample of each column of the picture, 1 being full scale."""
    width = max(1, len(pcm) // _COLUMNS)
    blocks = pcm[: len(pcm) // width * width].reshape(-1, width) / 32768
    return blocks.min(axis=1), blocks.max(axis=1)
