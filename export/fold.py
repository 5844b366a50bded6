"""A student's weights with everything folded that can be folded."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..train.student import Student

Array = NDArray[np.float32]


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
                weight=to_array(weight.transpose(2, 3)),
                bias=to_array(shift),
                stride=(conv.stride[1], conv.stride[0]),
                dilation=conv.dilation[1],
                padding=conv.kernel_size[0] // 2,
                context=layer.context,
                bands=bands,
            )
        )
        bands = 1 if layer is student.project else -(-bands // conv.stride[0])
    return to_array(matrix), to_array(bias), layers


def to_array(tensor: torch.Tensor | None) -> Array:
    """A weight as float32 in C order."""
    assert tensor is not None
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _norm_affine(
    norm: torch.nn.BatchNorm1d | torch.nn.BatchNorm2d,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift that a batch norm applies in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale
