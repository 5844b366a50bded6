"""Hostile and odd model files: refused from their bytes, before onnxruntime sees them."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toy_model
from earmark.runtime import EarmarkError, Engine
from earmark.runtime.backends import backend
from earmark.runtime.engine import DEFAULT_MODEL
from earmark.runtime.graph_check import check_graph
from earmark.runtime.manifest import Manifest
from earmark.runtime.onnx_file import read_onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Change = Callable[[onnx.ModelProto], object]


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No backend must be asked at all."""

    def load(*arguments: Any) -> None:
        raise AssertionError("a backend was given the file")

    monkeypatch.setattr(backend, "load", load)


def changed(folder: Path, change: Change) -> Path:
    model = onnx.load(toy_model.save(folder / "model.onnx"))
    change(model)
    path = folder / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def node(model: onnx.ModelProto, operator: str, *inputs: str, **attributes: Any) -> None:
    """One more operator, whose output is named after their number."""
    name = f"more{len(model.graph.node)}"
    model.graph.node.append(helper.make_node(operator, inputs, [name], **attributes))


def weights(model: onnx.ModelProto, name: str, array: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def posteriors(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["pcm"], ["posteriors"]))


def doubled(model: onnx.ModelProto) -> None:
    last = weights(model, "seed", np.ones(1, np.float32))
    for _ in range(40):
        node(model, "Concat", last, last, axis=0)
        last = model.graph.node[-1].output[0]


def outer(model: onnx.ModelProto) -> None:
    column = weights(model, "column", np.ones((60_000, 1), np.float32))
    row = weights(model, "row", np.ones((1, 60_000), np.float32))
    node(model, "MatMul", column, row)


def broadcast(model: onnx.ModelProto) -> None:
    column = weights(model, "column", np.ones((60_000, 1), np.float32))
    row = weights(model, "row", np.ones((1, 60_000), np.float32))
    node(model, "Add", column, row)


def long_product(model: onnx.ModelProto) -> None:
    square = weights(model, "square", np.ones((2048, 2048), np.float32))
    node(model, "MatMul", square, square)


def gathered(model: onnx.ModelProto) -> None:
    table = weights(model, "table", np.ones((1, 30_000), np.float32))
    node(model, "Gather", table, weights(model, "places", np.zeros(30_000, np.int64)))


def padded(model: onnx.ModelProto) -> None:
    x = weights(model, "x", np.ones((1, 1, 1, 1), np.float32))
    bias = weights(model, "b", np.ones(1, np.float32))
    pads = [1 << 18, 1 << 18, 0, 0]
    more = {"strides": [1, 1], "dilations": [1, 1], "kernel_shape": [1, 1]}
    node(model, "Conv", x, x, bias, pads=pads, **more)


def convolved(model: onnx.ModelProto, kernel: int, **attributes: Any) -> None:
    """The audio as one row of one channel by one filter."""
    weights(model, "filter", np.ones((1, 1, 1, kernel), np.float32))
    weights(model, "no_bias", np.zeros(1, np.float32))
    node(model, "Unsqueeze", "pcm", "one")
    node(model, "Unsqueeze", model.graph.node[-1].output[0], "one")
    taken = model.graph.node[-1].output[0]
    given = {"kernel_shape": [1, kernel], "dilations": [1, 1], **attributes}
    node(model, "Conv", taken, "filter", "no_bias", **given)


def far_strides(model: onnx.ModelProto) -> None:
    convolved(model, 1, pads=[5000] * 4, strides=[1 << 20, 1 << 20])


def long_rows(model: onnx.ModelProto) -> None:
    convolved(model, 10_000, pads=[0, 10_000, 0, 10_000], strides=[1, 1])


def shared_weights(model: onnx.ModelProto) -> None:
    """Compiled code has a copy for each operator, filled up to 16 columns."""
    row = weights(model, "row", np.ones((1, 50_000), np.float32))
    column = weights(model, "column", np.ones((50_000, 1), np.float32))
    for _ in range(85):
        node(model, "MatMul", row, column)


def gathered_often(model: onnx.ModelProto) -> None:
    table = weights(model, "table", np.ones((1, 1 << 20), np.float32))
    node(model, "Transpose", table, perm=[1, 0])
    transposed = model.graph.node[-1].output[0]
    for _ in range(64):
        node(model, "Gather", transposed, "one")


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    node(model, "If", weights(model, "yes", np.array([1])), then_branch=inner, else_branch=inner)


def custom(model: onnx.ModelProto) -> None:
    node(model, "Add", "pcm", "pcm", domain="com.microsoft")


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def more_operators(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)


def functions(model: onnx.ModelProto) -> None:
    model.functions.add(name="f")


def wrong_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 40


def overridden(model: onnx.ModelProto) -> None:
    weights(model, "pcm", np.zeros((1, 1280), np.float32))


def integer_division(model: onnx.ModelProto) -> None:
    node(model, "Div", "one", "zero")


def modulo_zero(model: onnx.ModelProto) -> None:
    node(model, "Mod", "one", "zero")


def loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[0])


def many(model: onnx.ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Relu", ["pcm"], ["x"])] * 10_001)


def other_logits(model: onnx.ModelProto) -> None:
    last = next(n for n in model.graph.node if n.output[0] == "logits")
    last.output[0] = "sums"
    node(model, "Reshape", "sums", weights(model, "target", np.array([1, 2, 8])))
    model.graph.node[-1].output[0] = "logits"


def typed_data(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.FLOAT, [1], [0.5]))


def manifest(**fields: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        raw = json.loads(model.metadata_props[0].value)
        for name, value in fields.items():
            holder, key = raw, name
            if "__" in name:
                outside, key = name.split("__")
                holder = raw[outside]
            holder[key] = value
        model.metadata_props[0].value = json.dumps(raw)

    return change


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (doubled, "'Concat', takes unreasonable memory"),
        (outer, "'MatMul', takes unreasonable memory"),
        (broadcast, "'Add', takes unreasonable memory"),
        (long_product, "'MatMul', takes unreasonable memory or time"),
        (gathered, "'Gather', takes unreasonable memory"),
        (padded, "'Conv', takes unreasonable memory"),
        (far_strides, "'Conv', takes unreasonable memory"),
        (long_rows, "'Conv', takes unreasonable memory"),
        (shared_weights, "'MatMul', takes unreasonable memory"),
        (gathered_often, "'Gather', takes unreasonable memory"),
        (external, "field 1[34] of its weights"),
        (branch, "field 6 of its attribute"),
        (custom, "beyond those of the ONNX standard"),
        (other_opset, "opset 18, expected 17"),
        (more_operators, "beyond those of the ONNX standard"),
        (functions, "field 25 of its model"),
        (wrong_size, "size is not that of their shape"),
        (overridden, "weights in the place of an input"),
        (integer_division, "'Div', is not of float32"),
        (modulo_zero, "'Mod', has no positive integers"),
        (loop, "which nothing gives"),
        (twice, "an output without a name of its own"),
        (many, "more than 10000"),
        (other_logits, "computes another logits"),
        (typed_data, "field 4 of its weights"),
        (lambda m: weights(m, "s16_step", np.float32(1e-3)), "'s16_step', a name that the runtime"),
        (lambda m: weights(m, "s16", np.zeros((1, 1280), np.float32)), "a name that the runtime"),
        (posteriors, "'posteriors', a name that the runtime gives"),
        (lambda m: node(m, "ConstantOfShape", "far"), "'ConstantOfShape', is none"),
        (lambda m: node(m, "Relu", "pcm", alpha=1), "has the attribute 'alpha'"),
        (lambda m: node(m, "Relu", "pcm", "pcm"), "has 2 inputs"),
        (lambda m: node(m, "Slice", "pcm", "pcm", "far", "one"), "no list of integers"),
        (lambda m: node(m, "Slice", "pcm", "one", "far", "one", "zero"), "cannot be zero"),
        (lambda m: node(m, "Gemm", "pcm", "pcm", "pcm"), "'Gemm', multiplies shapes"),
        (lambda m: node(m, "Gemm", "pcm", "one", "pcm"), "'Gemm', has other types"),
        (lambda m: node(m, "Transpose", "pcm", perm=[0, 0]), "no permutation"),
        (lambda m: node(m, "Flatten", "pcm", axis=9), "has no axis 9"),
        (lambda m: node(m, "Reshape", "pcm", "two"), "into another size"),
        (manifest(geometry__cache=1 << 40), "geometry.cache"),
        (manifest(geometry__chunk=1 << 20, geometry__step=1), "geometry.step"),
        (manifest(geometry__chunk=-1), "geometry.chunk"),
        (manifest(decision__smoothing=float("inf")), "Infinity is no number"),
        (manifest(labels=["x"] * 100_000), "1 to 1000 names"),
        (manifest(features={"a": [[[]]] * 9, "b": json.loads("[" * 99 + "]" * 99)}), "levels"),
        (manifest(name="a\x1b[2J"), "printable"),
    ],
)
def test_it_is_refused_before_it_is_loaded(tmp_path: Path, change: Change, reason: str) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(EarmarkError, match=reason) as caught:
        Engine(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["native", "numpy"])
@pytest.mark.parametrize("source", ["pcm", "nothing"])
def test_what_numpy_cannot_count_is_refused_on_one_line(
    tmp_path: Path, name: str, source: str
) -> None:
    """No numbers in 2^62 rows, which depend on the audio or not."""
    if name not in backend.available():
        pytest.skip(f"{name} is not there")

    def change(model: onnx.ModelProto) -> None:
        weights(model, "nothing", np.zeros((1, 0), np.float32))
        node(model, "Slice", source, "zero", "zero", "one")
        empty = model.graph.node[-1].output[0]
        node(model, "Reshape", empty, weights(model, "many", np.array([1 << 62, 0])))
        node(model, "Relu", model.graph.node[-1].output[0])

    path = changed(tmp_path, change)
    with pytest.raises(EarmarkError, match="too big") as caught:
        Engine(path, name)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("path", [DEFAULT_MODEL, None])
def test_what_is_read_is_what_the_onnx_package_reads(tmp_path: Path, path: Path | None) -> None:
    path = path or toy_model.save(tmp_path / "toy.onnx")
    file, model = read_onnx(path.read_bytes()), onnx.load(path)
    assert [(n.operator, list(n.inputs), list(n.outputs)) for n in file.nodes] == [
        (n.op_type, list(n.input), list(n.output)) for n in model.graph.node
    ]
    for ours, theirs in zip(file.nodes, model.graph.node, strict=True):
        values = {a.name: helper.get_attribute_value(a) for a in theirs.attribute}
        assert ours.attributes == {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
    assert file.weights.keys() == {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        assert np.array_equal(file.weights[tensor.name], numpy_helper.to_array(tensor))
    assert file.metadata == {entry.key: entry.value for entry in model.metadata_props}
    check_graph(file, Manifest.from_json(file.metadata["earmark"]))


@given(st.binary(max_size=300) | st.integers(0, 3000).map(lambda cut: MODEL[:cut]))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_onnx(data)
    except EarmarkError as error:
        assert str(error).startswith("is no ONNX model")


MODEL = DEFAULT_MODEL.read_bytes()


@pytest.mark.parametrize("text", ["hello\n", "recipe\n", "(function"])
def test_a_text_is_not_taken_for_a_model_with_foreign_fields(tmp_path: Path, text: str) -> None:
    path = tmp_path / "text.onnx"
    path.write_text(text)
    with pytest.raises(EarmarkError, match=r"text\.onnx: is no ONNX model, or a damaged one: name"):
        Engine(path)


def ints(model: onnx.ModelProto) -> None:
    node(model, "Transpose", "pcm", perm=[0] * 50_000)


def dims(model: onnx.ModelProto) -> None:
    model.graph.initializer.add(name="x", data_type=1).dims.extend([0] * 50_000)


def entries(model: onnx.ModelProto) -> None:
    for _ in range(20_000):
        model.metadata_props.add()


def nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([onnx.NodeProto()] * 50_000)


def initializers(model: onnx.ModelProto) -> None:
    model.graph.initializer.extend([TensorProto()] * 50_000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (nodes, "node of its graph is there more than 10000 times"),
        (initializers, "initializer of its graph is there more than 10000 times"),
        (entries, "metadata_props of its model is there more than 1000 times"),
        (ints, "ints of its attribute is there more than 1000 times"),
        (dims, "dims of its weights is there more than 1000 times"),
    ],
)
def test_what_is_there_too_often_is_not_collected(
    tmp_path: Path, change: Change, reason: str
) -> None:
    data = changed(tmp_path, change).read_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(EarmarkError, match=reason):
            read_onnx(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_group_or_a_number_of_too_many_bits_is_refused() -> None:
    for data in (b"\x0b\x0c", b"\x08" + b"\xff" * 10 + b"\x01", b"\x08" + b"\xff" * 9 + b"\x02"):
        with pytest.raises(EarmarkError, match="damaged"):
            read_onnx(data)
