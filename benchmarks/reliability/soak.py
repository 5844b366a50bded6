"""Hours of audio faster than real time: does memory stay flat, does time drift, is all detected?

The audio is a loop of recordings under noise that never repeats, made as it is needed. It goes
through the loop that ``earmark detect`` uses and through a connection to ``earmark wyoming``, and
what each detects is compared with one stream that the same audio was pushed into.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import read_audio, to_int16
from ...runtime.detect import TAIL_SECONDS
from ...runtime.engine import Detection, Engine
from ...runtime.errors import EarmarkError
from ...runtime.events import DetectionEvent, HeartbeatEvent
from ...runtime.process import resident_bytes
from ...runtime.sinks.sink import FanOut, JsonLines
from ...runtime.spotter import spot
from ...train.collect.speak import spoken
from ...train.data.audio_files import find_audio
from ...train.progress import progress
from ..machine import machine, machine_line
from .soak_state import State

PATHS = ("detect", "wyoming")
ONE_PASS = "one-pass"
MAX_HOURS = 1000.0
PAUSE_SECONDS = 1.0
NOISE_DB = -60.0
MINUTE = 60
MESSAGE_SAMPLES = 1280
"""Samples of a Wyoming audio message."""
WARM_UP = 0.1
"""Share of the run before which memory still settles."""
MAX_GROWTH_KB = 4000.0
"""Growth over the rest of it from which memory is not flat: over 24 h, 4 bytes for each chunk."""
LEAST_SECONDS = 3600.0
"""Audio of less does not tell growth from what still settles."""
SERVER = "import sys; from earmark.runtime.cli import main; sys.exit(main())"
TOLERANCE = 1e-6


class Audio:
    """So many seconds of audio in bounded memory, the same every time that it is iterated."""

    def __init__(self, loop: NDArray[np.int16], rate: int, seconds: int) -> None:
        """
        Args:
            loop: int16 [samples], repeated without end.
            rate: of the loop, Hz.
            seconds: length of the whole.
        """
        self._loop = loop
        self.rate = rate
        self.seconds = seconds

    @property
    def fingerprint(self) -> str:
        """Digest of all but the length."""
        digest = hashlib.sha256(f"{self.rate} {NOISE_DB}\n".encode())
        digest.update(self._loop.tobytes())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        """Blocks of one second, int16 [rate]."""
        places = np.arange(self.rate)
        level = 32768 * 10 ** (NOISE_DB / 20)
        for second in range(self.seconds):
            block = self._loop.take(second * self.rate + places, mode="wrap")
            noise = np.random.default_rng(second).standard_normal(self.rate, np.float32)
            yield np.clip(np.round(block + level * noise), -32768, 32767).astype(np.int16)


@dataclass
class Outcome:
    """What came of one way through which the audio went."""

    audio_seconds: float
    """Audio time at the last sample of memory, or that was sent."""
    detections: int = 0
    different: int = 0
    """Detections that the one-pass run has not, or that are missing, or differ in a value."""
    drift_ms: float = 0.0
    """Greatest difference of audio time from samples over rate."""
    resident_mb: float | None = None
    """Most memory of the process that listens, MB of 1e6 bytes; None where it is not told."""
    slope_kb_per_hour: float | None = None
    """Growth of that memory per hour of audio after the first tenth, least squares."""
    cpu_ms_per_second: float | None = None
    """Processor time of the process that listens per second of audio."""
    resident: list[int] = field(default_factory=list)
    """Bytes at every minute of audio."""

    @property
    def sound(self) -> bool:
        """Whether what had to be the same is, and memory as well."""
        hours = (1 - WARM_UP) * self.audio_seconds / 3600
        grown = (self.slope_kb_per_hour or 0) * hours
        flat = grown <= MAX_GROWTH_KB or self.audio_seconds < LEAST_SECONDS
        return not self.different and not self.drift_ms and self.detections > 0 and flat


def run(arguments: Namespace) -> int:
    """The verb ``soak``: exit status 1 where detections differ, there are none, time drifts or
    memory grows."""
    seconds = round(3600 * arguments.hours) if 0 < arguments.hours <= MAX_HOURS else 0
    if seconds < 1:
        raise EarmarkError(f"--hours {arguments.hours:g}: give more than 0, at most {MAX_HOURS:g}")
    found = machine()
    engine = Engine(arguments.model)
    paths = PATHS if arguments.path == "both" else (arguments.path,)
    audio = Audio(loop(engine, arguments.audio), engine.manifest.geometry.sample_rate, seconds)
    state = State.open(arguments.state, _settings(engine, audio, found))
    with _terminable(), progress("Soaking", (1 + len(paths)) * (seconds // MINUTE)) as done:
        outcomes = _outcomes(engine, audio, paths, state, done)
    if arguments.json:
        report = {
            "machine": found,
            "model": engine.path.name,
            "backend": engine.backend,
            "hours": arguments.hours,
            "audio": "recordings" if arguments.audio else "synthesized keywords",
            "paths": {path: asdict(outcome) for path, outcome in outcomes.items()},
        }
        print(json.dumps(report))
    else:
        _show(outcomes, found)
    return 0 if all(outcome.sound for outcome in outcomes.values()) else 1


def _outcomes(
    engine: Engine,
    audio: Audio,
    paths: Sequence[str],
    state: State,
    done: Callable[[int], None],
) -> dict[str, Outcome]:
    """Go through what ``state`` has not yet, and keep it there."""
    expected = [Detection(*values) for values in state.get(ONE_PASS) or ()]
    if expected:
        done(audio.seconds // MINUTE)
    else:
        expected = one_pass(engine, audio, done)
        state.put(ONE_PASS, expected)
    outcomes = {}
    for path in paths:
        kept = state.get(path)
        if kept is not None:
            outcomes[path] = Outcome(**kept)
            done(audio.seconds // MINUTE)
            continue
        if path == "detect":
            outcomes[path] = detect(engine, audio, expected, done)
        else:
            outcomes[path] = asyncio.run(wyoming(engine, audio, expected, done))
        state.put(path, asdict(outcomes[path]))
    return outcomes


def _settings(engine: Engine, audio: Audio, found: dict[str, Any]) -> dict[str, Any]:
    """What an outcome depends on."""
    return {
        "model": hashlib.sha256(engine.read()).hexdigest(),
        "backend": engine.backend,
        "audio": audio.fingerprint,
        "seconds": audio.seconds,
        "processor": found["cpu"],
        "versions": found["versions"],
    }


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM does what Ctrl-C does, so that no server is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def loop(engine: Engine, names: Sequence[str]) -> NDArray[np.int16]:
    """Recordings one after the other with pauses between, int16 [samples] at the model's rate.

    Args:
        engine: whose keywords are spoken by eSpeak NG where there are no recordings.
        names: audio files and folders of them.
    """
    rate = engine.manifest.geometry.sample_rate
    if names:
        files = [f for n in map(Path, names) for f in (find_audio(n) if n.is_dir() else [n])]
        recordings = [read_audio(file, rate) for file in files]
    else:
        recordings = [speech for _, speech in spoken(engine.manifest.keywords, rate)]
    pause = np.zeros(round(PAUSE_SECONDS * rate), np.float32)
    pieces = [piece for recording in recordings for piece in (pause, recording)]
    if not pieces:
        raise EarmarkError(f"{', '.join(names)}: no audio: name a folder that holds some")
    return to_int16(np.concatenate(pieces))


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
    """
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.ping import Ping
    from wyoming.wake import Detect
    from wyoming.wake import Detection as WakeDetection

    outcome = Outcome(0.0)
    rate = audio.rate
    before = os.times()
    command = (sys.executable, "-c", SERVER, "wyoming", "--model", str(engine.path))
    server = await asyncio.create_subprocess_exec(
        *command, "--uri", "tcp://127.0.0.1:0", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout
    try:
        line = await server.stdout.readline()
        if not line:
            raise EarmarkError("earmark wyoming: did not start")
        port = urlsplit(json.loads(line)["uri"]).port
        drain = asyncio.create_task(_drain(server.stdout))
        async with AsyncTcpClient("127.0.0.1", port or 0) as client:

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
                        sent += len(piece)
                    if second % MINUTE == 0:
                        size = resident_bytes(server.pid)
                        if size is not None:
                            outcome.resident.append(size)
                        done(1)
                outcome.audio_seconds = sent / rate
                await client.write_event(AudioStop().event())
                await client.write_event(Ping("end").event())

            async def receive() -> None:
                while (event := await client.read_event()) and event.type != "pong":
                    if not WakeDetection.is_type(event.type):
                        continue
                    place, outcome.detections = outcome.detections, outcome.detections + 1
                    found = WakeDetection.from_event(event)
                    if place >= len(expected) or found.name != expected[place].keyword:
                        outcome.different += 1
                        continue
                    drift = abs((found.timestamp or 0) - _timestamp(expected[place], rate))
                    outcome.drift_ms = max(outcome.drift_ms, float(drift))

            await asyncio.gather(send(), receive())
        server.terminate()
        await server.wait()
        await drain
    finally:
        with suppress(ProcessLookupError):
            server.kill()
        await server.wait()
    after = os.times()
    spent = sum(after[2:4]) - sum(before[2:4])  # of children
    outcome.cpu_ms_per_second = 1000 * spent / audio.seconds
    return _concluded(outcome, len(expected))


def slope(resident: Sequence[int]) -> float | None:
    """Growth in kB of 1000 bytes per hour of audio, by least squares.

    Args:
        resident: bytes at every minute; the first tenth is left out.
    """
    kept = np.array(resident[round(WARM_UP * len(resident)) :], np.float64)
    if len(kept) < 2:
        return None
    hours = np.arange(len(kept)) / 60
    return float(np.polyfit(hours, kept / 1000, 1)[0])


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


async def _drain(stream: asyncio.StreamReader) -> None:
    """What the server prints would otherwise hold it up."""
    while await stream.read(1 << 16):
        pass


def _show(outcomes: dict[str, Outcome], found: dict[str, Any]) -> None:
    from ..tables import show_table

    show_table(HEADS, [row(path, asdict(o)) for path, o in outcomes.items()], machine_line(found))


HEADS = (
    "path",
    "audio h",
    "detections",
    "different",
    "drift ms",
    "most memory MB",
    "growth kB per h",
    "CPU ms per s",
)


def row(path: str, outcome: dict[str, Any]) -> list[str]:
    """A line of the table, from the JSON form of an :class:`Outcome`."""

    def text(name: str, digits: int) -> str:
        value = outcome[name]
        return "-" if value is None else f"{value:,.{digits}f}"

    return [
        path,
        f"{outcome['audio_seconds'] / 3600:.2f}",
        text("detections", 0),
        text("different", 0),
        text("drift_ms", 3),
        text("resident_mb", 1),
        text("slope_kb_per_hour", 1),
        text("cpu_ms_per_second", 2),
    ]
