"""The ways that a soak's audio takes, each compared with one stream that it is pushed into."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from ...runtime.detect import TAIL_SECONDS
from ...runtime.engine import Engine
from ...runtime.events import DetectionEvent, HeartbeatEvent
from ...runtime.process import resident_bytes
from ...runtime.sinks.sink import FanOut, JsonLines
from ...runtime.spotter import spot
from ...runtime.stream import Detection
from .server import serving
from .soak_audio import Audio
from .soak_outcome import Outcome, slope

MINUTE = 60
MESSAGE_SAMPLES = 1280
"""Samples of a Wyoming audio message."""
TOLERANCE = 1e-6


def one_pass(
    engine: Engine, audio: Audio, done: Callable[[int], None] = lambda minutes: None
) -> list[Detection]:
    """What a stream detects that is given the audio by the minute."""
    stream = engine.stream()
    found: list[Detection] = []
    blocks = iter(audio)
    while minute := list(islice(blocks, MINUTE)):
        found += stream.push(np.concatenate(minute))
        done(len(minute) // MINUTE)
    return found + stream.flush(TAIL_SECONDS)


def detect(
    engine: Engine,
    audio: Audio,
    expected: Sequence[Detection],
    done: Callable[[int], None] = lambda minutes: None,
) -> Outcome:
    """The loop of ``earmark detect`` with a heartbeat each minute."""
    outcome = Outcome(0.0)
    events = spot(engine.stream(), audio, "soak", tail=TAIL_SECONDS, heartbeat=MINUTE)
    begin = time.process_time()
    with Path(os.devnull).open("wb") as file, closing(FanOut([JsonLines(file)])) as sinks:
        for event in events:
            sinks.send(event)
            if isinstance(event, DetectionEvent):
                same = outcome.detections < len(expected) and _same(
                    event, expected[outcome.detections]
                )
                outcome.different += not same
                outcome.detections += 1
            elif isinstance(event, HeartbeatEvent):
                outcome.audio_seconds = event.time
                drift = 1000 * abs(event.time - event.audio_seconds)
                outcome.drift_ms = max(outcome.drift_ms, drift)
                if event.resident_bytes:
                    outcome.resident.append(event.resident_bytes)
                done(1)
    outcome.cpu_ms_per_second = 1000 * (time.process_time() - begin) / audio.seconds
    return _concluded(outcome, len(expected))


async def wyoming(
    engine: Engine,
    audio: Audio,
    expected: Sequence[Detection],
    done: Callable[[int], None] = lambda minutes: None,
) -> Outcome:
    """A connection to ``earmark wyoming`` in a process of its own.

    The protocol tells of a detection by its keyword and the timestamp of the audio message that it
    came in, so that this is what is compared; scores do not pass the wire.

    Raises:
        EarmarkError: it does not start, or ends before it is asked to.
    """
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.ping import Ping
    from wyoming.wake import Detect
    from wyoming.wake import Detection as WakeDetection

    outcome = Outcome(0.0)
    rate = audio.rate
    before = os.times()
    async with (
        serving(engine.path) as server,
        AsyncTcpClient("127.0.0.1", server.port) as client,
    ):

        async def send() -> None:
            await client.write_event(Detect().event())
            await client.write_event(AudioStart(rate, 2, 1).event())
            rest, sent = np.zeros(0, np.int16), 0
            for second, block in enumerate(audio, 1):
                rest = np.append(rest, block)
                while len(rest) >= MESSAGE_SAMPLES or (len(rest) and second == audio.seconds):
                    piece, rest = rest[:MESSAGE_SAMPLES], rest[MESSAGE_SAMPLES:]
                    message = AudioChunk(rate, 2, 1, piece.tobytes(), 1000 * sent // rate)
                    await client.write_event(message.event())
                    # A server that keeps up never makes this wait, and its output must be read.
                    await asyncio.sleep(0)
                    sent += len(piece)
                server.sent_seconds = sent / rate
                if second % MINUTE == 0:
                    size = resident_bytes(server.process.pid)
                    if size is not None:
                        outcome.resident.append(size)
                    done(1)
            await client.write_event(AudioStop().event())
            await client.write_event(Ping("end").event())

        async def receive() -> None:
            while event := await client.read_event():
                if event.type == "pong":
                    return
                if not WakeDetection.is_type(event.type):
                    continue
                place, outcome.detections = outcome.detections, outcome.detections + 1
                found = WakeDetection.from_event(event)
                if place >= len(expected) or found.name != expected[place].keyword:
                    outcome.different += 1
                    continue
                drift = abs((found.timestamp or 0) - _timestamp(expected[place], rate))
                outcome.drift_ms = max(outcome.drift_ms, float(drift))
            raise EOFError("no answer to the last message")

        await asyncio.gather(send(), receive())
    outcome.audio_seconds = server.sent_seconds
    after = os.times()
    spent = sum(after[2:4]) - sum(before[2:4])  # of children
    outcome.cpu_ms_per_second = 1000 * spent / audio.seconds
    return _concluded(outcome, len(expected))


def _concluded(outcome: Outcome, expected: int) -> Outcome:
    outcome.different += max(0, expected - outcome.detections)
    outcome.slope_kb_per_hour = slope(outcome.resident)
    outcome.resident_mb = max(outcome.resident) / 1e6 if outcome.resident else None
    return outcome


def _same(event: DetectionEvent, expected: Detection) -> bool:
    return (
        event.keyword == expected.keyword
        and abs(event.time - expected.time) < TOLERANCE
        and abs(event.score - expected.score) < TOLERANCE
    )


def _timestamp(detection: Detection, rate: int) -> int:
    """Milliseconds at the start of the message that the step ends in."""
    message = (round(detection.time * rate) - 1) // MESSAGE_SAMPLES
    return 1000 * message * MESSAGE_SAMPLES // rate
