"""A hand-made model that keeps the contract of the streaming graph: it tells low tones from high.

Per step of ``step`` samples it takes the mean square of the signal and of its first difference,
each averaged with that of the step before, so that its cache holds one sample and one frame.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from earmark.runtime.manifest import METADATA_KEY, Decision, Geometry, Manifest
from onnx import TensorProto, helper, numpy_helper

LABELS = ("low", "high", "_unknown_", "_silence_")
LOW_HZ = 440.0
HIGH_HZ = 3000.0


def manifest(chunk: int = 1280, step: int = 320, **changes: Any) -> Manifest:
    """What the toy says of itself; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "name": "toy",
        "labels": LABELS,
        "geometry": Geometry(
            sample_rate=16000, chunk=chunk, step=step, receptive_field=2 * step + 1, cache=3
        ),
        "decision": Decision(thresholds={"low": 0.7, "high": 0.7}),
        "precision": "float32",
        "features": {},
        "parameters": 12,
    }
    return Manifest(**(fields | changes))


def graph(chunk: int = 1280, step: int = 320) -> onnx.ModelProto:
    """The graph alone, without a manifest."""
    steps = chunk // step
    # Rows: log energy, log of difference energy over energy. Columns: the labels.
    weights = np.array([[2, 2, 0, 0], [-3, 3, 0, 0]], np.float32)
    bias = np.array([2 * 6.9 - 3 * 1.65, 2 * 6.9 + 3 * 1.65, -5, 0], np.float32)
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "three": np.array([3], np.int64),
        "minus_one": np.array([-1], np.int64),
        "far": np.array([1 << 30], np.int64),
        "frames": np.array([-1, steps, step], np.int64),
        "half": np.array(0.5, np.float32),
        "floor": np.array(1e-8, np.float32),
        "weights": weights,
        "bias": bias,
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["cache", "zero", "one", "one"], ["last_sample"]),
        node("Slice", ["cache", "one", "two", "one"], ["last_energy"]),
        node("Slice", ["cache", "two", "three", "one"], ["last_change"]),
        node("Concat", ["last_sample", "pcm"], ["joined"], axis=1),
        node("Slice", ["joined", "zero", "minus_one", "one"], ["delayed"]),
        node("Slice", ["pcm", "minus_one", "far", "one"], ["new_sample"]),
        node("Sub", ["pcm", "delayed"], ["difference"]),
        *_energy(node, "pcm", "energy"),
        *_energy(node, "difference", "change"),
        node("Sub", ["change_log", "energy_log"], ["ratio"]),
        node("Unsqueeze", ["energy_log", "two"], ["energy_column"]),
        node("Unsqueeze", ["ratio", "two"], ["ratio_column"]),
        node("Concat", ["energy_column", "ratio_column"], ["features"], axis=2),
        node("MatMul", ["features", "weights"], ["product"]),
        node("Add", ["product", "bias"], ["logits"]),
        node("Concat", ["new_sample", "energy_new", "change_new"], ["cache_out"], axis=1),
    ]

    def tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    body = helper.make_graph(
        nodes,
        "toy",
        [tensor("pcm", "batch", chunk), tensor("cache", "batch", 3)],
        [tensor("logits", "batch", steps, len(LABELS)), tensor("cache_out", "batch", 3)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def _energy(node: Any, signal: str, name: str) -> list[onnx.NodeProto]:
    """Mean square per step, averaged with the step before, and its logarithm."""
    return [
        node("Mul", [signal, signal], [f"{name}_square"]),
        node("Reshape", [f"{name}_square", "frames"], [f"{name}_framed"]),
        node("ReduceMean", [f"{name}_framed"], [f"{name}_now"], axes=[2], keepdims=0),
        node("Concat", [f"last_{name}", f"{name}_now"], [f"{name}_both"], axis=1),
        node("Slice", [f"{name}_both", "zero", "minus_one", "one"], [f"{name}_before"]),
        node("Slice", [f"{name}_now", "minus_one", "far", "one"], [f"{name}_new"]),
        node("Add", [f"{name}_now", f"{name}_before"], [f"{name}_sum"]),
        node("Mul", [f"{name}_sum", "half"], [f"{name}_mean"]),
        node("Add", [f"{name}_mean", "floor"], [f"{name}_safe"]),
        node("Log", [f"{name}_safe"], [f"{name}_log"]),
    ]


def save(
    path: Path,
    *,
    text: str | None = None,
    chunk: int = 1280,
    step: int = 320,
    **changes: Any,
) -> Path:
    """Write the toy with its manifest (or with ``text`` as its manifest) and return ``path``."""
    model = graph(chunk, step)
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = manifest(chunk, step, **changes).to_json() if text is None else text
    path.write_bytes(model.SerializeToString())
    return path


def tone(hertz: float, seconds: float, amplitude: float = 0.3) -> np.ndarray:
    """A sine at 16 kHz, int16 [samples]."""
    t = np.arange(round(seconds * 16000)) / 16000
    return np.round(amplitude * 32767 * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def scene() -> np.ndarray:
    """Low tone at 1.0 s, high at 2.5 s, low again at 4.0 s, each 0.5 s; int16, 5.5 s in all."""
    pcm = np.random.default_rng(0).integers(-3, 4, round(5.5 * 16000)).astype(np.int16)
    for start, hertz in ((1.0, LOW_HZ), (2.5, HIGH_HZ), (4.0, LOW_HZ)):
        sound = tone(hertz, 0.5)
        at = round(start * 16000)
        pcm[at : at + len(sound)] += sound
    return pcm
