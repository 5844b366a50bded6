"""Faults of the source and of the sinks in random order, through one spotter and its sinks."""

import socket
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import toy_model
from earmark.runtime import DetectionEvent, Engine, Event, GapEvent
from earmark.runtime.sink_exec import Exec
from earmark.runtime.sink_mqtt import Broker, Mqtt
from earmark.runtime.sinks import FanOut, LogFile, Queued
from earmark.runtime.sources import DeviceBack, DeviceLost, Gap, Piece
from earmark.runtime.spotter import Spotter
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

RATE = 16000
ENGINE: Engine | None = None
FULL = Path("/dev/full")
SOUNDS = {"low": toy_model.LOW_HZ, "high": toy_model.HIGH_HZ}
LOST = st.integers(0, 2 * RATE)


def engine() -> Engine:
    """One for all runs of the machine, which takes no fixtures."""
    global ENGINE
    if ENGINE is None:
        with TemporaryDirectory() as folder:
            ENGINE = Engine(toy_model.save(Path(folder) / "toy.onnx"))
    return ENGINE


class Faults(RuleBasedStateMachine):
    """A model of what must be told: samples, losses and words, beside the spotter that tells."""

    def __init__(self) -> None:
        super().__init__()
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
        self.sinks = FanOut([self.log_sink, Queued(self.exec, live=False), self.mqtt])
        self.stream = engine().stream()
        self.spotter = Spotter(self.stream, iter(()), "machine", live=True)  # type: ignore[arg-type]
        self.samples = self.lost = 0
        self.before = 0.0
        self.full = self.away = False
        self.missing = self.written = 0
        self.told: list[str] = []
        self.expected: list[str] = []
        self.words: list[str] = []
        self.invalid = False

    def take(self, piece: Piece) -> list[Event]:
        events = self.spotter.take(piece)
        self.deliver(events)
        return events

    def deliver(self, events: list[Event]) -> None:
        for event in events:
            self.sinks.send(event)
            self.sinks.check()
            self.told.append(event.type)
            if self.full:
                self.missing += 1
            else:
                self.written += 1

    def hear(self, pcm: np.ndarray) -> list[str]:
        """Audio as a device gives it: the keywords that are detected."""
        self.invalid = False
        found = []
        for start in range(0, len(pcm), 1600):
            events = self.take(pcm[start : start + 1600])
            found += [event.keyword for event in events if isinstance(event, DetectionEvent)]
        self.samples += len(pcm)
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
    @rule(lost=LOST)
    def replug(self, lost: int) -> None:
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

    def gap(self, piece: Piece, samples: int, reason: str) -> None:
        """A loss is told once, at the audio time where it begins."""
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
        self.sinks.close()
        self.unused.close()
        self.folder.cleanup()
        assert self.exec.undelivered == 0
        left = [t.name for t in threading.enumerate() if t not in self.threads and t.is_alive()]
        assert left == []
        broker_notes = [note for note in self.notes if note.startswith("MQTT")]
        assert len(broker_notes) <= 1  # told once, not at every attempt


TestFaults = Faults.TestCase
TestFaults.settings = settings(max_examples=8, stateful_step_count=30, deadline=None)
