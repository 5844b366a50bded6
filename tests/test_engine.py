"""The engine's laws on a toy graph, and what it refuses."""

import json
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import toy_model
from earmark.runtime import Decision, Detection, EarmarkError, Engine, engine
from earmark.runtime.backends.onnxruntime_import import onnxruntime
from earmark.runtime.manifest import SCHEMA_VERSION, Geometry
from earmark.runtime.posteriors import sigmoid, softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

SCENE = toy_model.scene()


def pieces(pcm: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    found, start, turn = [], 0, 0
    while start < len(pcm):
        found.append(pcm[start : start + cuts[turn % len(cuts)]])
        start, turn = start + len(found[-1]), turn + 1
    return found


def test_what_runs_is_reported_to_nobody(engine: Engine, tmp_path: Path) -> None:
    names = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = "import sys; from earmark.runtime import Engine; Engine(sys.argv[1])"
    command = [sys.executable, "-c", code, str(engine.path)]
    subprocess.run(command, env=environment | {"HOME": str(tmp_path)}, check=True)
    # onnxruntime would leave its identifier and the events to be sent.
    assert not list(tmp_path.rglob("*"))


def test_detects_the_scene(engine: Engine) -> None:
    stream = engine.stream()
    found = stream.push(SCENE) + stream.flush()
    assert [d.keyword for d in found] == ["low", "high", "low"]
    assert [d.time for d in found] == pytest.approx([1.16, 2.66, 4.16], abs=0.03)
    assert all(0.7 <= d.score <= 1 for d in found)


@pytest.mark.parametrize("cuts", [[1], [7, 1279, 1281], [160], [1280], [160_000], [33_333, 2]])
def test_chunking_changes_nothing(engine: Engine, cuts: list[int]) -> None:
    pcm = np.tile(SCENE[: 2 * 16000], 6)[:170_000] if cuts == [160_000] else SCENE[:50_000]
    whole = engine.scorer()
    logits = np.concatenate([whole.feed(pcm).copy(), whole.flush()])
    cut = engine.scorer()
    rows = [cut.feed(piece).copy() for piece in pieces(pcm, cuts)] + [cut.flush()]
    assert np.array_equal(np.concatenate(rows), logits)
    one, many = engine.stream(), engine.stream()
    found = [d for piece in pieces(pcm, cuts) for d in many.push(piece)]
    assert found == one.push(pcm)
    assert found
    assert np.array_equal(one.posteriors, many.posteriors)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=6))
def test_any_chunking_gives_the_same_detections(engine: Engine, cuts: list[int]) -> None:
    one, many = engine.stream(), engine.stream()
    if sum(cuts) / len(cuts) < 50:
        cuts = [*cuts, 5000]
    found = [d for piece in pieces(SCENE, cuts) for d in many.push(piece)] + many.flush()
    assert found == one.push(SCENE) + one.flush()


def test_the_streamed_logits_are_those_of_the_graph(engine: Engine) -> None:
    session = onnxruntime.InferenceSession(str(engine.path), providers=["CPUExecutionProvider"])
    cache = np.zeros((1, 3), np.float32)
    expected = []
    for start in range(0, 20 * 1280, 1280):
        pcm = SCENE[start : start + 1280].astype(np.float32)[None] / 32768
        logits, cache = session.run(["logits", "cache_out"], {"pcm": pcm, "cache": cache})
        expected.append(logits[0])
    logits = engine.scorer().feed(SCENE[: 20 * 1280])
    # Our own backends sum in another order.
    np.testing.assert_allclose(logits, np.concatenate(expected), rtol=1e-5, atol=1e-4)
    same = Engine(engine.path, "onnxruntime").scorer().feed(SCENE[: 20 * 1280])
    assert np.array_equal(same, np.concatenate(expected))


def test_sample_types_agree(engine: Engine) -> None:
    pcm = SCENE[: 16000 * 2]
    expected = engine.scorer().feed(pcm)
    for kind in (np.float32, np.float64):
        assert np.array_equal(engine.scorer().feed((pcm / 32768).astype(kind)), expected)


def test_one_engine_serves_many_threads(engine: Engine) -> None:
    expected = engine.stream().push(SCENE)
    found: dict[int, list[Detection]] = {}

    def listen(number: int) -> None:
        stream = engine.stream()
        found[number] = [d for p in pieces(SCENE, [500 + number]) for d in stream.push(p)]

    threads = [threading.Thread(target=listen, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


def test_logits_of_one_chunk_are_a_view_and_of_several_are_not(engine: Engine) -> None:
    scorer = engine.scorer()
    several = scorer.feed(SCENE[: 3 * 1280])
    kept = several.copy()
    view = scorer.feed(toy_model.tone(440, 0.08))
    first = view.copy()
    scorer.feed(np.zeros(1280, np.int16))
    assert np.array_equal(several, kept)
    assert not np.array_equal(view, first)
    assert scorer.feed(SCENE[:5]).shape == (0, 4)
    assert scorer.samples == 5 * 1280 + 5


def test_reset_starts_anew(engine: Engine) -> None:
    stream = engine.stream()
    found = stream.push(SCENE[:40_123])
    assert stream.seconds == pytest.approx(40_123 / 16000)
    stream.reset()
    assert stream.seconds == 0
    assert not stream.posteriors.any()
    assert stream.push(SCENE[:40_123]) == found


def test_flush_decides_the_end_and_starts_anew(engine: Engine) -> None:
    word = np.concatenate([np.zeros(1000, np.int16), toy_model.tone(440, 0.155)])
    stream = engine.stream()
    assert stream.push(word) == []
    (found,) = stream.flush(tail=0.1)
    assert found.keyword == "low"
    assert found.time == pytest.approx(len(word) / 16000)
    assert stream.seconds == 0
    assert stream.flush() == []
    for tail in (-1.0, float("nan"), float("inf")):
        with pytest.raises(EarmarkError, match="tail"):
            stream.flush(tail)


def test_after_a_gap_the_state_is_fresh_and_the_clock_runs_on(engine: Engine) -> None:
    stream, fresh = engine.stream(), engine.stream()
    stream.push(SCENE[:10_007])
    stream.gap(8000)
    shifted = [d._replace(time=d.time - 18_007 / 16000) for d in stream.push(SCENE)]
    expected = fresh.push(SCENE)
    assert [(d.keyword, d.score) for d in shifted] == [(d.keyword, d.score) for d in expected]
    assert [d.time for d in shifted] == pytest.approx([d.time for d in expected])
    assert np.array_equal(stream.posteriors, fresh.posteriors)


def test_a_decision_replaces_that_of_the_manifest(engine: Engine) -> None:
    deaf = replace(engine.manifest.decision, thresholds={"low": 1.0, "high": 0.5})
    found = engine.stream(deaf).push(SCENE)
    assert [d.keyword for d in found] == ["high"]
    with pytest.raises(EarmarkError, match=r"thresholds.*low, high"):
        engine.stream(Decision({"low": 0.5}))
    with pytest.raises(EarmarkError, match="smoothing"):
        engine.stream(replace(deaf, smoothing=float("nan")))


@pytest.mark.parametrize(
    ("pcm", "reason"),
    [
        (np.zeros((2, 10), np.int16), "one channel"),
        (np.zeros(10, np.int32), "int32"),
        (np.array(["a"]), "type"),
        (np.array([0, np.nan], np.float32), "NaN"),
        (np.array([np.inf, 0]), "NaN or infinity"),
        (np.array([-np.inf, 0], np.float32), "NaN or infinity"),
        (np.array([0, -20_000.0], np.float32), "scale"),
    ],
)
def test_what_is_no_audio_is_refused_and_changes_nothing(
    engine: Engine, pcm: np.ndarray, reason: str
) -> None:
    stream = engine.stream()
    stream.push(SCENE[:1000])
    with pytest.raises(EarmarkError, match=reason):
        stream.push(pcm)
    assert stream.push(SCENE[1000:]) == engine.stream().push(SCENE)


def test_softmax() -> None:
    logits = np.array([[1000, 0, 0], [0, 0, 0]], np.float32)
    assert softmax(logits) == pytest.approx(np.array([[1, 0, 0], [1 / 3] * 3]))
    huge = np.array([[3e38, -3e38]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert softmax(huge).tolist() == [[1, 0]]


@pytest.mark.filterwarnings("error")
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8))
def test_sigmoid_is_the_softmax_of_a_logit_and_zero(logits: list[float]) -> None:
    row = np.array([logits], np.float32)
    pairs = np.stack([row[0], np.zeros_like(row[0])], axis=1)
    assert sigmoid(row)[0] == pytest.approx(softmax(pairs)[:, 0], abs=1e-6)


@pytest.mark.parametrize("function", [softmax, sigmoid])
def test_the_session_gives_the_posteriors_of_its_logits(
    tmp_path: Path, function: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = toy_model.save(tmp_path / "model.onnx", activation=function.__name__)
    scorer = Engine(path).scorer()
    for start in range(0, len(SCENE), 1280):
        logits = scorer.feed(SCENE[start : start + 1280])
        if len(logits):
            np.testing.assert_allclose(scorer.posteriors, function(logits), atol=1e-6)


def test_labels_of_a_multi_label_model_do_not_compete(engine: Engine, tmp_path: Path) -> None:
    multi = Engine(toy_model.save(tmp_path / "multi.onnx", activation="sigmoid"))
    stream = multi.stream()
    stream.push(SCENE[:16000])
    logits = engine.scorer().feed(SCENE[:16000])
    steps = round(multi.manifest.decision.smoothing / 0.02)
    assert stream.posteriors == pytest.approx(
        (1 / (1 + np.exp(-logits[-steps:].astype(float)))).mean(0), abs=1e-5
    )


def test_other_geometry(tmp_path: Path) -> None:
    small = Engine(toy_model.save(tmp_path / "small.onnx", chunk=320))
    assert small.scorer().feed(SCENE[:960]).shape == (3, 4)
    assert [d.keyword for d in small.stream().push(SCENE)] == ["low", "high", "low"]


def without_manifest(path: Path) -> None:
    path.write_bytes(toy_model.graph().SerializeToString())


def newer(path: Path) -> None:
    raw = json.loads(toy_model.manifest().to_json()) | {"schema": SCHEMA_VERSION + 1}
    toy_model.save(path, text=json.dumps(raw))


def other_cache(path: Path) -> None:
    toy_model.save(path, geometry=replace(toy_model.manifest().geometry, cache=4))


def other_labels(path: Path) -> None:
    toy_model.save(path, labels=("low", "high", "_silence_"))


def absurd_cache(path: Path) -> None:
    raw = json.loads(toy_model.manifest().to_json())
    raw["geometry"]["cache"] = 10**15
    toy_model.save(path, text=json.dumps(raw))


def other_graph(path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1, 2])],
        [value("y", TensorProto.FLOAT, [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    entry = model.metadata_props.add()
    entry.key, entry.value = "earmark", toy_model.manifest().to_json()
    path.write_bytes(model.SerializeToString())


def nan_graph(path: Path) -> None:
    model = onnx.load_from_string(toy_model.save(path).read_bytes())
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias"))
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "no such model file"),
        (Path.mkdir, "folder"),
        (Path.touch, "empty"),
        (lambda path: path.write_bytes(b"RIFF" * 100), "ONNX"),
        (lambda path: path.write_bytes(toy_model.save(path).read_bytes()[:1500]), "ONNX|manifest"),
        (without_manifest, "without Earmark's manifest"),
        (newer, "upgrade earmark"),
        (lambda path: toy_model.save(path, text="{"), "not JSON"),
        (other_cache, r"cache of the graph has shape"),
        (other_labels, "logits of the graph has shape"),
        (absurd_cache, "geometry.cache"),
        (other_graph, "no input pcm"),
        (nan_graph, "NaN"),
    ],
)
def test_bad_models_are_refused_on_one_line(
    tmp_path: Path, write: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "model.onnx"
    write(path)
    with pytest.raises(EarmarkError, match=reason) as caught:
        Engine(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_small_model_asks_for_little_memory(model: str) -> None:
    tracemalloc.start()
    try:
        Engine(model)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


def test_what_is_passed_on_is_what_was_loaded(tmp_path: Path) -> None:
    path = toy_model.save(tmp_path / "toy.onnx")
    engine = Engine(path)
    assert engine.read() == path.read_bytes() and engine.size == path.stat().st_size
    toy_model.save(path, activation="sigmoid")
    with pytest.raises(EarmarkError, match=r"toy.onnx: is not what was loaded any more"):
        engine.read()


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(engine.MAX_MODEL_BYTES + 1)
    with pytest.raises(EarmarkError, match="largest model"):
        Engine(path)


def test_absurd_sizes_in_the_manifest_are_refused() -> None:
    with pytest.raises(EarmarkError, match=r"geometry\.chunk"):
        toy_model.manifest(geometry=Geometry(16000, 1 << 21, 1, 1, 1))
