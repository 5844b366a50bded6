"""What ``evaluate`` measured of several models, those together that differ in their seed alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...export.judge import STREAMING
from .commands import evaluated_on

Record = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Models that differ in nothing but their seed."""

    records: tuple[Record, ...]
    """What ``evaluate`` printed of each, at every ratio."""
    note: str = ""
    """What else tells it from one with the same names."""

    @property
    def first(self) -> Record:
        """What all have in common."""
        return self.records[0]

    @property
    def streamed(self) -> bool:
        """Whether these are exported files."""
        return self.first["judged"].endswith(STREAMING)

    @property
    def title(self) -> str:
        """What tells it from others."""
        found = self.first
        taught = f", taught by {_counted(found['teacher'])}" if found["teacher"] else ""
        kind = "" if found["kind"] in ("student", found["name"]) else f" ({found['kind']})"
        note = f", {self.note}" if self.note else ""
        return f"{_counted(found['name'])}{kind}{taught}{note}"

    def at(self, snr: float | None, figure: str = "top1") -> dict[Any, float]:
        """A figure of each seed at a ratio."""
        return {r["seed"]: r[figure] for r in self.records if r["snr"] == snr}


def _counted(members: str) -> str:
    """``a + b + b`` as ``a + 2 × b``."""
    counts = Counter(members.split(" + "))
    return " + ".join(name if n == 1 else f"{n} × {name}" for name, n in counts.items())


def group(records: Sequence[Record]) -> list[Group]:
    """Records of models that differ in their seed alone, together; of a model that was measured
    twice at a ratio, the last."""
    unique = {(r["model"], r["judged"], r["snr"], evaluated_on(r)): r for r in records}
    found: dict[tuple[Any, ...], list[Record]] = {}
    for r in unique.values():
        key = (r["name"], r["kind"], r["judged"], r["parameters"], r["teacher"], r["recipe"])
        found.setdefault(key, []).append(r)
    groups = _told_apart([Group(tuple(some)) for some in found.values()])
    return sorted(groups, key=lambda g: (not g.streamed, g.first["parameters"] or 0))


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """The groups, with a note where a row of a table could be of either of two: what differs in
    their distillation, or else the first model."""
    alike: dict[tuple[Any, ...], list[Group]] = {}
    for one in groups:
        key = (one.title, one.first["parameters"], one.first["judged"])
        alike.setdefault(key, []).append(one)
    found: list[Group] = []
    for some in alike.values():
        taught = [one.first.get("distill") or {} for one in some]
        names = dict.fromkeys(name for settings in taught for name in settings)
        differ = [name for name in names if len({s.get(name) for s in taught}) > 1]
        notes = [
            ", ".join(f"{name.replace('_', ' ')} {s[name]}" for name in differ if name in s)
            for s in taught
        ]
        models = [one.first["model"] for one in some]
        files = [Path(model).name for model in models]
        called = files if len({*files}) == len(files) else models
        for one, note, model in zip(some, notes, called, strict=True):
            if notes.count(note) > 1:
                note = ", ".join(filter(None, (note, model)))
            found.append(replace(one, note=note))
    return found
