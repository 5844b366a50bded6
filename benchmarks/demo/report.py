"""One HTML file that shows a spotter's figures: no script, and nothing is fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ...runtime.manifest import Manifest
from ..latency.timing import Timing
from ..machine import machine_line
from ..page_parts import Picture, document, figure, flat, table
from ..tables import spread_text


@dataclass(frozen=True)
class Result:
    """What was measured of one model file."""

    manifest: Manifest
    accuracy: dict[str, Any]
    """As ``export.evaluate.evaluate`` gives it."""
    scene: dict[str, Any]
    """As ``Matching.summary`` gives it."""
    timing: Timing
    size: int
    """Bytes of the file."""


@dataclass(frozen=True)
class Report:
    """The parts of the page, in the order they are shown."""

    title: str
    lead: str
    done: Sequence[str]
    """What was done, step by step."""
    results: Sequence[Result]
    caution: str
    """What the figures do not say."""
    pictures: Sequence[Picture]
    settings: dict[str, Any]
    machine: dict[str, Any]
    further: Sequence[tuple[str, str]]
    """What to try next: a sentence and its command."""


def comparison(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """The table of all figures: the heads of its columns, and its rows, one for each figure.

    The first column names the figure, then comes one column for each model.
    """
    rows = [
        ["Top-1 on clips", *(_percent(r.accuracy["top1"], 2) for r in results)],
        ["95 % interval by speaker", *(_interval(r.accuracy["top1_interval"]) for r in results)],
        ["Macro F1", *(f"{r.accuracy['macro_f1']:.4f}" for r in results)],
        ["Keywords found in the scene", *(_found(r.scene) for r in results)],
        ["False detections in the scene", *(str(r.scene["false_accepts"]) for r in results)],
        ["Delay from the word's end, median", *(_delay(r.scene["delay_p50"]) for r in results)],
        ["File", *(f"{r.size / 1000:.0f} kB" for r in results)],
        ["CPU ms per second of audio", *(spread_text(_cpu(r), 2) for r in results)],
        ["µs per chunk, p50", *(spread_text(r.timing.p50_us, 0) for r in results)],
        ["µs per chunk, p99", *(spread_text(r.timing.p99_us, 0) for r in results)],
    ]
    return ["", *(r.manifest.precision for r in results)], rows


def page(report: Report) -> str:
    """The report as HTML."""
    heads, rows = comparison(report.results)
    shipped = report.results[-1].manifest
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="lead">{escape(report.lead)}</p>',
        figure(report.pictures[0]) if report.pictures else "",
        "<h2>Figures</h2>",
        table(heads, rows),
        f'<p class="note">{escape(report.caution)}</p>',
        *(figure(picture) for picture in report.pictures[1:]),
        "<h2>Recall by class</h2>",
        _recall(report.results),
        "<h2>What was done</h2>",
        "<ol>" + "".join(f"<li>{escape(step)}</li>" for step in report.done) + "</ol>",
        "<h2>The model</h2>",
        table(["Field", "Value"], _model(shipped)),
        "<h2>Settings</h2>",
        table(["Setting", "Value"], list(flat("", report.settings))),
        "<h2>Measured on</h2>",
        f"<p>{escape(machine_line(report.machine))}</p>",
        table(["Package", "Version"], sorted(shipped.versions.items())),
        "<h2>What to try next</h2>",
        *(f"<p>{escape(text)}</p><pre>{escape(code)}</pre>" for text, code in report.further),
    ]
    return document(report.title, parts)


def _recall(results: Sequence[Result]) -> str:
    first = results[0].accuracy
    rows = [
        [label, str(count), *(_share(r.accuracy["recall"][label]) for r in results)]
        for label, count in first["support"].items()
    ]
    return table(["Class", "Clips", *(r.manifest.precision for r in results)], rows)


def _model(manifest: Manifest) -> list[tuple[str, str]]:
    geometry, decision = manifest.geometry, manifest.decision
    rate = geometry.sample_rate
    thresholds = ", ".join(f"{name} {level:g}" for name, level in decision.thresholds.items())
    sources = "; ".join(f"{s.name} ({s.licence}), {s.role}" for s in manifest.sources)
    return [
        ("Name", manifest.name),
        ("Labels", ", ".join(manifest.labels)),
        ("Parameters", f"{manifest.parameters:,}"),
        ("Input", f"{rate} Hz, chunks of {1000 * geometry.chunk / rate:g} ms"),
        ("Decision every", f"{1000 * geometry.step / rate:g} ms"),
        ("Receptive field", f"{geometry.receptive_field / rate:.2f} s"),
        ("Cache", f"{geometry.cache:,} numbers"),
        ("Thresholds", thresholds),
        (
            "Decision",
            f"mean over {decision.smoothing:g} s, re-arms below {decision.release:g} of the "
            f"threshold, {decision.refractory:g} s between detections",
        ),
        ("Trained on", sources),
        ("Weights, SHA-256", (manifest.checkpoint_sha256 or "-")[:16]),
    ]


def _cpu(result: Result) -> Any:
    return result.timing.cpu_ms_per_second


def _share(value: float | None) -> str:
    return "-" if value is None else _percent(value, 1)


def _interval(bounds: Sequence[float] | None) -> str:
    return "-" if bounds is None else " to ".join(_percent(bound, 1) for bound in bounds)


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _found(scene: dict[str, Any]) -> str:
    return f"{scene['hits']} of {scene['keywords']}"


def _delay(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"
