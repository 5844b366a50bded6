"""The manifest: all that a model file says of itself, as one JSON string in its ONNX metadata."""

import json
import math
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeGuard

from .errors import EarmarkError

METADATA_KEY = "earmark"
"""Key of the manifest in the model's ``metadata_props``."""
SCHEMA_VERSION = 2
"""Version of the fields below. A reader refuses a newer one; a change of meaning raises it."""
SINCE = {"operating_points": 2, "activation": 2}
"""The version that brought a field, for those that came after the first. A manifest names the
lowest version that has all that it uses, so that readers of that version can read it."""
MAX_MANIFEST_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_LOGITS = 1 << 20
"""Most numbers that the graph gives for a chunk."""
MAX_OPERATING_POINTS = 32
UNKNOWN = "_unknown_"
SILENCE = "_silence_"


@dataclass(frozen=True)
class Decision:
    """How posteriors become detections (see :mod:`earmark.runtime.decision`)."""

    thresholds: dict[str, float]
    """Per keyword: the smoothed posterior, in (0, 1], at which it fires."""
    smoothing: float = 0.2
    """Length of the moving average over posteriors, seconds."""
    release: float = 0.5
    """A keyword re-arms when its smoothed posterior falls below ``release * threshold``."""
    refractory: float = 0.8
    """Least audio time between two detections of one keyword, seconds."""


@dataclass(frozen=True)
class Geometry:
    """Shapes and times of the streaming graph. All lengths are samples at ``sample_rate``."""

    sample_rate: int
    chunk: int
    """Samples that the graph takes per call."""
    step: int
    """Samples between two rows of logits; divides ``chunk``."""
    receptive_field: int
    """Samples that one row of logits depends on, its own last sample included."""
    cache: int
    """Numbers in the cache tensor of one stream."""

    @property
    def steps(self) -> int:
        """Rows of logits per call."""
        return self.chunk // self.step


@dataclass(frozen=True)
class Source:
    """A data set, teacher or other work that shaped the model."""

    name: str
    licence: str
    role: str = "training data"
    url: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything a model file says of itself. Graph: ``pcm`` float32 [batch, chunk] in [-1, 1) and
    ``cache`` [batch, cache] in; ``logits`` float32 [batch, steps, labels] and ``cache_out`` out.
    A zero cache is the start of a stream.
    """

    name: str
    labels: tuple[str, ...]
    """Class names in the order of the logits. Names that begin with ``_`` are no keywords."""
    geometry: Geometry
    decision: Decision
    precision: str
    """``float32`` or ``int8``."""
    features: dict[str, Any]
    """Settings of the MFCC front end inside the graph."""
    parameters: int
    """Weights of the network, front end excluded."""
    activation: str = "softmax"
    """What makes posteriors of logits: ``softmax`` where one label holds at a time, ``sigmoid``
    where each holds or not by itself (multi-label)."""
    licence: str = ""
    """Of the model itself; empty where its maker did not say."""
    sources: tuple[Source, ...] = ()
    teacher: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    """Recipe, command, seed, clip counts and fingerprint of the data."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Measured accuracy, each with the data and protocol it was measured on."""
    quantization: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git_revision: str | None = None
    checkpoint_sha256: str | None = None
    operating_points: dict[str, Decision] = field(default_factory=dict)
    """Settings to choose from in place of ``decision``, by name. What was measured at each is in
    ``metrics["operating_points"]``."""

    @property
    def schema(self) -> int:
        """Version of the fields that are used."""
        new = [f for f in fields(self) if f.name in SINCE and getattr(self, f.name) != _default(f)]
        return max([1, *(SINCE[f.name] for f in new)])

    @property
    def keywords(self) -> tuple[str, ...]:
        """The labels that can be detected."""
        return tuple(label for label in self.labels if not label.startswith("_"))

    def __post_init__(self) -> None:
        _check(self)

    def decided_by(self, decision: Decision | None) -> Self:
        """The manifest with other thresholds and times; itself for None.

        Raises:
            EarmarkError: a value of ``decision`` is out of range, or a keyword is not the model's.
        """
        return self if decision is None else replace(self, decision=decision)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain values, without fields that its schema does not have."""
        schema = self.schema
        fields = {k: v for k, v in asdict(self).items() if SINCE.get(k, 1) <= schema}
        return fields | {"schema": schema}

    def to_json(self) -> str:
        """The manifest as one line of JSON.

        Raises:
            EarmarkError: it is larger than a reader takes.
        """
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        if len(text) > MAX_MANIFEST_BYTES:
            raise EarmarkError(f"manifest is larger than {MAX_MANIFEST_BYTES} bytes")
        return text

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a manifest.

        Raises:
            EarmarkError: it is no manifest, a newer one, or a field has a wrong type or value. The
                message names the field but no file; the caller knows which file it was.
        """
        if len(text) > MAX_MANIFEST_BYTES:
            raise EarmarkError(f"manifest is larger than {MAX_MANIFEST_BYTES} bytes")
        try:
            raw = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise EarmarkError(f"manifest is not JSON ({error})") from error
        if not isinstance(raw, dict):
            raise EarmarkError("manifest is not a JSON object")
        if _depth(raw) > MAX_DEPTH:
            raise EarmarkError(f"manifest has more than {MAX_DEPTH} levels of lists and objects")
        try:  # what was read can be written again
            json.dumps(raw, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise EarmarkError(f"manifest holds half a character ({error.reason})") from error
        schema = raw.pop("schema", None)
        if not _is_int(schema) or schema < 1:
            raise EarmarkError("manifest field schema: expected a version number")
        if schema > SCHEMA_VERSION:
            raise EarmarkError(
                f"manifest has schema {schema}, this Earmark reads up to {SCHEMA_VERSION}: "
                "upgrade earmark"
            )
        for name, version in SINCE.items():
            if name in raw and version > schema:
                raise EarmarkError(f"manifest field {name}: not known to schema {schema}")
        points = raw.get("operating_points", {})
        if not isinstance(points, dict):
            raise EarmarkError("manifest field operating_points: expected an object")
        known = _known(cls, raw, "manifest") | {
            "labels": tuple(_sequence(raw, "labels")),
            "geometry": _build(Geometry, raw.get("geometry"), "geometry"),
            "decision": _build(Decision, raw.get("decision"), "decision"),
            "sources": tuple(
                _build(Source, item, f"sources[{i}]")
                for i, item in enumerate(_sequence(raw, "sources"))
            ),
            "operating_points": {
                name: _build(Decision, item, f"operating_points.{name[:100]!r}")
                for name, item in points.items()
            },
        }
        for f in fields(cls):
            if f.default is MISSING and f.default_factory is MISSING and f.name not in known:
                raise EarmarkError(f"manifest field {f.name}: is missing")
        return cls(**known)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:100]} is too large a number")
    return value


def _depth(value: object) -> int:
    """Levels of lists and objects in a value of JSON."""
    depth, level = 0, [value]
    while level := [x for x in level if isinstance(x, list | dict)]:
        depth += 1
        level = [x for v in level for x in (v.values() if isinstance(v, dict) else v)]
    return depth


def _default(f: Field[Any]) -> object:
    return f.default if f.default_factory is MISSING else f.default_factory()


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_number(value: object) -> bool:
    return (isinstance(value, float) and math.isfinite(value)) or _is_int(value)


def _sequence(raw: dict[str, Any], name: str) -> list[Any]:
    value = raw.get(name, [])
    if not isinstance(value, list):
        raise EarmarkError(f"manifest field {name}: expected a list")
    return value


def _known(cls: type, raw: dict[str, Any], where: str) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    unknown = sorted(set(raw) - names)
    if unknown:
        raise EarmarkError(f"{where} field {unknown[0]}: not known to schema {SCHEMA_VERSION}")
    return dict(raw)


def _build(cls: type, raw: object, name: str) -> Any:
    if not isinstance(raw, dict):
        raise EarmarkError(f"manifest field {name}: expected an object")
    try:
        return cls(**_known(cls, raw, f"manifest field {name}:"))
    except TypeError as error:
        raise EarmarkError(f"manifest field {name}: {error}") from error


def _check(m: Manifest) -> None:
    """Refuse values that would mislead the runtime or make it allocate without bound."""
    need = _need
    labels = m.labels
    need(1 <= len(labels) <= 1000, "labels", "1 to 1000 names")
    need(
        all(isinstance(x, str) and 0 < len(x) <= 100 and x.isprintable() for x in labels),
        "labels",
        "printable names of 1 to 100 characters",
    )
    need(len(set(labels)) == len(labels), "labels", "names that differ")
    for name in ("name", "licence"):
        need(_is_text(getattr(m, name)), name, "printable text")
    for name in ("teacher", "git_revision", "checkpoint_sha256"):
        value = getattr(m, name)
        need(value is None or _is_text(value), name, "printable text or null")
    for name in ("features", "training", "metrics", "quantization", "versions"):
        need(isinstance(getattr(m, name), dict), name, "an object")
    for i, source in enumerate(m.sources):
        need(all(map(_is_text, vars(source).values())), f"sources[{i}]", "printable texts")
    need(_is_int(m.parameters) and m.parameters >= 0, "parameters", "a count")
    need(m.precision in ("float32", "int8"), "precision", "float32 or int8")
    need(m.activation in ("softmax", "sigmoid"), "activation", "softmax or sigmoid")

    g = m.geometry
    limits = {
        "sample_rate": 192_000,
        "chunk": 1 << 20,
        "step": 1 << 20,
        "receptive_field": 1 << 24,
        "cache": 1 << 24,
    }
    for name, limit in limits.items():
        value = getattr(g, name)
        need(
            _is_int(value) and 1 <= value <= limit,
            f"geometry.{name}",
            f"a number from 1 to {limit}",
        )
    need(g.chunk % g.step == 0, "geometry.chunk", "a multiple of geometry.step")
    need(
        g.steps * len(labels) <= MAX_LOGITS,
        "geometry.step",
        f"at most {MAX_LOGITS} logits in a chunk",
    )

    _check_decision(m.decision, m.keywords, "decision")
    points = m.operating_points
    need(isinstance(points, dict), "operating_points", "an object")
    need(len(points) <= MAX_OPERATING_POINTS, "operating_points", f"at most {MAX_OPERATING_POINTS}")
    need(
        all(isinstance(x, str) and 0 < len(x) <= 100 and x.isprintable() for x in points),
        "operating_points",
        "printable names of 1 to 100 characters",
    )
    for name, point in points.items():
        _check_decision(point, m.keywords, f"operating_points.{name}")


def _check_decision(d: Decision, keywords: tuple[str, ...], where: str) -> None:
    _need(isinstance(d.thresholds, dict), f"{where}.thresholds", "an object")
    _need(
        set(d.thresholds) == set(keywords),
        f"{where}.thresholds",
        f"one entry for each keyword ({', '.join(keywords)})",
    )
    for keyword, value in d.thresholds.items():
        _need(
            _is_number(value) and 0 < value <= 1,
            f"{where}.thresholds.{keyword}",
            "a number above 0 and at most 1",
        )
    for name, most, text in (
        ("smoothing", 60, "0 to 60 seconds"),
        ("release", 1, "0 to 1"),
        ("refractory", 3600, "0 to 3600 seconds"),
    ):
        value = getattr(d, name)
        _need(_is_number(value) and 0 <= value <= most, f"{where}.{name}", text)


def _need(condition: bool, name: str, expected: str) -> None:
    if not condition:
        raise EarmarkError(f"manifest field {name}: expected {expected}")
