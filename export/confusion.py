"""The confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCHES = 0.55
COUNTS_UP_TO = 40
"""Labels beyond which counts no longer fit into the cells."""


def confusion_figure(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> "Figure":
    """Rows are true labels, columns predictions; colours show the share of the row.

    Args:
        labels: class names.
        confusion: clips by [true][predicted] label.
    """
    from matplotlib.figure import Figure

    counts = np.asarray(confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = CELL_INCHES * len(labels) + 1.6
    # A figure of its own rather than pyplot's: no display and no global state.
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= COUNTS_UP_TO:
        for row, column in zip(*np.nonzero(counts), strict=True):
            axes.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "black",
                fontsize=9,
            )
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def draw_confusion(target: Path, labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Write the picture to ``target``, whose suffix gives the format.

    Raises:
        EarmarkError: the file cannot be written.
    """
    figure = confusion_figure(labels, confusion)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=150)
