"""Clips in noise at a given signal-to-noise ratio, the same noise for every model and ratio."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import EarmarkError
from ..runtime.manifest import SILENCE
from ..train.data.dataset import Split
from ..train.data.decoded import SAMPLE_RATE
from .matching import loud

_TRIES = 20
_QUIET = 0.1
"""An excerpt this far below the level of its recording (20 dB) is a pause, not the noise."""


def parse_snrs(texts: Sequence[str]) -> tuple[float | None, ...]:
    """Signal-to-noise ratios in dB, None for ``clean``, each once, in the order given.

    Raises:
        EarmarkError: a text is neither ``clean`` nor a number from -60 to 100.
    """
    found: list[float | None] = []
    for text in texts:
        try:
            value = None if text == "clean" else float(text)
        except ValueError:
            value = np.inf
        if value is not None and not -60 <= value <= 100:
            raise EarmarkError(f"--snr {text}: give clean or decibels, as in --snr clean 10 -5")
        found.append(value)
    return tuple(dict.fromkeys(found))


def snr_name(snr: float | None) -> str:
    """What people call a ratio."""
    return "clean" if snr is None else f"{snr:g} dB"


def speech_levels(split: Split) -> NDArray[np.float64]:
    """Root mean square of each clip over the part between its first and last 10 ms within 30 dB of
    the loudest, float64 [N]: pauses around a word do not count."""
    found = np.zeros(len(split))
    for row, pcm in enumerate(split.pcm):
        start, end = loud(pcm, SAMPLE_RATE)
        found[row] = rms(pcm[start:end])
    return found


def in_noise(
    split: Split, noise: Sequence[NDArray[np.int16]], snr_db: float, seed: int = 0
) -> Split:
    """Add noise to every clip of a split.

    The ratio is that of a clip's speech level (:func:`speech_levels`) to the root mean square of
    the noise over the whole clip. A ``_silence_`` clip has no speech: it gets the noise that a clip
    of the median speech level would get. Which recording and which excerpt of it a clip gets
    follows from the seed and the clip's name alone. Where the sum would exceed full scale, speech
    and noise are turned down alike.

    Args:
        split: the clips.
        noise: int16 recordings that no training has heard.
        snr_db: decibels.
        seed: of the choice of the noise.

    Raises:
        EarmarkError: there is no recording with sound in it.
    """
    usable = [recording for recording in noise if len(recording) and recording.any()]
    if not usable:
        raise EarmarkError("--noise: no noise recordings for this split: name a folder of some")
    levels = speech_levels(split)
    silent = split.label == (split.labels.index(SILENCE) if SILENCE in split.labels else -2)
    if not silent.all():
        levels[silent] = np.median(levels[~silent])
    pcm = np.empty_like(split.pcm)
    names: Counter[str] = Counter()
    samples = split.pcm.shape[1]
    for row, (path, level) in enumerate(zip(split.path, levels, strict=True)):
        # The last parts of a path do not tell where the corpus lies.
        name = "/".join(PurePath(str(path)).parts[-2:])
        names[name] += 1
        digest = hashlib.sha256(f"{seed}\0{name}\0{names[name]}".encode("utf-8", "surrogateescape"))
        excerpt = _excerpt(usable, samples, np.random.default_rng(list(digest.digest())))
        gain = level * 10 ** (-snr_db / 20) / rms(excerpt)
        mixed = split.pcm[row] + gain * excerpt
        pcm[row] = np.round(mixed * min(1.0, 32767 / max(np.abs(mixed).max(), 1.0)))
    return dataclasses.replace(split, pcm=pcm)


def _excerpt(
    noise: Sequence[NDArray[np.int16]], samples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A stretch of one of the recordings that is no pause, repeated if it is too short."""
    recording = noise[int(rng.integers(len(noise)))]
    whole = rms(recording)
    # The loudest place is where it ends if twenty random ones are all pauses.
    peak = int(np.abs(recording.astype(np.int32)).argmax())
    places = rng.integers(max(1, len(recording) - samples + 1), size=_TRIES).tolist()
    places.append(max(0, min(peak - samples // 2, len(recording) - samples)))
    parts = [recording[start : start + samples] for start in places]
    part = next((part for part in parts if rms(part) >= _QUIET * whole), parts[-1])
    return np.resize(part, samples).astype(np.float64)


def rms(signal: NDArray[np.generic]) -> float:
    """Root mean square, 0 of nothing."""
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) if len(signal) else 0.0
