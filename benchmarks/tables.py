"""Tables for people, on stderr and in Markdown; and what other commands printed, read back."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..runtime.errors import EarmarkError
from ..runtime.files import read_text
from .spread import Spread


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table whose first column is text and whose others are figures."""
    from rich.table import Table

    from ..train.terminal import stderr_console

    console = stderr_console()
    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if caption:
        console.print(caption, style="dim")


def spread_text(spread: Spread | None, digits: int) -> str:
    """A median with its interval, which is not broken across lines; ``-`` where there is none."""
    if spread is None:
        return "-"
    low, high = f"{spread.low:.{digits}f}", f"{spread.high:.{digits}f}"
    middle = f"{spread.median:.{digits}f}"
    return (
        middle if low == high else f"{middle} ({low}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high})"
    )


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def load_reports(files: Iterable[str]) -> list[dict[str, Any]]:
    """The JSON objects that commands printed, a line each, of all files.

    Raises:
        EarmarkError: a file cannot be read or holds nothing, or a line is no JSON object.
    """
    reports = []
    for file in files:
        lines = [*filter(None, map(str.strip, read_text(file).splitlines()))]
        if not lines:
            # What a command leaves that failed: no page may say of it that nothing was measured.
            raise EarmarkError(f"{file}: holds no report: run its command again")
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError as error:
                raise EarmarkError(f"{file}: no JSON ({error}): run its command again") from error
            if not isinstance(report, dict):
                raise EarmarkError(f"{file}: no JSON object: run its command again")
            reports.append(report)
    return reports
