"""Reports and comparisons for people, on stderr."""

from ..tables import show_table
from .cells import caption, narrow, tables
from .compare import Comparison
from .results import Report

_WIDE = ("real-time factor", "p95", "max")
"""Columns that a terminal has no room for; JSON and HTML have them."""


def show(report: Report) -> None:
    """Print all tables, and under them settings, machine and disturbances."""
    every = [narrow(table, lambda head: head in _WIDE) for table in tables(report)]
    for table in every:
        last = table is every[-1]
        notes = [table.note, "", *caption(report)] if last else [table.note, ""]
        show_table(table.heads, table.rows, "\n".join(notes))


def show_comparison(found: Comparison) -> None:
    """Print the figures of both reports and what their ratio says."""
    rows = [
        [
            change.row,
            change.figure,
            f"{change.before:.4g}",
            f"{change.after:.4g}",
            f"{change.ratio.median:.3f} ({change.ratio.low:.3f} to {change.ratio.high:.3f})",
            change.verdict,
        ]
        for change in found.changes
    ]
    notes = [
        "ratio of the medians with its 95 % bootstrap interval; unclear: more rounds would tell",
        *found.cautions,
        *(f"only in one of them: {key}" for key in found.missing),
    ]
    show_table(("row", "figure", "before", "after", "ratio", ""), rows, "\n".join(notes))
