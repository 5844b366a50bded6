"""The one-file graph: raw audio and a cache in, logits and the next cache out.

Written node by node from the student's weights, because the graph's form decides its speed: batch
norms and the residual sums are folded into the convolutions, the MFCC is matrix products, and the
state of all layers travels in one tensor.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

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
FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
"""The ends of an axis, for slices."""
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

    @property
    def sides(self) -> tuple[int, int]:
        """Bands and channels of an input."""
        return self.bands, self.weight.shape[1]

    @property
    def row(self) -> int:
        """Numbers in a time step of the input."""
        return math.prod(self.sides)


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
            # Over all channels and bands at once: a kernel as high as its input.
            weight = weight[:, :, 0].unflatten(1, (-1, bands))
        if id(layer) in residual:
            weight[:, :, 0, -1] += torch.eye(len(weight), dtype=torch.float64)
        layers.append(
            Layer(
                name=f"conv{index}",
                weight=_array(weight.transpose(2, 3)),
                bias=_array(shift),
                stride=(conv.stride[1], conv.stride[0]),
                dilation=conv.dilation[1],
                padding=conv.kernel_size[0] // 2,
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
    if features.window % 2 or features.window <= features.hop:
        raise EarmarkError("recipe field features.window: expected an even length beyond a hop")
    matrix, bias, layers = fold(student)
    g = _Graph()
    count = len(student.stem)
    parts = layers[:count], layers[count], layers[count + 1 :]
    apart = parts[0] if encodings is None else parts[0][:1]
    state = _State.read(g, student, apart, geometry.steps)

    x = _mfcc(g, student, state, chunk)
    x = g.node("Gemm", x, g.array(matrix), g.array(bias))
    if encodings is None:
        x = _network_float(g, parts, state, x, geometry.steps)
    else:
        x = _network_int8(g, parts, encodings, state, x, geometry.steps)

    head = _array(student.head.weight[:, :, 0].T)
    x = g.node("Gemm", x, g.array(head), g.array(_array(student.head.bias)))
    labels = student.labels
    x = g.node("Reshape", x, g.array([-1, geometry.steps * labels]))
    rows = state.extend_rows(g, x, (student.average - 1) * labels)
    # The moving average as a product with a banded matrix.
    average = np.zeros((geometry.steps, student.average - 1 + geometry.steps), np.float32)
    for step in range(geometry.steps):
        average[step, step : step + student.average] = 1 / student.average
    rows = g.node("Reshape", rows, g.array([0, average.shape[1], labels]))
    g.node("MatMul", g.array(average), rows, output="logits")
    state.write(g)

    def value(name: str, *sides: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sides])

    model = helper.make_model(
        helper.make_graph(
            g.nodes,
            "earmark",
            [value("pcm", chunk), value("cache", geometry.cache)],
            [value("logits", geometry.steps, labels), value("cache_out", geometry.cache)],
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


@dataclass
class _State:
    """The cache in parts, [batch, numbers] each, as read and then as they are to be written."""

    tail: str
    """Audio."""
    rows: list[str]
    """Logits before the moving average, in pieces of which the chunk drops the first."""
    stem: list[str]
    """Inputs of the layers of the stem; of a quantized graph only of the first."""
    others: str
    """Inputs of the other convolutions with a context. Quantized, their 8-bit codes as float32: a
    code of 0 is a value of 0 there, because a ReLU precedes."""

    @classmethod
    def read(cls, g: _Graph, student: Student, apart: Sequence[Layer], steps: int) -> Self:
        """``apart`` are the layers of the stem whose inputs are parts of their own."""
        features = student.mfcc.settings
        kept = (student.average - 1) * student.labels
        dropped = steps * student.labels
        rows = [dropped, kept - dropped] if dropped < kept else [kept]
        sizes = [
            features.window - features.hop,
            *rows,
            *(layer.context * layer.row for layer in apart),
        ]
        total = sum(math.prod(shape) for shape in student.cache_shapes)
        tail, *parts, others = g.split("cache", [*sizes, total - sum(sizes)])
        return cls(tail, parts[: len(rows)], parts[len(rows) :], others)

    def write(self, g: _Graph) -> None:
        parts = [self.tail, *self.rows, *self.stem, self.others]
        g.node("Concat", *parts, axis=1, output="cache_out")

    def extend_rows(self, g: _Graph, x: str, kept: int) -> str:
        """The kept rows and those of the chunk, flat; ``kept`` numbers are to be kept of them."""
        rows = g.node("Concat", *self.rows, x, axis=1)
        # Where the chunk is the shorter, no operator is needed to drop as much as it brings.
        self.rows = [*self.rows[1:], x] if len(self.rows) > 1 else [_tail(g, rows, kept)]
        return rows


class _Histories:
    """Past inputs of several layers in one tensor, [batch, rows, 1, unit], so that one operator
    takes it apart and one puts it together. All are [batch, time, bands, channels]."""

    def __init__(self, g: _Graph, flat: str, layers: Sequence[Layer], steps: int) -> None:
        self._g, self._steps = g, steps
        self._unit = math.gcd(*(layer.row for layer in layers))
        self._heights = [layer.context * layer.row // self._unit for layer in layers]
        self._whole = g.node("Reshape", flat, g.array([-1, sum(self._heights), 1, self._unit]))
        self._parts = iter(zip(layers, g.split(self._whole, self._heights), strict=True))
        self._inputs: list[str] = []
        self._rows: list[int] = []
        self._new = 0

    def prepend(self, x: str) -> str:
        """The input ``x`` of the next layer with its past before it."""
        g, (layer, part) = self._g, next(self._parts)
        index, height = len(self._inputs), self._steps * layer.row // self._unit
        old, new = sum(self._heights[:index]), sum(self._heights) + self._new
        both = [*range(old, old + self._heights[index]), *range(new, new + height)]
        self._rows += both[height:]
        self._new += height
        rows = x
        if layer.sides != (1, self._unit):
            part = g.node("Reshape", part, g.array([-1, layer.context, *layer.sides]))
            rows = g.node("Reshape", x, g.array([-1, height, 1, self._unit]))
        self._inputs.append(rows)
        return g.node("Concat", part, x, axis=1)

    def following(self) -> str:
        """The next state, flat: of each layer the last of its past and its input."""
        g = self._g
        everything = g.node("Concat", self._whole, *self._inputs, axis=1)
        return g.node("Flatten", g.node("Gather", everything, g.array(self._rows), axis=1))


def _tail(g: _Graph, x: str, length: int, axis: int = 1) -> str:
    return _cut(g, x, -length, LAST, axis)


def _cut(g: _Graph, x: str, start: int, end: int, axis: int = 1) -> str:
    return g.node("Slice", x, g.array([start]), g.array([end]), g.array([axis]))


def _mfcc(g: _Graph, student: Student, state: _State, chunk: int) -> str:
    """Log mel energies [batch * frames, mels] of the chunk.

    A frame's window is symmetric about its middle, so that the cosine of a bin needs only the sums
    of samples at equal distances from it, and the sine only their differences: two products of
    half the size in place of one. Window and transform are one matrix, and so are the mel filters.
    """
    s = student.mfcc.settings
    half, overlap = s.window // 2, s.window - s.hop
    # Frame i ends with row i of the chunk's hops.
    ends = g.node("Reshape", "pcm", g.array([-1, s.hop]))
    if half < s.hop:
        shifted, last = g.split("pcm", [chunk - overlap, overlap])
        shifted = g.node("Concat", state.tail, shifted, axis=1)
        starts = g.node("Reshape", shifted, g.array([-1, s.hop]))
        before = _cut(g, starts, 1, half + 1)
        after = _reversed(g, ends, s.hop - 1, half)
        state.tail = last
    else:
        audio = g.node("Concat", state.tail, "pcm", axis=1)
        pieces = [ends]
        for start in range(overlap - s.hop, 0, -s.hop):
            pieces.insert(0, _hops(g, audio, start, chunk, s.hop))
        first = _hops(g, audio, 0, chunk, s.hop)
        pieces.insert(0, first if overlap % s.hop == 0 else _cut(g, first, 0, overlap % s.hop))
        frames = g.node("Concat", *pieces, axis=1)
        before = _cut(g, frames, 1, half + 1)
        after = _reversed(g, frames, s.window - 1, half)
        state.tail = _tail(g, audio, overlap)
    cosines, sines, filters = _mfcc_matrices(g, student)
    real = g.node("MatMul", g.node("Add", before, after), cosines)
    imaginary = g.node("MatMul", g.node("Sub", before, after), sines)
    power = g.node("Add", g.node("Mul", real, real), g.node("Mul", imaginary, imaginary))
    floor = g.array(np.full(s.mels, s.floor, np.float32))
    return g.node("Log", g.node("Gemm", power, filters, floor))


def _hops(g: _Graph, audio: str, start: int, length: int, hop: int) -> str:
    """Rows [batch * frames, hop] of a part of the audio."""
    return g.node("Reshape", _cut(g, audio, start, start + length), g.array([-1, hop]))


def _reversed(g: _Graph, rows: str, start: int, length: int) -> str:
    """``length`` columns from ``start`` on, backwards."""
    end = start - length if start >= length else FIRST
    return g.node("Slice", rows, g.array([start]), g.array([end]), g.array([1]), g.array([-1]))


def _mfcc_matrices(g: _Graph, student: Student) -> tuple[str, str, str]:
    """The windowed DFT, cosines and sines [window / 2, bins], and the mel filters [bins, mels], as
    expressions.

    Row n - 1 is for the samples n before and n before the end of the frame; the last is the middle,
    which is its own counterpart and counts once. The bins are those that any filter weighs.
    Stored whole they would take 0.5 MB, four times the network. A runtime computes them when it
    loads the file (constant folding).
    """
    s = student.mfcc.settings
    used = student.mfcc.used_bins().numpy()
    n = np.arange(1, s.window // 2 + 1)
    # exp(2 pi i n k / N) repeats in n k modulo N, so that a table of N values is exact.
    product = g.node("Mul", g.array(n[:, None]), g.array(used[None]))
    turns = g.node("Mod", product, g.array([s.window]))
    angle = 2 * np.pi * np.arange(s.window) / s.window
    weights = student.mfcc.window.double().numpy()[n] * np.where(n == n[-1], 0.5, 1)
    window = g.array(_float32(weights[:, None]))
    cosines, sines = (
        g.node("Mul", g.node("Gather", g.array(_float32(wave(angle))), turns), window)
        for wave in (np.cos, np.sin)
    )

    # A mel filter is the lesser of its rising and its falling line, where that is positive.
    edges = student.mfcc.edges().numpy()
    width = np.diff(edges)
    frequency = g.array(_float32(used * s.sample_rate / s.window)[:, None])
    above = g.node("Sub", frequency, g.array(_float32(edges[:-2])))
    below = g.node("Sub", g.array(_float32(edges[2:])), frequency)
    rising = g.node("Div", above, g.array(_float32(width[:-1])))
    falling = g.node("Div", below, g.array(_float32(width[1:])))
    return cosines, sines, g.node("Relu", g.node("Min", rising, falling))


def _network_int8(
    g: _Graph,
    layers: tuple[Sequence[Layer], Layer, Sequence[Layer]],
    encodings: Sequence[Affine],
    state: _State,
    x: str,
    steps: int,
) -> str:
    """From bands, [batch * frames, bands], to the last block's output, [batch * steps, width].

    Quantized convolutions run with channels last, [batch, time, bands, channels], and so does the
    plumbing between them, so that the runtime transposes nothing.
    """
    (first, *stem), project, blocks = layers
    first = _patched(first)
    codes = iter(pairwise(encodings))
    frames = first.context + steps * first.stride[0]
    x = g.node(
        "Reshape", _first_input(g, first, state, x, steps), g.array([-1, frames, *first.sides])
    )
    x = g.node("QuantizeLinear", x, *_affine(g, encodings[0]))
    x = _conv_int8(g, first, x, *next(codes))
    flat = g.node("Cast", state.others, to=TensorProto.UINT8)
    histories = _Histories(g, flat, [*stem, *blocks], steps)
    for layer in stem:
        x = _conv_int8(g, layer, histories.prepend(x), *next(codes))
    x = _conv_int8(g, project, x, *next(codes))
    for layer in blocks:
        x = _conv_int8(g, layer, histories.prepend(x), *next(codes))
    state.others = g.node("Cast", histories.following(), to=TensorProto.FLOAT)
    x = g.node("DequantizeLinear", x, *_affine(g, encodings[-1]))
    return g.node("Reshape", x, g.array([-1, len(project.weight)]))


def _first_input(g: _Graph, layer: Layer, state: _State, x: str, steps: int) -> str:
    """The bands of the chunk after those that the first layer has kept, flat."""
    x = g.node("Reshape", x, g.array([-1, steps * layer.stride[0] * layer.row]))
    x = g.node("Concat", state.stem[0], x, axis=1)
    state.stem[0] = _tail(g, x, layer.context * layer.row)
    return x


def _patched(layer: Layer) -> Layer:
    """The same convolution over patches of neighbouring bands, as many as its stride over bands,
    as channels: fewer and longer pieces to gather where there is one channel."""
    (_, stride), (outputs, inputs, taps, kernel) = layer.stride, layer.weight.shape
    if inputs > 1 or layer.bands % stride:
        return layer
    before, after = -(-layer.padding // stride), (kernel - 1 - layer.padding) // stride
    weight = np.zeros((outputs, 1, taps, (before + 1 + after) * stride), np.float32)
    start = before * stride - layer.padding
    weight[..., start : start + kernel] = layer.weight
    weight = weight.reshape(outputs, taps, -1, stride).transpose(0, 3, 1, 2)
    return dataclasses.replace(
        layer,
        weight=np.ascontiguousarray(weight),
        stride=(layer.stride[0], 1),
        padding=before,
        bands=layer.bands // stride,
    )


def _network_float(
    g: _Graph,
    layers: tuple[Sequence[Layer], Layer, Sequence[Layer]],
    state: _State,
    x: str,
    steps: int,
) -> str:
    """As :func:`_network_int8` in float32.

    The stem runs with channels first, as float convolutions do. What has no bands is products of
    matrices, which are faster than convolutions over a few steps.
    """
    stem, project, blocks = layers
    frames = stem[0].context + steps * stem[0].stride[0]
    x = _first_input(g, stem[0], state, x, steps)
    x = g.node("Reshape", x, g.array([-1, 1, frames, stem[0].bands]))
    for index, layer in enumerate(stem):
        if index:
            sides = [-1, layer.weight.shape[1], layer.context, layer.bands]
            past = g.node("Reshape", state.stem[index], g.array(sides))
            x = g.node("Concat", past, x, axis=2)
            state.stem[index] = g.node("Flatten", _tail(g, x, layer.context, 2))
        weight, bias = g.array(layer.weight), g.array(layer.bias)
        x = g.node("Relu", g.node("Conv", x, weight, bias, **_conv_attributes(layer)))
    x = g.node("Transpose", x, perm=[0, 2, 3, 1])
    x = _dense(g, g.node("Reshape", x, g.array([-1, project.row])), project)
    histories = _Histories(g, state.others, blocks, steps)
    for layer in blocks:
        x = g.node("Reshape", x, g.array([-1, steps, *layer.sides]))
        taps = layer.weight.shape[2]
        seen = np.arange(steps)[:, None] + layer.dilation * np.arange(taps)
        x = g.node("Gather", histories.prepend(x), g.array(seen), axis=1)
        x = _dense(g, g.node("Reshape", x, g.array([-1, taps * layer.row])), layer)
    state.others = histories.following()
    return x


def _dense(g: _Graph, x: str, layer: Layer) -> str:
    """A convolution over all bands, on its inputs as rows [rows, time * bands * channels]."""
    weight = layer.weight.transpose(2, 3, 1, 0).reshape(-1, len(layer.weight))
    return g.node("Relu", g.node("Gemm", x, g.array(weight), g.array(layer.bias)))


def _conv_attributes(layer: Layer) -> dict[str, Any]:
    return {
        "kernel_shape": list(layer.weight.shape[2:]),
        "strides": list(layer.stride),
        "dilations": [layer.dilation, 1],
        "pads": [0, layer.padding, 0, layer.padding],
    }


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
