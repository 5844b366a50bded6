"""A scene to listen to: words at known times in background noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..export.matching import Word, loud
from ..export.noisy import rms
from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..runtime.files import write_bytes
from ..runtime.manifest import SILENCE, UNKNOWN
from ..runtime.stream import Detection
from ..runtime.wav import wav_bytes
from ..train.collect.speak import SPEECH_DB
from ..train.data.dataset import Split
from ..train.data.decoded import SAMPLE_RATE

FADE = SAMPLE_RATE // 50


@dataclass(frozen=True)
class Scene:
    """Audio and what is said in it."""

    pcm: NDArray[np.int16]
    """int16 [samples] at 16 kHz."""
    truth: tuple[Word, ...]
    """The keywords, in the order they are said."""
    others: tuple[Word, ...]
    """The words that are no keywords."""

    @property
    def seconds(self) -> float:
        """Length of the scene."""
        return len(self.pcm) / SAMPLE_RATE


@dataclass(frozen=True)
class Heard:
    """What a model makes of a scene, chunk by chunk."""

    times: NDArray[np.float64]
    """float64 [chunks]: seconds of audio at the end of each chunk."""
    posteriors: NDArray[np.float64]
    """float64 [chunks, labels]: smoothed posteriors there."""
    detections: tuple[Detection, ...]


def compose(
    split: Split,
    noise: Sequence[NDArray[np.int16]],
    *,
    each: int = 3,
    others: int = 6,
    seconds: float = 40.0,
    snr_db: float = 10.0,
    gap: float = 0.5,
    seed: int = 0,
) -> Scene:
    """Say each keyword ``each`` times and ``others`` other words, in random order at random times.

    Every word is brought to the same level, -26 dB of full scale over its length, and the noise to
    ``snr_db`` below it over the whole scene. No two words overlap.

    Args:
        split: where the clips come from; a clip is used twice only if there are too few.
        noise: int16 recordings, chained from a random place and in random order; none for silence.
        each: clips of each keyword.
        others: clips of other words.
        seconds: length of the scene.
        snr_db: level of the words over that of the noise.
        gap: least pause before and after each word, seconds.
        seed: of all choices.

    Raises:
        EarmarkError: a class has no clip, or the words do not fit into ``seconds``.
    """
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for index, label in enumerate(split.labels):
        count = {SILENCE: 0, UNKNOWN: others}.get(label, each)
        rows = np.flatnonzero(split.label == index)
        if count and not len(rows):
            raise EarmarkError(f"scene: there is no clip of {label}")
        if count:
            chosen += rng.choice(rows, count, replace=count > len(rows)).tolist()
    chosen = [chosen[i] for i in rng.permutation(len(chosen))]
    pieces = [cut(split.pcm[row]) for row in chosen]
    samples = round(seconds * SAMPLE_RATE)
    pause = round(gap * SAMPLE_RATE)
    free = samples - sum(map(len, pieces)) - pause * (len(pieces) + 1)
    if free < 0:
        need = (samples - free) / SAMPLE_RATE
        raise EarmarkError(f"scene: {len(pieces)} words need {need:.1f} s: make it longer")
    pauses = pause + free * rng.dirichlet(np.ones(len(pieces) + 1))
    speech_level = 32768 * 10 ** (SPEECH_DB / 20)
    mix = bed(noise, samples, rng) * speech_level * 10 ** (-snr_db / 20)
    truth: list[Word] = []
    unknown: list[Word] = []
    place = 0.0
    for row, piece, pause_before in zip(chosen, pieces, pauses, strict=False):
        start = int(place + pause_before)
        place = start + len(piece)
        # The fades lie outside of the word and outside of its level.
        inside = piece[FADE:-FADE]
        mix[start : start + len(piece)] += piece * (speech_level / max(rms(inside), 1e-9))
        bounds = (start + FADE) / SAMPLE_RATE, (start + len(piece) - FADE) / SAMPLE_RATE
        label = split.labels[split.label[row]]
        if label == UNKNOWN:
            unknown.append(Word(str(split.word[row]), *bounds))
        else:
            truth.append(Word(label, *bounds))
    peak = np.abs(mix).max(initial=0.0)
    mix *= min(1.0, 32767 / max(peak, 1.0))
    return Scene(np.round(mix).astype(np.int16), tuple(truth), tuple(unknown))


def hear(engine: Engine, pcm: NDArray[np.int16]) -> Heard:
    """Stream audio through a model, chunk by chunk.

    Args:
        engine: the model.
        pcm: int16 [samples] at its sample rate.
    """
    geometry = engine.manifest.geometry
    stream = engine.stream()
    detections: list[Detection] = []
    times: list[float] = []
    posteriors: list[NDArray[np.float64]] = []
    for start in range(0, len(pcm) - geometry.chunk + 1, geometry.chunk):
        detections += stream.push(pcm[start : start + geometry.chunk])
        times.append((start + geometry.chunk) / geometry.sample_rate)
        posteriors.append(stream.posteriors.copy())
    detections += stream.push(pcm[len(times) * geometry.chunk :]) + stream.flush()
    table = np.array(posteriors).reshape(len(times), len(engine.manifest.labels))
    return Heard(np.array(times), table, tuple(detections))


def write_wav(target: Path, pcm: NDArray[np.int16]) -> None:
    """Write int16 [samples] at 16 kHz as WAV, whole or not at all."""
    write_bytes(target, wav_bytes(pcm, SAMPLE_RATE))


def cut(pcm: NDArray[np.int16]) -> NDArray[np.float64]:
    """The loud part of a clip with a fade of :data:`FADE` samples on either side, float64
    [samples]."""
    start, end = loud(pcm, SAMPLE_RATE)
    piece = np.pad(pcm.astype(np.float64), FADE)[start : end + 2 * FADE]
    ramp = np.linspace(0, 1, FADE)
    piece[:FADE] *= ramp
    piece[-FADE:] *= ramp[::-1]
    return piece


def bed(
    noise: Sequence[NDArray[np.int16]], samples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Noise of the scene's length at a root mean square of 1."""
    usable = [recording for recording in noise if len(recording) and recording.any()]
    if not usable:
        return np.zeros(samples)
    # Each at the same loudness, or the loudest recording would be all that is heard.
    chain = [usable[i] / rms(usable[i]) for i in rng.permutation(len(usable))]
    found = np.resize(np.roll(np.concatenate(chain), -int(rng.integers(len(chain[0])))), samples)
    return found / max(rms(found), 1e-9)
