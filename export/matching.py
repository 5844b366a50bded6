"""Who was right: detections against the words that were said."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.stream import Detection

LATE = 0.75
"""Seconds after the end of a word up to which a detection counts as a hit."""
QUIET_DB = -30.0
"""Level against the loudest 10 ms of a clip below which its word has not begun or is over."""


class Word(NamedTuple):
    """A word in a recording."""

    keyword: str
    """The keyword; of another word, the name of its class folder."""
    start: float
    """Seconds from the start of the recording."""
    end: float


@dataclass(frozen=True)
class Matching:
    """Detections against the truth."""

    hits: tuple[tuple[Detection, Word], ...]
    misses: tuple[Word, ...]
    false_accepts: tuple[Detection, ...]

    def summary(self, seconds: float) -> dict[str, Any]:
        """Counts, recall, false accepts per hour and the delay from the end of the word in seconds
        (percentiles 50 and 95), for ``seconds`` of audio. Figures of nothing are None."""
        delays = [detection.time - word.end for detection, word in self.hits]
        said = len(self.hits) + len(self.misses)
        return {
            "keywords": said,
            "hits": len(self.hits),
            "misses": len(self.misses),
            "false_accepts": len(self.false_accepts),
            "recall": len(self.hits) / said if said else None,
            "false_accepts_per_hour": len(self.false_accepts) * 3600 / seconds,
            "delay_p50": percentile(delays, 50),
            "delay_p95": percentile(delays, 95),
            "seconds": seconds,
        }


def match(detections: Sequence[Detection], truth: Sequence[Word], late: float = LATE) -> Matching:
    """Tell hits from false accepts.

    A detection is a hit on a word of its keyword from the word's start to ``late`` seconds after
    its end. A word counts once; further detections of it are false accepts. Of several words that a
    detection could mean, it takes the one that ends first, which gives the most hits there can be.
    """
    ordered = sorted(truth, key=lambda word: word.end)
    open_words: dict[str, deque[Word]] = {word.keyword: deque() for word in ordered}
    for word in ordered:
        open_words[word.keyword].append(word)
    hits: list[tuple[Detection, Word]] = []
    misses: list[Word] = []
    wrong: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: detection.time):
        words = open_words.get(detection.keyword, deque())
        while words and words[0].end + late < detection.time:
            misses.append(words.popleft())
        for word in words:
            if word.start <= detection.time:
                hits.append((detection, word))
                words.remove(word)
                break
        else:
            wrong.append(detection)
    misses += [word for words in open_words.values() for word in words]
    misses.sort(key=lambda word: word.start)
    return Matching(tuple(hits), tuple(misses), tuple(wrong))


def loud(pcm: NDArray[Any], rate: int) -> tuple[int, int]:
    """Where the word of a clip is: the first sample and the one after the last.

    The word is what lies between the first and the last 10 ms within 30 dB of the loudest. Of a
    clip shorter than 10 ms it is the whole.

    Args:
        pcm: [samples].
        rate: Hz.
    """
    frame = rate // 100
    frames = len(pcm) // frame
    if not frames:
        return 0, len(pcm)
    parts = pcm[: frames * frame].astype(np.float64).reshape(frames, frame)
    energy = np.square(parts).mean(axis=1)
    places = np.flatnonzero(energy >= energy.max() * 10 ** (QUIET_DB / 10))
    return int(places[0]) * frame, int(places[-1] + 1) * frame


def percentile(values: Sequence[float] | NDArray[np.float64], percent: float) -> float | None:
    """A percentile, None of nothing."""
    return float(np.percentile(values, percent)) if len(values) else None
