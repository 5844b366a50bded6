"""numpy as a second opinion on every graph that is exported, and where there is no onnxruntime."""

import json
import os
import subprocess
import sys
import tomllib
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_student
import torch
import toy_model
from earmark.benchmarks.latency.audio import speech_like
from earmark.export.graph import build
from earmark.export.model_file import with_manifest
from earmark.export.quantize import calibrate
from earmark.runtime import EarmarkError, Engine, read_audio
from earmark.runtime.backends import backend
from earmark.runtime.backends.numpy_backend import NumpyBackend
from earmark.runtime.backends.numpy_ops import RULES
from earmark.runtime.backends.numpy_program import GEMM_ONE_THREAD, GEMV_ONE_THREAD, Program
from earmark.runtime.backends.onnxruntime_import import onnxruntime
from earmark.runtime.cli import main
from earmark.runtime.graph_check import _OPERATORS
from earmark.runtime.manifest import Decision, Manifest
from earmark.runtime.onnx_file import read_onnx
from earmark.runtime.pool import StreamPool
from earmark.train.mfcc import MfccSettings
from earmark.train.student import StudentSettings
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from packaging.requirements import Requirement

Tensors = dict[str, np.ndarray]
CONV = ("kernel_shape", "strides", "dilations", "pads")


def both(model: onnx.ModelProto, inputs: Tensors, outputs: list[str]) -> tuple[Tensors, Tensors]:
    """What onnxruntime and numpy compute."""
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = {name: np.asarray(session.run([name], inputs)[0]) for name in outputs}
    found = {name: np.zeros_like(array) for name, array in expected.items()}
    *_, call = NumpyBackend(read_onnx(data), toy_model.manifest()).bind(inputs, found)
    call()
    return expected, found


def single(operator: str, inputs: Tensors, fixed: Tensors, kind: type, **more: Any):
    """A graph of one operator, through both."""
    value = helper.make_tensor_value_info
    sides = [f"side{axis}" for axis in range(next(iter(inputs.values())).ndim)]
    types = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in inputs.items()}
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(operator, [*inputs, *fixed], ["y"], **more)],
            "single",
            [value(name, types[name], x.shape) for name, x in inputs.items()],
            [value("y", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), sides)],
            [numpy_helper.from_array(x, name) for name, x in fixed.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    expected, found = both(model, inputs, ["y"])
    return expected["y"], found["y"]


def test_every_operator_of_the_graphs_has_a_rule() -> None:
    assert _OPERATORS.keys() == RULES.keys() | {"Conv", "QLinearConv"}


@settings(max_examples=60)
@given(st.data())
def test_quantized_convolutions_are_exact(data: st.DataObject) -> None:
    """Any shape, on codes and weights at random and at their ends, with small and huge biases."""
    draw = lambda least, most: data.draw(st.integers(least, most))  # noqa: E731
    seed = np.random.default_rng(draw(0, 1 << 30))
    kernel, strides, dilations = ([draw(1, 3), draw(1, 3)] for _ in range(3))
    pads = [draw(0, 2) for _ in range(4)]
    sides = [dilations[i] * (kernel[i] - 1) + draw(1, 9) for i in (0, 1)]
    batch, channels, outputs = draw(1, 3), draw(1, 20), draw(1, 20)
    x = seed.integers(0, 256, (batch, channels, *sides), np.uint8)
    x[seed.random(x.shape) < 0.2] = 255
    # Beyond 7 bits, processors without VNNI would not be exact.
    weight = seed.integers(-63, 64, (outputs, channels, *kernel)).astype(np.int8)
    reach = data.draw(st.sampled_from([100, 1 << 20, 1 << 27, 1 << 31]))
    bias = seed.integers(-reach, reach, outputs).astype(np.int32)
    # The scales of a power of two put many sums exactly between two codes.
    scale = data.draw(st.sampled_from([2.0**-11, 1 / 3000, 1e-7 if reach > 1 << 20 else 1e-3]))
    fixed = {
        "scale": np.float32(1),
        "zero": np.uint8(draw(0, 255)),
        "weight": weight,
        "weight_scale": np.full(outputs, scale, np.float32),
        "weight_zero": np.zeros(outputs, np.int8),
        "target_scale": np.float32(data.draw(st.sampled_from([1, 0.37]))),
        "target_zero": np.uint8(draw(0, 255)),
        "bias": bias,
    }
    fixed = {name: np.asarray(array) for name, array in fixed.items()}
    attributes = dict(zip(CONV, (kernel, strides, dilations, pads), strict=True))
    expected, found = single("QLinearConv", {"x": x}, fixed, np.uint8, **attributes)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("zero", [0, 255])
@pytest.mark.parametrize("wraps", [False, True])
def test_sums_that_float32_cannot_hold_are_exact(zero: int, wraps: bool) -> None:
    """A layer of 256 channels and 9 taps at its worst; sums that do not fit 32 bits wrap around."""
    seed = np.random.default_rng(0)
    weight = seed.choice([62, 63], (4, 256, 3, 3)).astype(np.int8)
    x = (seed.random((1, 256, 9, 9)) < 0.01).astype(np.uint8)
    x = x if zero else 255 - x
    middle = (255 if zero else -255) * weight.sum((1, 2, 3), np.int64)
    bias = np.full(4, -(2**31) if zero else 2**31 - 1) if wraps else middle
    fixed = {
        "scale": np.float32(1),
        "zero": np.uint8(zero),
        "weight": weight,
        "weight_scale": np.full(4, 2.0**-22 if wraps else 0.1, np.float32),
        "weight_zero": np.zeros(4, np.int8),
        "target_scale": np.float32(1),
        "target_zero": np.uint8(128),
        "bias": bias.astype(np.int32),
    }
    fixed = {name: np.asarray(array) for name, array in fixed.items()}
    attributes = dict(zip(CONV, ([3, 3], [1, 1], [1, 1], [0] * 4), strict=True))
    expected, found = single("QLinearConv", {"x": x}, fixed, np.uint8, **attributes)
    assert np.array_equal(found, expected)
    assert wraps or len(np.unique(expected)) > 10


@pytest.mark.parametrize("zero", [0, 1, 128, 255])
@pytest.mark.parametrize("scale", [0.5, 0.1, 3.7])
def test_codes_are_exact(zero: int, scale: float) -> None:
    """Halves between codes, neighbours of them, and what lies beyond the codes."""
    halves = (np.arange(-600, 600) / 2 * np.float32(scale)).astype(np.float32)
    beyond = np.array([3e38, -3e38, np.inf, -np.inf], np.float32)
    x = np.concatenate([halves, np.nextafter(halves, 9e9), np.nextafter(halves, -9e9), beyond])
    fixed = {"scale": np.array(scale, np.float32), "zero": np.array(zero, np.uint8)}
    expected, found = single("QuantizeLinear", {"x": x.astype(np.float32)}, fixed, np.uint8)
    assert np.array_equal(found, expected)
    codes = np.arange(256, dtype=np.uint8)
    expected, found = single("DequantizeLinear", {"x": codes}, fixed, np.float32)
    assert np.array_equal(found, expected)


@settings(max_examples=30)
@given(st.integers(0, 70), st.integers(0, 600), st.integers(0, 500), st.integers(1, 3))
@example(40, 505, 241, 1)
def test_products_in_parts_are_the_products(rows: int, inner: int, columns: int, many: int) -> None:
    seed = np.random.default_rng(0)
    left = seed.integers(-9, 10, (many, rows, inner)).astype(np.float32)
    right = seed.integers(-9, 10, (inner, columns)).astype(np.float32)
    program = Program()
    out = np.zeros((many, rows, columns), np.float32)
    program.multiply(left, right, out)
    program.run()
    assert np.array_equal(out, left @ right)
    for call in program.calls:
        a, b, _ = call.args
        work = a.shape[-2] * a.shape[-1] * b.shape[-1]
        assert work <= GEMM_ONE_THREAD
        assert work <= GEMV_ONE_THREAD or 1 not in (a.shape[-2], b.shape[-1])


SHAPES = [
    (shape, features, steps)
    for shape, features, steps in zip(
        [*tiny_student.SHAPES, StudentSettings(width=16), StudentSettings(width=24)],
        [
            *(MfccSettings(), MfccSettings(hop=320), MfccSettings(coefficients=13)),
            *(MfccSettings(hop=200), MfccSettings(coefficients=8)),
            *(MfccSettings(window=640, hop=320, mels=64), MfccSettings(window=400, hop=160)),
        ],
        [1, 3, 2, 1, 4, 2, 4],
        strict=True,
    )
]


def students_model(number: int, quantized: bool) -> tuple[onnx.ModelProto, Manifest]:
    shape, features, steps = SHAPES[number]
    student = tiny_student.make(shape, features)
    audio = torch.from_numpy(speech_like(16000).astype(np.float32) / 32768)
    encodings = calibrate(student, [audio[None]]) if quantized else None
    model = build(student, steps * student.step, encodings)
    labels = ("one", "two", "three", "_unknown_", "_silence_")
    manifest = toy_model.manifest(
        labels=labels,
        geometry=student.geometry(steps * student.step),
        decision=Decision(dict.fromkeys(labels[:3], 0.4), smoothing=0.1, refractory=0.3),
        precision="int8" if quantized else "float32",
    )
    return model, manifest


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_all_between_the_first_codes_and_the_last_is_exact(number: int) -> None:
    """The quantized part of each student: convolutions, histories and what cuts and joins them."""
    model, _ = students_model(number, quantized=True)
    ends = {node.op_type: node for node in model.graph.node}
    first, last = ends["QuantizeLinear"].output[0], ends["DequantizeLinear"].input[0]
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    past, future = casts[0].output[0], casts[-1].input[0]
    inferred = onnx.shape_inference.infer_shapes(model)
    part = onnx.utils.Extractor(inferred).extract_model([first, past], [last, future])
    del part.graph.value_info[:]
    batch = 3
    seed = np.random.default_rng(number)
    shapes = {
        value.name: [side.dim_value or batch for side in value.type.tensor_type.shape.dim]
        for value in part.graph.input
    }
    for _ in range(3):
        codes = {name: seed.integers(0, 256, shape, np.uint8) for name, shape in shapes.items()}
        expected, found = both(part, codes, [last, future])
        for name in (last, future):
            assert np.array_equal(found[name], expected[name])
            assert len(np.unique(found[name])) > 10


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_both_give_the_same_logits(tmp_path: Path, number: int, quantized: bool) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(with_manifest(*students_model(number, quantized)))
    pcm = speech_like(16000)[:64_000]
    expected, found = (Engine(path, name).scorer().feed(pcm) for name in backend.BACKENDS)
    assert found.std() > 0.01
    # Float32 sums in another order: now and then a value between two codes goes to the other.
    far = np.abs(found - expected).max(1) > 2e-4
    assert far.mean() <= (0.05 if quantized else 0)


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("quantized", [False, True])
def test_streams_of_a_pool_are_to_the_bit_as_alone(
    tmp_path: Path, number: int, quantized: bool
) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(with_manifest(*students_model(number, quantized)))
    engine = Engine(path, "numpy")
    low = Decision(dict.fromkeys(engine.manifest.keywords, 1e-3), refractory=0.0)
    pool = StreamPool(engine, low, streams=5)
    chunk = engine.manifest.geometry.chunk
    pcm = [np.roll(speech_like(16000), 7777 * place)[: 12 * chunk] for place in range(5)]
    streams = [pool.open() for _ in pcm]
    found: dict[int, list] = {stream: [] for stream in streams}
    # Runs of every number of chunks, in an order that makes no program first.
    for turn in range(12):
        for size in ((5,), (2, 3), (1, 4), (3, 2))[turn % 4]:
            for stream in streams[:size] if size != 5 else streams:
                start = turn * chunk
                if not pool.waiting(stream) and pool.seconds(stream) * 16000 == start:
                    pool.push(stream, pcm[streams.index(stream)][start : start + chunk])
            for stream, detection in pool.run()[1]:
                found[stream].append(detection)
        for stream in streams:
            if pool.seconds(stream) * 16000 == turn * chunk:
                pool.push(stream, pcm[streams.index(stream)][turn * chunk :][:chunk])
        for stream, detection in pool.run()[1]:
            found[stream].append(detection)
    for stream, signal in zip(streams, pcm, strict=True):
        assert found[stream] == engine.stream(low).push(signal)
        assert found[stream]


def test_the_toy_detects_its_scene_in_both(tmp_path: Path) -> None:
    for activation in ("softmax", "sigmoid"):
        path = toy_model.save(tmp_path / "toy.onnx", activation=activation)
        onnx_found, numpy_found = (
            Engine(path, name).stream().push(toy_model.scene()) for name in backend.BACKENDS
        )
        assert [d.keyword for d in numpy_found][:2] == ["low", "high"]
        for ours, theirs in zip(numpy_found, onnx_found, strict=True):
            assert (ours.keyword, ours.time) == (theirs.keyword, theirs.time)
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)


def test_the_shipped_model_hears_the_same_words_in_both(shared: Path) -> None:
    folder = shared / "data" / "speech-commands"
    clips = [
        clip
        for word in ("yes", "go", "happy", "cat")
        for clip in sorted((folder / word).iterdir())[5:600:100]
    ]
    engines = [Engine(backend=name) for name in backend.BACKENDS]
    counts = 0
    for clip in clips:
        pcm = read_audio(clip, 16000)
        streams = [engine.stream() for engine in engines]
        theirs, ours = (stream.push(pcm) + stream.flush(0.5) for stream in streams)
        counts += len(ours)
        assert [(d.keyword, d.time) for d in ours] == [(d.keyword, d.time) for d in theirs]
        # Sums of floats in another order can move a code of the first layer by one.
        assert [d.score for d in ours] == pytest.approx([d.score for d in theirs], abs=3e-3)
    assert counts >= 6


def without_onnxruntime(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A process in which onnxruntime cannot be imported."""
    (folder / "onnxruntime.py").write_text('raise ImportError("no wheel\\nfor this machine")')
    return subprocess.run(
        [sys.executable, "-c", f"from earmark.runtime.cli import main\n{code}"],
        cwd=folder,
        env={key: x for key, x in os.environ.items() if key != backend.VARIABLE}
        | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def test_without_onnxruntime_numpy_detects_and_says_so_once(tmp_path: Path) -> None:
    path = toy_model.save(tmp_path / "toy.onnx")
    with wave.open(str(tmp_path / "scene.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(toy_model.scene().astype("<i2").tobytes())
    detect = f"main(['detect', '--model', {str(path)!r}, 'scene.wav'])"
    done = without_onnxruntime(tmp_path, f"raise SystemExit({detect} or {detect})")
    assert done.returncode == 0
    keywords = [json.loads(line)["keyword"] for line in done.stdout.splitlines()]
    assert keywords == ["low", "high", "low"] * 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("earmark: onnxruntime cannot be imported (no wheel): numpy runs")
    show = f"main(['info', {str(path)!r}, '--json'])"
    assert json.loads(without_onnxruntime(tmp_path, show).stdout)["backend"] == "numpy"


def test_the_environment_chooses_where_a_program_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = toy_model.save(tmp_path / "toy.onnx")
    assert Engine(path).backend == "onnxruntime"
    monkeypatch.setenv(backend.VARIABLE, "numpy")
    assert Engine(path).backend == "numpy"
    assert Engine(path, "onnxruntime").backend == "onnxruntime"
    assert main(["info", str(path)]) == 0
    assert "run by numpy" in capsys.readouterr().out.splitlines()[0]
    monkeypatch.setenv(backend.VARIABLE, "tflite")
    with pytest.raises(EarmarkError, match="'tflite': choose from onnxruntime, numpy"):
        Engine(path)


def test_onnxruntime_that_is_asked_for_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "earmark.runtime.backends.onnxruntime_import", None)
    with pytest.raises(EarmarkError, match="onnxruntime cannot be imported"):
        Engine(toy_model.save(tmp_path / "toy.onnx"), "onnxruntime")


MEAN = ("ReduceMean", ["cache"], {"axes": [0, 1], "keepdims": 0})


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([("Softmax", ["pcm"], {})], "'Softmax', is none that Earmark's graphs use"),
        ([("Gather", ["pcm", "beyond"], {"axis": 1})], "beyond the 1280 numbers"),
        ([("Gather", ["bias", "before"], {})], "beyond the 4 numbers"),
        (
            [MEAN, ("Cast", ["new0"], {"to": 2}), ("QuantizeLinear", ["pcm", "half", "new1"], {})],
            "'QuantizeLinear', computes its weights from the audio",
        ),
    ],
)
def test_what_numpy_does_not_run_is_refused_on_one_line(
    tmp_path: Path, nodes: list[tuple[str, list[str], dict[str, Any]]], reason: str
) -> None:
    path = toy_model.save(tmp_path / "toy.onnx")
    model = onnx.load(path)
    for name, value in {"beyond": 1280, "before": -5}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    for place, (operator, inputs, attributes) in enumerate(nodes):
        node = helper.make_node(operator, inputs, [f"new{place}"], **attributes)
        model.graph.node.append(node)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EarmarkError, match=reason) as caught:
        Engine(path, "numpy")
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("system", "machine", "python", "wanted"),
    [
        ("linux", "x86_64", "3.11", True),
        ("linux", "aarch64", "3.14", True),
        ("linux", "armv7l", "3.11", False),
        ("linux", "armv6l", "3.13", False),
        ("linux", "riscv64", "3.12", False),
        ("linux", "i686", "3.12", False),
        ("win32", "AMD64", "3.14", True),
        ("win32", "ARM64", "3.14", True),
        ("darwin", "arm64", "3.14", True),
        ("darwin", "x86_64", "3.13", True),
        ("darwin", "x86_64", "3.14", False),
        ("freebsd14", "amd64", "3.12", False),
    ],
)
def test_onnxruntime_is_required_where_it_has_a_wheel(
    system: str, machine: str, python: str, wanted: bool
) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    there = {"sys_platform": system, "platform_machine": machine, "python_version": python}
    needed = [Requirement(text) for text in project["dependencies"]]
    names = {each.name for each in needed if each.marker is None or each.marker.evaluate(there)}
    assert names == {"numpy"} | ({"onnxruntime"} if wanted else set())
