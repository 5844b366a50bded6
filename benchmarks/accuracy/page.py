"""The page of accuracy, from what ``evaluate``, ``det``, ``bench`` and ``sweep`` wrote."""

from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...export.drawing import line_style, picture
from ...export.judge import STREAMING
from ...export.noisy import snr_name
from ...runtime.errors import EarmarkError
from ...runtime.files import write_bytes, write_text
from ...runtime.manifest import SILENCE, UNKNOWN
from ...train.data.dataset import SPEECH
from ...train.metrics import spread
from ..latency.results import load
from ..tables import POINT_HEADS, load_reports, markdown_table, point_cells
from .commands import det_command, evaluate_command, evaluated_on
from .det import cautions, det_figure
from .sweep import Row, command, markdown, percent_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]
MISSING = "Not measured here."
LOG = "accuracy-log.md"
INTRODUCTION = """# Accuracy

Every figure here was measured: those of clips by the command below, the others by the one beside
their table. `earmark accuracy` wrote the page. `±` is the standard deviation over seeds.
*streaming* is the exported file on the path that a microphone takes, *whole clips* a network that
is not exported, on the same clips."""
_FEW = 20
"""Clips below which a word is counted with others of its kind."""


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


def run(arguments: Namespace) -> int:
    """The verb ``accuracy``."""
    # The cost alone is of nothing: it is a column of the table of clips.
    if not (arguments.clips or arguments.det or arguments.sweep):
        raise EarmarkError("nothing to show: name what was measured: --clips, --det or --sweep")
    sweeps = []
    for text in arguments.sweep:
        title, equals, file = text.partition("=")
        if not equals or not title or not file:
            raise EarmarkError(f"--sweep {text}: expected TITLE=FILE, as Views=sweep/table.jsonl")
        rows = load_reports([file])
        if not rows:
            raise EarmarkError(f"--sweep {text}: holds no run: run earmark sweep again")
        sweeps.append((title, rows))
    output = Path(arguments.output)
    clips, streams = load_reports(arguments.clips), load_reports(arguments.det)
    if any("top1" not in record and "map" in record for record in clips):
        raise EarmarkError("--clips: multi-label models have no table here: leave them out")
    try:
        text, pictures = page(
            group(clips),
            costs(arguments.bench),
            streams,
            sweeps,
            output.stem,
            log=output.with_name(LOG).is_file(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        files = [*arguments.clips, *arguments.det, *arguments.sweep]
        raise EarmarkError(
            f"{', '.join(files)}: one is not what its command prints ({error!r}): --clips is of "
            "earmark evaluate --json, --det of earmark det, --sweep a table.jsonl"
        ) from error
    for name, figure in pictures.items():
        write_bytes(output.with_name(name), picture(figure))
    write_text(output, text)
    return 0


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


@dataclass(frozen=True)
class Costs:
    """What ``bench`` measured of networks on a device."""

    commands: tuple[str, ...] = ()
    """That measured it."""
    cpu_ms: Mapping[tuple[int, str], float] = field(default_factory=dict)
    """CPU milliseconds per second of audio, by parameters and precision."""


def costs(files: Sequence[str]) -> Costs:
    """The cost in these reports of ``bench``."""
    reports = [load(file) for file in files]
    return Costs(
        tuple(report.command for report in reports),
        {
            (row.parameters, row.precision): row.hot.cpu_ms_per_second.median
            for report in reports
            for row in report.of("edge")
            if row.parameters and row.mode == "onnxruntime"
        },
    )


def page(
    groups: Sequence[Group],
    cost: Costs,
    streams: Sequence[Record],
    sweeps: Sequence[tuple[str, Sequence[Record]]],
    stem: str = "accuracy",
    *,
    log: bool = False,
) -> tuple[str, dict[str, "Figure"]]:
    """The page as Markdown and its pictures by file name.

    Args:
        groups: what ``evaluate`` measured.
        cost: what ``bench`` did.
        streams: what ``det`` did.
        sweeps: tables of ``sweep``, with their titles.
        stem: how the names of the pictures begin.
        log: whether there is a log of what was tried, to name.

    Raises:
        EarmarkError: records of clips, or of streams, are not of the same ones.
        KeyError, TypeError, AttributeError: a record is not what its command prints.
    """
    pictures: dict[str, Figure] = {}
    noisy = [g for g in groups if len({r["snr"] for r in g.records}) > 1]
    if noisy:
        pictures[f"{stem}-snr.png"] = snr_figure(noisy)
    if streams:
        pictures[f"{stem}-det.png"] = det_figure(streams)
    parts = [
        INTRODUCTION,
        *([f"What else was tried is in [the log]({LOG})."] if log else []),
        "The tables of clips:",
        _shell(evaluate_command([record for group in groups for record in group.records])),
        *_section("Accuracy, size and cost", _clips(groups, cost)),
        *_section("What distillation adds", _gains(groups)),
        *_section("Robustness", _robustness(noisy, f"{stem}-snr.png")),
        *_section("Other words and background", _others(groups)),
        *_section("Streams", _streams(streams, f"{stem}-det.png"), _shell(det_command(streams))),
        "## Sweeps and ablations",
    ]
    for title, records in sweeps:
        rows = [Row(**{k: v for k, v in r.items() if k != "type"}) for r in records]
        parts += [f"### {title}", _shell(command(rows)), markdown(rows).rstrip()]
    return "\n\n".join(parts if sweeps else [*parts, MISSING]) + "\n", pictures


def snr_figure(groups: Sequence[Group]) -> "Figure":
    """Top-1 against the signal-to-noise ratio, a line for each group, with the spread of seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 4.2 + 0.18 * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    for place, one in enumerate(groups):
        size = one.first["parameters"]
        snrs = sorted({r["snr"] for r in one.records} - {None})
        found = [spread(list(one.at(snr).values())) for snr in snrs]
        axes.errorbar(
            snrs,
            [of_seeds["mean"] for of_seeds in found],
            yerr=[of_seeds["standard_deviation"] for of_seeds in found],
            **line_style(place),
            marker="o" if one.streamed else "s",
            capsize=2,
            label=f"{one.title}, {f'{size:,} parameters, ' if size else ''}{one.first['judged']}",
        )
    axes.set_xlabel("speech over noise, dB")
    axes.set_ylabel("top-1")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes: there are often more lines than room beside them.
    figure.legend(loc="outside lower left", frameon=False, fontsize=7, handlelength=4)
    return figure


def _shell(line: str) -> str:
    return f"```sh\n{line}\n```"


def _section(title: str, body: str, *block: str) -> list[str]:
    return [f"## {title}", *block, body or MISSING]


def _clips(groups: Sequence[Group], cost: Costs) -> str:
    rows = []
    for one in groups:
        top1 = one.at(None)
        if not top1:
            continue
        found = one.first
        size, parameters = found["bytes"], found["parameters"]
        spent = cost.cpu_ms.get((parameters, found["precision"])) if one.streamed else None
        rows.append(
            [
                one.title,
                found["judged"],
                f"{parameters:,}" if parameters else "-",
                f"{size / 1000:.0f}" if size else "-",
                "-" if spent is None else f"{spent:.2f}",
                str(len(top1)),
                percent_spread(list(top1.values())),
                percent_spread(list(one.at(None, "macro_f1").values())),
            ]
        )
    if not rows:
        return ""
    heads = (
        *("model", "judged", "parameters", "kB", "CPU ms per s"),
        *("seeds", "top-1 %", "macro F1 %"),
    )
    about = groups[0].first
    by = ", ".join(f"`{line}`" for line in cost.commands)
    return (
        f"{markdown_table(heads, rows)}\n\n{about['clips']} clips of {about['speakers']} speakers "
        f"({about['split']} split). The cost: {f'by {by}; `-` was not' if by else 'not'} measured."
    )


def _gains(groups: Sequence[Group]) -> str:
    """Distilled against labels alone, seed by seed, where nothing but distillation differs."""
    rows = []
    for taught in groups:
        alone = [
            g
            for g in groups
            if g.first["teacher"] is None
            and all(g.first[key] == taught.first[key] for key in ("base", "judged", "parameters"))
        ]
        if taught.first["teacher"] is None or not alone:
            continue
        for snr in dict.fromkeys(r["snr"] for r in taught.records):
            with_it, without = taught.at(snr), alone[0].at(snr)
            seeds = [seed for seed in with_it if seed in without]
            if seeds:
                gains = [with_it[seed] - without[seed] for seed in seeds]
                each = ", ".join(f"{100 * gain:+.2f}" for gain in gains)
                sizes = f"{taught.first['parameters']:,}"
                before, after = ([some[seed] for seed in seeds] for some in (without, with_it))
                cells = [taught.title, sizes, snr_name(snr), str(len(seeds))]
                cells += [percent_spread(before), percent_spread(after), percent_spread(gains)]
                rows.append([*cells, each])
    heads = (
        *("model", "parameters", "noise", "seeds", "labels only %", "distilled %"),
        *("difference, points", "of each seed"),
    )
    return markdown_table(heads, rows) if rows else ""


def _robustness(groups: Sequence[Group], name: str) -> str:
    if not groups:
        return ""
    snrs = list(dict.fromkeys(r["snr"] for one in groups for r in one.records))
    rows = []
    for one in groups:
        values = [list(one.at(snr).values()) for snr in snrs]
        cells = [percent_spread(some) if some else "-" for some in values]
        size = one.first["parameters"]
        rows.append([one.title, one.first["judged"], f"{size:,}" if size else "-", *cells])
    heads = ("model", "judged", "parameters", *map(snr_name, snrs))
    return (
        "Top-1 in % in noise of recordings that no training heard, the same excerpts for all: the "
        "level of the word over that of the noise.\n\n"
        f"{markdown_table(heads, rows)}\n\n"
        f"![Top-1 against the signal-to-noise ratio]({name})"
    )


def _others(groups: Sequence[Group]) -> str:
    """How much of what is no keyword is told from keywords, by word."""
    clean = [[r for r in one.records if r["snr"] is None and r.get("others")] for one in groups]
    names = dict.fromkeys(word for some in clean for r in some for word in r["others"])
    support: dict[str, int] = {}
    for record in (r for some in clean for r in some):
        support |= {word: found["support"] for word, found in record["others"].items()}
    # Words of a few clips say little each.
    rare = {word for word in names if support[word] < _FEW}
    columns = [(word, {word}) for word in names if word not in rare]
    columns += [("rarer words", rare)] if rare else []
    rows = []
    for one, some in zip(groups, clean, strict=True):
        if not some:
            continue
        cells = []
        for _, words in columns:
            found = [_recall(r["others"], words) for r in some if words & r["others"].keys()]
            cells.append(percent_spread(found) if found else "-")
        background = [r["recall"][SILENCE] for r in some if r["recall"].get(SILENCE) is not None]
        cells.append(percent_spread(background) if background else "-")
        rows.append([one.title, one.first["judged"], *cells])
    if not rows:
        return ""
    heads = [f"{head} ({sum(support[word] for word in words)})" for head, words in columns]
    return (
        f"Recall of `{UNKNOWN}` in % for each other word, with its number of clips (`{SPEECH}`: "
        f"pieces of free speech), and of `{SILENCE}`.\n\n"
        f"{markdown_table(('model', 'judged', *heads, SILENCE), rows)}"
    )


def _recall(others: dict[str, Any], words: set[str]) -> float:
    found = [others[word] for word in words if word in others]
    return float(np.average([f["recall"] for f in found], weights=[f["support"] for f in found]))


def _streams(reports: Sequence[Record], name: str) -> str:
    if not reports:
        return ""
    first = reports[0]
    rows = [cells for report in reports for cells in point_cells(report)]
    conditions = [
        [
            report["title"],
            f"{found['target']:g}" if "target" in found else "as shipped",
            *(
                f"{part['missed']:.1%} / {part['per_hour']:.2f}"
                for part in found["by_condition"].values()
            ),
        ]
        for report in reports
        for found in (report["shipped"], *report["points"])
    ]
    keywords = list(first["shipped"]["by_keyword"])
    missed = [
        [
            report["title"],
            f"{found['target']:g}" if "target" in found else "as shipped",
            *(f"{found['by_keyword'][word]['missed']:.1%}" for word in keywords),
        ]
        for report in reports
        for found in (report["shipped"], *report["points"])
    ]
    taken = [
        [
            report["title"],
            *(_counts(report["shipped"]["taken_for"].get(word, {})) for word in keywords),
        ]
        for report in reports
        # Earlier versions of `det` did not tell.
        if "taken_for" in report["shipped"]
    ]
    heads = POINT_HEADS[:2]
    parts = [
        f"{first['clips']} keywords among other speech, and {first['distinct_hours']:.2f} h of "
        f"distinct speech without, each {', '.join(first['conditions'])}. Thresholds are chosen on "
        "one half of the speakers and judged on the other; intervals are of 95 %, those of the "
        "rate of the distinct speech alone.",
        markdown_table(POINT_HEADS, rows),
        "Missed / false accepts per hour in each condition:",
        markdown_table((*heads, *first["conditions"]), conditions),
        "Missed by keyword:",
        markdown_table((*heads, *keywords), missed),
        *_taken(keywords, taken),
        f"![Missed keywords against false accepts per hour]({name})",
    ]
    if lines := cautions(first):
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts)


def _taken(keywords: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return [
        "What was said where a keyword was detected in the speech without keywords, as shipped, "
        f"and how often over all conditions (`{SPEECH}`: free speech, `{SILENCE}`: nothing yet):",
        markdown_table(("model", *keywords), rows),
    ]


def _counts(said: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {count}" for word, count in said.items()) or "-"
