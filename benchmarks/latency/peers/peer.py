"""What a peer is, and where peers are found.

A package adds one by an entry point of the group ``earmark.peers`` that names a :class:`Peer`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "earmark.peers"
RATE = 16_000
CHUNK = 1280
"""Samples that a peer is given at a time where it takes any number."""

Push = Callable[[bytes], object]
"""Takes the bytes of int16 [block] at 16 kHz and decides. Bytes, so that a peer that does without
numpy is measured without it."""


@dataclass(frozen=True)
class Peer:
    """Another program that listens."""

    name: str
    job: str
    """What it decides."""
    distribution: str
    module: str
    """What it is imported as."""
    load: Callable[[], Push]
    """Makes it ready, on one thread where it lets one choose. Its imports are inside."""
    block: int = CHUNK
    """Samples that it takes at a time."""
    decisions: int = 1
    """Decisions that it makes in a block."""
    precision: str = "float32"
    mode: str = "C"
    """What runs it."""


def peers() -> "dict[str, EntryPoint]":
    """All that are registered, by name. None is loaded: one that cannot be is to be in the way of
    no other."""
    # Here, since a cold start of a peer imports this module.
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point for point in points}
