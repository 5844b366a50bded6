"""The detection error trade-off as a picture."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter, PercentFormatter

from .drawing import keyword_styles
from .tune import PLOT_PER_HOUR, Tuning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "#777777"
_SIZE = 10


def det_figure(tuning: Tuning, title: str) -> "Figure":
    """Missed words against false accepts per hour: a line for each keyword by itself, one for all
    with thresholds of their own, one for all with the same threshold, and the operating points with
    their 95 % intervals.

    Args:
        tuning: what is drawn.
        title: what it is of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.add_subplot()
    hours = tuning.hours
    # None at all has no place on a logarithmic axis: it gets one left of a single one.
    none = 0.4 / hours

    def draw(false: Any, missed: Any, **style: Any) -> None:
        axes.plot(np.maximum(false / hours, none), missed, **style)

    keywords = [curve.keyword for curve in tuning.positives]
    styles = keyword_styles(keywords)
    pairs = list(zip(tuning.positives, tuning.background, strict=True))
    for positive, background in pairs:
        share = positive.misses / positive.said
        style = styles[positive.keyword]
        draw(
            background.false_accepts,
            share,
            label=positive.keyword,
            linewidth=1,
            alpha=0.75,
            **style,
        )
    said = sum(curve.said for curve in tuning.positives)
    if len(pairs) > 1:
        misses = sum(curve.misses for curve in tuning.positives)
        false = sum(curve.false_accepts for curve in tuning.background)
        draw(false, misses / said, label="all, one threshold", linewidth=1.6, color=_GREY)
        levels = tuning.frontier.levels
        misses = sum(c.misses[levels[:, i]] for i, c in enumerate(tuning.positives))
        false = sum(c.false_accepts[levels[:, i]] for i, c in enumerate(tuning.background))
        draw(false, misses / said, label="all, tuned", linewidth=2.4, color="black")
    names: dict[tuple[int, ...], list[str]] = {}
    for name, point in tuning.points.items():
        names.setdefault(tuple(point.levels.tolist()), []).append(name)
    for same in names.values():
        _draw_point(axes, ", ".join(same), tuning.points[same[0]].measured, none)
    axes.set_xscale("log")
    axes.axvline(1 / hours, color=_GREY, linewidth=0.6, linestyle=":")
    axes.annotate(
        f" one in {hours:.3g} h",
        (1 / hours, 1),
        xycoords=("data", "axes fraction"),
        va="top",
        color=_GREY,
        fontsize=_SIZE - 2,
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.annotate(
        "none",
        (none, 0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        color=_GREY,
        fontsize=_SIZE - 2,
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    worst = max(point.measured["false_reject_rate_interval"][1] for point in tuning.points.values())
    axes.set_ylim(0, min(1.0, max(0.1, 1.5 * worst)))
    most = max(p.measured["false_accepts_per_hour_interval"][1] for p in tuning.points.values())
    axes.set_xlim(0.7 * none, max(3 * PLOT_PER_HOUR, 1.5 * most))
    axes.set_xlabel("false accepts per hour of background")
    axes.set_ylabel(f"missed, of {said} clips")
    where = "chosen on the same recordings" if tuning.in_sample else "on recordings held out"
    axes.set_title(f"{title}\n{where}", fontsize=_SIZE)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=_SIZE - 1)
    return figure


def _draw_point(axes: Any, name: str, measured: dict[str, Any], none: float) -> None:
    rate, share = measured["false_accepts_per_hour"], measured["false_reject_rate"]
    x, y = max(rate, none), share
    low, high = measured["false_accepts_per_hour_interval"]
    least, most = measured["false_reject_rate_interval"]
    axes.errorbar(
        [x],
        [y],
        xerr=[[x - max(low, none)], [high - x]],
        yerr=[[y - least], [most - y]],
        color="black",
        marker="o",
        markersize=7,
        linewidth=1,
        capsize=3,
        zorder=5,
    )
    axes.annotate(
        name,
        (x, y),
        xytext=(6, 7),
        textcoords="offset points",
        fontsize=_SIZE,
        fontweight="bold",
        zorder=6,
    )
