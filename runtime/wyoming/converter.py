"""Audio as network protocols carry it, raw integer samples of any format, to what a model takes."""

from typing import Any

import numpy as np

from ..audio import make_resampler
from ..errors import EarmarkError
from ..wav_reader import MAX_CHANNELS, PCM, decode_samples

MIN_RATE, MAX_RATE = 1000, 384_000
WIDTHS = (1, 2, 3, 4)
MAX_PIECE_BYTES = 1 << 16


class Converter:
    """Interleaved little-endian integers, unsigned where they have 8 bits, to one channel.

    The samples at the model's rate do not depend on how the bytes are cut into pieces.
    """

    def __init__(self, rate: int, width: int, channels: int, target: int) -> None:
        """
        Args:
            rate: of what comes in, Hz.
            width: bytes of a sample.
            channels: all of which are averaged.
            target: of what is given out, Hz.

        Raises:
            EarmarkError: a value is out of range, or the rates differ and soxr is not installed.
        """
        for name, value, ok, expected in (
            ("rate", rate, MIN_RATE <= rate <= MAX_RATE, f"{MIN_RATE} to {MAX_RATE} Hz"),
            ("width", width, width in WIDTHS, "1 to 4 bytes"),
            ("channels", channels, 1 <= channels <= MAX_CHANNELS, f"1 to {MAX_CHANNELS}"),
        ):
            if not ok:
                raise EarmarkError(f"audio with {name} {value}: expected {expected}")
        self.frame_bytes = width * channels
        self._bits = 8 * width
        self._channels = channels
        self._plain = width == 2 and channels == 1
        self._resampler: Any = None
        if rate != target:
            try:
                self._resampler = make_resampler(rate, target)
            except EarmarkError as error:
                raise EarmarkError(f"audio {error}") from error.__cause__

    def convert(self, data: bytes) -> np.ndarray:
        """Convert whole frames.

        Returns:
            int16 or float32 [samples] at the target rate. With a change of rate they come later
            than what they were made of, and a few at the start not at all yet.
        """
        if self._plain and self._resampler is None:
            return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
        samples = decode_samples(data, PCM, self._bits)
        if self._channels > 1:
            samples = samples.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
        return samples if self._resampler is None else self._resampler.resample_chunk(samples)

    def finish(self) -> np.ndarray:
        """What a change of rate still holds back: float32 [samples]. Ends the conversion."""
        nothing = np.zeros(0, np.float32)
        if self._resampler is None:
            return nothing
        return self._resampler.resample_chunk(nothing, last=True)
