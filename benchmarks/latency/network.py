"""What the network of a model file costs without the front end, which int8 and float32 share.

The front end is the file's own graph, cut after the logarithm of the mel energies; its cost, taken
from that of the whole graph round by round, leaves the network's.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx.shape_inference import infer_shapes
from onnx.utils import Extractor

from ...runtime.backends.onnxruntime_backend import bound, open_session
from ...runtime.engine import Engine
from .audio import blocks, speech_like
from .timing import Work


def front_end(path: Path) -> onnx.ModelProto | None:
    """The graph of a model file up to the log mel energies, its only output.

    Returns:
        None where the graph has not one logarithm, or a convolution before it: another's, or one
        of another form.
    """
    model = onnx.load(path)
    logarithms = [node for node in model.graph.node if node.op_type == "Log"]
    if len(logarithms) != 1:
        return None
    outputs = list(logarithms[0].output)
    cut = Extractor(infer_shapes(model)).extract_model(["pcm", "cache"], outputs)
    return None if any("Conv" in node.op_type for node in cut.graph.node) else cut


def network_works(engine: Engine, name: str) -> tuple[Work, Work] | None:
    """The graph alone, without Python around it, and its front end; None where that has none.

    Args:
        engine: a model that onnxruntime runs.
        name: of the model.
    """
    cut = front_end(engine.path)
    if cut is None:
        return None
    geometry = engine.manifest.geometry
    pcm = blocks(speech_like(geometry.sample_rate), geometry.chunk)[:1].astype(np.float32) / 32768
    cache = np.zeros((1, geometry.cache), np.float32)
    logits = np.zeros((1, geometry.steps, len(engine.manifest.labels)), np.float32)
    inputs = {"pcm": pcm, "cache": cache}
    whole = bound(
        open_session(engine.path.read_bytes()),
        inputs,
        {"logits": logits, "cache_out": np.zeros_like(cache)},
    )
    (output,) = (value.name for value in cut.graph.output)
    session = open_session(cut.SerializeToString())
    energies = np.asarray(session.run([output], inputs)[0])
    first = bound(session, inputs, {output: energies})
    audio = geometry.chunk / geometry.sample_rate
    return (
        Work(name, audio, lambda _: whole(), live=False),
        Work(f"{name}, front end", audio, lambda _: first(), live=False),
    )
