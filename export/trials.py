"""Clips of single words set into other audio, as a microphone hears them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..runtime.audio import to_int16
from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..runtime.sources import Piece
from ..train.data.clip import Clip
from ..train.data.shards import read_recording
from .det import Trace, trace
from .matching import LATE, Word, loud

MAX_CLIP_SECONDS = 10.0
EXCERPT_SECONDS = 5.0
MIN_EXCERPT_SECONDS = 1.0
EXCERPTS = 128
"""Excerpts kept to set clips into (20 MB at 16 kHz)."""
TAIL_SECONDS = 2.0
"""Audio after the last moment at which a clip may be detected: for second detections."""
FADE_SECONDS = 0.02


class Excerpts:
    """A fair sample of the audio that goes by, for clips to be set into.

    Each stretch of a recording is as likely as any other to be among those kept: reservoir sampling
    (J. S. Vitter, "Random sampling with a reservoir", ACM TOMS 11, 1985, algorithm R).
    """

    def __init__(self, rate: int, seed: int) -> None:
        """``rate``: Hz of the audio. ``seed``: of the choice."""
        self.kept: list[NDArray[np.int16]] = []
        self._rate = rate
        self._samples = round(EXCERPT_SECONDS * rate)
        self._rng = np.random.default_rng(seed)
        self._seen = 0

    def sample(self, source: Iterable[Piece]) -> Iterator[Piece]:
        """Pass on what ``source`` yields.

        A stretch never spans a gap or two recordings. The rest of a recording counts as one if it
        is no shorter than 1 s.
        """
        part = np.zeros(0, np.int16)
        for piece in source:
            yield piece
            if not isinstance(piece, np.ndarray):
                part = part[:0]
                continue
            part = np.concatenate([part, _int16(piece)])
            while len(part) >= self._samples:
                self._offer(part[: self._samples].copy())
                part = part[self._samples :]
        if len(part) >= MIN_EXCERPT_SECONDS * self._rate:
            self._offer(part.copy())

    def _offer(self, excerpt: NDArray[np.int16]) -> None:
        self._seen += 1
        if len(self.kept) < EXCERPTS:
            self.kept.append(excerpt)
            return
        place = int(self._rng.integers(self._seen))
        if place < EXCERPTS:
            self.kept[place] = excerpt


def trial(
    engine: Engine,
    clip: Clip,
    excerpts: Sequence[NDArray[np.int16]],
    rng: np.random.Generator,
    late: float = LATE,
) -> Trace:
    """Hear a clip in the midst of other audio.

    The clip keeps its level. Before it lies at least as much audio as one decision depends on, and
    up to one chunk more, so that its place among the chunks is random; after it 2 s more than
    ``late``. This audio is an excerpt cut open at a random place, repeated if it is too short; it
    fades over 20 ms towards the clip. Without excerpts it is digital silence. Where the
    word is in the clip is estimated from its level: a detection before it is none of it.

    Args:
        engine: the model.
        clip: a clip of one of its keywords.
        excerpts: int16 recordings at the model's sample rate.
        rng: of the choices.
        late: seconds after the word up to which it may be detected.

    Raises:
        EarmarkError: the clip cannot be read or is longer than 10 s.
    """
    geometry = engine.manifest.geometry
    rate = geometry.sample_rate
    pcm = _int16(read_recording(clip.recording, rate))
    if len(pcm) > MAX_CLIP_SECONDS * rate:
        raise EarmarkError(
            f"{clip.path}: is longer than {MAX_CLIP_SECONDS:g} s, too long for one word: cut it"
        )
    before = geometry.receptive_field + int(rng.integers(geometry.chunk))
    after = round((late + TAIL_SECONDS) * rate)
    around = np.zeros(before + after, np.int16)
    if excerpts:
        excerpt = excerpts[int(rng.integers(len(excerpts)))]
        start = int(rng.integers(max(1, len(excerpt) - len(around) + 1)))
        around = np.resize(excerpt[start:], len(around))
    fade = np.linspace(1, 0, round(FADE_SECONDS * rate))
    around[before - len(fade) : before] = around[before - len(fade) : before] * fade
    around[before : before + len(fade)] = around[before : before + len(fade)] * fade[::-1]
    start, end = (before + place for place in loud(pcm, rate))
    word = Word(clip.word, start / rate, end / rate)
    whole = np.concatenate([around[:before], pcm, around[before:]])
    (heard,) = trace(engine, [whole], truth=[word], group=clip.speaker)
    return heard


def _int16(pcm: NDArray[np.generic]) -> NDArray[np.int16]:
    """int16 of int16, or of floats in [-1, 1)."""
    if pcm.dtype == np.int16:
        return pcm.astype(np.int16, copy=False)
    return to_int16(pcm.astype(np.float32))
