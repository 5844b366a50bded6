"""Messages of the Wyoming protocol as they arrive, with a bound on everything that a peer says.

The ``wyoming`` package reads as many bytes as a header promises, so its reader is for peers that
are trusted. Here a payload is left on the wire, for the caller to take in pieces.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import EarmarkError

MAX_LINE = 1 << 16
"""Most bytes of a header; the limit of the stream reader."""
MAX_DATA = 1 << 16
MAX_PAYLOAD = 1 << 24
MAX_TYPE = 100


@dataclass(frozen=True)
class Message:
    """What comes before a payload."""

    type: str
    data: dict[str, Any]
    payload: int
    """Bytes that follow and must be read before the next message."""


async def read_message(
    reader: asyncio.StreamReader, begun: Callable[[], None] = lambda: None
) -> Message | None:
    """Read up to the payload; None where the peer has closed the connection between messages.

    Args:
        reader: with ``MAX_LINE`` as its limit.
        begun: called once the first byte is there.

    Raises:
        EarmarkError: this is no message, or it is larger than anything that is meant here.
        asyncio.IncompleteReadError: the peer has gone within a message.
    """
    line = await reader.read(1)
    if not line:
        return None
    begun()
    try:
        if line != b"\n":
            line += await reader.readline()
    except ValueError as error:
        raise EarmarkError(f"a header of more than {MAX_LINE} bytes") from error
    if not line.endswith(b"\n"):
        raise asyncio.IncompleteReadError(line, None)
    header = _object(line, "header")
    kind = header.get("type")
    if not isinstance(kind, str) or not 0 < len(kind) <= MAX_TYPE:
        raise EarmarkError("a header without a type")
    data = header.get("data") or {}
    if not isinstance(data, dict):
        raise EarmarkError("a header whose data is no object")
    length = _length(header, "data_length", MAX_DATA)
    if length:
        data = data | _object(await reader.readexactly(length), "data")
    return Message(kind, data, _length(header, "payload_length", MAX_PAYLOAD))


def integer(data: dict[str, Any], name: str, default: int | None = None) -> int:
    """A field of a message.

    Raises:
        EarmarkError: it is no integer of 64 bits, or it is missing and there is no default.
    """
    value = data.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise EarmarkError(f"a message whose {name} is no integer")
    return value


def string(data: dict[str, Any], name: str) -> str | None:
    """A field of a message that may be missing.

    Raises:
        EarmarkError: it is no text, or one that cannot be sent.
    """
    value = data.get(name)
    try:
        if not isinstance(value, str | None):
            raise ValueError(name)
        (value or "").encode()  # half a surrogate pair cannot be
    except ValueError as error:
        raise EarmarkError(f"a message whose {name} is no text") from error
    return value


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EarmarkError(f"a {what} that is not JSON") from error
    if not isinstance(found, dict):
        raise EarmarkError(f"a {what} that is no JSON object")
    return found


def _length(header: dict[str, Any], name: str, limit: int) -> int:
    value = integer(header, name, 0)
    if not 0 <= value <= limit:
        raise EarmarkError(f"a header with {name} {value}: expected 0 to {limit}")
    return value
