"""What ``det.measure`` found, as rows of text for its terminal and the page of accuracy."""

import math
from collections.abc import Sequence
from typing import Any

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


RATES = (1, 5, 10, 20)
"""False accepts per hour at which :func:`curve_cells` reads the curve."""


def curve_heads(report: dict[str, Any]) -> tuple[str, ...]:
    """Above :func:`curve_cells`."""
    return (
        "model",
        *(f"missed at {rate}" for rate in RATES),
        *(f"fewest, {condition}" for condition in report["conditions"]),
    )


def curve_cells(report: dict[str, Any]) -> list[str]:
    """The row of a model in what its curve of all speakers says, with no threshold held out: the
    fewest missed at no more than so many false accepts an hour, and at any rate whatever in each
    condition, below which no threshold comes."""
    whole = report["curves"]["all"]
    return [
        report["title"],
        *(_fewest(whole, rate) for rate in RATES),
        *(_fewest(report["curves"][condition]) for condition in report["conditions"]),
    ]


def _fewest(curve: dict[str, Any], rate: float = math.inf) -> str:
    allowed = rate * curve["hours"] + 1e-9
    found = [
        misses
        for misses, false in zip(curve["misses"], curve["false_accepts"], strict=True)
        if false <= allowed
    ]
    return f"{min(found) / curve['said']:.1%}" if found else "-"
