"""Tables for people, on stderr and in Markdown; and what other commands printed, read back."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..runtime.errors import EarmarkError
from ..runtime.files import read_text
from .spread import Spread


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table whose first column is text and whose others are figures."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, markup=False, highlight=False)
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


POINT_HEADS = (
    "model",
    "false accepts/h wanted",
    "threshold",
    "measured",
    "missed",
    "delay p50 / p95 s",
    "wrong keywords/h",
)


def operating_points(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What ``det.measure`` found at each operating point, by the false accepts per hour that were
    wanted; as shipped first. Points that came out the same are one."""
    points = [("as shipped", report["shipped"])]
    for point in report["points"]:
        wanted, found = f"{point['target']:g}", {k: v for k, v in point.items() if k != "target"}
        name, before = points[-1]
        if found == before:
            points[-1] = (f"{name}, {wanted}", found)
        else:
            points.append((wanted, found))
    return points


def point_cells(report: dict[str, Any]) -> list[list[str]]:
    """Rows of text for :func:`operating_points`."""
    return [
        [
            report["title"],
            name,
            " / ".join(f"{threshold:g}" for threshold in found.get("thresholds", ())) or "-",
            _rate(found),
            f"{found['missed']:.1%} ({_range(found['missed_interval'], 100, '.1f')})",
            "-"
            if found["delay_p50"] is None
            else f"{found['delay_p50']:.2f} / {found['delay_p95']:.2f}",
            # Where keywords are said; one that is said and told twice is not among them.
            f"{found['wrong'] / found['keyword_hours']:.1f}",
        ]
        for name, found in operating_points(report)
    ]


def kind_heads(report: dict[str, Any]) -> tuple[str, ...]:
    """Above :func:`kind_cells`, with the hours of each kind, each recording counted once."""
    conditions = len(report["conditions"])
    kinds = report["shipped"]["by_kind"]
    return (
        *POINT_HEADS[:2],
        *(f"{kind} ({of['hours'] / conditions:.2f} h)" for kind, of in kinds.items()),
    )


def kind_cells(report: dict[str, Any]) -> list[list[str]]:
    """Rows of text for :func:`operating_points`: false accepts per hour by kind of speech."""
    return [
        [report["title"], name, *map(_rate, found["by_kind"].values())]
        for name, found in operating_points(report)
    ]


def _rate(found: dict[str, Any]) -> str:
    return f"{found['per_hour']:.2f} ({_range(found['per_hour_interval'], 1, '.2f')})"


def _range(limits: Sequence[float], scale: float, form: str) -> str:
    low, high = (format(scale * limit, form) for limit in limits)
    return f"{low}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high}"


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
