"""Augmentation of a batch on the device that trains, one plain function per kind.

What a clip becomes follows from its own random numbers alone (:class:`earmark.train.draws.Draws`),
whatever batch it is in; only mixup, which is of a batch, draws from torch's global generator.
Waveforms are float32 [batch, samples] in [-1, 1).
"""

import dataclasses
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from .draws import Draws
from .torchaudio_import import torchaudio

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class AugmentSettings:
    """Strength of each augmentation; 0 turns one off. dB are of power ratios."""

    shift: NonNegative = 0.12
    """Largest time shift either way, seconds."""
    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Largest relative change of speed (and pitch) either way."""
    cut: Probability = 0.05
    """Share of keyword clips cut short within the word, before anything else is done to them; what
    is left is ``_unknown_`` (see :mod:`earmark.train.data.clips`)."""
    gain: tuple[float, float] = (-14.0, 6.0)
    """Range of the gain, dB."""
    reverb: Probability = 0.2
    """Share of clips put into a simulated room."""
    reverb_time: tuple[float, float] = (0.1, 0.6)
    """Range of the room's reverberation time (RT60), seconds."""
    noise: Probability = 0.8
    """Share of clips with background noise."""
    snr: tuple[float, float] = (0.0, 30.0)
    """Range of the signal-to-noise ratio, dB."""
    silence_level: tuple[float, float] = (-40.0, 0.0)
    """Range of the gain of the noise in ``_silence_`` clips, dB."""
    frequency_masks: Annotated[int, Field(ge=0)] = 2
    frequency_mask: Annotated[int, Field(ge=0)] = 7
    """Widest frequency mask, mel bands."""
    time_masks: Annotated[int, Field(ge=0)] = 2
    time_mask: Annotated[int, Field(ge=0)] = 20
    """Longest time mask, frames."""
    mixup: NonNegative = 0.0
    """Parameter of the Beta distribution that draws the mixing weight."""
    views: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    """So many augmented waveforms are made of each clip, the same whatever the seed, and training
    draws from them; 0: a new one every time. Masks and mixup are drawn anew in any case. Of free
    speech, numbered views are of as many pieces as there are keyword clips."""


def shapes_waveform(settings: AugmentSettings) -> dict[str, Any]:
    """Those of the settings that a view's waveform follows from, as plain values."""
    later = ("frequency_masks", "frequency_mask", "time_masks", "time_mask", "mixup", "views")
    values = dataclasses.asdict(settings)
    return {name: value for name, value in values.items() if name not in later}


def from_db(db: Tensor) -> Tensor:
    """The amplitude ratio of a level in dB."""
    return 10 ** (db / 20)


def warp(wav: Tensor, draws: Draws, shift: float, speed: float) -> Tensor:
    """Shift each clip by up to ``shift`` samples and play it up to ``speed`` faster or slower.

    What moves in from outside is silence. Linear interpolation, as the change is small.
    """
    samples = wav.shape[1]
    rate = 1 + draws.uniform("speed", (-speed, speed))
    offset = draws.uniform("shift", (-shift, shift))
    # grid_sample's coordinate runs from -1 at the first sample to 1 at the last.
    time = torch.linspace(-1, 1, samples, device=wav.device)
    x = time * rate[:, None] - (offset * 2 / (samples - 1))[:, None]
    grid = torch.stack([x, torch.zeros_like(x)], dim=-1)[:, None]
    return F.grid_sample(wav[:, None, None], grid, align_corners=True)[:, 0, 0]


def reverberate(
    wav: Tensor, chosen: Tensor, draws: Draws, reverb_time: tuple[float, float], rate: int
) -> Tensor:
    """Put the clips where ``chosen`` (bool [batch]) is true into simulated rooms.

    The room impulse response is the direct sound and a tail of noise that decays by 60 dB in a
    random time (Moorer 1979, "About this reverberation business"); its level against the direct
    sound is drawn from -15 to 0 dB. The clip's level is kept.
    """
    if not bool(chosen.any()):
        return wav
    dry, draws = wav[chosen], draws[chosen]
    # The convolution takes an FFT of the summed length, which is slow where that has large factors.
    samples = wav.shape[1]
    length = -(-(samples + int(reverb_time[1] * rate)) // 1024) * 1024 - samples + 1
    time = torch.arange(length, device=wav.device) / rate
    decay = torch.exp(-6.9078 * time / draws.uniform("reverb time", reverb_time)[:, None])
    tail = (draws.noise("tail", length) - 0.5) * decay
    level = from_db(draws.uniform("tail level", (-15.0, 0.0)))[:, None]
    tail = tail / tail.norm(dim=1, keepdim=True) * level
    # The direct sound comes first, so that the word does not move.
    tail[:, 0] = 1.0
    wet = torchaudio.functional.fftconvolve(dry, tail)[:, :samples]
    level = dry.norm(dim=1, keepdim=True) / wet.norm(dim=1, keepdim=True).clamp_min(1e-9)
    out = wav.clone()
    out[chosen] = wet * level
    return out


def excerpts(pool: Tensor, draws: Draws, samples: int) -> Tensor:
    """A random excerpt for each clip, float32 [batch, samples], of ``pool`` (int16 [length])."""
    start = draws.below("excerpt", len(pool) - samples)
    # Rows of a view copy whole stretches: far faster than an index for each sample.
    return pool.unfold(0, samples, 1)[start].float() / 32768


def add_background(
    wav: Tensor, noise: Tensor, draws: Draws, probability: float, snr: tuple[float, float]
) -> Tensor:
    """Add ``noise`` (the shape of ``wav``) to a random share of the clips at random SNRs."""
    mixed = torchaudio.functional.add_noise(wav, noise, draws.uniform("snr", snr))
    chosen = draws.chance("noise", probability)
    # What is all zeros has no level: recordings are padded with silence, which stays silence.
    return torch.where((chosen & wav.any(1) & noise.any(1))[:, None], mixed, wav)


def mask_bands(log_mel: Tensor, draws: Draws, settings: AugmentSettings) -> Tensor:
    """SpecAugment (Park et al. 2019) without time warping on [batch, frames, mels].

    Masks hold the clip's mean. They lie on the mel bands, before the cosine transform would spread
    them over all coefficients.
    """
    frames, bands = log_mel.shape[1:]
    masked = torch.zeros_like(log_mel, dtype=torch.bool)
    for i in range(settings.time_masks):
        masked |= _stripe(frames, settings.time_mask, draws, f"time {i}")[:, :, None]
    for i in range(settings.frequency_masks):
        masked |= _stripe(bands, settings.frequency_mask, draws, f"frequency {i}")[:, None]
    return torch.where(masked, log_mel.mean(dim=(1, 2), keepdim=True), log_mel)


def _stripe(length: int, widest: int, draws: Draws, name: str) -> Tensor:
    """True on a random stretch of up to ``widest`` places, bool [batch, length]."""
    width = draws.below(f"{name} width", min(widest, length) + 1)
    start = draws.below(f"{name} start", length - width + 1)
    place = torch.arange(length, device=width.device) - start[:, None]
    return (place >= 0) & (place < width[:, None])


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Which other example each of a batch is mixed with, and how (Zhang et al. 2018)."""

    other: Tensor
    """int64 [batch]."""
    weight: Tensor
    """The share of the example itself, float32 [batch]."""

    @classmethod
    def draw(cls, batch: int, alpha: float, device: torch.device) -> "Mixture":
        """A random mixture whose weights have the distribution Beta(``alpha``, ``alpha``)."""
        weight = torch.distributions.Beta(alpha, alpha).sample((batch,)).to(device)
        return cls(torch.randperm(batch, device=device), weight)

    def __call__(self, x: Tensor) -> Tensor:
        """Examples, targets or anything that goes with them, [batch, ...], mixed."""
        weight = self.weight.view(-1, *[1] * (x.ndim - 1))
        return x * weight + x[self.other] * (1 - weight)


def augment_audio(
    wav: Tensor,
    label: Tensor,
    draws: Draws,
    pool: Tensor,
    settings: AugmentSettings,
    rate: int,
    silence: int | None,
) -> Tensor:
    """All that is done to the waveforms of a batch, in the order in which the world does it.

    Args:
        wav: clips [batch, samples]; all zeros for a ``_silence_`` clip still to be drawn.
        label: classes, int64 [batch], negative where there is none; of any shape where there is no
            ``silence``.
        draws: the random numbers of each clip.
        pool: background noise, int16 [length].
        rate: sample rate, Hz.
        silence: the class of background alone; without it no clip is that.

    Returns:
        The clips, [batch, samples].
    """
    s = settings
    wav = warp(wav, draws, s.shift * rate, s.speed)
    wav = reverberate(
        wav, draws.chance("reverb", s.reverb) & wav.any(1), draws, s.reverb_time, rate
    )
    # Nothing is drawn from a pool that nothing needs.
    noise = excerpts(pool, draws, wav.shape[1]) if len(pool) else torch.zeros_like(wav)
    empty = ~wav.any(1)
    wav = add_background(wav, noise, draws, s.noise, s.snr)
    wav = wav * from_db(draws.uniform("gain", s.gain))[:, None]
    level = from_db(draws.uniform("silence level", s.silence_level))
    # One in twenty stays digital silence: a muted microphone must not surprise the spotter.
    level = level * draws.chance("no silence", 0.95)
    if silence is not None:
        wav = torch.where((empty & (label == silence))[:, None], noise * level[:, None], wav)
    return wav.clamp(-1, 1)
