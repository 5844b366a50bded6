"""Audio as WAV, the one form that everything reads."""

import io
import wave

import numpy as np


def wav_bytes(pcm: np.ndarray, rate: int) -> bytes:
    """A mono 16-bit WAV file of int16 [samples] at ``rate`` Hz."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return data.getvalue()
