"""What the pictures have in common: the looks of each keyword, and the way into a file."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that people with any colour vision can tell apart (M. Okabe and K. Ito, 2008), those that
# are too light for a line on white left out. Past the last, lines are dashed.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
PICTURES = (".png", ".svg", ".pdf")
"""Suffixes of the files that pictures can be written to."""


def line_style(place: int) -> dict[str, Any]:
    """Colour and dashes of the line of that number, from 0, as matplotlib takes them."""
    return {
        "color": PALETTE[place % len(PALETTE)],
        "linestyle": DASHES[place // len(PALETTE) % len(DASHES)],
    }


def keyword_styles(keywords: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The looks of the line of each keyword."""
    return {keyword: line_style(place) for place, keyword in enumerate(keywords)}


def log_percent(axes: "Axes") -> None:
    """Shares on a logarithmic axis upwards, in percent."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def picture(figure: "Figure", form: str = "png") -> bytes:
    """A figure as PNG (at twice the size it is meant to be seen at), SVG or PDF."""
    file = BytesIO()
    figure.savefig(file, format=form, dpi=200)
    return file.getvalue()
