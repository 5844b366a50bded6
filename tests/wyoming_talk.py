"""What clients of the Wyoming protocol say to a server."""

import asyncio
from collections.abc import Iterator

import numpy as np
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming.ping import Ping
from wyoming.wake import Detect, Detection


def chunks(
    pcm: np.ndarray, samples: int = 160, timestamp: int | None = None
) -> Iterator[AudioChunk]:
    for start in range(0, len(pcm), samples):
        at = None if timestamp is None else timestamp + start // 16
        yield AudioChunk(16000, 2, 1, pcm[start : start + samples].tobytes(), at)


async def listen_to(
    client: AsyncClient, audio: Iterator[AudioChunk], names: list[str] | None = None
) -> list[Event]:
    """Send a stream and return all that is answered up to its end, and a ping's answer."""
    found: list[Event] = []

    async def send() -> None:
        await client.write_event(Detect(names).event())
        await client.write_event(AudioStart(16000, 2, 1).event())
        for chunk in audio:
            await client.write_event(chunk.event())
        await client.write_event(AudioStop().event())
        await client.write_event(Ping("end").event())

    async def receive() -> None:
        while (event := await client.read_event()) and event.type != "pong":
            found.append(event)

    await asyncio.gather(send(), receive())
    return found


def heard(events: list[Event]) -> list[tuple[str | None, int | None]]:
    found = [Detection.from_event(event) for event in events if Detection.is_type(event.type)]
    return [(detection.name, detection.timestamp) for detection in found]
