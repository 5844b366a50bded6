"""How much a graph would compute and hold, found from its shapes before anything is computed.

What a single operator may be is the matter of :mod:`earmark.runtime.operators`.
"""

import math

from .errors import EarmarkError
from .graph_ends import NAMES
from .manifest import Manifest
from .onnx_file import OnnxFile
from .operators import OperatorError, Tensor, infer

OPSET = 17
"""Version of the ONNX operators that models use."""
MAX_ELEMENTS = 1 << 26
"""Most numbers that a graph computes in one call (256 MiB of float32), in all its tensors and in
what backends make of the inputs of operators."""
MAX_WORK = 1 << 32
"""Most multiplications in one call."""


def check_graph(file: OnnxFile, manifest: Manifest) -> None:
    """Refuse a graph that is not what its manifest says, or that takes unreasonable resources.

    Raises:
        EarmarkError: it has other inputs, outputs, operators or attributes than Earmark's graphs
            have, shapes that do not fit, or computes too much. The message names no file.
    """
    if file.opset != OPSET:
        raise EarmarkError(f"the graph is of opset {file.opset}, expected {OPSET}: export it again")
    expected = _check_declared(file, manifest)
    known = {name: Tensor(array.dtype.name, array.shape) for name, array in file.weights.items()}
    known |= {name: tensor for (side, name), tensor in expected.items() if side == "input"}
    if len(known) < len(file.weights) + 2:
        raise EarmarkError("the graph has weights in the place of an input: export it again")
    taken = NAMES & {*file.weights, *(name for node in file.nodes for name in node.outputs)}
    if taken:
        raise EarmarkError(
            f"the graph has a tensor {min(taken)!r}, a name that the runtime gives: export it again"
        )
    elements = work = 0
    for place, node in enumerate(file.nodes):
        try:
            tensors, multiplications, held = infer(node, known, file.weights)
            elements += held + sum(math.prod(tensor.shape) for tensor in tensors)
            work += multiplications
            if elements > MAX_ELEMENTS or work > MAX_WORK:
                raise OperatorError("takes unreasonable memory or time")
            for name, tensor in zip(node.outputs, tensors, strict=True):
                if not name or name in known:
                    raise OperatorError("has an output without a name of its own")
                known[name] = tensor
        except (OperatorError, ValueError, IndexError) as error:
            raise EarmarkError(
                f"operator {place} of the graph, {node.operator[:100]!r}, {error}: export it again"
            ) from error
    for (side, name), tensor in expected.items():
        if side == "output" and known.get(name) != tensor:
            raise EarmarkError(
                f"the graph computes another {name} than it declares: export it again"
            )


def _check_declared(file: OnnxFile, manifest: Manifest) -> dict[tuple[str, str], Tensor]:
    """Check inputs and outputs against the manifest; the tensors that it asks for."""
    geometry = manifest.geometry
    shapes = {
        ("input", "pcm"): (geometry.chunk,),
        ("input", "cache"): (geometry.cache,),
        ("output", "logits"): (geometry.steps, len(manifest.labels)),
        ("output", "cache_out"): (geometry.cache,),
    }
    found = {("input", name): value for name, value in file.inputs.items()}
    found |= {("output", name): value for name, value in file.outputs.items()}
    for (side, name), shape in shapes.items():
        value = found.pop((side, name), None)
        if value is None:
            raise EarmarkError(f"the graph has no {side} {name}: export it again")
        if value.kind != "float32":
            raise EarmarkError(f"{side} {name} of the graph is {value.kind}, expected float32")
        batch, *rest = value.shape or [0]
        if tuple(rest) != shape or not (isinstance(batch, str) or batch == 1):
            raise EarmarkError(
                f"{side} {name} of the graph has shape {list(value.shape)}, the manifest says "
                f"{['batch', *shape]}: export it again"
            )
    if found:
        (side, name), _ = next(iter(found.items()))
        raise EarmarkError(
            f"the graph has an {side} {name[:100]!r} that the manifest does not describe"
        )
    return {key: Tensor("float32", (1, *shape)) for key, shape in shapes.items()}
