"""Whether one report is slower than another, or whether the difference is noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..spread import Spread, ratio
from .results import Report, Row

TOLERANCE = 0.05
"""A change of the median up to this share counts as none: two runs of one program differ so much
by where its memory happens to lie."""

LEAST_ROUNDS = 3
"""Values of a figure that it takes on either side for a verdict: of one or two the bootstrap sees
too little of their spread, or none."""

Verdict = Literal["slower", "faster", "same", "unclear"]

FIGURES: dict[str, Callable[[Row], Spread | None]] = {
    "CPU ms per s of audio": lambda row: row.hot.cpu_ms_per_second,
    "hot p50": lambda row: row.hot.p50_us,
    "hot p99": lambda row: row.hot.p99_us,
    "paced p50": lambda row: row.paced.p50_us if row.paced else None,
    "first score": lambda row: row.cold.first_score_ms if row.cold else None,
}


@dataclass(frozen=True)
class Change:
    """One figure of one row in both reports."""

    row: str
    figure: str
    before: float
    after: float
    ratio: Spread
    """After over before."""
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Two reports side by side."""

    changes: list[Change]
    missing: list[str]
    """Rows, and figures of rows, that only one of them has."""
    cautions: list[str]
    """What was not compared, and why a difference may come from the machine."""

    @property
    def regressed(self) -> bool:
        """Whether anything is slower."""
        return any(change.verdict == "slower" for change in self.changes)


def compare(before: Report, after: Report, tolerance: float = TOLERANCE) -> Comparison:
    """Compare the rows that both have.

    A figure is ``slower`` if the 95 % interval of the ratio lies above 1 and the ratio itself above
    ``1 + tolerance``, ``faster`` likewise, ``same`` if the interval lies within the tolerance on
    either side, and ``unclear`` otherwise, or where a report has fewer than :data:`LEAST_ROUNDS`
    values of it: more rounds would tell.
    """
    old, new = ({row.key: row for row in report.rows} for report in (before, after))
    changes = []
    missing = sorted(old.keys() ^ new.keys())
    cautions: list[str] = []
    for key, row in old.items():
        if key not in new:
            continue
        for name, figure in FIGURES.items():
            was, now = figure(row), figure(new[key])
            if was is None or now is None:
                if was is not now:
                    missing.append(f"{key}: {name}")
                continue
            # A record that does not keep its rounds has their median.
            befores, afters = (each.rounds or (each.median,) for each in (was, now))
            # A clock too coarse for what was timed, of which an interval would have no end.
            change = ratio(afters, befores) if min(befores) > 0 else None
            if change is None:
                cautions.append(f"not compared, as it is 0 in the first: {key}: {name}")
                continue
            verdict = judge(change, tolerance, min(len(was.rounds), len(now.rounds)))
            changes.append(Change(key, name, was.median, now.median, change, verdict))
    cautions += [
        f"{which} was disturbed: {reason}"
        for which, report in (("the first", before), ("the second", after))
        for reason in report.disturbance.reasons
    ]
    for name in ("cpu", "features", "governor", "accelerator", "versions"):
        first, second = (report.machine.get(name) for report in (before, after))
        if first != second:
            cautions.append(f"{name} differs: {first}, then {second}")
    return Comparison(changes, missing, cautions)


def judge(change: Spread, tolerance: float, rounds: int) -> Verdict:
    """What a ratio with its interval says, of so many values on the side that has fewer."""
    if rounds < LEAST_ROUNDS:
        return "unclear"
    if change.low > 1 and change.median > 1 + tolerance:
        return "slower"
    if change.high < 1 and change.median < 1 / (1 + tolerance):
        return "faster"
    if 1 / (1 + tolerance) <= change.low and change.high <= 1 + tolerance:
        return "same"
    return "unclear"
