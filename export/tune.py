"""Operating points measured on a user's own recordings: thresholds that mean something."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import EarmarkError
from ..runtime.manifest import MAX_OPERATING_POINTS, Decision, Manifest
from ..train.progress import progress
from .det import THRESHOLDS, Curve, Trace, sweep
from .heard import Heard
from .intervals import hours_to_measure, poisson_interval, wilson_interval
from .matching import LATE, percentile
from .points import Frontier, frontier

POINTS = {"quiet": 0.2, "balanced": 1.0, "sensitive": 5.0}
"""False accepts per hour of the points that are written by default."""
SMOOTHINGS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Moving averages that are tried beside the model's own, seconds."""
PLOT_PER_HOUR = 20.0
"""Most false accepts per hour that the trade-off is worked out for, unless a point needs more."""
PROTOCOL = (
    "each clip once, in other audio, from a zero cache; a detection of its keyword from its start "
    f"to {LATE:g} s after its end is a hit, any other in the background a false accept"
)


@dataclass(frozen=True)
class TuneSettings:
    """What is asked for."""

    points: dict[str, float] = dataclasses.field(default_factory=lambda: dict(POINTS))
    """False accepts per hour of all keywords together, by the name of the point."""
    smoothings: tuple[float, ...] = SMOOTHINGS
    """Moving averages to try, seconds."""
    holdout: bool = False
    """Choose on one half of the recordings and measure on the other."""
    seed: int = 0
    """Of the halves."""


@dataclass(frozen=True)
class Point:
    """An operating point and what was measured at it."""

    decision: Decision
    levels: NDArray[np.int64]
    """int64 [keywords]: index into ``THRESHOLDS``, in the order of the curves."""
    measured: dict[str, Any]
    """Plain values, as they go into the manifest."""


@dataclass(frozen=True)
class Tuning:
    """What :func:`choose` found."""

    points: dict[str, Point]
    positives: tuple[Curve, ...]
    """Of each keyword that has clips, on the recordings that were measured on."""
    background: tuple[Curve, ...]
    frontier: Frontier
    """On the recordings that were chosen on."""
    smoothing: float
    smoothings: tuple[float, ...]
    """What was tried."""
    speakers: int
    recordings: int
    """Of the clips and of the background that were measured on."""
    in_sample: bool

    @property
    def hours(self) -> float:
        """Background that was measured on."""
        return self.background[0].seconds / 3600


def choose(manifest: Manifest, heard: Heard, settings: TuneSettings) -> Tuning:
    """Choose the points and measure them.

    A point has the thresholds that miss the fewest clips with no more false accepts in the
    background than its rate allows. All points share one moving average: the one that misses the
    fewest clips over all of them.

    Keywords without clips keep their thresholds, count for nothing, and hold the moving average at
    the model's.

    Raises:
        EarmarkError: a half has no clip of a keyword.
    """
    step = manifest.geometry.step / manifest.geometry.sample_rate
    said = Counter(trace.truth[0].keyword for trace in heard.positives)
    keywords = [keyword for keyword in manifest.keywords if said[keyword]]
    if len(keywords) < len(manifest.keywords):
        settings = dataclasses.replace(settings, smoothings=())
    chosen_on = measured_on = (heard.positives, heard.background)
    if settings.holdout:
        positives = _halves(heard.positives, settings.seed)
        chosen_on, measured_on = zip(
            positives, _background_halves(heard.background, settings.seed, step), strict=True
        )
        for half in positives:
            missing = set(keywords) - {trace.truth[0].keyword for trace in half}
            if missing:
                raise EarmarkError(
                    f"--holdout: one half has no clip of {', '.join(sorted(missing))}: "
                    "record more speakers, or leave --holdout out"
                )
    own = manifest.decision.smoothing
    smoothings = sorted({own, *settings.smoothings}, key=lambda value: abs(value - own))
    hours = sum(trace.seconds for trace in chosen_on[1]) / 3600
    allowed = {name: math.floor(rate * hours + 1e-9) for name, rate in settings.points.items()}
    most = max([*allowed.values(), math.floor(PLOT_PER_HOUR * hours)])
    best: tuple[int, float, Frontier] | None = None
    with progress("Trying thresholds", (len(smoothings) + 1) * len(keywords)) as advance:

        def curves(traces: Sequence[Trace], smoothing: float) -> list[Curve]:
            decision = dataclasses.replace(manifest.decision, smoothing=smoothing)
            return [sweep(traces, keyword, decision, manifest.geometry) for keyword in keywords]

        for smoothing in smoothings:
            positives, background = (curves(traces, smoothing) for traces in chosen_on)
            front = frontier(positives, background, most)
            misses = sum(
                int(curve.misses[level])
                for count in allowed.values()
                for curve, level in zip(positives, front.at_most(count), strict=True)
            )
            if best is None or misses < best[0]:
                best = misses, smoothing, front
            advance(len(keywords))
        assert best is not None
        _, smoothing, front = best
        positives, background = (tuple(curves(traces, smoothing)) for traces in measured_on)
        advance(len(keywords))
    points = {}
    for name, rate in settings.points.items():
        levels = front.at_most(allowed[name])
        thresholds = dict(manifest.decision.thresholds)
        thresholds |= {k: THRESHOLDS[i] for k, i in zip(keywords, levels, strict=True)}
        decision = dataclasses.replace(
            manifest.decision, thresholds=thresholds, smoothing=smoothing
        )
        measured = measure(positives, background, levels, rate, in_sample=not settings.holdout)
        points[name] = Point(decision, levels, measured)
    speakers, recordings = (len({trace.group for trace in traces}) for traces in measured_on)
    return Tuning(
        points,
        positives,
        background,
        front,
        smoothing,
        tuple(sorted(smoothings)),
        speakers,
        recordings,
        in_sample=not settings.holdout,
    )


def measure(
    positives: Sequence[Curve],
    background: Sequence[Curve],
    levels: NDArray[np.int64],
    target: float,
    *,
    in_sample: bool,
) -> dict[str, Any]:
    """The figures at one point, as plain values with 95 % intervals.

    Args:
        positives: a curve for each keyword where it is said.
        background: for each keyword, in the same order, where it is not.
        levels: int64 [keywords]: index of each keyword's threshold.
        target: false accepts per hour that were asked for.
        in_sample: whether the thresholds were chosen on these recordings.
    """
    hours = background[0].seconds / 3600
    pairs = list(zip(positives, background, levels, strict=True))
    false = sum(int(curve.false_accepts[level]) for _, curve, level in pairs)
    misses = sum(int(curve.misses[level]) for curve, _, level in pairs)
    said = sum(curve.said for curve in positives)
    delays = np.concatenate([curve.delays[level] for curve, _, level in pairs])
    rates = tuple(limit / hours for limit in poisson_interval(false))
    shares = wilson_interval(misses, said) or (0.0, 1.0)
    return {
        "summary": (
            f"{false} false accepts in {hours:.2f} h ({rates[0]:.3g} to {rates[1]:.3g} an hour), "
            f"{misses} of {said} clips missed ({shares[0]:.1%} to {shares[1]:.1%}), "
            + ("chosen on the same recordings" if in_sample else "on recordings held out")
        ),
        "in_sample": in_sample,
        "target_false_accepts_per_hour": target,
        "false_accepts": false,
        "hours": round(hours, 4),
        "false_accepts_per_hour": round(false / hours, 4),
        "false_accepts_per_hour_interval": _rounded(rates),
        # A threshold above all but n scores of a keyword in some hours of audio is expected to be
        # passed by at most n + 1 of those in as many other hours: any of them all may be the next.
        "false_accepts_per_hour_elsewhere": (
            round((false + len(pairs)) / hours, 4) if in_sample else None
        ),
        "misses": misses,
        "clips": said,
        "false_reject_rate": round(misses / said, 4),
        "false_reject_rate_interval": _rounded(shares),
        "delay_p50": _rounded(percentile(delays, 50)),
        "delay_p95": _rounded(percentile(delays, 95)),
        "extra_detections": sum(int(curve.false_accepts[level]) for curve, _, level in pairs),
        "keywords": {
            curve.keyword: {
                "threshold": float(curve.thresholds[level]),
                "false_accepts": int(negative.false_accepts[level]),
                "misses": int(curve.misses[level]),
                "clips": curve.said,
                "false_reject_rate_interval": _rounded(
                    wilson_interval(int(curve.misses[level]), curve.said)
                ),
            }
            for curve, negative, level in pairs
        },
    }


def cautions(tuning: Tuning) -> list[str]:
    """What the figures do not show, one line each."""
    lines = []
    seen: dict[tuple[int, ...], str] = {}
    for name, point in tuning.points.items():
        found = point.measured
        target, false = found["target_false_accepts_per_hour"], found["false_accepts"]
        most = found["false_accepts_per_hour_interval"][1]
        if target * tuning.hours < 1:
            lines.append(
                f"{name}: {tuning.hours:.2f} h of background are too short to show {target:g} "
                f"false accepts an hour: {false} in it may mean up to {most:.3g} an hour (95 %); "
                f"it takes {hours_to_measure(target):.3g} h without any"
            )
        elif tuning.in_sample and false > target * tuning.hours + 1e-9:
            lines.append(
                f"{name}: no thresholds bring the false accepts down to {target:g} an hour: "
                "does somebody say the keywords in the background?"
            )
        same = tuple(point.levels.tolist())
        if same in seen:
            lines.append(f"{name}: the same thresholds as {seen[same]}")
        seen.setdefault(same, name)
    if tuning.in_sample:
        lines.append(
            "all figures are of the recordings that the thresholds were chosen on; in other audio "
            "expect more misses and up to one false accept more per keyword in as many hours (the "
            'row "elsewhere"); --holdout measures on a half that was not chosen on'
        )
    return lines


def tuned_manifest(
    manifest: Manifest,
    tuning: Tuning,
    default: str | None,
    about: dict[str, Any],
) -> Manifest:
    """The manifest with the points in place of those it had.

    Args:
        manifest: of the model.
        tuning: the points.
        default: name of the point that becomes the default, None to keep the one there is.
        about: what the recordings were, for the record.
    """
    points = {name: point.decision for name, point in tuning.points.items()}
    measured = {name: point.measured for name, point in tuning.points.items()}
    return dataclasses.replace(
        manifest,
        decision=manifest.decision if default is None else points[default],
        operating_points=points,
        metrics=manifest.metrics
        | {"operating_points": {"protocol": PROTOCOL, **about, "points": measured}},
    )


def parse_points(texts: Sequence[str]) -> dict[str, float]:
    """The default points and those of ``--point NAME=RATE``, which may replace them.

    Raises:
        EarmarkError: a text has another form, a rate is no number above 0, or there are too many.
    """
    points = dict(POINTS)
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = 0.0
        if not (0 < rate < math.inf and 0 < len(name) <= 100 and name.isprintable()):
            raise EarmarkError(
                f"--point {text}: give NAME=RATE, the false accepts per hour, as in night=0.05"
            )
        points[name] = rate
    if len(points) > MAX_OPERATING_POINTS:
        raise EarmarkError(f"--point: {len(points)} points, at most {MAX_OPERATING_POINTS}")
    return points


def first_half(groups: Iterable[str], seed: int) -> set[str]:
    """Every second group in random order."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[i] for i in order[::2]}


def _halves(traces: Sequence[Trace], seed: int) -> tuple[tuple[Trace, ...], tuple[Trace, ...]]:
    """Traces dealt out by group, every second group to the same half, in random order."""
    first = first_half([trace.group for trace in traces], seed)
    return (
        tuple(trace for trace in traces if trace.group in first),
        tuple(trace for trace in traces if trace.group not in first),
    )


def _background_halves(
    traces: Sequence[Trace], seed: int, step_seconds: float
) -> tuple[tuple[Trace, ...], tuple[Trace, ...]]:
    """By recording; of a single one, each stretch is cut in the middle."""
    if len({trace.group for trace in traces}) > 1:
        return _halves(traces, seed)
    first, last = zip(*(trace.halves(step_seconds) for trace in traces), strict=True)
    return first, last


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [round(part, 4) for part in value]
    return None if value is None else round(value, 4)
