"""What a data set is like: counted from its folders or tables and from the heads of its files."""

import io
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ...runtime.errors import EarmarkError
from ..progress import progress
from .corpus import Corpus
from .shards import Recording, recording_bytes

_LOG = logging.getLogger(__name__)
_REPORTS = 5


@dataclass(frozen=True)
class Survey:
    """Counts of a corpus. Clips that cannot be read are in none but ``unreadable``."""

    clips: int
    unreadable: int
    hours: float
    classes: dict[str, int]
    """Clips by class, the most frequent first; a clip of several classes counts for each."""
    multilabel: bool
    """Whether some clip has several classes, or none."""
    seconds: tuple[float, float, float]
    """Length of clips: the 5th, 50th and 95th percentile."""
    rates: dict[int, int]
    """Clips by sample rate, Hz, the most frequent first."""
    speakers: int
    """Speakers or recordings; clips of one stay together."""
    folds: tuple[int, ...]
    noise: int
    """Recordings of background noise."""

    @property
    def imbalance(self) -> float:
        """Clips of the largest class for each of the smallest."""
        counts = self.classes.values()
        return max(counts) / min(counts)

    @property
    def middle_rate(self) -> int:
        """The lowest sample rate, Hz, that more than half of the clips do not exceed."""
        return next(
            rate
            for rate in sorted(self.rates)
            if 2 * sum(n for other, n in self.rates.items() if other <= rate) > self.clips
        )


def survey(corpus: Corpus) -> Survey:
    """Look at every clip's head.

    Raises:
        EarmarkError: no clip can be read.
    """
    paths = [clip.path for clip in corpus.clips]
    recordings = [clip.recording for clip in corpus.clips]
    heads: list[tuple[float, int] | None] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("Looking", len(paths)) as advance:
        for head in pool.map(_head, recordings):
            heads.append(head)
            advance(1)
    readable = [
        (clip, *head) for clip, head in zip(corpus.clips, heads, strict=True) if head is not None
    ]
    bad = [path for path, head in zip(paths, heads, strict=True) if head is None]
    for path in bad[:_REPORTS]:
        _LOG.warning("%s: cannot be read as audio", path)
    if not readable:
        raise EarmarkError(f"{paths[0]}: cannot be read as audio, and none of the {len(paths)} can")
    lengths = np.array([seconds for _, seconds, _ in readable])
    low, middle, high = np.quantile(lengths, [0.05, 0.5, 0.95]).tolist()
    classes = Counter(word for clip, *_ in readable for word in clip.words)
    return Survey(
        clips=len(readable),
        unreadable=len(bad),
        hours=float(lengths.sum()) / 3600,
        classes=dict(sorted(classes.items(), key=lambda item: (-item[1], item[0]))),
        multilabel=any(len(clip.words) != 1 for clip in corpus.clips),
        seconds=(low, middle, high),
        rates=dict(Counter(rate for *_, rate in readable).most_common()),
        speakers=len({clip.speaker for clip, *_ in readable}),
        folds=corpus.folds,
        noise=len(corpus.noise),
    )


def _head(recording: Recording) -> tuple[float, int] | None:
    """Length in seconds and sample rate, None where it is no audio or holds none."""
    try:
        if isinstance(recording, Path):
            info = soundfile.info(str(recording))
        else:
            info = soundfile.info(io.BytesIO(recording_bytes(recording)))
    except (soundfile.SoundFileError, EarmarkError, OSError):
        return None
    return (info.duration, info.samplerate) if info.frames > 0 else None
