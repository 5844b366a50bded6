"""Reports and comparisons for people, on stderr."""

import re
from collections.abc import Sequence
from typing import Any

from ..machine import machine_line
from ..tables import show_table, spread_text
from .cells import Table, caption, tables
from .compare import Comparison
from .results import Report
from .streams import LOAD_HEADS, Load, load_cells, memory_text

# What a terminal has no room for; JSON and HTML have it.
_WIDE = ("decides", "real-time factor", "p95", "max", "install MB", "weights", "M parameters")
_INTERVAL = re.compile(r" \(\S+\xa0to\xa0\S+\)")
_FULL = "CPU ms/s"
"""The figure that keeps its interval."""


def show(report: Report) -> None:
    """Print all tables, and under them settings, machine and disturbances."""
    every = [_narrow(table) for table in tables(report)]
    for table in every:
        last = table is every[-1]
        notes = [table.note, "", *caption(report)] if last else [table.note, ""]
        show_table(table.heads, table.rows, "\n".join(notes))


def _narrow(table: Table) -> Table:
    kept = [(place, head) for place, head in enumerate(table.heads) if head not in _WIDE]
    rows = [
        [row[place] if head == _FULL else _INTERVAL.sub("", row[place]) for place, head in kept]
        for row in table.rows
    ]
    return Table(table.title, table.note, tuple(head for _, head in kept), rows)


def show_comparison(found: Comparison) -> None:
    """Print the figures of both reports and what their ratio says."""
    rows = [
        [
            change.row,
            change.figure,
            f"{change.before:.4g}",
            f"{change.after:.4g}",
            # A narrow terminal breaks it rather than cuts it.
            spread_text(change.ratio, 3).replace("\N{NO-BREAK SPACE}", " "),
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


def show_loads(
    loads: Sequence[Load],
    memory: dict[str, float] | None,
    found: dict[str, Any],
    chunk_ms: float,
    seconds: float,
    rounds: int,
) -> None:
    """Print what ``streams.measure`` and ``streams.memory`` found."""
    taken = "" if memory is None else f"\n{memory_text(memory)}"
    show_table(
        LOAD_HEADS,
        [load_cells(load) for load in loads],
        f"one thread, chunks of {chunk_ms:g} ms as from live sources, {rounds} interleaved rounds "
        f"of {seconds:g} s; median (95 % bootstrap interval){taken}\n{machine_line(found)}",
    )
