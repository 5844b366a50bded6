"""The front end against torchaudio's."""

import pytest
import torch
from earmark.train.mfcc import Mfcc, MfccSettings
from earmark.train.torchaudio_import import torchaudio

SETTINGS = [
    MfccSettings(),
    MfccSettings(window=400, hop=160, coefficients=13, mels=40, f_min=0.0, f_max=8000.0),
    MfccSettings(window=640, hop=320, coefficients=40, mels=64, f_min=60.0, f_max=7000.0),
]


@pytest.fixture
def audio() -> torch.Tensor:
    """Noise at levels from loud to nearly silent, a tone, and digital silence."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 16000, generator=generator) * torch.tensor([[0.3], [1e-2], [1e-4]])
    tone = 0.5 * torch.sin(torch.arange(16000) * 0.4)[None]
    return torch.cat([noise, tone, torch.zeros(1, 16000)])


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_torchaudio(settings: MfccSettings, audio: torch.Tensor) -> None:
    reference = torchaudio.transforms.MFCC(
        settings.sample_rate,
        settings.coefficients,
        log_mels=True,
        melkwargs={
            "n_fft": settings.window,
            "hop_length": settings.hop,
            "n_mels": settings.mels,
            "f_min": settings.f_min,
            "f_max": settings.f_max,
            "center": False,
        },
    )
    ours = Mfcc(settings)(audio)
    assert ours.shape[-1] == settings.coefficients
    torch.testing.assert_close(ours, reference(audio).transpose(1, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", SETTINGS)
def test_edges_are_those_of_the_filters(settings: MfccSettings) -> None:
    mfcc = Mfcc(settings)
    edges = mfcc.edges()
    frequency = torch.arange(settings.window // 2 + 1) * settings.sample_rate / settings.window
    for m in range(settings.mels):
        inside = mfcc.mel_filters[:, m] > 0
        assert frequency[inside].min() >= edges[m] - 1e-3
        assert frequency[inside].max() <= edges[m + 2] + 1e-3


def test_half_precision_training_keeps_the_front_end_exact(audio: torch.Tensor) -> None:
    mfcc = Mfcc(MfccSettings())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = mfcc.log_mel(audio)
    torch.testing.assert_close(half, mfcc.log_mel(audio), atol=0, rtol=0)
