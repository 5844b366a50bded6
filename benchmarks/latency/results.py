"""The record of a run: what was timed, how, on what. Written and read as JSON."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from ...runtime.errors import EarmarkError
from ...runtime.files import read_text
from ..spread import Spread
from .timing import Timing
from .watch import Disturbance

SCHEMA = 1
"""Version of the fields below; a reader takes no other."""
TYPE = "earmark-bench"
T = TypeVar("T")
Kind = Literal["edge", "peer", "full", "scaling"]


@dataclass(frozen=True)
class Accuracy:
    """A measure of accuracy that was measured, not quoted."""

    measure: str
    value: float
    on: str
    """The data."""


@dataclass(frozen=True)
class Delay:
    """What lies between a word and its detection."""

    chunk_ms: float
    """Audio that is gathered before a call."""
    look_back_ms: float
    """Audio that one decision of the network depends on."""
    smoothing_ms: float
    """Moving average over the posteriors."""
    p50_ms: float | None = None
    """From the end of a word to its detection, measured; the time to compute is not in it."""
    p95_ms: float | None = None
    found: int = 0
    said: int = 0
    on: str = ""
    """The words that it was measured on."""

    @property
    def algorithmic_ms(self) -> float:
        """Chunk, look-back and smoothing: the oldest audio that shapes a decision."""
        return self.chunk_ms + self.look_back_ms + self.smoothing_ms


@dataclass(frozen=True)
class Cold:
    """A fresh process, from its first line to the first score. The interpreter's own start is not
    in it."""

    import_ms: Spread
    first_score_ms: Spread
    """Import, loading the model and the first step."""
    resident_mb: Spread | None
    """Memory of the whole process after ten seconds of audio, MB of 1e6 bytes."""
    install_mb: float | None
    """Size on disk of the distributions that it needs, its own left out where it is not known."""


@dataclass(frozen=True)
class Row:
    """One thing that was timed."""

    kind: Kind
    name: str
    job: str
    """What it decides."""
    device: str
    precision: str
    mode: str
    """What runs it."""
    weights: str
    """``trained``, ``random weights`` or ``as released``."""
    step_ms: float
    """Audio that a step is worth."""
    decisions: int
    """Decisions that a step gives."""
    hot: Timing
    paced: Timing | None = None
    batch: int = 1
    width: int | None = None
    """Of a student."""
    keywords: int | None = None
    parameters: int | None = None
    file_bytes: int | None = None
    accuracy: Accuracy | None = None
    delay: Delay | None = None
    cold: Cold | None = None
    cpu_ratio: Spread | None = None
    """CPU time per second of audio over that of the reference, round by round."""
    decision_ratio: Spread | None = None
    """Typical time of a step over that of the reference, round by round."""

    @property
    def key(self) -> str:
        """What tells it from other rows of a report, and finds it in another report."""
        parts = (self.kind, self.name, self.job, self.device, self.precision, self.mode)
        return " / ".join((*parts, f"batch {self.batch}", f"{self.step_ms:g} ms"))


@dataclass(frozen=True)
class Capacity:
    """The most live streams that one core carries."""

    model: str
    precision: str
    batch: int | None
    """Most chunks in one call; None for a stream after the other."""
    chunk_ms: float
    streams: int
    """Of those that were tried, the most whose p99 stayed within a chunk."""
    p99_ms: Spread
    """Milliseconds from when a chunk is due to its detections, of so many streams."""
    cpu_ms: Spread
    refused: int | None
    """The fewest that were tried and did not."""


@dataclass(frozen=True)
class Network:
    """The graph of a model alone, without Python around it, and what of it is not front end."""

    model: str
    precision: str
    graph_us: Spread
    """Microseconds of a chunk, hot."""
    front_end_us: Spread
    """Of the part up to the log mel energies, run by itself."""
    network_us: Spread
    """What is left, round by round."""
    ratio: Spread | None = None
    """Of ``network_us`` to that of the first model, round by round."""


@dataclass(frozen=True)
class Report:
    """A run of ``earmark bench``."""

    command: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    reference: str
    """Key of the row that ratios are to."""
    rows: list[Row]
    disturbance: Disturbance
    networks: list[Network] = field(default_factory=list)
    capacities: list[Capacity] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """What was asked for and could not be had, with the reason."""
    seconds: float = 0.0
    """How long the run took."""
    type: Literal["earmark-bench"] = TYPE
    schema: Literal[1] = SCHEMA

    def of(self, *kinds: Kind) -> list[Row]:
        """The rows of these kinds."""
        return [row for row in self.rows if row.kind in kinds]

    def to_json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class _Accelerator:
    """What pages read of ``machine.accelerator``."""

    name: str
    memory: str
    cuda: str


@dataclass(frozen=True)
class _Machine:
    """What pages read of ``machine``, which may tell more."""

    cpu: str
    features: list[str]
    cores: int | None
    system: str
    load: float | None
    versions: dict[str, str]
    date: str
    accelerator: _Accelerator | None = None


@dataclass(frozen=True)
class _Settings:
    """What pages read of ``settings``, which may tell more."""

    rounds: int
    rounds_of_full_models: int
    seconds_of_work_in_a_turn: float
    seconds_of_audio_in_a_paced_turn: float


_AGAIN = "run earmark bench --json again"


def load(path: str | Path) -> Report:
    """Read a report.

    Raises:
        EarmarkError: it is none, or one of another version, or a figure in it is no finite number.
    """
    text = read_text(path)
    try:
        raw = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise EarmarkError(f"{path}: no JSON ({error}): {_AGAIN}") from error
    if not isinstance(raw, dict) or raw.get("type") != TYPE:
        raise EarmarkError(f"{path}: no report of earmark bench: {_AGAIN}")
    if raw.get("schema") != SCHEMA:
        raise EarmarkError(
            f"{path}: field schema is {raw.get('schema')!r}, this Earmark reads {SCHEMA}: {_AGAIN}"
        )
    report = _checked(Report, raw, path)
    _checked(_Machine, report.machine, path, "machine")
    _checked(_Settings, report.settings, path, "settings")
    return report


def _finite(text: str) -> float:
    """What JSON has for a number with a point, or Python's own writing in it of what is none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _checked(kind: type[T], raw: object, path: str | Path, *inside: str) -> T:
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (*inside, *first["loc"])))
        raise EarmarkError(f"{path}: field {place}: {first['msg']}: {_AGAIN}") from error
