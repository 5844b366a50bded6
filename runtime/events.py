"""What a spotter tells: one small class per event, and its JSON form."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """Something that is told. Its fields are those of its JSON object."""

    type: ClassVar[str]


@dataclass(frozen=True)
class DetectionEvent(Event):
    """A keyword was detected."""

    type: ClassVar[str] = "detection"
    source: str
    """File, device or client that was heard; in every event."""
    keyword: str
    time: float
    """Seconds of audio, from the start of the source."""
    score: float
    """Smoothed posterior in [0, 1]."""
    at: str | None = None
    """When it was told, ISO 8601 in UTC; in every event of live audio."""


@dataclass(frozen=True)
class GapEvent(Event):
    """Audio is missing. The model's state restarted; audio time went on."""

    type: ClassVar[str] = "gap"
    source: str
    time: float
    """Audio time at the start of the gap."""
    seconds: float
    """How much is missing, 0 where that is not known; of invalid audio its first piece, since it is
    told before more of it comes."""
    reason: str
    """``lost``: the source told of it. ``invalid``: it gave NaN, infinity or absurd values."""
    at: str | None = None


@dataclass(frozen=True)
class DeviceLostEvent(Event):
    """The device delivers nothing any more; it is being reopened."""

    type: ClassVar[str] = "device_lost"
    source: str
    time: float
    reason: str
    at: str | None = None


@dataclass(frozen=True)
class DeviceBackEvent(Event):
    """The device delivers again."""

    type: ClassVar[str] = "device_back"
    source: str
    time: float
    seconds: float
    """How long it was away."""
    at: str | None = None


@dataclass(frozen=True)
class HeartbeatEvent(Event):
    """The spotter is alive. Counters are totals since the start unless they say otherwise."""

    type: ClassVar[str] = "heartbeat"
    source: str
    time: float
    """Audio time, losses included."""
    audio_seconds: float
    """Audio that was heard, losses not included."""
    chunks: int
    """Pieces of audio taken from the source."""
    detections: int
    gaps: int
    invalid: int
    """Pieces that held NaN, infinity or absurd values and were passed over."""
    overflows: int
    dropped_ms: float
    """Audio that was dropped because it was not taken in time."""
    queued_ms: float
    """Audio that waits to be heard now."""
    undelivered: int
    """Events that a sink could not deliver, summed over the sinks."""
    listening: bool
    """Whether the device is there."""
    cpu_ms: float | None
    """Processor time of this process per second of audio, since the heartbeat before; none where
    no audio was heard."""
    resident_bytes: int | None
    """Memory of this process, where the system tells it."""
    at: str | None = None


@dataclass(frozen=True)
class EndedEvent(HeartbeatEvent):
    """Listening ended. The counters are of the whole run, ``cpu_ms`` too."""

    type: ClassVar[str] = "ended"


def summary(total: EndedEvent, found: Counter[str]) -> str:
    """One line for people at the end; ``found``: detections of each keyword."""
    if not total.audio_seconds:
        return "no audio heard"
    each = ", ".join(f"{keyword} {count}" for keyword, count in found.most_common())
    trouble = f", {total.undelivered} events not delivered" if total.undelivered else ""
    share = (total.cpu_ms or 0.0) / 10
    return (
        f"listened for {total.audio_seconds:.1f} s, {total.detections} detections"
        f"{f' ({each})' if each else ''}, {total.gaps} gaps, {total.overflows} overflows, "
        f"{share:.1f} % CPU{trouble}"
    )


def timestamp() -> str:
    """Now, ISO 8601 in UTC to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(event: Event) -> str:
    """One JSON object without line breaks, ``type`` first. Floats are rounded to 4 digits.

    An ``at`` of None is left out. Non-ASCII text is escaped, so that any file name passes through
    any locale.
    """
    values = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    if values.get("at", "") is None:
        del values["at"]
    return _line(event.type, values)


def write_event(kind: str, **fields: Any) -> None:
    """Print what is told outside of a spotter's own events, in the form of :func:`to_json`."""
    print(_line(kind, fields), flush=True)


def _line(kind: str, fields: dict[str, Any]) -> str:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}
    return json.dumps({"type": kind, **rounded})
