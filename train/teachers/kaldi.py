"""Kaldi's log mel filterbank on whole batches, as BEATs and AST were trained on."""

import torch
from torch import Tensor

from ..torchaudio_import import torchaudio
from .teacher import SAMPLE_RATE

MELS = 128
WINDOW, HOP = 400, 160


def log_mel(wav: Tensor, window: str) -> Tensor:
    """Log mel energies, float32 [batch, frames, 128], of ``wav`` [batch, samples].

    There are ``(samples - 400) // 160 + 1`` frames of 25 ms every 10 ms.

    Args:
        wav: audio at 16 kHz, in whatever scale the network wants.
        window: its name in Kaldi, such as ``povey``.
    """
    # Energies of 16-bit samples exceed what half precision holds.
    with torch.autocast(wav.device.type, enabled=False):
        frames = wav.float().unfold(-1, WINDOW, HOP)
        # Kaldi treats every frame by itself, so frames laid end to end and cut without overlap
        # make one call of a whole batch.
        energies = torchaudio.compliance.kaldi.fbank(
            frames.reshape(1, -1),
            num_mel_bins=MELS,
            sample_frequency=SAMPLE_RATE,
            frame_length=1000 * WINDOW / SAMPLE_RATE,
            frame_shift=1000 * WINDOW / SAMPLE_RATE,
            window_type=window,
        )
        return energies.view(*frames.shape[:2], MELS)
