"""Google's speech embedding: convolutions that learned to tell 5,000 keywords apart in 200 million
clips of videos (Lin et al. 2020, "Training keyword spotters with limited and synthesized speech
data", arXiv 2002.01322).

It is small enough to be fine-tuned on two cores, and a package on PyPI has its weights. The input
is that of openWakeWord, whose file the weights come from: 32 mel energies in decibels, of frames of
25 ms every 10 ms, from 60 to 3,800 Hz. Of 76 frames it says 96 numbers, then of the 76 that begin
eight frames further, and so on; a clip's embedding is their mean and their maximum over time.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..torchaudio_import import torchaudio
from . import speech_embedding_file
from .teacher import SAMPLE_RATE, Backbone

WINDOW_WIDTH = 96
"""Numbers in the embedding of a window."""
_FFT, _WINDOW, _HOP = 512, 400, 160
_MELS, _LOWEST_HZ, _HIGHEST_HZ = 32, 60.0, 3800.0
_WINDOW_FRAMES = 76
_SILENCE = 16 * _HOP
"""On either side of a clip: a word at its edge is then in the midst of some window."""
_RANGE_DB = 80.0
# Of the published graph's activation.
_SLOPE, _FLOOR = 0.2, -0.4
_SCALE = 1 / 16
"""Published embeddings are about 13 in size, where a head of fresh weights wants 1."""


class SpeechEmbedding(Backbone):
    """The network, to load weights into."""

    mel_filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.config = {"kind": "speech_embedding"}
        self.width = 2 * WINDOW_WIDTH
        # Channels last: less time on a CPU.
        self.network = _network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        filters = torchaudio.functional.melscale_fbanks(
            _FFT // 2 + 1,
            _LOWEST_HZ,
            _HIGHEST_HZ,
            _MELS,
            SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)

    def features(self, wav: Tensor) -> Tensor:
        """Mel energies as openWakeWord scales them, in units of 10 dB above -20 dB, no more than
        80 dB below the loudest of the clip; the silence beside it is part of them."""
        missing = _FFT + (_WINDOW_FRAMES - 1) * _HOP - wav.shape[1]
        side = max(_SILENCE, math.ceil(missing / 2))
        # The weights expect the energies of 16-bit samples.
        wav = 32768 * F.pad(wav, (side, side))
        spectrum = torch.stft(
            wav, _FFT, _HOP, _WINDOW, self.window, center=False, return_complex=True
        )
        energy = spectrum.abs().square().transpose(1, 2) @ self.mel_filters
        decibels = 10 * energy.clamp_min(1e-10).log10()
        loudest = decibels.amax((1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - _RANGE_DB) / 10 + 2

    def windows(self, features: Tensor) -> Tensor:
        """The published embeddings, [batch, 96, windows], of :meth:`features`."""
        image = features[:, None].contiguous(memory_format=torch.channels_last)
        return self.network(image)[:, :, :, 0]

    def encode(self, features: Tensor) -> Tensor:
        found = _SCALE * self.windows(features)
        return torch.cat([found.mean(2), found.amax(2)], 1)

    def stages(self) -> Iterator[nn.Module]:
        for layer in self.network:
            if not isinstance(layer, nn.MaxPool2d):
                yield layer


def load(path: str) -> SpeechEmbedding:
    """The network with the published weights, of openWakeWord's ``embedding_model.onnx``.

    Raises:
        EarmarkError: as :func:`earmark.train.teachers.speech_embedding_file.read_convolutions`.
    """
    model = SpeechEmbedding()
    layers = [layer for layer in model.network.modules() if isinstance(layer, nn.Conv2d)]
    stored = speech_embedding_file.read_convolutions(path)
    for layer, one in zip(layers, stored, strict=True):
        layer.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in one.items()})
    return model


class _Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, _SLOPE).clamp_min(_FLOOR)


def _convolution(inputs: int, outputs: int, frames: int, bands: int) -> nn.Sequential:
    """Frames that do not reach all of the kernel are left out, bands are padded."""
    kernel, padding = (frames, bands), (0, bands // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=padding), _Activation())


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        _convolution(inputs, outputs, 1, 3),
        _convolution(outputs, outputs, 3, 1),
        _convolution(outputs, outputs, 1, 3),
        _convolution(outputs, outputs, 3, 1),
    ]


def _network() -> nn.Sequential:
    """Of an image [batch, 1, frames, bands]; the norms of training are part of the weights."""
    return nn.Sequential(
        _convolution(1, 24, 3, 3),
        _convolution(24, 24, 1, 3),
        _convolution(24, 24, 3, 1),
        nn.MaxPool2d((2, 2)),
        *_block(24, 48),
        nn.MaxPool2d((1, 2)),
        *_block(48, 72),
        nn.MaxPool2d((2, 2)),
        *_block(72, 96),
        nn.MaxPool2d((1, 2)),
        *_block(96, 96),
        nn.MaxPool2d((2, 2)),
        nn.Conv2d(96, WINDOW_WIDTH, (3, 1), bias=False),
    )
