"""The student: a causal CNN on MFCCs whose streaming form is the same weights with a cache.

The front end's 40 MFCCs go through a learned square matrix, started at the inverse cosine
transform so that neighbouring outputs begin as neighbouring frequency bands, then a 2-D stem that
strides over frequency, then residual dilated convolutions over time (van den Oord et al. 2016, Bai
et al. 2018), and a moving average over the logits. ReLU, foldable batch norm and dense convolutions
only: what onnxruntime runs in int8.
"""

import math
from collections.abc import Iterator
from itertools import accumulate
from operator import mul
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..runtime.manifest import Geometry
from .mfcc import Mfcc, MfccSettings
from .torchaudio_import import torchaudio

Count = Annotated[int, Field(ge=1, le=4096)]
BandStride = Annotated[int, Field(ge=2, le=4)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class StudentSettings:
    """Shape of the network. ``width`` is the one size knob."""

    width: Annotated[int, Field(ge=4, le=1024)] = 64
    """Channels of the temporal blocks; the stem's grow with it."""
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8)
    """Time dilation of each temporal block, in steps."""
    kernel: Annotated[int, Field(ge=2, le=64)] = 3
    """Taps of a temporal block's convolution."""
    stride: Annotated[int, Field(ge=1, le=8)] = 2
    """Frames per step: the stem's first layer strides over time, nothing after it does."""
    band_strides: Annotated[tuple[BandStride, ...], Field(min_length=1, max_length=6)] = (2, 2, 2)
    """Stride over the bands of each layer of the stem. (4, 2) reaches as few bands as (2, 2, 2)
    with one layer less, which is cheaper."""
    window: Annotated[float, Field(gt=0, le=10)] = 0.8
    """Length of the moving average over the logits, seconds."""

    @property
    def stem(self) -> tuple[int, ...]:
        """Channels of each layer of the stem: a quarter of the width for each halving of the bands
        so far."""
        quarter = max(1, self.width // 4)
        octaves = [round(math.log2(total)) for total in accumulate(self.band_strides, mul)]
        return tuple(quarter * octave for octave in octaves)


class CausalConv(nn.Module):
    """Convolution over [batch, channels, bands, time] that sees no future, and batch norm.

    ``cache`` holds the last ``context`` inputs of the call before; zeros stand for what was before
    the start, so that a whole signal is one call with a zero cache (the scheme of WeKws' TCN,
    extended to strides: output ``j`` ends at input ``(j + 1) * stride - 1``).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, (kernel[0] // 2, 0), (1, dilation), bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.context = (kernel[1] - 1) * dilation - (stride[1] - 1)
        if self.context < 0:
            raise ValueError(f"time stride {stride[1]} skips inputs of a kernel of {kernel[1]}")

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([cache, x], dim=-1)
        return self.norm(self.conv(x)), x[..., x.shape[-1] - self.context :]


class Student(nn.Module):
    """The spotter's network, front end included: raw audio and a cache in, logits and a cache out.

    Logits of a stream equal those of the whole signal for any chunking into whole steps.
    """

    def __init__(self, labels: int, settings: StudentSettings, features: MfccSettings) -> None:
        super().__init__()
        self.settings = settings
        self.labels = labels
        self.mfcc = Mfcc(features)
        bands = features.coefficients
        self.remix = nn.Linear(bands, bands)
        inverse = torchaudio.functional.create_dct(bands, bands, "ortho")
        with torch.no_grad():
            self.remix.weight.copy_(inverse)
            self.remix.bias.zero_()
        self.band_norm = nn.BatchNorm1d(bands)
        channels, stem = 1, []
        for outputs, stride in zip(settings.stem, settings.band_strides, strict=True):
            first = not stem
            # The first kernel spans the frames of a step and three before.
            kernel = (2 * stride + 1, settings.stride + 3) if first else (stride // 2 * 2 + 1, 3)
            strides = (stride, settings.stride if first else 1)
            stem.append(CausalConv(channels, outputs, kernel, strides))
            channels, bands = outputs, -(-bands // stride)
        self.stem = nn.ModuleList(stem)
        width = settings.width
        self.project = CausalConv(channels * bands, width, (1, 1))
        self.blocks = nn.ModuleList(
            CausalConv(width, width, (1, settings.kernel), dilation=dilation)
            for dilation in settings.dilations
        )
        self.head = nn.Conv1d(width, labels, 1)
        self.average = max(2, round(settings.window * features.sample_rate / self.step))
        """Steps in the moving average over the logits."""
        self.cache_shapes = tuple(self._cache_shapes())
        """Shapes, without the batch, of the parts of the cache in the order of the signal's way:
        the tail of the audio, the inputs of each convolution, the rows of logits."""

    @property
    def step(self) -> int:
        """Samples between two rows of logits."""
        return self.mfcc.settings.hop * self.settings.stride

    @property
    def convolutions(self) -> Iterator[CausalConv]:
        """All convolutions, in the order of the signal's way."""
        yield from self.stem  # pyright: ignore[reportReturnType]
        yield self.project
        yield from self.blocks  # pyright: ignore[reportReturnType]

    @property
    def parameters_trained(self) -> int:
        """Number of weights, batch norms included, the fixed front end not."""
        return sum(p.numel() for p in self.parameters())

    def _cache_shapes(self) -> Iterator[tuple[int, ...]]:
        features = self.mfcc.settings
        yield (features.window - features.hop,)
        channels, bands = 1, features.coefficients
        for layer in self.stem:
            assert isinstance(layer, CausalConv)
            yield channels, bands, layer.context
            channels, bands = layer.conv.out_channels, -(-bands // layer.conv.stride[0])
        for layer in self.blocks:
            assert isinstance(layer, CausalConv)
            yield layer.conv.in_channels, 1, layer.context
        yield self.labels, self.average - 1

    def geometry(self, chunk: int) -> Geometry:
        """Shapes and times of the exported graph for chunks of ``chunk`` samples."""
        features = self.mfcc.settings
        frames, jump = 1, 1
        for layer in self.convolutions:
            frames += (layer.conv.kernel_size[1] - 1) * layer.conv.dilation[1] * jump
            jump *= layer.conv.stride[1]
        frames += (self.average - 1) * jump
        return Geometry(
            sample_rate=features.sample_rate,
            chunk=chunk,
            step=self.step,
            receptive_field=(frames - 1) * features.hop + features.window,
            cache=sum(math.prod(shape) for shape in self.cache_shapes),
        )

    def empty_cache(self, batch: int = 1) -> Tensor:
        """The cache at the start of a stream, float32 [batch, numbers]."""
        numbers = sum(math.prod(shape) for shape in self.cache_shapes)
        return self.remix.weight.new_zeros(batch, numbers)

    def log_mel(self, pcm: Tensor) -> Tensor:
        """Log mel energies, [batch, frames, mels], of whole signals [batch, samples]."""
        features = self.mfcc.settings
        return self.mfcc.log_mel(F.pad(pcm, (features.window - features.hop, 0)))

    def classify(self, log_mel: Tensor) -> Tensor:
        """Logits, [batch, steps, labels], of whole signals given as log mel energies."""
        _, *caches = self._split(self.empty_cache(len(log_mel)))
        return self._network(log_mel, caches)[0]

    def embed(self, log_mel: Tensor) -> Tensor:
        """What the last layer reads, [batch, width, steps], of whole signals given as log mel
        energies."""
        _, *caches = self._split(self.empty_cache(len(log_mel)))
        return self._embed(log_mel, caches)[0]

    def forward(self, pcm: Tensor, cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One chunk of a stream, or a whole signal.

        Args:
            pcm: float32 [batch, samples] in [-1, 1), a multiple of ``step`` samples.
            cache: what the call before returned; None at the start of a stream.

        Returns:
            Logits float32 [batch, samples / step, labels], and the next cache.
        """
        if pcm.shape[1] % self.step:
            raise ValueError(f"{pcm.shape[1]} samples are no multiple of the step, {self.step}")
        tail, *caches = self._split(self.empty_cache(len(pcm)) if cache is None else cache)
        pcm = torch.cat([tail, pcm], dim=1)
        logits, caches = self._network(self.mfcc.log_mel(pcm), caches)
        tail = pcm[:, pcm.shape[1] - tail.shape[1] :]
        return logits, torch.cat([part.flatten(1) for part in (tail, *caches)], dim=1)

    def _split(self, cache: Tensor) -> list[Tensor]:
        sizes = [math.prod(shape) for shape in self.cache_shapes]
        parts = cache.split(sizes, dim=1)
        return [p.unflatten(1, s) for p, s in zip(parts, self.cache_shapes, strict=True)]

    def _network(self, log_mel: Tensor, caches: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x, following = self._embed(log_mel, caches[:-1])
        logits = torch.cat([caches[-1], self.head(x)], dim=2)
        following.append(logits[..., logits.shape[2] - (self.average - 1) :])
        return F.avg_pool1d(logits, self.average, 1).transpose(1, 2), following

    def _embed(self, log_mel: Tensor, caches: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        queue = iter(caches)
        following: list[Tensor] = []

        def run(layer: nn.Module, x: Tensor) -> Tensor:
            y, cache = layer(x, next(queue))
            following.append(cache)
            return y

        with torch.autocast(log_mel.device.type, enabled=False):
            x = self.remix(log_mel @ self.mfcc.dct)
        x = self.band_norm(x.transpose(1, 2))[:, None]
        for layer in self.stem:
            x = F.relu(run(layer, x))
        x = x.flatten(1, 2)[:, :, None]
        # A kernel of one step needs no cache.
        x = F.relu(self.project(x, x[..., :0])[0])
        for layer in self.blocks:
            x = F.relu(x + run(layer, x))
        return x[:, :, 0], following


def whole_steps(wav: Tensor, step: int) -> Tensor:
    """Drop what exceeds whole steps from the beginning of ``wav`` [batch, samples].

    The end of a clip is where it is judged; a stream reaches it at the end of a step.
    """
    return wav[:, wav.shape[1] % step :]
