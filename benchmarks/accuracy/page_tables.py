"""The tables of the page of accuracy, as Markdown; empty where nothing was measured."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...export.noisy import snr_name
from ...runtime.errors import EarmarkError
from ...runtime.manifest import SILENCE, UNKNOWN
from ...train.data.dataset import SPEECH
from ..latency.results import load
from ..tables import markdown_table
from .det import cautions
from .det_rows import (
    POINT_HEADS,
    curve_cells,
    curve_heads,
    kind_cells,
    kind_heads,
    operating_points,
    point_cells,
)
from .groups import Group, Record
from .sweep import percent_spread

_FEW = 20
"""Clips below which a word is counted with others of its kind."""


@dataclass(frozen=True)
class Costs:
    """What ``bench`` measured of networks on a device."""

    commands: tuple[str, ...] = ()
    """That measured it."""
    cpu_ms: Mapping[tuple[int, str], float] = field(default_factory=dict)
    """CPU milliseconds per second of audio, by parameters and precision."""


def costs(files: Sequence[str]) -> Costs:
    """The cost in these reports of ``bench``.

    Raises:
        EarmarkError: a file is no report, was measured on another machine than the first, or holds
            a model that rows could not tell from another.
    """
    reports = [(file, load(file)) for file in files]
    found: dict[tuple[int, str], tuple[str, float]] = {}
    for file, report in reports:
        first_file, first = reports[0]
        # The load differs from one run to the next.
        names = [name for name in {**first.machine, **report.machine} if name != "load"]
        differ = [name for name in names if first.machine.get(name) != report.machine.get(name)]
        if differ:
            raise EarmarkError(
                f"--bench {file}: of another machine than {first_file} ({', '.join(differ)}): "
                "leave one out"
            )
        for row in report.of("edge"):
            # As Earmark runs them where nothing else is asked for.
            if not row.parameters or row.mode != report.rows[0].mode:
                continue
            key, of = (row.parameters, row.precision), f"{row.name} in {file}"
            if key in found:
                raise EarmarkError(
                    f"--bench {file}: {found[key][0]} and {of} both have {row.parameters:,} "
                    f"parameters in {row.precision}: leave one out"
                )
            found[key] = of, row.hot.cpu_ms_per_second.median
    return Costs(
        tuple(report.command for _, report in reports),
        {key: spent for key, (_, spent) in found.items()},
    )


def clips_table(groups: Sequence[Group], cost: Costs) -> str:
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
    strangers = _strangers([record for one in groups for record in one.records])
    by = ", ".join(f"`{line}`" for line in cost.commands)
    return (
        f"{markdown_table(heads, rows)}\n\n{about['clips']} clips of {about['speakers']} speakers "
        f"({about['split']} split). The cost: {f'by {by}; `-` was not' if by else 'not'} measured."
        f"{strangers}"
    )


def _strangers(records: Sequence[Record]) -> str:
    """Which models, by file, did not hear the recordings that most of those heard which tell, and
    which do not tell; empty where all heard the same, or none tells."""
    told: dict[float | None, Counter[str]] = {}
    for record in records:
        if digest := record.get("recordings_sha256"):
            told.setdefault(record.get("snr"), Counter())[digest] += 1
    usual = {snr: counts.most_common(1)[0][0] for snr, counts in told.items()}
    others, silent = [], []
    for record in records:
        digest = record.get("recordings_sha256")
        if digest is None and usual:
            silent.append(record["model"])
        elif digest != usual.get(record.get("snr")):
            others.append(record["model"])
    texts = ("Other recordings than the rest heard", "Which recordings they heard is not told of")
    return "".join(
        f" {text} {', '.join(f'`{model}`' for model in dict.fromkeys(models))}."
        for text, models in zip(texts, (others, silent), strict=True)
        if models
    )


def gains_table(groups: Sequence[Group]) -> str:
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


def robustness_table(groups: Sequence[Group], name: str) -> str:
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
        f"![Clips told wrongly against the signal-to-noise ratio]({name})"
    )


def others_table(groups: Sequence[Group]) -> str:
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


def streams_table(reports: Sequence[Record], plot: str) -> str:
    if not reports:
        return ""
    first = reports[0]
    rows = [cells for report in reports for cells in point_cells(report)]
    conditions = [
        [
            report["title"],
            name,
            *(
                f"{part['missed']:.1%} / {part['per_hour']:.2f}"
                for part in found["by_condition"].values()
            ),
        ]
        for report in reports
        for name, found in operating_points(report)
    ]
    keywords = list(first["shipped"]["by_keyword"])
    missed = [
        [
            report["title"],
            name,
            *(f"{found['by_keyword'][word]['missed']:.1%}" for word in keywords),
        ]
        for report in reports
        for name, found in operating_points(report)
    ]
    taken = [
        [
            report["title"],
            *(_counts(report["shipped"]["taken_for"].get(word, {})) for word in keywords),
        ]
        for report in reports
    ]
    heads = POINT_HEADS[:2]
    parts = [
        f"{first['clips']} keywords among other speech, and {first['distinct_hours']:.2f} h of "
        f"distinct speech without, each {', '.join(first['conditions'])}. Thresholds are chosen on "
        "one half of the speakers and judged on the other; intervals are of 95 %, those of the "
        f"rate of the distinct speech alone.{_strangers(reports)}",
        markdown_table(POINT_HEADS, rows),
        "Missed at so many false accepts per hour over all conditions, read from the curve of all "
        "speakers, on which no threshold was held out, and the fewest missed in each condition at "
        "any threshold, however many false accepts:",
        markdown_table(curve_heads(first), map(curve_cells, reports)),
        _folded(
            "Missed / false accepts per hour in each condition",
            markdown_table((*heads, *first["conditions"]), conditions),
        ),
        _folded(
            "False accepts per hour in each kind of speech without keywords: recordings of free "
            "speech as they are, and other words with pauses between them, of which many sound "
            "like a keyword",
            markdown_table(
                kind_heads(first), [c for report in reports for c in kind_cells(report)]
            ),
        ),
        _folded("Missed by keyword", markdown_table((*heads, *keywords), missed)),
        "What was said where a keyword was detected in the speech without keywords, as shipped, "
        f"and how often over all conditions (`{SPEECH}`: free speech, `{SILENCE}`: nothing yet):",
        markdown_table(("model", *keywords), taken),
        f"![Missed keywords against false accepts per hour]({plot})",
    ]
    if lines := cautions(reports):
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts)


def _folded(summary: str, table: str) -> str:
    """A table of three rows for each model, which is seen where a reader asks for it."""
    return f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>"


def _counts(said: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {count}" for word, count in said.items()) or "-"
