"""Augmentation of a batch on the device that trains, one plain function per kind.

Random numbers come from torch's global generator of the device, so that one seed fixes them all.
Waveforms are float32 [batch, samples] in [-1, 1).
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

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
    """Share of keyword clips cut short within the word; what is left is ``_unknown_``."""
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


def uniform(n: int, limits: tuple[float, float], like: Tensor) -> Tensor:
    """``n`` numbers drawn evenly between ``limits``, on the device of ``like``."""
    return torch.rand(n, device=like.device) * (limits[1] - limits[0]) + limits[0]


def from_db(db: Tensor) -> Tensor:
    """The amplitude ratio of a level in dB."""
    return 10 ** (db / 20)


def warp(wav: Tensor, shift: float, speed: float) -> Tensor:
    """Shift each clip by up to ``shift`` samples and play it up to ``speed`` faster or slower.

    What moves in from outside is silence. Linear interpolation, as the change is small.
    """
    batch, samples = wav.shape
    rate = 1 + uniform(batch, (-speed, speed), wav)
    offset = uniform(batch, (-shift, shift), wav)
    # grid_sample's coordinate runs from -1 at the first sample to 1 at the last.
    time = torch.linspace(-1, 1, samples, device=wav.device)
    x = time * rate[:, None] - (offset * 2 / (samples - 1))[:, None]
    grid = torch.stack([x, torch.zeros_like(x)], dim=-1)[:, None]
    return F.grid_sample(wav[:, None, None], grid, align_corners=True)[:, 0, 0]


def cut_words(wav: Tensor, chosen: Tensor, share: tuple[float, float] = (0.2, 0.5)) -> Tensor:
    """Keep only the beginning or the end of the clips where ``chosen`` (bool [batch]) is true.

    The part kept holds ``share`` of the clip's energy, so that the cut falls within the word. A
    streaming spotter hears such part words all the time and must not take them for the word.
    """
    words = wav[chosen]
    energy = words.square().cumsum(1)
    energy = energy / energy[:, -1:].clamp_min(1e-12)
    keep = uniform(len(words), share, wav)[:, None]
    head = torch.rand(len(words), 1, device=wav.device) < 0.5
    out = wav.clone()
    out[chosen] = torch.where(torch.where(head, energy < keep, energy > 1 - keep), words, 0.0)
    return out


def reverberate(wav: Tensor, chosen: Tensor, reverb_time: tuple[float, float], rate: int) -> Tensor:
    """Put the clips where ``chosen`` (bool [batch]) is true into simulated rooms.

    The room impulse response is the direct sound and a tail of noise that decays by 60 dB in a
    random time (Moorer 1979, "About this reverberation business"); its level against the direct
    sound is drawn from -15 to 0 dB. The clip's level is kept.
    """
    n = int(chosen.sum())
    if n == 0:
        return wav
    dry = wav[chosen]
    # The convolution takes an FFT of the summed length, which is slow where that has large factors.
    samples = wav.shape[1]
    length = -(-(samples + int(reverb_time[1] * rate)) // 1024) * 1024 - samples + 1
    time = torch.arange(length, device=wav.device) / rate
    decay = torch.exp(-6.9078 * time / uniform(n, reverb_time, wav)[:, None])
    tail = torch.randn(n, length, device=wav.device) * decay
    tail = tail / tail.norm(dim=1, keepdim=True) * from_db(uniform(n, (-15.0, 0.0), wav))[:, None]
    # The direct sound comes first, so that the word does not move.
    tail[:, 0] = 1.0
    wet = torchaudio.functional.fftconvolve(dry, tail)[:, : wav.shape[1]]
    level = dry.norm(dim=1, keepdim=True) / wet.norm(dim=1, keepdim=True).clamp_min(1e-9)
    out = wav.clone()
    out[chosen] = wet * level
    return out


def excerpts(pool: Tensor, n: int, samples: int) -> Tensor:
    """``n`` random excerpts, float32 [n, samples], of ``pool`` (int16 [length])."""
    start = (torch.rand(n, device=pool.device) * (len(pool) - samples)).long()
    index = start[:, None] + torch.arange(samples, device=pool.device)
    return pool[index].float() / 32768


def add_background(
    wav: Tensor, noise: Tensor, probability: float, snr: tuple[float, float]
) -> Tensor:
    """Add ``noise`` (the shape of ``wav``) to a random share of the clips at random SNRs."""
    batch = len(wav)
    # Noise that is all zeros has no level to scale: the offset gives it one, and is inaudible.
    mixed = torchaudio.functional.add_noise(wav, noise + 1e-9, uniform(batch, snr, wav))
    chosen = torch.rand(batch, device=wav.device) < probability
    return torch.where((chosen & wav.any(1))[:, None], mixed, wav)


def mask_bands(log_mel: Tensor, settings: AugmentSettings) -> Tensor:
    """SpecAugment (Park et al. 2019) without time warping on [batch, frames, mels].

    Masks hold the clip's mean. They lie on the mel bands, before the cosine transform would spread
    them over all coefficients.
    """
    mean = log_mel.mean(dim=(1, 2), keepdim=True)
    x = log_mel - mean
    mask = torchaudio.functional.mask_along_axis_iid
    for _ in range(settings.frequency_masks if settings.frequency_mask else 0):
        x = mask(x[:, None], settings.frequency_mask + 1, 0.0, 3)[:, 0]
    for _ in range(settings.time_masks if settings.time_mask else 0):
        x = mask(x[:, None], settings.time_mask + 1, 0.0, 2)[:, 0]
    return x + mean


def mixup(x: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each example and its target with another one's (Zhang et al. 2018).

    Args:
        x: examples [batch, ...].
        target: class probabilities [batch, classes].
        alpha: parameter of the Beta distribution of the weight.
    """
    beta = torch.distributions.Beta(alpha, alpha).sample((len(x),)).to(x.device)
    other = torch.randperm(len(x), device=x.device)
    weight = beta.view(-1, *[1] * (x.ndim - 1))
    return (
        x * weight + x[other] * (1 - weight),
        target * beta[:, None] + target[other] * (1 - beta[:, None]),
    )


def augment_audio(
    wav: Tensor,
    label: Tensor,
    pool: Tensor,
    settings: AugmentSettings,
    rate: int,
    unknown: int | None,
    silence: int | None,
) -> tuple[Tensor, Tensor]:
    """All augmentations of the waveform, in the order in which the world applies them.

    Args:
        wav: clips [batch, samples]; all zeros for a ``_silence_`` clip still to be drawn.
        label: classes, int64 [batch]; of any shape where neither ``unknown`` nor ``silence`` is.
        pool: background noise, int16 [length].
        rate: sample rate, Hz.
        unknown, silence: the classes of cut words and of background alone; without the former no
            word is cut, without the latter no clip is background alone.

    Returns:
        The clips and their classes, which change for words that were cut.
    """
    batch, samples = wav.shape
    s = settings
    wav = warp(wav, s.shift * rate, s.speed)
    cut = torch.rand(batch, device=wav.device) < s.cut
    if unknown is not None:
        cut &= label < unknown
        wav = cut_words(wav, cut)
        label = torch.where(cut, unknown, label)
    reverb = torch.rand(batch, device=wav.device) < s.reverb
    wav = reverberate(wav, reverb & wav.any(1), s.reverb_time, rate)
    # Nothing is drawn from a pool that nothing needs.
    noise = excerpts(pool, batch, samples) if len(pool) else torch.zeros_like(wav)
    empty = ~wav.any(1)
    wav = add_background(wav, noise, s.noise, s.snr)
    wav = wav * from_db(uniform(batch, s.gain, wav))[:, None]
    level = from_db(uniform(batch, s.silence_level, wav))
    # One in twenty stays digital silence: a muted microphone must not surprise the spotter.
    level = level * (torch.rand(batch, device=wav.device) > 0.05)
    if silence is not None:
        wav = torch.where((empty & (label == silence))[:, None], noise * level[:, None], wav)
    return wav.clamp(-1, 1), label
