"""False rejects against false accepts per hour on composed streams with known truth.

One threshold holds for all keywords. It is chosen on the streams of one half of the speakers and
judged on those of the other, both ways round, so that no figure of an operating point is of speech
that its threshold was chosen on. The conditions hold the same speech in other noise: a rate is over
all that was heard, but intervals are those of the distinct speech alone.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...export.det import THRESHOLDS, Trace, sweep, trace
from ...export.drawing import line_style, log_percent
from ...export.intervals import hours_to_measure, poisson_interval, wilson_interval
from ...export.matching import LATE, Word, match, percentile
from ...export.noisy import snr_name
from ...runtime.decision import Decider
from ...runtime.detect import TAIL_SECONDS
from ...runtime.engine import Engine
from ...runtime.manifest import SILENCE, Decision, Manifest
from ...runtime.stream import Detection
from ...train.data.dataset import SPEECH
from ...train.metrics import speaker_interval
from .composed import Composed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FREE, ALONE = "free speech", "other words one by one"
"""Kinds of speech without keywords: recordings of free speech as they are, and other words with
pauses between them, of which many sound like a keyword."""
FEW = 3
"""Models whose intervals can be told apart in one plot."""
MOST = 100
"""False accepts per hour up to which curves are drawn."""


@dataclass(frozen=True)
class Take:
    """What a model made of a stream."""

    snr: float | None
    half: int
    trace: Trace
    speakers: tuple[str, ...]
    """Who says each word of the truth."""
    others: tuple[Word, ...]
    """The words that are no keywords, in the order they are said."""

    @property
    def kind(self) -> str:
        """Of speech without keywords."""
        return FREE if all(word.keyword == SPEECH for word in self.others) else ALONE


def listen(engines: Sequence[Engine], streams: Iterable[Composed]) -> list[list[Take]]:
    """Run every stream through every model: a list for each model."""
    found: list[list[Take]] = [[] for _ in engines]
    for stream in streams:
        for engine, takes in zip(engines, found, strict=True):
            [heard] = trace(
                engine, [stream.pcm], truth=stream.truth, group=stream.name, tail=TAIL_SECONDS
            )
            takes.append(Take(stream.snr, stream.half, heard, stream.speakers, stream.others))
    return found


def smoothed(manifest: Manifest, seconds: float | None) -> Manifest:
    """The manifest of a model that decides over a moving average of so many seconds; None: over
    that of its file. The thresholds that the file ships stay as they are."""
    if seconds is None:
        return manifest
    return manifest.decided_by(dataclasses.replace(manifest.decision, smoothing=seconds))


def measure(manifest: Manifest, takes: Sequence[Take], targets: Sequence[float]) -> dict[str, Any]:
    """Curves and operating points at these false accepts per hour, as plain values.

    Returns:
        ``conditions``; ``hours`` of speech without keywords over all of them and
        ``distinct_hours``, each recording counted once; ``clips`` of keywords, likewise distinct;
        ``curves`` by condition and of ``all``, each with ``thresholds``, ``misses``, ``said``,
        ``false_accepts`` and ``hours``; ``points``, and ``shipped``, the same with the thresholds
        of the model file, as :func:`point` gives them.
    """
    conditions = list(dict.fromkeys(take.snr for take in takes))
    cells = {
        (snr, half): _curve(manifest, [t for t in takes if (t.snr, t.half) == (snr, half)])
        for snr in conditions
        for half in (0, 1)
    }
    halves = [_sum([cells[snr, half] for snr in conditions]) for half in (0, 1)]
    whole = _sum(halves)
    points = []
    for target in targets:
        levels = [lowest(half["false_accepts"], target * half["hours"]) for half in halves]
        decisions = [_with_threshold(manifest, THRESHOLDS[level]) for level in levels]
        # The threshold of a half is judged on the other one.
        found = point(manifest, takes, decisions[::-1], len(conditions))
        chosen = {"target": target, "thresholds": [THRESHOLDS[level] for level in levels]}
        points.append(chosen | {"shown": found["per_hour_interval"][1] <= target} | found)
    curves = {snr_name(snr): _sum([cells[snr, 0], cells[snr, 1]]) for snr in conditions}
    return {
        "conditions": [snr_name(snr) for snr in conditions],
        "hours": whole["hours"],
        "distinct_hours": whole["hours"] / len(conditions),
        "clips": whole["said"] // len(conditions),
        "curves": {
            name: {
                key: value.tolist() if isinstance(value, np.ndarray) else value
                for key, value in curve.items()
            }
            for name, curve in {"all": whole, **curves}.items()
        },
        "points": points,
        "shipped": point(manifest, takes, [manifest.decision] * 2, len(conditions)),
    }


def lowest(false_accepts: NDArray[np.int64], allowed: float) -> int:
    """Which is the lowest threshold from which on there are no more false accepts than allowed; the
    highest where there is none."""
    above = np.flatnonzero(false_accepts > math.floor(allowed + 1e-9))
    return min(int(above[-1]) + 1 if len(above) else 0, len(false_accepts) - 1)


def point(
    manifest: Manifest, takes: Sequence[Take], decisions: Sequence[Decision], conditions: int
) -> dict[str, Any]:
    """The figures of settings, those of the first half of the speakers and those of the second.

    Returns:
        ``false_accepts`` in ``hours`` of speech without keywords, ``per_hour`` and its 95 %
        interval; ``misses`` of ``said``, ``missed`` (their share) and its interval, the wider one
        of Wilson's over the distinct clips and of the bootstrap over speakers; ``delay_p50`` and
        ``delay_p95``, seconds from the end of the word; among the keywords: ``doubles``, second
        detections of a word that was hit, and ``wrong``, other detections where nothing such was
        said, in ``keyword_hours``; ``by_condition`` and ``by_keyword``; ``by_kind``, the rate in
        :data:`FREE` and in :data:`ALONE`; ``taken_for``, of each keyword how many of the false
        accepts were of it, by the word that was said last before the posteriors rose.
    """
    step = manifest.geometry.step / manifest.geometry.sample_rate
    rows: list[tuple[str, str, str, bool]] = []
    delays: list[float] = []
    false: list[str] = []
    taken_for = {keyword: Counter[str]() for keyword in manifest.keywords}
    hours = {snr_name(take.snr): 0.0 for take in takes}
    kinds: dict[str, tuple[int, float]] = {}
    doubles = wrong = 0
    keyword_seconds = 0.0
    for take in takes:
        condition = snr_name(take.snr)
        decision = decisions[take.half]
        found = _detections(manifest, decision, take.trace, step)
        if not take.trace.truth:
            false += [condition] * len(found)
            for detection in found:
                # A moving average reaches its threshold no sooner, however sure the network is.
                heard = decision.smoothing * decision.thresholds[detection.keyword]
                said = [w.keyword for w in take.others if w.start <= detection.time - heard]
                taken_for[detection.keyword][said[-1] if said else SILENCE] += 1
            hours[condition] += take.trace.seconds / 3600
            count, spent = kinds.get(take.kind, (0, 0.0))
            kinds[take.kind] = count + len(found), spent + take.trace.seconds / 3600
            continue
        keyword_seconds += take.trace.seconds
        matching = match(found, take.trace.truth)
        hit = {word for _, word in matching.hits}
        delays += [detection.time - word.end for detection, word in matching.hits]
        for word, speaker in zip(take.trace.truth, take.speakers, strict=True):
            rows.append((condition, word.keyword, speaker, word in hit))
        for detection in matching.false_accepts:
            again = any(
                word.keyword == detection.keyword
                and word.start <= detection.time <= word.end + LATE
                for word in hit
            )
            doubles += again
            wrong += not again
    table = np.array([row[:3] for row in rows])
    right = np.array([row[3] for row in rows], bool)

    def missed(chosen: NDArray[np.bool_], distinct: float) -> dict[str, Any]:
        misses, said = int((~right[chosen]).sum()), int(chosen.sum())
        limits = [wilson_interval(misses / distinct, said / distinct)]
        over = speaker_interval(right[chosen], table[chosen, 2])
        limits += [(1 - over[1], 1 - over[0])] if over else []
        return {
            "misses": misses,
            "said": said,
            "missed": misses / said,
            "missed_interval": [min(x[0] for x in limits if x), max(x[1] for x in limits if x)],
        }

    total = sum(hours.values())
    everything = np.ones(len(rows), bool)
    return {
        **_rate(len(false), total, conditions),
        **missed(everything, conditions),
        "delay_p50": percentile(delays, 50),
        "delay_p95": percentile(delays, 95),
        "doubles": doubles,
        "wrong": wrong,
        "keyword_hours": keyword_seconds / 3600,
        "by_condition": {
            name: _rate(false.count(name), hours[name], 1) | missed(table[:, 0] == name, 1)
            for name in hours
        },
        "by_keyword": {
            name: missed(table[:, 1] == name, conditions)
            for name in manifest.keywords
            if (table[:, 1] == name).any()
        },
        "by_kind": {
            kind: _rate(*kinds[kind], conditions) for kind in (FREE, ALONE) if kind in kinds
        },
        "taken_for": {
            keyword: dict(said.most_common()) for keyword, said in taken_for.items() if said
        },
    }


def det_figure(reports: Sequence[dict[str, Any]]) -> "Figure":
    """Missed keywords against false accepts per hour of speech, a line for each model; for the
    first, or all of a few, with the 95 % interval of the misses, and the operating points with both
    intervals.

    Args:
        reports: what :func:`measure` gave, each with ``title``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.add_subplot()
    none = 0.4 / reports[0]["hours"]
    fewest: list[float] = []
    for place, report in enumerate(reports):
        style = line_style(place)
        color = style["color"]
        curve, conditions = report["curves"]["all"], len(report["conditions"])
        misses, said = np.array(curve["misses"]), curve["said"]
        rates = np.maximum(np.array(curve["false_accepts"]) / curve["hours"], none)
        limits = [wilson_interval(x / conditions, said / conditions) or (0, 1) for x in misses]
        low, high = np.array(limits).T
        full = place == 0 or len(reports) <= FEW
        if full:
            axes.fill_between(rates, low, high, color=color, alpha=0.12, linewidth=0)
        fewest.append(min((misses / said)[rates <= MOST], default=1.0))
        width = 1.8 if full else 0.9
        axes.plot(rates, misses / said, **style, linewidth=width, label=report["title"])
        for found in report["points"] if full else ():
            x, y = max(found["per_hour"], none), found["missed"]
            least, most = found["per_hour_interval"]
            under, over = found["missed_interval"]
            axes.errorbar(
                [x],
                [y],
                xerr=[[max(0, x - max(least, none))], [max(0, most - x)]],
                yerr=[[y - under], [over - y]],
                color=color,
                marker="o",
                markersize=5,
                linewidth=0.8,
                capsize=2,
            )
    hours = reports[0]["distinct_hours"]
    axes.axvline(1 / hours, color="#777777", linewidth=0.6, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(0.7 * none, MOST)
    log_percent(axes)
    # Below one that is missed there is nothing to draw.
    axes.set_ylim(max(0.6 * min(fewest), 0.6 / reports[0]["curves"]["all"]["said"]), 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel(
        f"false accepts per hour of speech without keywords (dotted: one in {hours:.3g} h)"
    )
    axes.set_ylabel(f"missed, of {reports[0]['clips']} keywords")
    axes.set_title(
        f"{', '.join(reports[0]['conditions'])}; points: on speakers held out", fontsize=10
    )
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    # Beside the axes: curves of many models leave no corner free.
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def cautions(reports: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures of :func:`measure` do not show, one line for each operating point that any
    model has; ``untold`` beside them are folders of free speech without transcripts.

    Args:
        reports: what :func:`measure` gave of the same streams, each with ``title``.
    """
    untold = dict.fromkeys(name for report in reports for name in report.get("untold", ()))
    lines = [
        f"{folder} has no transcripts: keywords that are said there count as false accepts "
        "(earmark transcribe finds them)"
        for folder in untold
    ]
    points = [(report["title"], point) for report in reports for point in report["points"]]
    for target in dict.fromkeys(point["target"] for _, point in points):
        found = [
            (title, point["per_hour_interval"][1])
            for title, point in points
            if point["target"] == target and not point["shown"]
        ]
        if not found:
            continue
        names = ", ".join(title for title, _ in found)
        of = f" of {names}" if len(found) < len(reports) else ""
        limits = sorted(limit for _, limit in found)
        ends = dict.fromkeys(f"{limit:.3g}" for limit in (limits[0], limits[-1]))
        lines.append(
            f"{target:g} false accepts an hour are not shown{of}: "
            f"{reports[0]['distinct_hours']:.2f} h of distinct speech leave room for "
            f"{' to '.join(ends)} an hour (95 %); it takes {hours_to_measure(target):.3g} h "
            "without any"
        )
    return lines


def _curve(manifest: Manifest, takes: Sequence[Take]) -> dict[str, Any]:
    """Counts at each of the thresholds; the words of the keyword streams, the false accepts of the
    others."""
    spoken = [take.trace for take in takes if take.trace.truth]
    other = [take.trace for take in takes if not take.trace.truth]
    misses = np.zeros(len(THRESHOLDS), np.int64)
    false = np.zeros(len(THRESHOLDS), np.int64)
    said = 0
    for keyword in manifest.keywords:
        positive = sweep(spoken, keyword, manifest.decision, manifest.geometry)
        misses += positive.misses
        said += positive.said
        false += sweep(other, keyword, manifest.decision, manifest.geometry).false_accepts
    return {
        "thresholds": np.array(THRESHOLDS),
        "misses": misses,
        "said": said,
        "false_accepts": false,
        "hours": sum(t.seconds for t in other) / 3600,
    }


def _sum(curves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    added = {key: sum(curve[key] for curve in curves) for key in curves[0] if key != "thresholds"}
    return {"thresholds": curves[0]["thresholds"]} | added


def _with_threshold(manifest: Manifest, threshold: float) -> Decision:
    thresholds = dict.fromkeys(manifest.keywords, threshold)
    return dataclasses.replace(manifest.decision, thresholds=thresholds)


def _detections(
    manifest: Manifest, decision: Decision, heard: Trace, step: float
) -> list[Detection]:
    keywords = manifest.keywords
    posteriors = np.stack([heard.posteriors[keyword] for keyword in keywords], axis=1)
    firings = Decider(decision, keywords, step).update(posteriors)
    return [
        Detection(keywords[f.label], min((f.row + 1) * step, heard.seconds), f.score)
        for f in firings
    ]


def _rate(count: int, hours: float, conditions: int) -> dict[str, Any]:
    """False accepts per hour; the interval is that of the distinct speech, as if the conditions
    told nothing more."""
    low = poisson_interval(math.floor(count / conditions))[0]
    high = poisson_interval(math.ceil(count / conditions))[1]
    distinct = hours / conditions
    return {
        "false_accepts": count,
        "hours": hours,
        "per_hour": count / hours,
        "per_hour_interval": [low / distinct, high / distinct],
    }
