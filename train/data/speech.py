"""Words as running speech has them, for training: cut short, and between pieces of free speech.

A spotter that has only heard words in silence fires in running speech, and misses words within it.
"""

import numpy as np
from numpy.typing import NDArray

from .decoded import SAMPLE_RATE

_FRAME = SAMPLE_RATE // 100
_QUIET_DB = -25.0
_MARGIN = 0.06
"""Seconds kept on either side of what is loud: onsets and endings of words are soft."""
_FADE = 0.02


def word_bounds(pcm: NDArray[np.int16]) -> tuple[int, int]:
    """First and last + 1 sample of the word in a clip.

    The word lies between the first and the last 10 ms within 25 dB of the loudest, with a margin;
    in a noisy recording that is the whole clip.

    Args:
        pcm: int16 [samples], at least 10 ms.
    """
    frames = len(pcm) // _FRAME
    energy = np.square(pcm[: frames * _FRAME].reshape(frames, _FRAME), dtype=np.float64).mean(1)
    loud = np.flatnonzero(energy >= max(1.0, energy.max() * 10 ** (_QUIET_DB / 10)))
    if not len(loud):
        return 0, len(pcm)
    margin = round(_MARGIN * SAMPLE_RATE)
    start, stop = loud[0] * _FRAME - margin, (loud[-1] + 1) * _FRAME + margin
    return max(0, int(start)), min(len(pcm), int(stop))


def cut_word(
    pcm: NDArray[np.int16], random: np.random.Generator, share: tuple[float, float] = (0.2, 0.5)
) -> NDArray[np.int16]:
    """Keep only the beginning or the end of a word.

    A streaming spotter hears part words all the time and must not take them for the word.

    Args:
        pcm: a clip with one word and nothing else, int16 [samples].
        random: draws which part, and how much of it.
        share: of the clip's energy that the part holds, so that the cut falls within the word.

    Returns:
        int16 [samples].
    """
    energy = np.cumsum(np.square(pcm, dtype=np.float64))
    keep = random.uniform(*share) * energy[-1]
    kept = energy < keep if random.random() < 0.5 else energy > energy[-1] - keep
    return np.where(kept, pcm, 0).astype(np.int16)


def surround(pcm: NDArray[np.int16], speech: NDArray[np.int16], level: float) -> NDArray[np.int16]:
    """Put a word between pieces of free speech, which ends before it and goes on after it.

    Args:
        pcm: a clip with one word, int16 [samples].
        speech: int16 [samples].
        level: of the speech against the word, dB.

    Returns:
        int16 [samples].
    """
    start, stop = word_bounds(pcm)
    time = np.arange(len(pcm))
    outside = np.clip(np.maximum(start - time, time - stop + 1) / (_FADE * SAMPLE_RATE), 0, 1)
    word = np.sqrt(np.mean(np.square(pcm[start:stop], dtype=np.float64)))
    other = np.sqrt(np.mean(np.square(speech, dtype=np.float64)))
    gain = 10 ** (level / 20) * word / max(other, 1.0)
    return np.clip(np.round(pcm + gain * outside * speech), -32768, 32767).astype(np.int16)
