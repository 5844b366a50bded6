"""Raw samples of any format become one channel at the model's rate."""

import numpy as np
import pytest
import toy_model
from earmark.runtime.audio import make_resampler
from earmark.runtime.errors import EarmarkError
from earmark.runtime.wyoming.converter import Converter
from hypothesis import given
from hypothesis import strategies as st


def encode(samples: np.ndarray, width: int, channels: int) -> bytes:
    """int16 [samples] as interleaved integers, the other channels opposite in pairs."""
    frames = np.stack([samples.astype(np.int64)] * channels, axis=1)
    if width == 1:
        return ((frames >> 8) + 128).astype(np.uint8).tobytes()
    wide = (frames << 16).astype("<i4").reshape(-1, 1).view(np.uint8)
    return wide[:, 4 - width :].tobytes()


@given(st.sampled_from([1, 2, 3, 4]), st.integers(1, 8), st.lists(st.integers(1, 500), min_size=1))
def test_every_width_and_channel_count(width: int, channels: int, cuts: list[int]) -> None:
    pcm = toy_model.tone(440, 0.1)
    converter = Converter(16000, width, channels, 16000)
    data = encode(pcm, width, channels)
    found, place, turn = [], 0, 0
    while place < len(data):
        count = cuts[turn % len(cuts)] * converter.frame_bytes
        piece = converter.convert(data[place : place + count])
        found.append(piece / 32768 if piece.dtype == np.int16 else piece)
        place, turn = place + count, turn + 1
    expected = pcm >> 8 << 8 if width == 1 else pcm
    np.testing.assert_allclose(np.concatenate(found), expected / 32768, atol=1e-6)
    assert len(converter.finish()) == 0


def test_channels_are_averaged() -> None:
    converter = Converter(16000, 2, 2, 16000)
    frames = np.array([[1000, -1000], [300, 100]], "<i2")
    np.testing.assert_allclose(converter.convert(frames.tobytes()) * 32768, [0, 200])


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_a_change_of_rate_is_stateful_and_complete(rate: int) -> None:
    pcm = (8000 * np.sin(np.arange(rate) / rate * 2 * np.pi * 300)).astype("<i2")
    converter = Converter(rate, 2, 1, 16000)
    pieces = [converter.convert(pcm[i : i + 37].tobytes()) for i in range(0, rate, 37)]
    found = np.concatenate([*pieces, converter.finish()])
    whole = make_resampler(rate, 16000).resample_chunk(pcm.astype(np.float32) / 32768, last=True)
    assert abs(len(found) - 16000) <= 1
    np.testing.assert_allclose(found, whole, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ((0, 2, 1), "rate 0: expected 1000 to 384000 Hz"),
        ((10**9, 2, 1), "rate 1000000000"),
        ((16000, 5, 1), "width 5: expected 1 to 4 bytes"),
        ((16000, -1, 1), "width -1"),
        ((16000, 2, 0), "channels 0: expected 1 to 64"),
        ((16000, 2, 65), "channels 65"),
    ],
)
def test_formats_that_cannot_be(form: tuple[int, int, int], reason: str) -> None:
    with pytest.raises(EarmarkError, match=reason):
        Converter(*form, 16000)
