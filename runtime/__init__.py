"""The spotter itself. It needs numpy and onnxruntime and imports no other stage."""

from typing import TYPE_CHECKING

from .errors import EarmarkError

if TYPE_CHECKING:
    from .audio import read_audio, read_blocks
    from .engine import Detection, Engine, Scorer, Stream
    from .manifest import Decision, Geometry, Manifest

__all__ = [
    "Decision",
    "Detection",
    "EarmarkError",
    "Engine",
    "Geometry",
    "Manifest",
    "Scorer",
    "Stream",
    "read_audio",
    "read_blocks",
]

_MODULES = {
    "Decision": "manifest",
    "Detection": "engine",
    "Engine": "engine",
    "Geometry": "manifest",
    "Manifest": "manifest",
    "Scorer": "engine",
    "Stream": "engine",
    "read_audio": "audio",
    "read_blocks": "audio",
}


def __getattr__(name: str) -> object:
    """Import what is asked for: onnxruntime takes longer to load than most commands to run."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
