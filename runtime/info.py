"""``earmark info``: what a model file says of itself."""

import json
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from .engine import Engine
from .errors import one_line
from .manifest import Manifest


def run(arguments: Namespace) -> int:
    """Load the model, which checks it, and print its manifest."""
    engine = Engine(arguments.model)
    if arguments.json:
        about = {"file": str(engine.path), "bytes": engine.size, "backend": engine.backend}
        print(json.dumps(about | engine.manifest.to_dict()))
        return 0
    manifest = engine.manifest
    about = f"{manifest.name}, {manifest.precision}, {engine.size:,} bytes, run by {engine.backend}"
    print(one_line(f"{engine.path}: {about}"))
    for line in describe(engine.manifest):
        print(f"  {line}")
    return 0


def describe(manifest: Manifest) -> Iterator[str]:
    """The manifest as lines for people, a field and its value on each."""
    rows = list(_rows(manifest))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield one_line(f"{name:{width}}  {value}".rstrip())


def _rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    decision, geometry = manifest.decision, manifest.geometry
    rate = geometry.sample_rate
    yield "parameters", f"{manifest.parameters:,}"
    yield "activation", manifest.activation
    for keyword in manifest.keywords:
        yield "keyword", f"{keyword}, threshold {decision.thresholds[keyword]:g}"
    yield "other labels", ", ".join(x for x in manifest.labels if x not in manifest.keywords)
    yield (
        "decision",
        f"mean over {decision.smoothing:g} s, re-arms below {decision.release:g} of the threshold, "
        f"{decision.refractory:g} s between detections",
    )
    for name, point in manifest.operating_points.items():
        thresholds = ", ".join(f"{keyword} {t:g}" for keyword, t in point.thresholds.items())
        default = ", the default" if point == decision else ""
        yield "operating point", f"{name}{default}: mean over {point.smoothing:g} s; {thresholds}"
        if summary := _summary(manifest, name):
            yield "", summary
    yield (
        "audio",
        f"{rate} Hz, chunks of {1000 * geometry.chunk / rate:g} ms, "
        f"a decision every {1000 * geometry.step / rate:g} ms",
    )
    yield "receptive field", f"{geometry.receptive_field / rate:.3f} s"
    yield "cache", f"{geometry.cache:,} numbers"
    for source in manifest.sources:
        credit = f"; {source.attribution}" if source.attribution else ""
        yield source.role, f"{source.name} ({source.licence}{credit}) {source.url}".rstrip()
    if manifest.teacher:
        yield "teacher", manifest.teacher
    for title, values in (
        ("features", manifest.features),
        ("metrics", manifest.metrics),
        ("quantization", manifest.quantization),
        ("training", manifest.training),
        ("versions", manifest.versions),
    ):
        shown = {k: v for k, v in values.items() if k != "operating_points"}
        yield from _flat(title, shown)
    if manifest.git_revision:
        yield "git revision", manifest.git_revision
    if manifest.checkpoint_sha256:
        yield "checkpoint sha256", manifest.checkpoint_sha256


def _summary(manifest: Manifest, point: str) -> str:
    """What was measured at an operating point, where the file says so."""
    found: Any = manifest.metrics
    for key in ("operating_points", "points", point, "summary"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) and found.isprintable() else ""


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested objects as ``outer.inner`` rows; long lists by their length."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list) and len(value) > 12:
        yield name, f"{len(value)} values"
    elif isinstance(value, list):
        yield name, ", ".join(str(item) for item in value)
    else:
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)
