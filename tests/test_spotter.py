"""Sources run through a stream, with the faults that real ones have, in each way to use it."""

import asyncio
import dataclasses
import io
import json
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.runtime import (
    DetectionEvent,
    DeviceBackEvent,
    DeviceLostEvent,
    EarmarkError,
    Engine,
    Event,
    FileSource,
    GapEvent,
    HeartbeatEvent,
    RawSource,
    spot,
    spot_async,
    spotting,
    to_json,
)
from earmark.runtime.sources import Counters, DeviceBack, DeviceLost, Gap, Piece
from earmark.runtime.spotter import Spotter
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

KEYWORDS = ["low", "high", "low"]


class Script:
    """A source that gives these pieces and then ends."""

    def __init__(self, *pieces: Piece) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._pieces)


class Silence:
    """A live source without an end: a little audio every few milliseconds."""

    taken = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            time.sleep(0.002)
            self.taken += 1
            yield np.zeros(160, np.int16)


class Stuck:
    """A device that is lost and does not come back until told."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self.counters = Counters(overflows=3, dropped=0.25, queued=0.5)

    def __iter__(self) -> Iterator[Piece]:
        yield np.zeros(1600, np.int16)
        yield DeviceLost("USB", "unplugged")
        self.back.wait(30)
        yield DeviceBack("USB", 5.0)
        yield Gap(80_000)


def scene() -> RawSource:
    return RawSource(io.BytesIO(toy_model.scene().tobytes()))


def cut(start: int, samples: int, told: int) -> Script:
    """The scene with one piece of it lost."""
    pcm = toy_model.scene()
    return Script(pcm[:start], Gap(told), pcm[start + samples :])


def detections(events: Iterable[Event]) -> list[DetectionEvent]:
    return [event for event in events if isinstance(event, DetectionEvent)]


def keywords(events: Iterable[Event]) -> list[str]:
    return [event.keyword for event in detections(events)]


def test_file_and_pipe_give_the_same(engine: Engine, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "scene.wav", toy_model.scene(), 16000)
    from_file = list(spot(engine.stream(), FileSource(tmp_path / "scene.wav", 16000), "x"))
    from_pipe = list(spot(engine.stream(), scene(), "x"))
    assert from_file == from_pipe
    assert keywords(from_file) == KEYWORDS
    assert [event.source for event in from_file] == ["x"] * 3


def test_a_gap_in_silence_costs_nothing_and_keeps_the_time(engine: Engine) -> None:
    events = list(spot(engine.stream(), cut(30_000, 5000, told=5000)))
    assert keywords(events) == KEYWORDS
    found = [event.time for event in detections(events)]
    assert found == pytest.approx([1.16, 2.66, 4.16], abs=0.09)
    assert events[1] == GapEvent("", time=1.875, seconds=0.3125, reason="lost")


def test_a_word_cut_by_a_gap_is_detected_once(engine: Engine) -> None:
    events = spot(engine.stream(), cut(round(1.25 * 16000), 800, told=0))
    assert keywords(events) == KEYWORDS


def test_the_stream_starts_anew_after_a_source(engine: Engine) -> None:
    stream = engine.stream()
    first = list(spot(stream, scene(), tail=0.5))
    assert first == list(spot(stream, scene(), tail=0.5))


@given(
    st.lists(st.tuples(st.integers(0, 87_999), st.sampled_from([0, 1, 160]), st.booleans())),
)
def test_empty_and_invalid_buffers_end_nothing(
    engine: Engine, faults: list[tuple[int, int, bool]]
) -> None:
    pcm = toy_model.scene().astype(np.float32) / 32768
    pieces: list[Piece] = []
    at, invalid = 0, 0
    for start, samples, infinite in sorted(faults):
        pieces.append(pcm[at:start])
        pieces.append(np.full(samples, np.inf if infinite else np.nan, np.float32))
        invalid += samples > 0
        at = start
    pieces.append(pcm[at:])
    source = Script(*pieces)
    spotter = Spotter(engine.stream(), source)
    events = [event for piece in source for event in spotter.take(piece)]
    assert {event.reason for event in events if isinstance(event, GapEvent)} <= {"invalid"}
    total = spotter.ended()
    assert total.invalid == invalid
    assert total.audio_seconds == len(pcm) / 16000
    assert total.time * 16000 == pytest.approx(len(pcm) + sum(n for _, n, _ in faults))


def test_a_run_of_invalid_buffers_is_one_event(engine: Engine) -> None:
    bad = np.full(160, np.nan, np.float32)
    good = np.zeros(1600, np.float32)
    events = list(spot(engine.stream(), Script(good, bad, bad, bad, good, bad)))
    assert [(event.type, round(event.time, 2)) for event in events] == [("gap", 0.1), ("gap", 0.23)]


def test_audio_of_another_type_is_the_sources_fault(engine: Engine) -> None:
    for kind in (np.int32, np.float16):
        with pytest.raises(EarmarkError, match=f"audio has type {kind.__name__}"):
            list(spot(engine.stream(), Script(np.zeros(10, kind))))


def test_heartbeats_go_by_audio_time(engine: Engine) -> None:
    events = [
        event
        for event in spot(engine.stream(), scene(), heartbeat=2.0)
        if isinstance(event, HeartbeatEvent)
    ]
    assert [event.time for event in events] == [2.0, 4.0]
    assert [event.detections for event in events] == [1, 2]
    assert [event.audio_seconds for event in events] == [2.0, 4.0]
    assert [event.chunks for event in events] == [20, 40]
    assert all(event.cpu_ms and event.cpu_ms > 0 and event.listening for event in events)
    assert all(event.resident_bytes is None or event.resident_bytes > 1e7 for event in events)


def test_heartbeats_come_while_the_device_is_lost(engine: Engine) -> None:
    source = Stuck()
    beats = []
    told: list[str] = []
    for event in spot(engine.stream(), source, "USB", heartbeat=0.05, live=True):
        told.append(event.type)
        assert event.source == "USB"
        assert event.at and event.at.endswith("Z")
        if isinstance(event, HeartbeatEvent) and not event.listening:
            beats.append(event)
            if len(beats) == 3:
                source.back.set()
    assert {beat.time for beat in beats[:3]} == {0.1}
    assert (beats[2].overflows, beats[2].dropped_ms, beats[2].queued_ms) == (3, 250.0, 500.0)
    assert [kind for kind in told if kind != "heartbeat"] == ["device_lost", "device_back", "gap"]
    # A gap is audio time: it is long enough for another heartbeat.
    assert told[-1] == "heartbeat"


def test_events_name_the_device_that_came_back(engine: Engine) -> None:
    events = list(
        spot(engine.stream(), Script(DeviceLost("USB", "gone"), DeviceBack("USB 2", 3.0), Gap(0)))
    )
    assert events == [
        DeviceLostEvent("USB", 0.0, "gone"),
        DeviceBackEvent("USB 2", 0.0, 3.0),
        GapEvent("USB 2", 0.0, 0.0, "lost"),
    ]


def test_an_error_of_the_source_passes_through_each_way(engine: Engine, tmp_path: Path) -> None:
    def source() -> FileSource:
        return FileSource(tmp_path / "nosuch.wav", 16000)

    async def iterate() -> None:
        async for _ in spot_async(engine.stream(), source()):
            pass

    with pytest.raises(EarmarkError, match="no such file"):
        list(spot(engine.stream(), source(), heartbeat=1.0))
    with pytest.raises(EarmarkError, match="no such file"):
        asyncio.run(iterate())
    with (
        pytest.raises(EarmarkError, match="no such file"),
        spotting(engine.stream(), source(), print) as thread,
    ):
        thread.join(10)


def test_callbacks_get_what_the_iterator_gives(engine: Engine) -> None:
    events: list[Event] = []
    with spotting(engine.stream(), scene(), events.append, live=False) as thread:
        thread.join(10)
    assert events == list(spot(engine.stream(), scene()))


def test_leaving_the_block_ends_the_thread(engine: Engine) -> None:
    source = Silence()
    with spotting(engine.stream(), source, print) as thread:
        pass
    assert not thread.is_alive()


class Mute:
    """Gives nothing, for a while."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __iter__(self) -> Iterator[Piece]:
        self.over.wait(30)
        yield from ()


def test_heartbeats_end_with_the_block(engine: Engine) -> None:
    source, beat = Mute(), threading.Event()
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        beat.set()

    with spotting(engine.stream(), source, tell, heartbeat=0.01) as thread:
        assert beat.wait(30)
    count = len(told)
    thread.join(10)
    assert not thread.is_alive() and len(told) == count
    source.over.set()


def test_an_asynchronous_iteration_ends_while_the_source_is_stuck(engine: Engine) -> None:
    source = Mute()

    async def listen() -> None:
        async for _ in spot_async(engine.stream(), source, heartbeat=0.01):
            break

    asyncio.run(listen())
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "earmark-spot-async"])
    source.over.set()


def test_the_asynchronous_iterator_gives_the_same(engine: Engine) -> None:
    async def collect() -> list[Event]:
        return [event async for event in spot_async(engine.stream(), scene(), tail=0.5)]

    assert asyncio.run(collect()) == list(spot(engine.stream(), scene(), tail=0.5))


@pytest.mark.parametrize("heartbeat", [None, 0.02])
@pytest.mark.parametrize("way", ["cancel", "break", "timeout"])
def test_an_asynchronous_iteration_that_ends_early_leaves_no_thread(
    engine: Engine, way: str, heartbeat: float | None
) -> None:
    # Those of an earlier test may still end.
    before = set(threading.enumerate())
    source = Silence()

    async def iterate() -> None:
        async for _ in spot_async(engine.stream(), source, heartbeat=heartbeat):
            if way == "break":
                return

    async def main() -> None:
        if way == "timeout" or heartbeat is None:  # without heartbeats there is no event at all
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(iterate(), 0.1)
        elif way == "cancel":
            task = asyncio.create_task(iterate())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await iterate()

    asyncio.run(main())
    assert set(threading.enumerate()) <= before
    taken = source.taken
    assert taken > 0
    time.sleep(0.02)
    assert source.taken == taken


def test_a_reader_that_falls_behind_makes_the_source_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark.runtime.spotter.PENDING_EVENTS", 2)

    async def collect() -> list[Event]:
        events = []
        gaps = Script(*[Gap(1600)] * 50)
        async for event in spot_async(engine.stream(), gaps):
            await asyncio.sleep(0.001)
            events.append(event)
        return events

    events = asyncio.run(collect())
    assert [event.time for event in events] == pytest.approx([i / 10 for i in range(50)])


def test_every_event_has_a_json_form(engine: Engine) -> None:
    source = Script(
        DeviceLost("USB", "gone"), DeviceBack("USB", 1.0), Gap(160), toy_model.scene()[:32000]
    )
    events: list[Event] = list(spot(engine.stream(), source, "USB", heartbeat=1.0, live=True))
    kinds = set()
    for event in events:
        text = to_json(event)
        assert text.isascii() and "\n" not in text
        parsed = json.loads(text)
        kinds.add(parsed.pop("type"))
        rounded = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(event).items()
        }
        assert parsed == rounded
    assert kinds == {"detection", "gap", "device_lost", "device_back", "heartbeat"}


def test_any_text_passes_through_json() -> None:
    event = DetectionEvent("caf\udce9.wav", "schön", 1.0, 0.5)
    text = to_json(event)
    assert text.isascii()
    assert json.loads(text) == {
        "type": "detection",
        "source": "caf\udce9.wav",
        "keyword": "schön",
        "time": 1.0,
        "score": 0.5,
    }
