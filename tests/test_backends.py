"""All backends on every graph that is exported, held against onnxruntime."""

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
from earmark.runtime import Engine, read_audio
from earmark.runtime.backends import (
    native_backend,
    native_library,
    native_ops,
    native_program,
)
from earmark.runtime.backends.native_backend import NativeBackend
from earmark.runtime.backends.native_library import kinds
from earmark.runtime.backends.numpy_backend import NumpyBackend
from earmark.runtime.backends.numpy_ops import RULES
from earmark.runtime.backends.numpy_program import GEMM_ONE_THREAD, GEMV_ONE_THREAD, NumpyProgram
from earmark.runtime.backends.onnxruntime_import import onnxruntime
from earmark.runtime.manifest import Decision, Manifest
from earmark.runtime.onnx_file import read_onnx
from earmark.runtime.operators import OPERATORS
from earmark.runtime.pool import StreamPool
from earmark.train.mfcc import MfccSettings
from earmark.train.student import StudentSettings
from hypothesis import example, given, settings
from hypothesis import strategies as st
from native_kinds import BUILT, NATIVE, native
from onnx import helper, numpy_helper

Tensors = dict[str, np.ndarray]
CONV = ("kernel_shape", "strides", "dilations", "pads")
OURS = ["numpy", *NATIVE, *([] if BUILT else [pytest.param("native", marks=native)])]
"""What does not compute by onnxruntime. Numbers are kinds of processors that this one is: 0 has
what any has."""


def found_by(kind: str, data: bytes, inputs: Tensors, outputs: Tensors, runs: int = 1) -> Tensors:
    """``outputs``, after a backend of ours has computed them so often."""
    file, manifest = read_onnx(data), toy_model.manifest()
    if kind == "numpy":
        backend = NumpyBackend(file, manifest)
    else:
        backend = NativeBackend(file, manifest, int(kind.split()[1]))
    ((*_, call),) = backend.bind((inputs, outputs))
    for _ in range(runs):
        call()
    return outputs


def both(
    kind: str, model: onnx.ModelProto, inputs: Tensors, outputs: list[str]
) -> tuple[Tensors, Tensors]:
    """What onnxruntime and a backend of ours compute."""
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = {name: np.asarray(session.run([name], inputs)[0]) for name in outputs}
    empty = {name: np.zeros_like(array) for name, array in expected.items()}
    return expected, found_by(kind, data, inputs, empty)


def one_operator(
    operator: str, inputs: Tensors, fixed: Tensors, gives: type, **more: Any
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    sides = [f"side{axis}" for axis in range(next(iter(inputs.values())).ndim)]
    types = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in inputs.items()}
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(operator, [*inputs, *fixed], ["y"], **more)],
            "single",
            [value(name, types[name], x.shape) for name, x in inputs.items()],
            [value("y", helper.np_dtype_to_tensor_dtype(np.dtype(gives)), sides)],
            [numpy_helper.from_array(x, name) for name, x in fixed.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def single(kind: str, operator: str, inputs: Tensors, fixed: Tensors, gives: type, **more: Any):
    """A graph of one operator, through onnxruntime and a backend of ours."""
    model = one_operator(operator, inputs, fixed, gives, **more)
    expected, found = both(kind, model, inputs, ["y"])
    return expected["y"], found["y"]


def test_every_operator_of_the_graphs_has_a_rule() -> None:
    assert OPERATORS.keys() == RULES.keys() | {"Conv", "QLinearConv"}
    # Integers that depend on the audio are in no graph of ours.
    assert OPERATORS.keys() == native_ops.RULES.keys() | {"Conv", "QLinearConv", "Mod"}


@pytest.mark.parametrize("kind", OURS)
@settings(max_examples=60)
@given(data=st.data())
def test_quantized_convolutions_are_exact(kind: str, data: st.DataObject) -> None:
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
    expected, found = single(kind, "QLinearConv", {"x": x}, fixed, np.uint8, **attributes)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", OURS)
def test_padding_as_large_as_the_output(kind: str) -> None:
    """The same array must not serve both: what pads is written once, before the first run."""
    fixed = {"kernel": np.ones((2, 1, 1, 3), np.float32), "bias": np.zeros(2, np.float32)}
    attributes = dict(zip(CONV, ([1, 3], [1, 1], [1, 1], [0, 1, 0, 1]), strict=True))
    x = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2)
    model = one_operator("Conv", {"x": x}, fixed, np.float32, **attributes).SerializeToString()
    found = found_by(kind, model, {"x": x}, {"y": np.ones((1, 2, 2, 2), np.float32)}, runs=2)
    assert found["y"].ravel().tolist() == [3, 3, 7, 7] * 2


@pytest.mark.parametrize("kind", OURS[1:])
@settings(max_examples=80)
@given(
    *(st.integers(1, 9), st.integers(1, 70), st.integers(1, 40)),
    st.sampled_from([16, 32, 48, 64, 128]),
    st.integers(0, 1 << 30),
)
@example(4, 64, 32, 128, 0)
@example(4, 64, 32, 64, 0)
@example(4, 63, 32, 32, 0)
@example(4, 9, 32, 16, 0)
def test_weights_of_8_bits_are_exact(
    kind: str, rows: int, inputs: int, outputs: int, most: int, seed: int
) -> None:
    """Where onnxruntime without VNNI would not be: numpy is. Smaller weights are added up in 16
    bits, of four inputs where they allow it."""
    random = np.random.default_rng(seed)
    fixed = {
        "scale": np.float32(1),
        "zero": np.uint8(random.integers(0, 256)),
        "weight": random.integers(-most, most, (outputs, inputs, 1, 1)).astype(np.int8),
        "weight_scale": np.full(outputs, 1e-3, np.float32),
        "weight_zero": np.zeros(outputs, np.int8),
        "target_scale": np.float32(1),
        "target_zero": np.uint8(random.integers(0, 256)),
        "bias": random.integers(-(1 << 20), 1 << 20, outputs).astype(np.int32),
    }
    fixed = {name: np.asarray(array) for name, array in fixed.items()}
    model = one_operator(
        "QLinearConv",
        {"x": (x := random.choice(np.array([0, 1, 254, 255], np.uint8), (1, inputs, rows, 1)))},
        fixed,
        np.uint8,
        **dict(zip(CONV, ([1, 1], [1, 1], [1, 1], [0] * 4), strict=True)),
    ).SerializeToString()
    expected, found = (
        found_by(which, model, {"x": x}, {"y": np.zeros((1, outputs, rows, 1), np.uint8)})["y"]
        for which in ("numpy", kind)
    )
    assert np.array_equal(found, expected)


LAID_OUT = st.permutations([1, 2, 3])
"""Axes behind the first in another order: what an operator gets does not lie in C order."""


@pytest.mark.parametrize("kind", OURS)
@settings(max_examples=40)
@given(
    sides=st.tuples(*[st.integers(1, 20)] * 3),
    perm=LAID_OUT,
    columns=st.integers(1, 40),
    seed=st.integers(0, 1 << 30),
)
@example(sides=(3, 5, 16), perm=[1, 2, 3], columns=40, seed=0)
def test_operators_of_floats(
    kind: str, sides: tuple[int, ...], perm: list[int], columns: int, seed: int
) -> None:
    """Each on a tensor whose axes were exchanged, by numbers and by what comes from the audio."""
    random = np.random.default_rng(seed)
    laid = [sides[axis - 1] for axis in perm]
    fixed = {
        "right": random.standard_normal((laid[2], columns)).astype(np.float32),
        "rights": random.standard_normal((laid[0], laid[2], columns)).astype(np.float32),
        "places": random.integers(-laid[1], laid[1], 5),
        "row": random.standard_normal(laid[2]).astype(np.float32),
        "left": random.standard_normal((3, laid[1])).astype(np.float32),
        "kernel": random.standard_normal((columns, laid[0], 1, 1)).astype(np.float32),
        "bias": random.standard_normal(columns).astype(np.float32),
    }
    nodes = [
        ("Transpose", ["x"], "t", {"perm": [0, *perm]}),
        ("MatMul", ["t", "right"], "product", {}),
        ("MatMul", ["t", "rights"], "products", {}),
        ("MatMul", ["left", "t"], "product_of_audio", {}),
        ("Gather", ["t", "places"], "taken", {"axis": 2}),
        ("Sub", ["t", "row"], "difference", {}),
        ("Mul", ["difference", "t"], "scaled", {}),
        ("Div", ["row", "t"], "ratio", {}),
        ("Min", ["t", "row", "scaled"], "least", {}),
        ("Relu", ["t"], "positive", {}),
        ("ReduceMean", ["t"], "mean", {"axes": [1, 3], "keepdims": 0}),
        ("Concat", ["t", "scaled", "t"], "joined", {"axis": 2}),
        (
            "Conv",
            ["t", "kernel", "bias"],
            "convolved",
            dict(zip(CONV, ([1, 1], [1, 2], [1, 1], [0, 1, 1, 0]), strict=True)),
        ),
    ]
    outputs = [output for _, _, output, _ in nodes[1:]]
    x = random.standard_normal((2, *sides)).astype(np.float32)
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(name, inputs, [y], **more) for name, inputs, y, more in nodes],
            "floats",
            [value("x", onnx.TensorProto.FLOAT, x.shape)],
            [
                value(name, onnx.TensorProto.FLOAT, list("abcd")[: 2 if name == "mean" else 4])
                for name in outputs
            ],
            [numpy_helper.from_array(array, name) for name, array in fixed.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    expected, found = both(kind, model, {"x": x}, outputs)
    for name in outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("zero", [0, 255])
@pytest.mark.parametrize("wraps", [False, True])
def test_sums_that_float32_cannot_hold_are_exact(kind: str, zero: int, wraps: bool) -> None:
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
    expected, found = single(kind, "QLinearConv", {"x": x}, fixed, np.uint8, **attributes)
    assert np.array_equal(found, expected)
    assert wraps or len(np.unique(expected)) > 10


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("zero", [0, 1, 128, 255])
@pytest.mark.parametrize("scale", [0.5, 0.1, 3.7])
def test_codes_are_exact(kind: str, zero: int, scale: float) -> None:
    """Halves between codes, neighbours of them, and what lies beyond the codes."""
    halves = (np.arange(-600, 600) / 2 * np.float32(scale)).astype(np.float32)
    beyond = np.array([3e38, -3e38, np.inf, -np.inf], np.float32)
    x = np.concatenate([halves, np.nextafter(halves, 9e9), np.nextafter(halves, -9e9), beyond])
    fixed = {"scale": np.array(scale, np.float32), "zero": np.array(zero, np.uint8)}
    expected, found = single(
        kind, "QuantizeLinear", {"x": x.astype(np.float32)[None]}, fixed, np.uint8
    )
    assert np.array_equal(found, expected)
    codes = np.arange(256, dtype=np.uint8)
    expected, found = single(kind, "DequantizeLinear", {"x": codes[None]}, fixed, np.float32)
    assert np.array_equal(found, expected)


@settings(max_examples=30)
@given(st.integers(0, 70), st.integers(0, 600), st.integers(0, 500), st.integers(1, 3))
@example(40, 505, 241, 1)
def test_products_in_parts_are_the_products(rows: int, inner: int, columns: int, many: int) -> None:
    seed = np.random.default_rng(0)
    left = seed.integers(-9, 10, (many, rows, inner)).astype(np.float32)
    right = seed.integers(-9, 10, (inner, columns)).astype(np.float32)
    program = NumpyProgram()
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


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_all_between_the_first_codes_and_the_last_is_exact(kind: str, number: int) -> None:
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
        expected, found = both(kind, part, codes, [last, future])
        for name in (last, future):
            assert np.array_equal(found[name], expected[name])
            assert len(np.unique(found[name])) > 10


def an_engine(kind: str, path: Path | None = None) -> Engine:
    """By a backend, and by what some kind of processor has where it is one of ``NATIVE``."""
    name, *number = kind.split()
    here = kinds() if number else {}
    with pytest.MonkeyPatch.context() as patch:
        some = {each: layout for each, layout in here.items() if each <= int(number[0])}
        patch.setattr(native_backend, "kinds", lambda: some)
        return Engine(path, name)


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_all_give_the_same_logits(tmp_path: Path, ours: str, number: int, quantized: bool) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(with_manifest(*students_model(number, quantized)))
    pcm = speech_like(16000)[:64_000]
    expected, found = (an_engine(kind, path).scorer().feed(pcm) for kind in ("onnxruntime", ours))
    assert found.std() > 0.01
    # Float32 sums in another order: now and then a value between two codes goes to the other.
    far = np.abs(found - expected).max(1) > 2e-4
    assert far.mean() <= (0.05 if quantized else 0)


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("quantized", [False, True])
def test_streams_of_a_pool_are_to_the_bit_as_alone(
    tmp_path: Path, ours: str, number: int, quantized: bool
) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(with_manifest(*students_model(number, quantized)))
    engine = an_engine(ours, path)
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


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_toy_detects_its_scene_in_all(tmp_path: Path, kind: str, activation: str) -> None:
    path = toy_model.save(tmp_path / "toy.onnx", activation=activation)
    onnx_found, found = (
        an_engine(name, path).stream().push(toy_model.scene()) for name in ("onnxruntime", kind)
    )
    assert [d.keyword for d in found][:2] == ["low", "high"]
    for ours, theirs in zip(found, onnx_found, strict=True):
        assert (ours.keyword, ours.time) == (theirs.keyword, theirs.time)
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)


@pytest.mark.parametrize("kind", OURS)
def test_the_shipped_model_hears_the_same_words_in_all(shared: Path, kind: str) -> None:
    folder = shared / "data" / "speech-commands"
    clips = [
        clip
        for word in ("yes", "go", "happy", "cat")
        for clip in sorted((folder / word).iterdir())[5:600:100]
    ]
    engines = [an_engine(name) for name in ("onnxruntime", kind)]
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


def test_what_python_and_c_say_of_each_other_is_the_same() -> None:
    source = (Path(native_program.__file__).parent / "native" / "native.c").read_text()
    (names,) = re.findall(r"enum \{([^}]+)\};", source)
    assert re.findall(r"\w+", names) == [each.name for each in native_program.Instruction]
    for name, value in {"PANEL": native_program.PANEL, "AXES": native_program.MOST_AXES}.items():
        assert f"#define {name} {value}\n" in source
    assert f"earmark_native_format(void) {{ return {native_library.FORMAT}; }}" in source


@native
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="reads what Linux says of x86"
)
def test_the_kinds_of_this_processor_are_those_that_linux_says() -> None:
    flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text()))
    needed = {
        0: set(),
        1: {"avx2", "fma"},
        2: {"avx2", "fma", "avx_vnni"},
        3: {"avx2", "fma", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    }
    said = {kind for kind, some in needed.items() if some <= flags}
    # What compiled the code, where nobody chose another.
    asked = [shutil.which("gcc") or sys.executable, "-dumpversion"]
    told = subprocess.run(asked, capture_output=True, text=True).stdout.partition(".")[0]
    version = int(told) if told.isdigit() and "CC" not in os.environ else 0
    known = {0, 1} | ({2} if version >= 12 else set()) | ({3} if version >= 11 else set())
    assert said & known <= kinds().keys() <= said
    assert [native_program.Instruction(layout).name for layout in kinds().values()] == [
        ("CONVOLVE", "PAIRS", "QUADS", "QUADS")[kind] for kind in kinds()
    ]


@native
def test_streams_are_made_in_several_threads_at_once(model: str) -> None:
    expected = Engine(model, "native").stream().push(toy_model.scene())
    for _ in range(5):
        engine = Engine(model, "native")
        engine._backend._templates.clear()  # pyright: ignore[reportAttributeAccessIssue]

        def listen(_: int, engine: Engine = engine) -> list:
            return engine.stream().push(toy_model.scene())

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(listen, range(8))) == [expected] * 8
