"""Sources run through a stream, with the faults that real ones have."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.runtime import Engine
from earmark.runtime.sources import FileSource, Gap, RawSource, spot


class FaultySource:
    """The scene with one piece of it lost."""

    def __init__(self, start: int, samples: int, told: int) -> None:
        self._cut = slice(start, start + samples)
        self._told = told

    def __iter__(self) -> Iterator[np.ndarray | Gap]:
        pcm = toy_model.scene()
        yield pcm[: self._cut.start]
        yield Gap(self._told)
        yield pcm[self._cut.stop :]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(toy_model.save(tmp_path / "toy.onnx"))


def test_file_and_pipe_give_the_same(engine: Engine, tmp_path: Path) -> None:
    pcm = toy_model.scene()
    soundfile.write(tmp_path / "scene.wav", pcm, 16000)
    from_file = list(spot(engine.stream(), FileSource(tmp_path / "scene.wav", 16000)))
    from_pipe = list(spot(engine.stream(), RawSource(io.BytesIO(pcm.tobytes()))))
    assert from_file == from_pipe
    assert [d.keyword for d in from_file] == ["low", "high", "low"]


def test_a_gap_in_silence_costs_nothing_and_keeps_the_time(engine: Engine) -> None:
    found = list(spot(engine.stream(), FaultySource(30_000, 5000, told=5000)))
    assert [d.keyword for d in found] == ["low", "high", "low"]
    assert [d.time for d in found] == pytest.approx([1.16, 2.66, 4.16], abs=0.09)


def test_a_word_cut_by_a_gap_is_detected_once(engine: Engine) -> None:
    found = list(spot(engine.stream(), FaultySource(round(1.25 * 16000), 800, told=0)))
    assert [d.keyword for d in found] == ["low", "high", "low"]


def test_the_stream_starts_anew_after_a_source(engine: Engine) -> None:
    stream = engine.stream()
    source = RawSource(io.BytesIO(toy_model.scene().tobytes()))
    first = list(spot(stream, source, tail=0.5))
    again = list(spot(stream, RawSource(io.BytesIO(toy_model.scene().tobytes())), tail=0.5))
    assert first == again
