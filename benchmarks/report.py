"""One HTML file that shows a spotter's figures: no script, and nothing is fetched."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..runtime.manifest import Manifest
from .latency import Timing
from .machine import machine_line
from .tables import spread_text


@dataclass(frozen=True)
class Result:
    """What was measured of one model file."""

    manifest: Manifest
    accuracy: dict[str, Any]
    """As ``export.evaluate.evaluate`` gives it."""
    scene: dict[str, Any]
    """As ``Matching.summary`` gives it."""
    timing: Timing


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows in words."""

    png: bytes
    title: str
    caption: str
    wide: bool = False
    """Too wide for a telephone: it scrolls sideways there."""


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
        ["File", *(f"{r.timing.size / 1000:.0f} kB" for r in results)],
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
        _picture(report.pictures[0]) if report.pictures else "",
        "<h2>Figures</h2>",
        _table(heads, rows),
        f'<p class="note">{escape(report.caution)}</p>',
        *(_picture(picture) for picture in report.pictures[1:]),
        "<h2>Recall by class</h2>",
        _recall(report.results),
        "<h2>What was done</h2>",
        "<ol>" + "".join(f"<li>{escape(step)}</li>" for step in report.done) + "</ol>",
        "<h2>The model</h2>",
        _table(["Field", "Value"], _model(shipped)),
        "<h2>Settings</h2>",
        _table(["Setting", "Value"], list(_flat("", report.settings))),
        "<h2>Measured on</h2>",
        f"<p>{escape(machine_line(report.machine))}</p>",
        _table(["Package", "Version"], sorted(shipped.versions.items())),
        "<h2>What to try next</h2>",
        *(f"<p>{escape(text)}</p><pre>{escape(code)}</pre>" for text, code in report.further),
    ]
    return _PAGE.format(
        title=escape(report.title), style=_STYLE, body="\n".join(filter(None, parts))
    )


def _recall(results: Sequence[Result]) -> str:
    first = results[0].accuracy
    rows = [
        [label, str(count), *(_share(r.accuracy["recall"][label]) for r in results)]
        for label, count in first["support"].items()
    ]
    return _table(["Class", "Clips", *(r.manifest.precision for r in results)], rows)


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


def _flat(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, (list, tuple)):
        yield name, ", ".join(str(item) for item in value)
    else:
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _picture(picture: Picture) -> str:
    data = b64encode(picture.png).decode("ascii")
    alt = escape(picture.caption, quote=True)
    kind = "wide" if picture.wide else "narrow"
    return (
        f'<h2>{escape(picture.title)}</h2><figure><div class="scroll paper {kind}">'
        f'<img alt="{alt}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
_STYLE = """
:root { color-scheme: light dark; --text: #1d2329; --soft: #56616c; --line: #d9dee3;
  --ground: #ffffff; --panel: #f4f6f8; --accent: #0b62a3; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #a0abb6; --line: #39424b;
  --ground: #14181c; --panel: #1e242a; --accent: #6db7f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0.5rem 0 0.75rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.6rem; }
.lead { font-size: 1.1rem; max-width: 46rem; margin: 0; }
.note, figcaption { color: var(--soft); font-size: 0.92rem; max-width: 46rem; }
.note { border-left: 3px solid var(--accent); padding-left: 0.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.35rem 1.2rem 0.35rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th[scope=col] { color: var(--soft); font-weight: 600; }
th[scope=row] { font-weight: 400; }
td { overflow-wrap: break-word; }
figure { margin: 0; }
.paper { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: 0.5rem; }
.narrow { max-width: 34rem; }
img { display: block; width: 100%; height: auto; }
.wide img { min-width: 56rem; }
figcaption { margin-top: 0.5rem; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: 0.6rem 0.8rem; overflow-x: auto; font-size: 0.9rem; margin: 0 0 1rem; }
@media (max-width: 40rem) { body { font-size: 15px; } th, td { padding-right: 0.8rem; } }
@media print { .scroll { overflow: visible; } .wide img { min-width: 0; } }
"""
