"""The model in the package: its manifest, its one law, and its accuracy where recordings are."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from earmark.export.evaluate import evaluate
from earmark.export.matching import LATE
from earmark.export.model_file import graph_sha256
from earmark.runtime import Detection, Engine
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import Split, load_split
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken_words import RATE, WORDS, spoken_scene

COMMANDS = ("yes", "no", "up", "down", "left", "right", "stop", "go")


def _lively() -> np.ndarray:
    """Sweeps in noise that move the posteriors; hypothesis wants no fixtures."""
    time = np.arange(6 * RATE) / RATE
    sweeps = 8000 * np.sin(2 * np.pi * (200 + 1500 * (time % 1)) * time) * (time % 0.7 < 0.4)
    return (sweeps + np.random.default_rng(0).normal(0, 300, len(time))).astype(np.int16)


LIVELY = _lively()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return spoken_scene(tmp_path_factory.mktemp("spoken") / "words")


@pytest.fixture(scope="module")
def validation(shared: Path) -> Split:
    corpus = scan(shared / "data" / "speech-commands")
    return load_split(corpus, Engine().manifest.labels, "validation")


def in_pieces(engine: Engine, pcm: np.ndarray, sizes: list[int]) -> list[Detection]:
    """Detections of a stream fed in pieces of ``sizes``, repeated."""
    stream, found, start, turn = engine.stream(), [], 0, 0
    while start < len(pcm):
        size = sizes[turn % len(sizes)]
        found += stream.push(pcm[start : start + size])
        start, turn = start + size, turn + 1
    return found + stream.flush(0.5)


def test_the_manifest_says_all_there_is_to_know(engine: Engine) -> None:
    manifest = engine.manifest
    assert manifest.labels == (*COMMANDS, "_unknown_", "_silence_")
    assert manifest.precision == "int8" and manifest.parameters <= 100_000
    assert manifest.licence and all(s.licence and s.attribution for s in manifest.sources)
    assert manifest.geometry.chunk <= 0.08 * manifest.geometry.sample_rate
    assert len(manifest.metrics["seeds"]["int8_streaming_top1"]) >= 2
    assert manifest.training["command"].startswith("earmark train")
    assert engine.path.with_suffix(".md").is_file()
    assert engine.path.stat().st_size < 200_000
    # It was measured as it is, and made by a revision that there is.
    assert manifest.training["graph_sha256"] == graph_sha256(onnx.load(engine.path))
    for revision in (manifest.git_revision, manifest.training["git_revision"]):
        assert re.fullmatch("[0-9a-f]{40}", revision or "")


def test_no_product_sum_saturates_without_vnni(engine: Engine) -> None:
    graph = onnx.load(engine.path).graph
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "QLinearConv"]
    assert len(convolutions) == 7
    for node in convolutions:
        assert np.abs(arrays[node.input[3]].astype(int)).max() <= 64


def test_it_hears_synthesized_words_in_their_order(engine: Engine, spoken: np.ndarray) -> None:
    assert [d.keyword for d in in_pieces(engine, spoken, [1280])] == list(WORDS)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 10 * RATE), min_size=1, max_size=5))
def test_detections_do_not_depend_on_the_pieces(sizes: list[int]) -> None:
    engine, pcm = Engine(), LIVELY
    if sum(sizes) < 200:  # tens of thousands of calls say no more than thousands
        pcm = pcm[: 2 * RATE]
    assert in_pieces(engine, pcm, sizes) == in_pieces(engine, pcm, [len(pcm)])


def test_one_sample_at_a_time(engine: Engine, spoken: np.ndarray) -> None:
    pcm = spoken[: 3 * RATE]
    assert in_pieces(engine, pcm, [1]) == in_pieces(engine, pcm, [len(pcm)])


def test_recorded_speech_in_any_pieces(engine: Engine, validation: Split) -> None:
    rows = np.random.default_rng(0).choice(len(validation), 20, replace=False)
    pcm = np.concatenate([np.asarray(validation.pcm[row]) for row in rows])
    whole = in_pieces(engine, pcm, [len(pcm)])
    assert whole
    for sizes in ([160], [1, 2, 3, 5, 8, 13], [1280], [4999, 7], [10 * RATE]):
        assert in_pieces(engine, pcm, sizes) == whole


def test_accuracy_on_recorded_speech_is_the_one_in_the_manifest(
    engine: Engine, validation: Split
) -> None:
    recorded = engine.manifest.metrics["int8_streaming"]
    words = validation.label < len(COMMANDS) + 1
    columns = ("pcm", "label", "word", "speaker", "path")
    quarter = [getattr(validation, name)[words][::4] for name in columns]
    subset = Split(validation.labels, *quarter, skipped=0)
    measured = evaluate(engine, subset)
    assert measured["top1"] > 0.94
    expected = np.average(
        [recorded["recall"][label] for label in validation.labels[:-1]],
        weights=[measured["support"][label] for label in validation.labels[:-1]],
    )
    # A quarter of the clips: the difference is that of the sample, not of the model.
    assert measured["top1"] == pytest.approx(expected, abs=0.03)


def test_after_silence_the_state_is_that_of_a_stream_that_heard_only_silence(
    engine: Engine, spoken: np.ndarray
) -> None:
    """Whatever came before: the model's memory is finite, and the decision rests."""
    geometry = engine.manifest.geometry
    smoothing = round(engine.manifest.decision.smoothing * geometry.sample_rate)
    chunks = -(-(geometry.receptive_field + smoothing) // geometry.chunk)
    silence = np.zeros(chunks * geometry.chunk, np.int16)
    used, fresh = engine.stream(), engine.stream()
    used.push(np.resize(LIVELY, 70 * geometry.chunk))
    used.push(np.resize(spoken, 50 * geometry.chunk))
    # 0.8 s of refractory period are over long before the silence is.
    start, origin = used.seconds, fresh.seconds
    # The word before it may fire yet, and nothing else.
    assert all(found.time - start <= LATE for found in used.push(silence))
    assert fresh.push(silence) == []
    assert np.array_equal(used.posteriors, fresh.posteriors)
    for at in range(0, len(spoken), geometry.chunk):
        chunk = spoken[at : at + geometry.chunk]
        found, expected = used.push(chunk), fresh.push(chunk)
        assert [(d.keyword, d.score) for d in found] == [(d.keyword, d.score) for d in expected]
        assert [d.time - start for d in found] == pytest.approx([d.time - origin for d in expected])
        assert np.array_equal(used.posteriors, fresh.posteriors)


def test_a_quiet_room_and_digital_silence_stay_silent(engine: Engine) -> None:
    quiet = np.random.default_rng(1).normal(0, 20, 20 * RATE).astype(np.int16)
    assert in_pieces(engine, quiet, [1280]) == []
    assert in_pieces(engine, np.zeros(5 * RATE, np.int16), [1280]) == []
