"""Mel-frequency cepstral coefficients of raw audio: the one front end of training and export."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .torchaudio_import import torchaudio


@dataclass(frozen=True)
class MfccSettings:
    """Settings of the front end; lengths in samples, frequencies in Hz."""

    sample_rate: int = 16_000
    window: int = 480
    """Frame length (30 ms); also the length of the discrete Fourier transform."""
    hop: int = 160
    coefficients: int = 40
    mels: int = 40
    f_min: float = 20.0
    f_max: float = 7_600.0
    floor: float = 1e-6
    """Added to the mel energies before the logarithm."""


class Mfcc(nn.Module):
    """MFCCs with orthonormal DCT-II, HTK mel scale and natural logarithm.

    Equal to ``torchaudio.transforms.MFCC(sample_rate, coefficients, log_mels=True, melkwargs=dict(
    n_fft=window, hop_length=hop, n_mels=mels, f_min=f_min, f_max=f_max, center=False))``. Frames
    are never centred: frame ``i`` covers samples ``i * hop`` to ``i * hop + window``.

    Here the transform is an FFT; :mod:`earmark.export.front_end` writes it as matrix products.
    """

    window: Tensor
    mel_filters: Tensor
    dct: Tensor

    def __init__(self, settings: MfccSettings) -> None:
        super().__init__()
        self.settings = s = settings
        bins = s.window // 2 + 1
        functional = torchaudio.functional
        # Constants of the settings: not part of a checkpoint.
        self.register_buffer("window", torch.hann_window(s.window), persistent=False)
        self.register_buffer(
            "mel_filters",
            functional.melscale_fbanks(bins, s.f_min, s.f_max, s.mels, s.sample_rate),
            persistent=False,
        )
        self.register_buffer(
            "dct", functional.create_dct(s.coefficients, s.mels, "ortho"), persistent=False
        )

    def log_mel(self, pcm: Tensor) -> Tensor:
        """Log mel energies, float32 [batch, frames, mels], of ``pcm`` [batch, samples].

        There are ``(samples - window) // hop + 1`` frames.
        """
        # Energies span more than half precision holds.
        with torch.autocast(pcm.device.type, enabled=False):
            frames = pcm.float().unfold(-1, self.settings.window, self.settings.hop) * self.window
            spectrum = torch.fft.rfft(frames)
            power = spectrum.real.square() + spectrum.imag.square()
            return torch.log(power @ self.mel_filters + self.settings.floor)

    def forward(self, pcm: Tensor) -> Tensor:
        """MFCCs, float32 [batch, frames, coefficients], of ``pcm`` [batch, samples] in [-1, 1)."""
        return self.log_mel(pcm) @ self.dct

    def edges(self) -> Tensor:
        """Corner frequencies of the mel filters, Hz, float64 [mels + 2].

        Filter ``m`` rises from edge ``m`` to edge ``m + 1`` and falls to edge ``m + 2``.
        """
        s = self.settings
        limits = 2595 * torch.log10(1 + torch.tensor([s.f_min, s.f_max]).double() / 700)
        mels = torch.linspace(limits[0].item(), limits[1].item(), s.mels + 2, dtype=torch.float64)
        return 700 * (10 ** (mels / 2595) - 1)
