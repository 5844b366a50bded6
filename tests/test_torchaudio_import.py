"""torchaudio imports beside any torch, and what Earmark calls of it works."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from earmark.train.torchaudio_import import torchaudio  # noqa: E402


def test_what_earmark_calls_works_without_the_extension() -> None:
    torch.manual_seed(0)
    pcm = torch.randn(2, 16000)
    mfcc = torchaudio.transforms.MFCC(
        16000, melkwargs={"n_fft": 480, "hop_length": 160, "center": False, "n_mels": 40}
    )(pcm)
    assert mfcc.shape == (2, 40, 98)
    assert torch.isfinite(mfcc).all()
    masked = torchaudio.transforms.TimeMasking(25)(mfcc.clone())
    assert ((masked == mfcc) | (masked == 0)).all()
    noisy = torchaudio.functional.add_noise(pcm, torch.randn(2, 16000), torch.tensor([10.0, 0.0]))
    ratio = pcm.square().mean(-1) / (noisy - pcm).square().mean(-1)
    torch.testing.assert_close(10 * ratio.log10(), torch.tensor([10.0, 0.0]), atol=1e-3, rtol=0)
    low = torchaudio.functional.lowpass_biquad(pcm, 16000, 500)
    assert low.square().mean() < 0.2 * pcm.square().mean()
    assert torchaudio.functional.convolve(pcm, torch.ones(2, 100)).shape == (2, 16099)
    assert torchaudio.functional.resample(pcm, 16000, 8000).shape == (2, 8000)


def test_a_later_plain_import_finds_the_same_module() -> None:
    import torchaudio as plain

    assert plain is torchaudio


def test_an_extension_that_does_not_load_is_replaced(tmp_path) -> None:
    """Also where the installed torchaudio does match torch: its loader is made to fail."""
    code = """
import importlib.abc, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchaudio._extension":
            raise OSError("libc10_cuda.so: cannot open shared object file")
sys.meta_path.insert(0, Broken())
from earmark.train.torchaudio_import import torchaudio
import torch
mfcc = torchaudio.transforms.MFCC(melkwargs={"n_fft": 480, "n_mels": 40})
assert mfcc(torch.zeros(16000)).shape[0] == 40
try:
    torchaudio.functional.forced_align(torch.zeros(1, 4, 3), torch.ones(1, 1))
except RuntimeError as error:
    assert "forced_align" in str(error), error
else:
    raise AssertionError("forced_align ran")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
