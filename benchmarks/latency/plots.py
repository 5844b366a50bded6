"""Reports as pictures."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...export.drawing import keyword_styles
from .results import Report, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = 9
GREY = "#777777"
MARKS = {"edge": "o", "peer": "s", "full": "^"}


def plots(report: Report) -> "dict[str, tuple[str, Figure]]":
    """The pictures that the report has rows for: by name, what they show and how they look."""
    made = {
        "distributions": (
            "Share of steps that took at most so long, of models and peers: hot (lines) and at "
            "the pace of live audio (dashes).",
            _distributions(report.of("edge", "peer")),
        ),
        "accuracy": (
            "CPU time per second of audio against measured accuracy. What was not measured here "
            "stands in the lower part.",
            _accuracy(report.of("edge", "peer", "full")),
        ),
        "scaling": (
            "CPU time per second of audio by length of the chunk, size of the network and number "
            "of keywords, for students with random weights.",
            _scaling(report.of("scaling")),
        ),
    }
    return {name: (text, figure) for name, (text, figure) in made.items() if figure is not None}


def _distributions(rows: Sequence[Row]) -> "Figure | None":
    if not rows:
        return None
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    styles = keyword_styles([f"{row.name}, {row.precision}, {row.mode}" for row in rows])
    for row, (label, style) in zip(rows, styles.items(), strict=True):
        percents = range(len(row.hot.percentiles_us))
        style = {"color": style["color"]}
        axes.plot(row.hot.percentiles_us, percents, label=label, linewidth=1.5, **style)
        if row.paced is not None:
            axes.plot(row.paced.percentiles_us, percents, linestyle="--", linewidth=1, **style)
    axes.set_xscale("log")
    # Labels that do not touch, over a single decade as over four.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda us, _: f"{us:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("µs of a step")
    axes.set_ylabel("% of steps")
    _plain(axes)
    # Below, for an axis as wide as the picture.
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=SIZE)
    return figure


def _accuracy(rows: Sequence[Row]) -> "Figure | None":
    # A batch shares what a call costs among windows that one stream does not have.
    single = [row for row in rows if row.batch == 1]
    measured = [row for row in single if row.accuracy]
    others = [row for row in single if not row.accuracy]
    if len({row.accuracy.value for row in measured if row.accuracy}) < 2:
        return None  # nothing to hold costs against
    from matplotlib.figure import Figure

    heights = [2.6, 0.35 + 0.16 * len(others)][: 2 if others else 1]
    figure = Figure(figsize=(8, 2.95 + 0.16 * len(others)), layout="constrained")
    parts = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    above, below = parts[0], parts[-1]
    levels = [100 * row.accuracy.value for row in measured if row.accuracy]
    # One above the other and above all marks, so that names of rows of like accuracy and cost can
    # be read; the cheapest highest, so that no line crosses a name.
    dearest_first = sorted(measured, key=lambda row: -row.hot.cpu_ms_per_second.median)
    for place, row in enumerate(dearest_first, 1):
        assert row.accuracy is not None
        named = max(levels), 12.0 * place
        _mark(above, row, 100 * row.accuracy.value, "#0072b2", named)
    for place, row in enumerate(others):
        _mark(below, row, -place, GREY)
    above.set_xscale("log")
    left, right = above.get_xlim()
    # Room for the names, which stand to the right of the marks.
    above.set_xlim(left, right * (right / left) ** 0.6)
    above.set_ylabel("accuracy %")
    above.set_ylim(min(levels) - 1, min(100.0, max(levels) + 1))
    if others:
        below.set_ylim(-len(others) + 0.2, 0.8)
        below.set_yticks([])
        below.set_ylabel("not measured")
    below.set_xlabel("CPU ms per second of audio")
    for axes in parts:
        _plain(axes)
    return figure


def _mark(
    axes: Any, row: Row, height: float, color: str, named: tuple[float, float] | None = None
) -> None:
    """A row's cost with its interval, and its name beside it, or at the end of a line: a height and
    so many points above it."""
    from matplotlib.transforms import offset_copy

    cost = row.hot.cpu_ms_per_second
    axes.errorbar(
        [cost.median],
        [height],
        xerr=[[cost.median - cost.low], [cost.high - cost.median]],
        marker=MARKS[row.kind],
        color=color,
        markersize=5,
    )
    label = f"{row.name}, {row.precision}, {row.mode}"
    if row.kind == "full":
        label += f", {row.job}, {row.device}"
    axes.annotate(
        label,
        (cost.median if named else cost.high, height),
        xytext=(cost.median, named[0]) if named else (cost.high, height),
        textcoords=offset_copy(
            axes.transData, axes.figure, 6, named[1] if named else 0, units="points"
        ),
        va="center",
        fontsize=SIZE - 2,
        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "relpos": (0, 0.5)}
        if named
        else None,
    )


def _scaling(rows: Sequence[Row]) -> "Figure | None":
    if not rows:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels: tuple[tuple[str, Callable[[Row], float]], ...] = (
        ("chunk, ms", lambda row: row.step_ms),
        ("width", lambda row: row.width or 0),
        ("keywords", lambda row: row.keywords or 0),
    )
    usual = rows[0]
    styles = keyword_styles(list(dict.fromkeys(row.precision for row in rows)))
    panel_axes: Any = figure.subplots(1, len(panels), sharey=True)
    for axes, (label, value) in zip(panel_axes, panels, strict=True):
        others = [other for _, other in panels if other is not value]
        for precision, style in styles.items():
            line = sorted(
                (
                    row
                    for row in rows
                    if row.precision == precision
                    and all(other(row) == other(usual) for other in others)
                ),
                key=value,
            )
            costs = [row.hot.cpu_ms_per_second for row in line]
            axes.errorbar(
                [value(row) for row in line],
                [cost.median for cost in costs],
                yerr=[
                    [cost.median - cost.low for cost in costs],
                    [cost.high - cost.median for cost in costs],
                ],
                marker="o",
                markersize=4,
                label=precision,
                **style,
            )
        axes.set_xscale("log", base=2)
        ticks = sorted({value(row) for row in rows})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(label)
        _plain(axes)
    # Of all: a limit that is set before the last line is drawn would cut it.
    panel_axes[0].set_ylim(bottom=0)
    panel_axes[0].set_ylabel("CPU ms per second of audio")
    panel_axes[0].legend(frameon=False, fontsize=SIZE)
    return figure


def _plain(axes: Any) -> None:
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
