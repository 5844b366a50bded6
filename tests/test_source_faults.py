"""Faults of a source, one by one and in any order, through the one loop that meets them."""

import io

import pytest
import toy_model
from earmark.benchmarks.reliability.faulty_source import Fault, FaultySource
from earmark.runtime import DetectionEvent, EndedEvent, Engine, Event, GapEvent, RawSource
from earmark.runtime.spotter import Spotter
from hypothesis import given
from hypothesis import strategies as st

SECONDS = len(toy_model.scene()) / 16000
WORDS = [("low", 1.0), ("high", 2.5), ("low", 4.0)]
FAULTS = st.builds(
    Fault,
    at=st.integers(0, round(SECONDS * 16000)),
    kind=st.sampled_from(["overflow", "unplug", "empty", "nan"]),
    samples=st.integers(0, 12_000),
)


def hear(engine: Engine, *faults: Fault) -> list[Event]:
    """What is told of the toy's scene with faults; the summary is the last."""
    source = FaultySource(RawSource(io.BytesIO(toy_model.scene().tobytes())), faults)
    spotter = Spotter(engine.stream(), source)
    events = [event for piece in source for event in spotter.take(piece)]
    return [*events, *spotter.finish(0.5), spotter.ended()]


def detections(events: list[Event]) -> list[DetectionEvent]:
    return [event for event in events if isinstance(event, DetectionEvent)]


def test_a_gap_in_silence_costs_nothing_and_keeps_the_time(engine: Engine) -> None:
    events = hear(engine, Fault(30_000, "overflow", 5000))
    assert [d.keyword for d in detections(events)] == ["low", "high", "low"]
    assert [d.time for d in detections(events)] == pytest.approx([1.16, 2.66, 4.16], abs=0.09)
    assert events[-1].time == SECONDS


def test_a_word_cut_by_a_gap_of_unknown_length_is_detected_once(engine: Engine) -> None:
    events = hear(engine, Fault(round(1.25 * 16000), "overflow", 800, told=0))
    assert [d.keyword for d in detections(events)] == ["low", "high", "low"]


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_device_that_comes_back_at_any_rate_is_heard(engine: Engine, rate: int) -> None:
    events = hear(engine, Fault(30_000, "unplug", 8000, rate=rate))
    assert [e.type for e in events] == [
        *("detection", "device_lost", "device_back", "gap", "detection", "detection", "ended")
    ]
    assert [d.time for d in detections(events)] == pytest.approx([1.16, 2.66, 4.16], abs=0.09)


@given(st.lists(FAULTS, max_size=6))
def test_faults_in_any_order_cost_no_more_than_what_they_touch(
    engine: Engine, faults: list[Fault]
) -> None:
    """Words that no fault comes near are detected once, the others at most once."""
    events = hear(engine, *faults)
    found = detections(events)
    # A fault within the last one goes on after it, so that they reach further than each would.
    reach = sum(fault.samples for fault in faults) / 16000
    if all(fault.at / 16000 + reach <= SECONDS for fault in faults):
        assert events[-1].time == SECONDS
    for keyword, start in WORDS:
        near = [d for d in found if d.keyword == keyword and start <= d.time < start + 0.8]
        touched = any(start - 0.2 - reach < f.at / 16000 < start + 0.6 for f in faults)
        assert len(near) <= 1 if touched else len(near) == 1
    assert len(found) <= len(WORDS)
    ended = events[-1]
    assert isinstance(ended, EndedEvent)
    assert ended.gaps == sum(isinstance(event, GapEvent) for event in events)
    assert ended.detections == len(found)
    assert ended.listening
