"""The audio of a soak: recordings over and over, under noise that never repeats."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import read_audio, to_int16
from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...train.collect.speak import spoken
from ...train.data.audio_files import find_audio

PAUSE_SECONDS = 1.0
NOISE_DB = -60.0


class Audio:
    """So many seconds of audio in bounded memory, the same every time that it is iterated."""

    def __init__(self, loop: NDArray[np.int16], rate: int, seconds: int) -> None:
        """
        Args:
            loop: int16 [samples], repeated without end.
            rate: of the loop, Hz.
            seconds: length of the whole.
        """
        self._loop = loop
        self.rate = rate
        self.seconds = seconds

    @property
    def fingerprint(self) -> str:
        """Digest of all but the length."""
        digest = hashlib.sha256(f"{self.rate} {NOISE_DB}\n".encode())
        digest.update(self._loop.tobytes())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        """Blocks of one second, int16 [rate]."""
        places = np.arange(self.rate)
        level = 32768 * 10 ** (NOISE_DB / 20)
        for second in range(self.seconds):
            block = self._loop.take(second * self.rate + places, mode="wrap")
            noise = np.random.default_rng(second).standard_normal(self.rate, np.float32)
            yield np.clip(np.round(block + level * noise), -32768, 32767).astype(np.int16)


def loop(engine: Engine, names: Sequence[str]) -> NDArray[np.int16]:
    """Recordings one after the other with pauses between, int16 [samples] at the model's rate.

    Args:
        engine: whose keywords are spoken by eSpeak NG where there are no recordings.
        names: audio files and folders of them.
    """
    rate = engine.manifest.geometry.sample_rate
    if names:
        files = [f for n in map(Path, names) for f in (find_audio(n) if n.is_dir() else [n])]
        recordings = [read_audio(file, rate) for file in files]
    else:
        recordings = [speech for _, speech in spoken(engine.manifest.keywords, rate)]
    pause = np.zeros(round(PAUSE_SECONDS * rate), np.float32)
    pieces = [piece for recording in recordings for piece in (pause, recording)]
    if not pieces:
        raise EarmarkError(f"{', '.join(names)}: no audio: name a folder that holds some")
    return to_int16(np.concatenate(pieces))
