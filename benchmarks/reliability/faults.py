"""Faults made one by one: what the user sees of each, and what is lost."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from ...runtime import spotter as spotter_module
from ...runtime.detect import TAIL_SECONDS
from ...runtime.engine import Engine
from ...runtime.events import DetectionEvent, EndedEvent, Event, GapEvent
from ...runtime.sinks.mqtt import Broker, Mqtt
from ...runtime.sinks.sink import LogFile, Sink
from ...runtime.sources import Piece
from ...runtime.spotter import Spotter
from ...runtime.stream import Detection
from ...train.progress import progress
from ..machine import machine, machine_line
from .faulty_source import Fault, FaultySource
from .server import EXIT_SECONDS, PROGRAM, serving
from .soak_audio import Audio, loop

SECONDS = 36
AT = 10.0
"""Seconds of audio before a fault."""
SAME_SECONDS = 0.75
"""Of two detections of a keyword, so far apart at most: after a gap of unknown length, times are
half a second earlier. A keyword is not told twice within 0.8 s, the refractory time of a recipe."""
FULL = Path("/dev/full")


@dataclass(frozen=True)
class Row:
    """What came of one fault."""

    fault: str
    sees: tuple[str, ...]
    """Events other than detections, in their order, and lines for people."""
    lost_ms: float | None
    """Audio that was not heard, as far as it was told; None where audio plays no part."""
    lost_detections: int
    """Detections that there are without the fault, and not with it."""
    new_detections: int = 0
    """Detections that there are with the fault, and not without it."""
    undelivered: int = 0
    """Events that a sink could not deliver."""


@dataclass(frozen=True)
class Bench:
    """The audio, and what is detected in it without a fault."""

    engine: Engine
    audio: Audio
    expected: Sequence[Detection]

    @classmethod
    def open(cls, model: str | None, names: Sequence[str]) -> "Bench":
        """A model with recordings, or its keywords synthesized."""
        engine = Engine(model)
        audio = Audio(loop(engine, names), engine.manifest.geometry.sample_rate, SECONDS)
        stream = engine.stream()
        found = [d for block in audio for d in stream.push(block)] + stream.flush(TAIL_SECONDS)
        return cls(engine, audio, found)

    def hear(self, source: Iterator[Piece] | FaultySource | Audio) -> list[Event]:
        """What is told of a source; the summary is the last."""
        spotter = Spotter(self.engine.stream(), FaultySource(self.audio, []), "faults", live=True)
        events = [event for piece in source for event in spotter.take(piece)]
        return [*events, *spotter.finish(TAIL_SECONDS), spotter.ended()]

    def row(self, fault: str, events: Sequence[Event], notes: Sequence[str] = ()) -> Row:
        """The table's line for what was told."""
        lost, new = self.differ(
            [(e.keyword, e.time) for e in events if isinstance(e, DetectionEvent)]
        )
        others = [e.type for e in events if not isinstance(e, DetectionEvent | EndedEvent)]
        gone = sum(event.seconds for event in events if isinstance(event, GapEvent))
        return Row(fault, (*others, *notes), round(1000 * gone, 1), lost, new)

    def differ(self, found: Sequence[tuple[str, float]]) -> tuple[int, int]:
        """How many detections are lost, and how many new, of so many keywords and times."""
        left, new = [(detection.keyword, detection.time) for detection in self.expected], 0
        for keyword, time in found:
            near = [one for one in left if one[0] == keyword and abs(one[1] - time) < SAME_SECONDS]
            if near:
                left.remove(near[0])
            new += not near
        return len(left), new


def run(arguments: Namespace) -> int:
    """The verb ``faults``."""
    found = machine()
    bench = Bench.open(arguments.model, arguments.audio)
    rows = measure(bench)
    if arguments.json:
        report = {
            "machine": found,
            "model": bench.engine.path.name,
            "backend": bench.engine.backend,
            "faults": [asdict(row) for row in rows],
        }
        print(json.dumps(report))
    else:
        from ..tables import show_table

        show_table(HEADS, [cells(asdict(row)) for row in rows], machine_line(found))
    return 0


def measure(bench: Bench) -> list[Row]:
    """Make every fault that this system can make."""
    steps: list[Callable[[Bench], Row]] = [
        *(_source_fault(name, fault) for name, fault in SOURCE_FAULTS.items()),
        _clock_jump,
        _broker_down,
        *([_disk_full] if FULL.exists() else []),
        _client_gone,
        *([_terminated] if sys.platform != "win32" else []),
    ]
    rows = []
    with progress("Making faults", len(steps)) as done:
        for step in steps:
            rows.append(step(bench))
            done(1)
    return rows


SOURCE_FAULTS = {
    "overflow, half a second": Fault(round(AT * 16000), "overflow", 8000),
    "gap of unknown length, half a second": Fault(round(AT * 16000), "overflow", 8000, told=0),
    "unplugged and back after 2 s": Fault(round(AT * 16000), "unplug", 32000),
    "back after 1 s at 44.1 kHz": Fault(round(AT * 16000), "unplug", 16000, rate=44100),
    "buffer without samples": Fault(round(AT * 16000), "empty"),
    "buffers of NaN, half a second": Fault(round(AT * 16000), "nan", 8000),
}
"""Each at one place of the audio."""


def _source_fault(name: str, fault: Fault) -> Callable[[Bench], Row]:
    return lambda bench: bench.row(name, bench.hear(FaultySource(bench.audio, [fault])))


def _clock_jump(bench: Bench) -> Row:
    """The clock on the wall goes back an hour at every look."""
    hours = iter(range(10**6, 0, -1))
    with (
        mock.patch("time.time", lambda: 3600.0 * next(hours)),
        mock.patch.object(spotter_module, "timestamp", lambda: f"hour {next(hours)}"),
    ):
        events = bench.hear(bench.audio)
    same = [e.time for e in events if isinstance(e, DetectionEvent)] == [
        detection.time for detection in bench.expected
    ]
    note = "`at` jumps; audio time does not" if same else "audio time differs"
    return bench.row("clock set back while listening", events, [note])


def _broker_down(bench: Bench) -> Row:
    with socket.socket() as unused:
        # Bound and not listening: nobody else can take the port.
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        notes: list[str] = []
        sink = Mqtt(Broker("127.0.0.1", port), notes.append)
        return _through(bench, "MQTT broker down", sink, notes, str(port))


def _disk_full(bench: Bench) -> Row:
    notes: list[str] = []
    return _through(bench, "disk of the log full", LogFile(FULL, notes.append), notes)


def _through(bench: Bench, fault: str, sink: Sink, notes: list[str], port: str = "") -> Row:
    events = bench.hear(bench.audio)
    for event in events:
        sink.send(event)
    sink.close()
    told = [note.replace(port, "PORT") if port else note for note in dict.fromkeys(notes)]
    row = bench.row(fault, events, told)
    return replace(row, undelivered=sink.undelivered)


def _client_gone(bench: Bench) -> Row:
    """A client leaves within a message; another is served by the same server."""
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.event import Event as Message
    from wyoming.ping import Ping
    from wyoming.wake import Detect

    async def converse() -> tuple[list[Message], int | None]:
        found = []
        async with serving(bench.engine.path) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b'{"type": "audio-chunk", "payload_length": 640}\n' + bytes(100))
            await writer.drain()
            writer.close()
            async with AsyncTcpClient("127.0.0.1", server.port) as client:
                rate = bench.audio.rate
                await client.write_event(Detect().event())
                await client.write_event(AudioStart(rate, 2, 1).event())
                for block in bench.audio:
                    await client.write_event(AudioChunk(rate, 2, 1, block.tobytes()).event())
                    server.sent_seconds += len(block) / rate
                await client.write_event(AudioStop().event())
                await client.write_event(Ping("end").event())
                while (event := await client.read_event()) and event.type != "pong":
                    found.append(event)
        return found, server.process.returncode

    found, status = asyncio.run(converse())
    told = [event.data for event in found if event.type == "detection"]
    # The time of a message, which here is a second long.
    lost, new = bench.differ([(one["name"], one["timestamp"] / 1000 + 0.5) for one in told])
    sees = ("the next client is served", f"exit status {status} at SIGTERM")
    return Row("Wyoming client gone within a message", sees, None, lost, new)


def _terminated(bench: Bench) -> Row:
    """SIGTERM to ``earmark detect -`` after half of the audio was heard."""
    process = subprocess.Popen(
        [*PROGRAM, "detect", "--model", str(bench.engine.path), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    heard: list[NDArray[np.int16]] = list(islice(bench.audio, SECONDS // 2))
    # A second later, so that no chunk is missing that a detection waits for.
    sure = [d for d in bench.expected if d.time < len(heard) - 1]
    process.stdin.write(np.concatenate(heard).tobytes())
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in sure]
    process.send_signal(signal.SIGTERM)
    # Before its input is closed, so that it is not that which ends it.
    process.wait(timeout=EXIT_SECONDS)
    out, err = process.communicate()
    whole = [json.loads(line) for line in [*lines, *out.splitlines()]]
    found = sum(event["type"] == "detection" for event in whole)
    sees = [event["type"] for event in whole if event["type"] != "detection"]
    sees += [f"{len(err.splitlines())} line for people", f"exit status {process.returncode}"]
    return Row("SIGTERM to `detect -`", tuple(sees), None, max(0, len(sure) - found))


HEADS = ("fault", "the user sees", "audio lost", "detections lost", "events undelivered")


def cells(row: dict) -> list[str]:
    """A line of the table, from the JSON form of a :class:`Row`."""
    return [
        row["fault"],
        "; ".join(row["sees"]) or "nothing",
        "-" if row["lost_ms"] is None else f"{row['lost_ms']:g} ms",
        f"{row['lost_detections']}" + (f", {new} new" if (new := row["new_detections"]) else ""),
        str(row["undelivered"]),
    ]
