"""Sources run through a stream, with the faults that real ones have."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.runtime import EarmarkError, Engine
from earmark.runtime.sources import FileSource, Gap, RawSource, spot
from faulty_source import Fault, FaultySource
from hypothesis import given
from hypothesis import strategies as st


def scene(*faults: Fault) -> FaultySource:
    """The toy's scene with faults."""
    return FaultySource(RawSource(io.BytesIO(toy_model.scene().tobytes())), faults)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(toy_model.save(tmp_path_factory.mktemp("model") / "toy.onnx"))


def test_file_and_pipe_give_the_same(engine: Engine, tmp_path: Path) -> None:
    pcm = toy_model.scene()
    soundfile.write(tmp_path / "scene.wav", pcm, 16000)
    from_file = list(spot(engine.stream(), FileSource(tmp_path / "scene.wav", 16000)))
    from_pipe = list(spot(engine.stream(), RawSource(io.BytesIO(pcm.tobytes()))))
    assert from_file == from_pipe
    assert [d.keyword for d in from_file] == ["low", "high", "low"]


def test_a_gap_in_silence_costs_nothing_and_keeps_the_time(engine: Engine) -> None:
    found = list(spot(engine.stream(), scene(Fault(30_000, "overflow", 5000))))
    assert [d.keyword for d in found] == ["low", "high", "low"]
    assert [d.time for d in found] == pytest.approx([1.16, 2.66, 4.16], abs=0.09)


def test_a_word_cut_by_a_gap_is_detected_once(engine: Engine) -> None:
    found = list(spot(engine.stream(), scene(Fault(round(1.25 * 16000), "overflow", 800, told=0))))
    assert [d.keyword for d in found] == ["low", "high", "low"]


def test_the_stream_starts_anew_after_a_source(engine: Engine) -> None:
    stream = engine.stream()
    source = RawSource(io.BytesIO(toy_model.scene().tobytes()))
    first = list(spot(stream, source, tail=0.5))
    again = list(spot(stream, RawSource(io.BytesIO(toy_model.scene().tobytes())), tail=0.5))
    assert first == again


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_device_that_comes_back_at_any_rate_is_heard(engine: Engine, rate: int) -> None:
    fault = Fault(30_000, "unplug", 8000, rate=rate)
    found = list(spot(engine.stream(), scene(fault), tail=0.5))
    assert [d.keyword for d in found] == ["low", "high", "low"]
    assert [d.time for d in found] == pytest.approx([1.16, 2.66, 4.16], abs=0.09)


def test_nan_is_refused_and_leaves_the_stream_as_it_was(engine: Engine) -> None:
    stream, found, refused = engine.stream(), [], 0
    for piece in scene(Fault(30_000, "nan", 3200), Fault(60_000, "nan", 10)):
        if isinstance(piece, Gap):
            continue
        try:
            found += stream.push(piece)
        except EarmarkError:
            stream.gap(len(piece))
            refused += 1
    assert [d.keyword for d in found] == ["low", "high", "low"]
    assert refused >= 2
    assert stream.seconds == len(toy_model.scene()) / 16000


FAULTS = st.builds(
    Fault,
    at=st.integers(0, round(5.5 * 16000)),
    kind=st.sampled_from(["overflow", "unplug", "empty"]),
    samples=st.integers(0, 12_000),
)


@given(st.lists(FAULTS, max_size=6))
def test_faults_in_any_order_cost_no_more_than_what_they_touch(
    engine: Engine, faults: list[Fault]
) -> None:
    """Words that no fault comes near are detected once, the others at most once."""
    stream = engine.stream()
    found = []
    for piece in scene(*faults):
        if isinstance(piece, Gap):
            stream.gap(piece.samples)
        elif isinstance(piece, np.ndarray):
            found += stream.push(piece)
    words = [("low", 1.0), ("high", 2.5), ("low", 4.0)]
    # A fault within the last one goes on after it, so that they reach further than each would.
    reach = sum(fault.samples for fault in faults) / 16000
    if all(fault.at / 16000 + reach <= 5.5 for fault in faults):
        assert stream.seconds == 5.5
    for keyword, start in words:
        near = [d for d in found if d.keyword == keyword and start <= d.time < start + 0.8]
        touched = any(start - 0.2 - reach < f.at / 16000 < start + 0.6 for f in faults)
        assert len(near) <= 1 if touched else len(near) == 1
    assert len(found) <= len(words)
