"""What the network of a model file costs without the front end, which int8 and float32 share.

The front end is the file's own graph, cut after the logarithm of the mel energies; its cost, taken
from that of the whole graph round by round, leaves the network's.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.shape_inference import infer_shapes
from onnx.utils import Extractor

from ...runtime.backends.backend import Arrays
from ...runtime.backends.native_backend import NativeBackend
from ...runtime.backends.numpy_backend import NumpyBackend
from ...runtime.backends.onnxruntime_backend import bound, open_session
from ...runtime.engine import Engine
from ...runtime.onnx_file import read_onnx
from .audio import blocks, speech_like
from .timing import Work


def front_end(path: Path) -> onnx.ModelProto | None:
    """The graph of a model file up to the log mel energies, its only output, for a single stream.

    Returns:
        None where the graph has not one logarithm, or a convolution before it: another's, or one
        of another form.
    """
    model = onnx.load(path)
    logarithms = [node for node in model.graph.node if node.op_type == "Log"]
    if len(logarithms) != 1:
        return None
    (energies,) = logarithms[0].output
    cut = Extractor(infer_shapes(model)).extract_model(["pcm", "cache"], [energies])
    if any("Conv" in node.op_type for node in cut.graph.node):
        return None
    # All that a backend gives begins with the axis of the streams.
    cut.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "flat"))
    cut.graph.node.append(helper.make_node("Reshape", [energies, "flat"], ["energies"]))
    del cut.graph.output[:], cut.graph.value_info[:]
    shape = [1, "all"]
    cut.graph.output.append(
        helper.make_tensor_value_info("energies", onnx.TensorProto.FLOAT, shape)
    )
    return cut


def network_works(engine: Engine, name: str) -> tuple[Work, Work] | None:
    """The graph alone, without Python around it, and its front end; None where that has none.

    Args:
        engine: the model, whose backend runs both.
        name: of the model.
    """
    cut = front_end(engine.path)
    if cut is None:
        return None
    geometry = engine.manifest.geometry
    pcm = blocks(speech_like(geometry.sample_rate), geometry.chunk)[:1].astype(np.float32) / 32768
    cache = np.zeros((1, geometry.cache), np.float32)
    logits = np.zeros((1, geometry.steps, len(engine.manifest.labels)), np.float32)
    inputs, outputs = {"pcm": pcm, "cache": cache}, {"logits": logits, "cache_out": cache.copy()}
    whole = _bound(engine, engine.read(), inputs, outputs)
    first_part = cut.SerializeToString()
    energies = np.asarray(open_session(first_part).run(["energies"], inputs)[0])
    first = _bound(engine, first_part, inputs, {"energies": energies})
    audio = geometry.chunk / geometry.sample_rate
    return (
        Work(name, audio, lambda _: whole(), live=False),
        Work(f"{name}, front end", audio, lambda _: first(), live=False),
    )


def _bound(engine: Engine, data: bytes, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
    """A graph by the backend of an engine, without what that puts before and behind it."""
    if engine.backend == "onnxruntime":
        return bound(open_session(data), inputs, outputs)
    ours = {"native": NativeBackend, "numpy": NumpyBackend}
    backend = ours[engine.backend](read_onnx(data), engine.manifest)
    ((run,),) = backend.bind((inputs, outputs))
    return run
