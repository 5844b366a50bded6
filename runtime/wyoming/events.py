"""What the server tells besides detections."""

from dataclasses import dataclass
from typing import ClassVar

from ..events import Event


@dataclass(frozen=True)
class ListeningEvent(Event):
    """Clients can connect."""

    type: ClassVar[str] = "listening"
    uri: str


@dataclass(frozen=True)
class ClientConnectedEvent(Event):
    """A client took a place."""

    type: ClassVar[str] = "client_connected"
    source: str
    """Its address; in all that is told of it."""


@dataclass(frozen=True)
class ClientDisconnectedEvent(Event):
    """A client left its place."""

    type: ClassVar[str] = "client_disconnected"
    source: str
    reason: str
    heard: float
    """Seconds of audio."""


@dataclass(frozen=True)
class ClientRefusedEvent(Event):
    """A client was turned away."""

    type: ClassVar[str] = "client_refused"
    source: str
    reason: str
