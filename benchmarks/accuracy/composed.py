"""Streams with known truth, composed of the recordings of a corpus: keywords among other speech in
noise, and speech without keywords.

Every recording is used once in each condition (a signal-to-noise ratio), always in the same place
and with the same noise. Speakers are dealt into two halves that share no stream, so that a
threshold can be chosen on one and judged on the other. Audio is made when it is asked for.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...export.matching import Word
from ...export.noisy import rms, snr_name
from ...export.tune import first_half
from ...runtime.errors import EarmarkError
from ...runtime.files import write_text
from ...runtime.manifest import SILENCE, UNKNOWN
from ...train.collect.speak import SPEECH_DB
from ...train.data.dataset import SPEECH, Split
from ...train.data.decoded import SAMPLE_RATE
from ...train.data.stretches import recording_origin
from ..scene import FADE, bed, cut, write_wav

PAUSES = (0.1, 0.6)
"""Least and most silence between two words, seconds."""
PIECE_SECONDS = (0.8, 2.0)
"""Least and most length of the pieces of free speech between keywords."""
WORDS = 20
"""Keywords, or other words, in a stream."""
EDGE_SECONDS = 1.0
"""Noise alone before the first word and after the last."""


@dataclass(frozen=True)
class Composed:
    """A stream of one condition and one half."""

    name: str
    snr: float | None
    """Decibels of the speech over the noise; None without noise."""
    half: int
    """0 or 1."""
    pcm: NDArray[np.int16]
    """int16 [samples] at 16 kHz."""
    truth: tuple[Word, ...]
    """The keywords, in the order they are said; none in speech without keywords."""
    speakers: tuple[str, ...]
    """Who says each of them."""
    others: tuple[Word, ...] = ()
    """The words that are no keywords."""

    @property
    def seconds(self) -> float:
        """Length of the stream."""
        return len(self.pcm) / SAMPLE_RATE

    @property
    def content(self) -> bytes:
        """What stands for the stream in a hash: what is heard, and what it is judged by."""
        judged = [self.half, self.speakers, [self.truth, self.others]]
        return self.pcm.astype("<i2").tobytes() + json.dumps(judged).encode()


@dataclass(frozen=True)
class Item:
    """A word, or a stretch of free speech."""

    pcm: NDArray[np.int16]
    """int16 [samples]."""
    word: str
    keyword: bool
    speaker: str


@dataclass(frozen=True)
class Materials:
    """What streams are composed of; no model has been trained on any of it."""

    words: Split
    """Clips of keywords and of other words."""
    noise: tuple[NDArray[np.int16], ...]
    """int16 recordings."""
    speech: tuple[tuple[str, NDArray[np.int16]], ...] = ()
    """Free speech without keywords: stretches, int16, each with the name of its recording."""


def compose_all(
    materials: Materials, snrs: Sequence[float | None], seed: int = 0
) -> Iterator[Composed]:
    """All streams of all conditions, one after the other.

    A stream of keywords has each keyword clip of its half once, with another word or a piece of
    free speech of the half before each and after the last, and pauses of 0.1 to 0.6 s. A stream
    without keywords is a recording of free speech, or other words, with such pauses. Words and
    speech are at -26 dB of full scale over their loud part, noise ``snr`` below that.

    Args:
        materials: the recordings.
        snrs: the conditions.
        seed: of the halves, the order, the pauses and the noise.

    Raises:
        EarmarkError: there is no clip of a keyword, nothing without keywords, or no noise where a
            condition needs some.
    """
    if any(snr is not None for snr in snrs) and not any(map(np.any, materials.noise)):
        raise EarmarkError("--snr: no noise recordings held out: name a folder in --noise")
    plans = plan(materials, seed)
    for snr in snrs:
        for name, half, items in plans:
            rng = np.random.default_rng([seed, *name.encode()])
            yield _mixed(name, half, items, snr, materials.noise, rng)


def plan(materials: Materials, seed: int) -> list[tuple[str, int, list[Item]]]:
    """Which items follow one another in which stream of which half: of keywords first."""
    words, rng = _items(materials.words), np.random.default_rng(seed)
    origins = {name: recording_origin(name) for name, _ in materials.speech}
    chosen = first_half([item.speaker for item in words], seed) | first_half(
        list(origins.values()), seed
    )
    found: list[tuple[str, int, list[Item]]] = []
    rest: list[tuple[str, int, list[Item]]] = []
    for half in (0, 1):
        ours = [item for item in words if (item.speaker in chosen) == (half == 0)]
        keywords = [item for item in ours if item.keyword]
        others = [item for item in ours if not item.keyword]
        # What is left of a recording without its keywords stays one stream.
        recordings: dict[str, list[Item]] = {}
        for name, pcm in materials.speech:
            if (origins[name] in chosen) == (half == 0):
                recordings.setdefault(name, []).append(Item(pcm, SPEECH, False, origins[name]))
        speech = [item for said in recordings.values() for item in said]
        least = PIECE_SECONDS[0] * SAMPLE_RATE
        speech = [item for item in speech if len(item.pcm) >= least] or speech
        if not keywords or not (others or speech):
            raise EarmarkError(
                "half of the speakers have no keyword, or nobody of them says anything else: name "
                "more recordings with --data and --speech"
            )
        keywords, others = (
            [some[i] for i in rng.permutation(len(some))] for some in (keywords, others)
        )
        for number, start in enumerate(range(0, len(keywords), WORDS)):
            items = [_filler(others, speech, rng)]
            for keyword in keywords[start : start + WORDS]:
                items += [keyword, _filler(others, speech, rng)]
            found.append((f"keywords-{half}-{number:03d}", half, items))
        for number, start in enumerate(range(0, len(others), WORDS)):
            rest.append((f"words-{half}-{number:03d}", half, others[start : start + WORDS]))
        for number, said in enumerate(recordings.values()):
            rest.append((f"speech-{half}-{number:03d}", half, said))
    return found + rest


def write_streams(streams: Iterator[Composed], folder: Path) -> Iterator[Composed]:
    """Pass on streams, and write each as WAV with a label track: a line for each word with its
    start and end in seconds and its name, as Audacity imports them."""
    for stream in streams:
        stem = f"{snr_name(stream.snr).replace(' ', '')}-{stream.name}"
        write_wav(folder / f"{stem}.wav", stream.pcm)
        words = sorted((*stream.truth, *stream.others), key=lambda word: word.start)
        lines = [f"{word.start:.3f}\t{word.end:.3f}\t{word.keyword}\n" for word in words]
        write_text(folder / f"{stem}.txt", "".join(lines))
        yield stream


def _items(split: Split) -> list[Item]:
    found = []
    for row, label in enumerate(split.label):
        name = split.labels[label]
        if name != SILENCE and split.pcm[row].any():
            keyword = name != UNKNOWN
            word = name if keyword else str(split.word[row])
            found.append(Item(split.pcm[row], word, keyword, str(split.speaker[row])))
    return found


def _filler(others: Sequence[Item], speech: Sequence[Item], rng: np.random.Generator) -> Item:
    """Another word, or a piece of free speech: evenly where there are both."""
    if others and (not speech or rng.random() < 0.5):
        return others[int(rng.integers(len(others)))]
    item = speech[int(rng.integers(len(speech)))]
    length = round(rng.uniform(*PIECE_SECONDS) * SAMPLE_RATE)
    start = int(rng.integers(max(1, len(item.pcm) - length + 1)))
    return dataclasses.replace(item, pcm=item.pcm[start : start + length])


def _mixed(
    name: str,
    half: int,
    items: Sequence[Item],
    snr: float | None,
    noise: Sequence[NDArray[np.int16]],
    rng: np.random.Generator,
) -> Composed:
    level = 32768 * 10 ** (SPEECH_DB / 20)
    place = round(EDGE_SECONDS * SAMPLE_RATE)
    parts: list[tuple[int, NDArray[np.float64]]] = []
    truth: list[Word] = []
    others: list[Word] = []
    for item in items:
        piece = cut(item.pcm)
        parts.append((place, piece * (level / max(_speech_level(piece[FADE:-FADE]), 1e-9))))
        end = place + len(piece) - FADE
        word = Word(item.word, (place + FADE) / SAMPLE_RATE, end / SAMPLE_RATE)
        (truth if item.keyword else others).append(word)
        place += len(piece) + round(rng.uniform(*PAUSES) * SAMPLE_RATE)
    samples = place + round(EDGE_SECONDS * SAMPLE_RATE)
    # Drawn in every condition, so that all have the same.
    mix = bed(noise, samples, rng) * (0 if snr is None else level * 10 ** (-snr / 20))
    for start, piece in parts:
        mix[start : start + len(piece)] += piece
    mix *= min(1.0, 32767 / max(np.abs(mix).max(), 1.0))
    speakers = tuple(item.speaker for item in items if item.keyword)
    pcm = np.round(mix).astype(np.int16)
    return Composed(name, snr, half, pcm, tuple(truth), speakers, tuple(others))


def _speech_level(piece: NDArray[np.float64]) -> float:
    """Root mean square without the pauses: over the 10 ms within 30 dB of the loudest."""
    frame = SAMPLE_RATE // 100
    frames = piece[: len(piece) // frame * frame].reshape(-1, frame)
    energy = np.square(frames).mean(axis=1)
    if not len(energy):
        return rms(piece)
    return float(np.sqrt(energy[energy >= 1e-3 * energy.max()].mean()))
