"""Audio to time with."""

import numpy as np
from numpy.typing import NDArray


def speech_like(rate: int) -> NDArray[np.int16]:
    """Ten seconds of noise that swells about four times a second, as syllables do."""
    samples = 10 * rate
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(samples) / rate)
    noise = np.random.default_rng(0).standard_normal(samples)
    return np.clip(np.round(2000 * swell * noise), -32768, 32767).astype(np.int16)


def blocks(pcm: NDArray[np.int16], size: int) -> NDArray[np.int16]:
    """int16 [blocks, size]: ``pcm`` in whole blocks, its beginning again at the end of the last.

    Cut beforehand, so that a timed loop does not measure it.
    """
    return np.resize(pcm, -(-len(pcm) // size) * size).reshape(-1, size)
