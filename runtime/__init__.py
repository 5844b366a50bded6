"""The spotter itself. It needs numpy, runs models by compiled code of its own or by onnxruntime
where there is one, and imports no other stage."""

from typing import TYPE_CHECKING

from .errors import EarmarkError

if TYPE_CHECKING:
    from .audio import read_audio, read_blocks
    from .engine import Engine
    from .events import (
        DetectionEvent,
        DeviceBackEvent,
        DeviceLostEvent,
        EndedEvent,
        Event,
        GapEvent,
        HeartbeatEvent,
        to_json,
    )
    from .manifest import Decision, Geometry, Manifest
    from .microphone.microphone import Microphone
    from .scorer import Scorer
    from .sources import FileSource, RawSource
    from .spotter import spot, spot_async, spotting
    from .stream import Detection, Stream

__all__ = [
    "Decision",
    "Detection",
    "DetectionEvent",
    "DeviceBackEvent",
    "DeviceLostEvent",
    "EarmarkError",
    "EndedEvent",
    "Engine",
    "Event",
    "FileSource",
    "GapEvent",
    "Geometry",
    "HeartbeatEvent",
    "Manifest",
    "Microphone",
    "RawSource",
    "Scorer",
    "Stream",
    "read_audio",
    "read_blocks",
    "spot",
    "spot_async",
    "spotting",
    "to_json",
]

_MODULES = {
    "Decision": "manifest",
    "Detection": "stream",
    "DetectionEvent": "events",
    "DeviceBackEvent": "events",
    "DeviceLostEvent": "events",
    "EndedEvent": "events",
    "Engine": "engine",
    "Event": "events",
    "FileSource": "sources",
    "GapEvent": "events",
    "Geometry": "manifest",
    "HeartbeatEvent": "events",
    "Manifest": "manifest",
    "Microphone": "microphone.microphone",
    "RawSource": "sources",
    "Scorer": "scorer",
    "Stream": "stream",
    "read_audio": "audio",
    "read_blocks": "audio",
    "spot": "spotter",
    "spot_async": "spotter",
    "spotting": "spotter",
    "to_json": "events",
}


def __getattr__(name: str) -> object:
    """Import what is asked for: numpy takes longer to load than some commands to run."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
