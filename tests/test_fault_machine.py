"""Faults in random order: of the device and of the sinks around one spotter, of the clock, of a
Wyoming client beside others, and the end at any point."""

import asyncio
import json
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import fake_sounddevice
import numpy as np
import pytest
import toy_model
from earmark.runtime import DetectionEvent, EndedEvent, Engine, Event, GapEvent, spot
from earmark.runtime import events as events_module
from earmark.runtime.audio import make_resampler
from earmark.runtime.microphone.capture import Capture
from earmark.runtime.microphone.portaudio import choose
from earmark.runtime.sinks.exec import Exec
from earmark.runtime.sinks.mqtt import Broker, Mqtt
from earmark.runtime.sinks.sink import FanOut, LogFile, Queued
from earmark.runtime.sources import DeviceBack, DeviceLost, Gap, Piece
from earmark.runtime.spotter import Spotter
from earmark.runtime.stop import Stop
from earmark.runtime.wyoming.models import Model
from earmark.runtime.wyoming.server import Server
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from wyoming.audio import AudioChunk
from wyoming.client import AsyncUnixClient
from wyoming_talk import chunks, heard, listen_to

RATE = 16000
ENGINE: Engine | None = None
FULL = Path("/dev/full")
SOUNDS = {"low": toy_model.LOW_HZ, "high": toy_model.HIGH_HZ}
LOST = st.integers(0, 2 * RATE)
RATES = (16000, 44100, 48000)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIMEOUT_SECONDS = 60.0


def engine() -> Engine:
    """One for all runs of the machine, which takes no fixtures."""
    global ENGINE
    if ENGINE is None:
        with TemporaryDirectory() as folder:
            ENGINE = Engine(toy_model.save(Path(folder) / "toy.onnx"))
    return ENGINE


class Device:
    """PortAudio's callback, its ring and the conversion, as :class:`Microphone` uses them."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.system = fake_sounddevice.FakeSoundDevice()
        self.system.plugged = [fake_sounddevice.device("machine", 1, float(rate))]
        self.system._initialize()
        self.system.default.device = [0, 0]
        with mock.patch.dict(sys.modules, sounddevice=self.system):
            self.capture = Capture(choose(None), 0)
        self.start_anew()

    def start_anew(self) -> None:
        """After a loss, no audio from before it may come."""
        self.resampler = None if self.rate == RATE else make_resampler(self.rate, RATE)

    def hear(self, pcm: np.ndarray) -> Iterator[np.ndarray]:
        """Audio at 16 kHz, int16, as it comes from a device with a rate of its own."""
        if self.resampler is not None:
            around = make_resampler(RATE, self.rate)
            pcm = around.resample_chunk(pcm.astype(np.float32), last=True).astype(np.int16)
        for start in range(0, len(pcm), self.rate // 10):
            self.system.opened[-1].deliver(pcm[start : start + self.rate // 10, None])
            piece, gap = self.capture.read(0)
            assert gap is None
            yield piece if self.resampler is None else self.resampler.resample_chunk(piece)

    def close(self) -> None:
        self.capture.close()


class Satellites:
    """A Wyoming server with a client that stays, on an event loop that runs when it is asked to."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/s"
        self.loop = asyncio.new_event_loop()
        model = engine()
        self.server = Server([Model(model, model.manifest.decision, 4)], 4, 600.0, FanOut([]))
        self.task = self.loop.create_task(self.server.serve(f"unix://{self.path}"))
        self.run(self.begin())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, TIMEOUT_SECONDS))

    async def begin(self) -> None:
        while not Path(self.path).exists():
            await asyncio.sleep(0)
        self.client = AsyncUnixClient(self.path)
        await self.client.connect()

    async def lose_one(self, sound: np.ndarray, cut: int) -> list[Any]:
        """Another client goes within a message while the one that stays sends a word."""
        _, other = await asyncio.open_unix_connection(self.path)
        message = b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, '
        message += b'"payload_length": 640}\n' + bytes(640)

        def audio() -> Iterator[AudioChunk]:
            parts = [*chunks(sound, 1280)]
            yield from parts[: len(parts) // 2]
            other.write(message[:cut])
            other.close()
            yield from parts[len(parts) // 2 :]

        return await listen_to(self.client, audio())

    def close(self) -> None:
        async def end() -> None:
            await self.client.disconnect()
            self.server.stop()
            await self.task

        self.run(end())
        self.loop.close()
        assert self.server._places == 4


class Faults(RuleBasedStateMachine):
    """A model of what must be told: samples, losses and words, beside the spotter that tells."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = NOON
        machine = self

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return machine.clock

        self.patch = mock.patch.object(events_module, "datetime", Clock)
        self.patch.start()
        self.threads = set(threading.enumerate())
        self.folder = TemporaryDirectory()
        self.log = Path(self.folder.name) / "log"
        # Bound and not listening: there is no broker, and nobody else can take the port.
        self.unused = socket.socket()
        self.unused.bind(("127.0.0.1", 0))
        self.notes: list[str] = []
        self.log_sink = LogFile(self.log, self.notes.append)
        broker = Broker("127.0.0.1", self.unused.getsockname()[1])
        self.mqtt = Mqtt(broker, self.notes.append)
        self.exec = Exec("true", self.notes.append)
        self.sinks = FanOut([self.log_sink, Queued(self.exec, waits=lambda: True), self.mqtt])
        self.stream = engine().stream()
        self.device = Device(RATE)
        self.satellites = Satellites(self.folder.name)
        self.full = False
        self.missing = self.written = 0
        self.told: list[str] = []
        self.expected: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A run of the program, which ends with :meth:`terminate`."""
        self.spotter = Spotter(self.stream, iter(()), "machine", live=True)  # type: ignore[arg-type]
        self.samples = self.lost = self.gaps = 0
        self.before = 0.0
        self.away = False
        self.words: list[str] = []
        self.invalid = False

    def take(self, piece: Piece) -> list[Event]:
        events = self.spotter.take(piece)
        self.deliver(events)
        return events

    def deliver(self, events: list[Event]) -> None:
        for event in events:
            assert event.at == self.clock.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self.sinks.send(event)
            self.sinks.check()
            self.told.append(event.type)
            if self.full:
                self.missing += 1
            else:
                self.written += 1

    def hear(self, pcm: np.ndarray) -> list[str]:
        """Audio as a device gives it: the keywords that are detected."""
        found = []
        for piece in self.device.hear(pcm):
            if len(piece):  # a conversion gives nothing at first
                self.invalid = False
            events = self.take(piece)
            found += [event.keyword for event in events if isinstance(event, DetectionEvent)]
            self.samples += len(piece)
        self.expected += ["detection"] * len(found)
        return found

    @precondition(lambda self: not self.away)
    @rule(keyword=st.sampled_from(sorted(SOUNDS)))
    def say(self, keyword: str) -> None:
        """A word between pauses, which no fault touches, is detected once."""
        pause = np.zeros(RATE, np.int16)
        assert self.hear(np.concatenate([pause, toy_model.tone(SOUNDS[keyword], 0.5), pause])) == [
            keyword
        ]
        self.words.append(keyword)

    @precondition(lambda self: not self.away)
    @rule(samples=st.integers(1, RATE))
    def be_quiet(self, samples: int) -> None:
        assert self.hear(np.zeros(samples, np.int16)) == []

    @precondition(lambda self: not self.away)
    @rule(keyword=st.sampled_from(sorted(SOUNDS)), lost=LOST)
    def lose_audio_within_a_word(self, keyword: str, lost: int) -> None:
        sound = toy_model.tone(SOUNDS[keyword], 0.5)
        found = self.hear(np.append(np.zeros(RATE, np.int16), sound[:4000]))
        self.gap(Gap(lost), lost, "lost")
        found += self.hear(np.append(sound[4000:], np.zeros(RATE, np.int16)))
        assert found in ([], [keyword], [keyword, keyword])
        self.words += found

    @precondition(lambda self: not self.away)
    @rule(lost=LOST)
    def overflow(self, lost: int) -> None:
        self.gap(Gap(lost), lost, "lost")

    @precondition(lambda self: not self.away)
    @rule(samples=st.integers(1, RATE), value=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]))
    def give_no_numbers(self, samples: int, value: float) -> None:
        piece = np.full(samples, value, np.float32)
        if self.invalid:  # a run of such pieces is told once
            assert self.take(piece) == []
            self.lost += samples
        else:
            self.gap(piece, samples, "invalid")
        self.invalid = True

    @rule(kind=st.sampled_from([np.int16, np.float32]))
    def give_nothing(self, kind: type) -> None:
        assert self.take(np.zeros(0, kind)) == []

    @precondition(lambda self: not self.away)
    @rule()
    def unplug(self) -> None:
        (event,) = self.take(DeviceLost("machine", "unplugged"))
        assert event.time == self.spotter.seconds
        self.expected.append("device_lost")
        self.away = True

    @precondition(lambda self: self.away)
    @rule(lost=LOST, rate=st.sampled_from(RATES))
    def replug(self, lost: int, rate: int) -> None:
        self.device.close()
        self.device = Device(rate)
        (event,) = self.take(DeviceBack("machine", lost / RATE))
        assert event.type == "device_back"
        self.expected.append("device_back")
        self.away = False
        self.gap(Gap(lost), lost, "lost")

    @precondition(lambda self: not self.full and FULL.exists())
    @rule()
    def fill_the_disk(self) -> None:
        self.log.rename(self.log.with_suffix(".old"))
        self.log.symlink_to(FULL)
        self.full = True

    @precondition(lambda self: self.full)
    @rule()
    def empty_the_disk(self) -> None:
        self.log.unlink()
        self.log.with_suffix(".old").rename(self.log)
        self.full = False

    @rule(hours=st.integers(-100_000, 100_000))
    def set_the_clock(self, hours: int) -> None:
        self.clock = NOON + timedelta(hours=hours)

    @rule(keyword=st.sampled_from(sorted(SOUNDS)), cut=st.integers(1, 700))
    def lose_a_wyoming_client_within_a_message(self, keyword: str, cut: int) -> None:
        pause = np.zeros(RATE, np.int16)
        sound = np.concatenate([pause, toy_model.tone(SOUNDS[keyword], 0.5), pause])
        found = self.satellites.run(self.satellites.lose_one(sound, cut))
        assert [name for name, _ in heard(found)] == [keyword]

    @rule()
    def terminate(self) -> None:
        """All that was heard is told when the end comes, then a summary; the next run begins."""
        decided = self.spotter.finish()
        assert decided == []
        ended = self.spotter.ended()
        assert (ended.audio_seconds, ended.gaps) == (self.samples / RATE, self.gaps)
        assert ended.time == pytest.approx((self.samples + self.lost) / RATE, abs=1e-9)
        assert (ended.detections, ended.listening) == (len(self.words), not self.away)
        self.expected.append("ended")
        self.deliver([ended])
        self.begin()

    def gap(self, piece: Piece, samples: int, reason: str) -> None:
        """A loss is told once, at the audio time where it begins."""
        self.device.start_anew()
        self.gaps += 1
        time = self.spotter.seconds
        (event,) = self.take(piece)
        assert isinstance(event, GapEvent)
        assert (event.time, event.reason) == (time, reason)
        assert event.seconds == samples / RATE
        self.expected.append("gap")
        self.lost += samples

    @invariant()
    def time_is_of_samples_and_losses(self) -> None:
        assert self.spotter.seconds == pytest.approx((self.samples + self.lost) / RATE, abs=1e-9)
        assert self.spotter.seconds >= self.before
        self.before = self.spotter.seconds

    @invariant()
    def all_is_told_once(self) -> None:
        assert self.told == self.expected
        assert self.spotter.found.total() == len(self.words)
        assert self.log_sink.undelivered == self.missing
        lines = self.log.with_suffix(".old") if self.full else self.log
        assert lines.read_bytes().count(b"\n") == self.written

    def teardown(self) -> None:
        self.deliver(self.spotter.finish(0.5))
        self.mqtt._backlog.clear()  # nobody will take it; closing would wait for that
        self.sinks.finish(lambda: False)
        self.sinks.close()
        self.unused.close()
        self.device.close()
        self.satellites.close()
        self.folder.cleanup()
        self.patch.stop()
        assert self.exec.undelivered == 0
        left = [t.name for t in threading.enumerate() if t not in self.threads and t.is_alive()]
        assert left == []
        broker_notes = [note for note in self.notes if note.startswith("MQTT")]
        assert len(broker_notes) <= 1  # told once, not at every attempt


TestFaults = Faults.TestCase
TestFaults.settings = settings(max_examples=8, stateful_step_count=30, deadline=None)


@settings(deadline=None, max_examples=12)
@given(place=st.integers(0, 30), number=st.sampled_from([signal.SIGINT, signal.SIGTERM]))
def test_a_signal_at_any_point_loses_only_what_was_not_heard(place: int, number: int) -> None:
    pieces = [toy_model.scene()[start : start + 4000] for start in range(0, 88000, 4000)]

    def source() -> Iterator[Piece]:
        for i in range(10**6):
            if i == place:
                signal.raise_signal(number)
            yield pieces[i % len(pieces)]

    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        sink = Queued(LogFile(log))
        told = []
        with Stop() as stop:
            for event in spot(engine().stream(), source(), stopped=lambda: stop.requested):
                sink.send(event)
                told.append(event)
            sink.close()
        lines = [json.loads(line)["type"] for line in log.read_text().splitlines()]
    *found, ended = told
    assert lines == [event.type for event in told]
    assert isinstance(ended, EndedEvent)
    samples = round(ended.audio_seconds * RATE)
    # What was handed over and not yet taken is the most that is left.
    assert samples >= 4000 * (place - 1)
    stream = engine().stream()
    audio = np.concatenate([pieces[i % len(pieces)] for i in range(samples // 4000)] or [[]])
    expected = stream.push(audio.astype(np.int16)) + stream.flush(0.0)
    assert [(event.keyword, event.time, event.score) for event in found] == expected
    assert ended.detections == len(expected)
