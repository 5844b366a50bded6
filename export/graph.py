"""The one-file graph: raw audio and a cache in, logits and the next cache out.

Written node by node from the student's weights, because the graph's form decides its speed: batch
norms and the residual sums are folded into the convolutions, the MFCC is matrix products, and the
state of all layers travels in one tensor.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..runtime.errors import EarmarkError
from ..runtime.graph_check import OPSET
from ..train.student import Student

IR_VERSION = 8
WEIGHT_PEAK = 63
"""Weights use 7 of 8 bits. x86 processors without VNNI add two products of 8-bit numbers in 16
bits; with larger weights the sum would saturate there and the answer differ (onnxruntime's
``reduce_range``)."""
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Affine:
    """An unsigned 8-bit encoding: ``real = scale * (q - zero)``."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Layer:
    """A convolution ready for export: batch norm, residual sum and ReLU folded in."""

    name: str
    weight: Array
    """[outputs, inputs, time, bands]"""
    bias: Array
    """[outputs]"""
    stride: tuple[int, int]
    """Over time and bands."""
    dilation: int
    """Over time."""
    padding: int
    """Zero bands on either side."""
    context: int
    """Input steps kept in the cache."""
    bands: int
    """Input bands."""


def fold(student: Student) -> tuple[Array, Array, list[Layer]]:
    """The student's weights with every foldable step folded.

    Returns:
        The front end's last matrix [mels, bands] (cosine transform, remix and norm in one), its
        bias [bands], and the convolutions in the order of the signal's way. Each is followed by a
        ReLU. The residual sum ``x + conv(x)`` is the identity matrix added to the last tap
        (Ding et al. 2021, RepVGG).
    """
    norm = student.band_norm
    scale, shift = _norm_affine(norm)
    matrix = student.mfcc.dct.double() @ student.remix.weight.double().T * scale
    bias = student.remix.bias.double() * scale + shift

    layers: list[Layer] = []
    bands = student.mfcc.settings.coefficients
    residual = {id(block) for block in student.blocks}
    for index, layer in enumerate(student.convolutions):
        conv = layer.conv
        scale, shift = _norm_affine(layer.norm)
        weight = conv.weight.double() * scale[:, None, None, None]
        if layer is student.project:
            # A 1x1 convolution over flattened [channels, bands] is one over all bands at once.
            weight = weight.reshape(weight.shape[0], -1, bands, 1)
        if id(layer) in residual:
            weight[:, :, 0, -1] += torch.eye(len(weight), dtype=torch.float64)
        layers.append(
            Layer(
                name=f"conv{index}",
                weight=_array(weight.transpose(2, 3)),
                bias=_array(shift),
                stride=(conv.stride[1], conv.stride[0]),
                dilation=conv.dilation[1],
                padding=0 if layer is student.project else weight.shape[2] // 2,
                context=layer.context,
                bands=bands,
            )
        )
        bands = 1 if layer is student.project else -(-bands // conv.stride[0])
    return _array(matrix), _array(bias), layers


def build(student: Student, chunk: int, encodings: list[Affine] | None = None) -> onnx.ModelProto:
    """The streaming graph of a student.

    Args:
        student: trained, in evaluation mode.
        chunk: samples per call, a multiple of the student's step.
        encodings: for int8, the encoding of the input of each convolution and of the output of the
            last (see :mod:`earmark.export.quantize`); None for float32.

    Returns:
        A checked model without a manifest, of the form that
        :class:`earmark.runtime.manifest.Manifest` describes.

    Raises:
        EarmarkError: ``chunk`` is no multiple of the step, or the window none of the hop.
    """
    features = student.mfcc.settings
    geometry = student.geometry(chunk)
    if chunk < geometry.step or chunk % geometry.step:
        raise EarmarkError(
            f"chunk of {chunk} samples: expected a multiple of the model's step, "
            f"{geometry.step} samples ({1000 * geometry.step / geometry.sample_rate:g} ms)"
        )
    if features.window % features.hop:
        raise EarmarkError("recipe field features.window: expected a multiple of features.hop")
    matrix, bias, layers = fold(student)
    g = _Graph()
    # Quantized convolutions run with channels last, float ones with channels first: the plumbing
    # between them uses the same order, so that the runtime transposes nothing.
    last = encodings is not None
    time_axis = 1 if last else 2

    # State first: one split, and a reshape for each part.
    shapes: list[tuple[int, ...]] = [(features.window - features.hop,)]
    for layer in layers:
        if layer.context:
            sides = (layer.context, layer.bands, layer.weight.shape[1])
            shapes.append(sides if last else (sides[2], sides[0], sides[1]))
    shapes.append((student.average - 1, student.labels))
    parts, state = _cache_parts(g, shapes, quantized=last)

    x = _mfcc(g, student, parts[0], state, chunk)
    x = g.node("Add", g.node("MatMul", x, g.array(matrix)), g.array(bias))
    frames = chunk // features.hop
    bands = features.coefficients
    shape = (frames, bands, 1) if last else (1, frames, bands)
    x = g.node("Reshape", x, g.array([0, *shape]))

    queue = iter(parts[1:])
    for index, layer in enumerate(layers):
        encoding = encodings[index] if encodings else None
        if encoding and index == 0:
            first = g.node("Concat", next(queue), x, axis=time_axis)
            state.append(_tail(g, first, layer.context, time_axis))
            x = _quantize(g, first, encoding)
        elif layer.context:
            x = g.node("Concat", next(queue), x, axis=time_axis)
            state.append(_tail(g, x, layer.context, time_axis))
        if encodings and encoding:
            x = _conv_int8(g, layer, x, encoding, encodings[index + 1])
        else:
            x = _conv_float(g, layer, x)

    steps = geometry.steps
    if encodings:
        x = _dequantize(g, x, encodings[-1])
        x = g.node("Reshape", x, g.array([0, steps, student.settings.width]))
    else:
        x = g.node("Reshape", x, g.array([0, student.settings.width, steps]))
        x = g.node("Transpose", x, perm=[0, 2, 1])
    head = _array(student.head.weight[:, :, 0].T)
    x = g.node("Add", g.node("MatMul", x, g.array(head)), g.array(_array(student.head.bias)))
    rows = g.node("Concat", next(queue), x, axis=1)
    state.append(_tail(g, rows, student.average - 1, 1))
    # The moving average as a product with a banded matrix.
    average = np.zeros((steps, student.average - 1 + steps), np.float32)
    for step in range(steps):
        average[step, step : step + student.average] = 1 / student.average
    g.node("MatMul", g.array(average), rows, output="logits")
    _cache_out(g, state, quantized=last)

    def value(name: str, *sides: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sides])

    model = helper.make_model(
        helper.make_graph(
            g.nodes,
            "earmark",
            [value("pcm", chunk), value("cache", geometry.cache)],
            [value("logits", steps, student.labels), value("cache_out", geometry.cache)],
            g.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="earmark",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@dataclass
class _Graph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    known: dict[bytes, str] = field(default_factory=dict)

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def split(self, x: str, sizes: list[int]) -> list[str]:
        outputs = [f"{x}_part{i}" for i in range(len(sizes))]
        self.nodes.append(
            helper.make_node("Split", [x, self.array(sizes)], outputs, name=f"{x}_split", axis=1)
        )
        return outputs

    def array(self, values: np.ndarray | list[int]) -> str:
        array = np.asarray(values, np.int64) if isinstance(values, list) else values
        key = repr((array.dtype, array.shape)).encode() + array.tobytes()
        if key not in self.known:
            self.known[key] = f"const_{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, self.known[key]))
        return self.known[key]


def _cache_parts(
    g: _Graph, shapes: list[tuple[int, ...]], quantized: bool
) -> tuple[list[str], list[str]]:
    """Cut the cache into its parts, each in its shape, and start the list of the next ones.

    The cache is float32. For a quantized graph, the inputs of all convolutions but the first are
    kept in it as their 8-bit codes; a code of 0 is a value of 0 there, because a ReLU precedes.
    """
    if not quantized:
        flat = g.split("cache", [math.prod(s) for s in shapes])
        return [_shaped(g, f, s) for f, s in zip(flat, shapes, strict=True)], []
    codes = shapes[2:-1]
    sizes = [math.prod(s) for s in (*shapes[:2], shapes[-1])]
    tail, first, rows, rest = g.split("cache", [*sizes, sum(math.prod(s) for s in codes)])
    cast = g.node("Cast", rest, to=TensorProto.UINT8)
    flat = [tail, first, *g.split(cast, [math.prod(s) for s in codes]), rows]
    return [_shaped(g, f, s) for f, s in zip(flat, shapes, strict=True)], []


def _cache_out(g: _Graph, state: list[str], quantized: bool) -> None:
    if not quantized:
        flat = [state[0], *(g.node("Flatten", part) for part in state[1:])]
        g.node("Concat", *flat, axis=1, output="cache_out")
        return
    tail, first, *codes, rows = state
    flat = g.node("Concat", *(g.node("Flatten", part) for part in codes), axis=1)
    cast = g.node("Cast", flat, to=TensorProto.FLOAT)
    parts = [tail, g.node("Flatten", first), g.node("Flatten", rows), cast]
    g.node("Concat", *parts, axis=1, output="cache_out")


def _shaped(g: _Graph, flat: str, shape: tuple[int, ...]) -> str:
    return flat if len(shape) == 1 else g.node("Reshape", flat, g.array([0, *shape]))


def _tail(g: _Graph, x: str, length: int, axis: int) -> str:
    end = g.array([np.iinfo(np.int64).max])
    return g.node("Slice", x, g.array([-length]), end, g.array([axis]))


def _mfcc(g: _Graph, student: Student, tail: str, state: list[str], chunk: int) -> str:
    """Log mel energies [batch, frames, mels] of the chunk.

    Hops are rows; a frame is neighbouring rows joined, so that no window is gathered sample by
    sample; the windowed DFT and the mel filters are one product each.
    """
    s = student.mfcc.settings
    transform, filters = _mfcc_matrices(g, student)
    audio = g.node("Concat", tail, "pcm", axis=1)
    state.append(_tail(g, audio, s.window - s.hop, 1))
    overlap = s.window // s.hop - 1
    frames = chunk // s.hop
    hops = g.node("Reshape", audio, g.array([0, frames + overlap, s.hop]))
    joined = [
        g.node("Slice", hops, g.array([i]), g.array([i + frames]), g.array([1]))
        for i in range(overlap + 1)
    ]
    spectrum = g.node("MatMul", g.node("Concat", *joined, axis=2), transform)
    power = g.node("MatMul", g.node("Mul", spectrum, spectrum), filters)
    return g.node("Log", g.node("Add", power, g.array(np.array(s.floor, np.float32))))


def _mfcc_matrices(g: _Graph, student: Student) -> tuple[str, str]:
    """The windowed DFT [window, 2 * bins] and the mel filters [2 * bins, mels], as expressions.

    A frame times the first gives the real, then the imaginary parts of the bins that any filter
    weighs (their sign does not matter); the squares of those times the second give the energies.
    Stored whole they would take 0.9 MB, eight times the network. A runtime computes them when it
    loads the file (constant folding).
    """
    s = student.mfcc.settings
    used = student.mfcc.used_bins().numpy()
    # exp(2 pi i n k / N) repeats in n k modulo N, so that a table of N values is exact.
    product = g.node("Mul", g.array(np.arange(s.window)[:, None]), g.array(used[None]))
    turns = g.node("Mod", product, g.array([s.window]))
    angle = 2 * np.pi * np.arange(s.window) / s.window
    parts = [g.node("Gather", g.array(_float32(wave(angle))), turns) for wave in (np.cos, np.sin)]
    window = g.array(_array(student.mfcc.window[:, None]))
    transform = g.node("Mul", g.node("Concat", *parts, axis=1), window)

    # A mel filter is the lesser of its rising and its falling line, where that is positive.
    edges = student.mfcc.edges().numpy()
    width = np.diff(edges)
    frequency = g.array(_float32(used * s.sample_rate / s.window)[:, None])
    above = g.node("Sub", frequency, g.array(_float32(edges[:-2])))
    below = g.node("Sub", g.array(_float32(edges[2:])), frequency)
    rising = g.node("Div", above, g.array(_float32(width[:-1])))
    falling = g.node("Div", below, g.array(_float32(width[1:])))
    half = g.node("Relu", g.node("Min", rising, falling))
    return transform, g.node("Concat", half, half, axis=0)


def _conv_attributes(layer: Layer) -> dict[str, Any]:
    return {
        "kernel_shape": list(layer.weight.shape[2:]),
        "strides": list(layer.stride),
        "dilations": [layer.dilation, 1],
        "pads": [0, layer.padding, 0, layer.padding],
    }


def _conv_float(g: _Graph, layer: Layer, x: str) -> str:
    weight, bias = g.array(layer.weight), g.array(layer.bias)
    return g.node("Relu", g.node("Conv", x, weight, bias, **_conv_attributes(layer)))


def _conv_int8(g: _Graph, layer: Layer, x: str, source: Affine, target: Affine) -> str:
    """A quantized convolution on [batch, time, bands, channels]; its ReLU is the lowest code."""
    peak = np.abs(layer.weight).max(axis=(1, 2, 3))
    scale = np.maximum(peak / WEIGHT_PEAK, 1e-12).astype(np.float32)
    weight = np.round(layer.weight / scale[:, None, None, None]).astype(np.int8)
    bias = np.round(layer.bias / (scale.astype(np.float64) * source.scale))
    x = g.node("Transpose", x, perm=[0, 3, 1, 2])
    y = g.node(
        "QLinearConv",
        x,
        *_affine(g, source),
        g.array(weight),
        g.array(scale),
        g.array(np.zeros(len(scale), np.int8)),
        *_affine(g, target),
        g.array(np.clip(bias, -(2**31), 2**31 - 1).astype(np.int32)),
        **_conv_attributes(layer),
    )
    return g.node("Transpose", y, perm=[0, 2, 3, 1])


def _affine(g: _Graph, encoding: Affine) -> tuple[str, str]:
    return (
        g.array(np.array(encoding.scale, np.float32)),
        g.array(np.array(encoding.zero, np.uint8)),
    )


def _quantize(g: _Graph, x: str, encoding: Affine) -> str:
    return g.node("QuantizeLinear", x, *_affine(g, encoding))


def _dequantize(g: _Graph, x: str, encoding: Affine) -> str:
    return g.node("DequantizeLinear", x, *_affine(g, encoding))


def _norm_affine(
    norm: torch.nn.BatchNorm1d | torch.nn.BatchNorm2d,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift that a batch norm applies in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _float32(values: np.ndarray) -> Array:
    return values.astype(np.float32)


def _array(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    return np.ascontiguousarray(tensor.detach().float().numpy())
