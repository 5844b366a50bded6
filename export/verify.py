"""Parity: a model file is written only when it does what the trained student does."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ..runtime.backends.onnxruntime_import import onnxruntime
from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..train.student import Student, whole_steps

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """Largest differences at which a file is still written."""

    float_logits: float = 2e-3
    """Student in torch against the float32 file, over whole clips."""
    int8_streaming: float = 0.05
    """int8 file streamed against the same graph over whole clips. The integer parts are exact; the
    front end's sums may round otherwise for another number of frames, and move a code by one."""
    int8_labels: float = 0.05
    """Share of clips to which the int8 file gives another label than the float32 file; of a
    multi-label model, the share of labels that it gives and the float32 file does not, or the
    reverse, at a posterior of one half."""


def verify(
    student: Student,
    float_file: Engine,
    int8_file: Engine,
    whole_int8: onnx.ModelProto,
    clips: NDArray[np.int16],
    limits: Limits,
) -> dict[str, Any]:
    """Compare the forms of a model on real clips.

    Args:
        student: in evaluation mode.
        float_file, int8_file: the streaming files.
        whole_int8: the int8 graph for chunks of a whole clip.
        clips: int16 [N, samples].
        limits: what is accepted.

    Returns:
        The differences, the limits, and how many convolutions of the int8 file onnxruntime runs in
        int8 after its own optimization.

    Raises:
        EarmarkError: a difference exceeds its limit; the message gives both.
    """
    step = student.step
    cut = np.stack([whole_steps(torch.from_numpy(c[None]), step)[0].numpy() for c in clips])
    with torch.no_grad():
        expected = student(torch.from_numpy(cut).float() / 32768)[0].numpy()
    steps = expected.shape[1]
    streamed_float = _streamed(float_file, cut, steps)
    streamed_int8 = _streamed(int8_file, cut, steps)
    whole = _whole(whole_int8, cut)

    float_error = float(np.abs(streamed_float - expected).max())
    stream_error = float(np.abs(streamed_int8 - whole).max())
    changed = given_labels(float_file, streamed_float) != given_labels(int8_file, streamed_int8)
    report = {
        "clips": len(clips),
        "float32_against_torch": float_error,
        "int8_streaming_against_whole": stream_error,
        "int8_against_float32_logits": float(np.abs(streamed_int8 - streamed_float).max()),
        "int8_labels_changed": float(changed.mean()),
        "operators": operators(int8_file.path),
    }
    for name, value, limit in (
        ("float32 against torch, logits", float_error, limits.float_logits),
        ("int8 streamed against whole, logits", stream_error, limits.int8_streaming),
        ("int8 against float32, share of labels", changed.mean(), limits.int8_labels),
    ):
        if not value <= limit:
            raise EarmarkError(
                f"not exported, parity fails: {name} differ by {value:.2g}, limit {limit:.2g}"
            )
    return report


def given_labels(engine: Engine, logits: Array) -> NDArray[Any]:
    """The labels that clips are given at their last step: int64 [N], or bool [N, labels] of a
    multi-label model, from logits [N, steps, labels]."""
    last = logits[:, -1]
    return last > 0 if engine.manifest.activation == "sigmoid" else last.argmax(1)


def operators(model: Path) -> dict[str, int]:
    """Convolutions as onnxruntime will run them: ``int8`` and ``float32``, and ``nodes`` in all."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = str(Path(folder) / "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = optimized
        # Saving a machine-specific graph warns; it is only counted here.
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        kinds = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    return {
        "int8": kinds["QLinearConv"],
        "float32": kinds["Conv"] + kinds["FusedConv"],
        "nodes": sum(kinds.values()),
    }


def _streamed(engine: Engine, clips: NDArray[np.int16], steps: int) -> Array:
    """Logits [N, steps, labels] of each clip, streamed in pieces that ignore chunk borders."""
    scorer = engine.scorer()
    logits = np.empty((len(clips), steps, len(engine.manifest.labels)), np.float32)
    for pcm, rows in zip(clips, logits, strict=True):
        scorer.reset()
        done = 0
        for piece in (*np.array_split(pcm, 7), None):
            new = scorer.flush() if piece is None else scorer.feed(piece)
            new = new[: steps - done]
            rows[done : done + len(new)] = new
            done += len(new)
    return logits


def _whole(model: onnx.ModelProto, clips: NDArray[np.int16]) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    pcm = clips.astype(np.float32) / 32768
    cache = np.zeros((1, model.graph.input[1].type.tensor_type.shape.dim[1].dim_value), np.float32)
    return np.concatenate(
        [np.asarray(session.run(["logits"], {"pcm": row[None], "cache": cache})[0]) for row in pcm]
    )
