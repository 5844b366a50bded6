"""The convolutions of a student, quantized and in float32."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import TensorProto

from .fold import Layer
from .nodes import Graph, tail
from .state import Histories, State

WEIGHT_PEAK = 63
"""Weights use 7 of 8 bits. x86 processors without VNNI add two products of 8-bit numbers in 16
bits; with larger weights the sum would saturate there and the answer differ (onnxruntime's
``reduce_range``)."""


@dataclass(frozen=True)
class Affine:
    """An unsigned 8-bit encoding: ``real = scale * (q - zero)``."""

    scale: float
    zero: int


def network_int8(
    g: Graph,
    layers: tuple[Sequence[Layer], Layer, Sequence[Layer]],
    encodings: Sequence[Affine],
    state: State,
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
    histories = Histories(g, flat, [*stem, *blocks], steps)
    for layer in stem:
        x = _conv_int8(g, layer, histories.prepend(x), *next(codes))
    x = _conv_int8(g, project, x, *next(codes))
    for layer in blocks:
        x = _conv_int8(g, layer, histories.prepend(x), *next(codes))
    state.others = g.node("Cast", histories.following(), to=TensorProto.FLOAT)
    x = g.node("DequantizeLinear", x, *_affine(g, encodings[-1]))
    return g.node("Reshape", x, g.array([-1, len(project.weight)]))


def _first_input(g: Graph, layer: Layer, state: State, x: str, steps: int) -> str:
    """The bands of the chunk after those that the first layer has kept, flat."""
    x = g.node("Reshape", x, g.array([-1, steps * layer.stride[0] * layer.row]))
    x = g.node("Concat", state.stem[0], x, axis=1)
    state.stem[0] = tail(g, x, layer.context * layer.row)
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


def network_float(
    g: Graph,
    layers: tuple[Sequence[Layer], Layer, Sequence[Layer]],
    state: State,
    x: str,
    steps: int,
) -> str:
    """As :func:`network_int8` in float32.

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
            state.stem[index] = g.node("Flatten", tail(g, x, layer.context, 2))
        weight, bias = g.array(layer.weight), g.array(layer.bias)
        x = g.node("Relu", g.node("Conv", x, weight, bias, **_conv_attributes(layer)))
    x = g.node("Transpose", x, perm=[0, 2, 3, 1])
    x = _dense(g, g.node("Reshape", x, g.array([-1, project.row])), project)
    histories = Histories(g, state.others, blocks, steps)
    for layer in blocks:
        x = g.node("Reshape", x, g.array([-1, steps, *layer.sides]))
        taps = layer.weight.shape[2]
        seen = np.arange(steps)[:, None] + layer.dilation * np.arange(taps)
        x = g.node("Gather", histories.prepend(x), g.array(seen), axis=1)
        x = _dense(g, g.node("Reshape", x, g.array([-1, taps * layer.row])), layer)
    state.others = histories.following()
    return x


def _dense(g: Graph, x: str, layer: Layer) -> str:
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


def _conv_int8(g: Graph, layer: Layer, x: str, source: Affine, target: Affine) -> str:
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


def _affine(g: Graph, encoding: Affine) -> tuple[str, str]:
    return (
        g.array(np.array(encoding.scale, np.float32)),
        g.array(np.array(encoding.zero, np.uint8)),
    )
