"""Detection error trade-off: recordings run once through the streaming path, then every threshold.

A :class:`Trace` holds the posteriors of a recording, a :class:`Curve` the hits and false accepts of
a keyword at each threshold, as the decision rule of the runtime gives them. The trade-off curve
itself is A. Martin et al., "The DET curve in assessment of detection task performance" (Eurospeech
1997), here over false accepts per hour.
"""

import array
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.audio import as_pcm
from ..runtime.decision import BLOCK, Decider
from ..runtime.engine import Engine
from ..runtime.manifest import Decision, Geometry
from ..runtime.sources import Gap, Piece
from ..runtime.stream import Detection
from .matching import LATE, Word, match

THRESHOLDS: tuple[float, ...] = (
    *(round(1 / (1 + math.exp(-fifths / 5)), 4) for fifths in range(-12, 41)),
    1.0,
)
"""Thresholds that are tried: evenly spaced in log odds, 0.0832 to 0.9997, and 1."""


@dataclass(frozen=True)
class Trace:
    """What a model made of one uninterrupted recording."""

    seconds: float
    """Length of the recording."""
    truth: tuple[Word, ...]
    """The keywords in it."""
    group: str
    """Speaker or file: what belongs together when recordings are divided."""
    posteriors: dict[str, NDArray[np.float32]]
    """Per keyword float32 [steps]."""

    def halves(self, step_seconds: float) -> tuple["Trace", "Trace"]:
        """The recording cut in the middle, for one without words."""
        middle = round(self.seconds / step_seconds) // 2
        seconds = middle * step_seconds
        first = {keyword: values[:middle] for keyword, values in self.posteriors.items()}
        last = {keyword: values[middle:] for keyword, values in self.posteriors.items()}
        return (
            dataclasses.replace(self, seconds=seconds, posteriors=first),
            dataclasses.replace(self, seconds=self.seconds - seconds, posteriors=last),
        )


@dataclass(frozen=True)
class Curve:
    """One keyword at each of some thresholds."""

    keyword: str
    thresholds: NDArray[np.float64]
    """float64 [T]."""
    said: int
    """How often the keyword is said."""
    hits: NDArray[np.int64]
    """int64 [T]."""
    false_accepts: NDArray[np.int64]
    """int64 [T]: detections where the keyword is not said, and second ones where it is."""
    delays: tuple[NDArray[np.float64], ...]
    """T arrays: seconds from the end of the word to the detection, of every hit."""
    seconds: float
    """Length of the recordings."""

    @property
    def misses(self) -> NDArray[np.int64]:
        """int64 [T]."""
        return self.said - self.hits


def trace(
    engine: Engine,
    source: Iterable[Piece],
    *,
    truth: Sequence[Word] = (),
    group: str = "",
    tail: float = 0.0,
) -> list[Trace]:
    """Run a recording through the model, piece by piece.

    Memory grows by 4 bytes per keyword and step: for 8 keywords and steps of 20 ms, 6 MB an hour.

    Args:
        engine: the model.
        source: audio at its sample rate, piece by piece. A gap ends a trace and starts the next.
        truth: the keywords in the recording, where it has no gap.
        group: name of what the recording belongs to.
        tail: seconds of silence after the end, as in :meth:`earmark.runtime.Stream.flush`.

    Returns:
        A trace for each stretch without a gap.

    Raises:
        EarmarkError: the source fails, or its audio is none.
    """
    manifest = engine.manifest
    rate, chunk = manifest.geometry.sample_rate, manifest.geometry.chunk
    columns = [manifest.labels.index(keyword) for keyword in manifest.keywords]
    scorer = engine.scorer()
    kept = array.array("f")
    traces: list[Trace] = []

    def take(pcm: NDArray[np.generic]) -> None:
        # Chunk by chunk as a stream does it, so that posteriors are the same to the last bit.
        taken = 0
        while taken < len(pcm) and (taken := scorer.take(pcm, taken)) >= 0:
            scorer.score()
            kept.frombytes(scorer.posteriors[:, columns].tobytes())

    def end() -> None:
        nonlocal kept
        samples = scorer.samples
        if samples:
            padding = round(tail * rate)
            take(np.zeros(padding + -(samples + padding) % chunk, np.int16))
            rows = np.frombuffer(kept, np.float32).reshape(-1, len(columns))
            posteriors = dict(zip(manifest.keywords, np.ascontiguousarray(rows.T), strict=True))
            traces.append(Trace(samples / rate, tuple(truth), group, posteriors))
            kept = array.array("f")
        scorer.reset()

    for piece in source:
        if isinstance(piece, Gap):
            end()
        elif isinstance(piece, np.ndarray):
            take(as_pcm(piece))
    end()
    return traces


def sweep(
    traces: Sequence[Trace],
    keyword: str,
    decision: Decision,
    geometry: Geometry,
    thresholds: Sequence[float] = THRESHOLDS,
    late: float = LATE,
) -> Curve:
    """Hits and false accepts of a keyword at each threshold, as a stream with ``decision`` and that
    threshold would give them (see :func:`earmark.export.matching.match`).
    """
    count = len(thresholds)
    said = [[word for word in t.truth if word.keyword == keyword] for t in traces]
    silent = np.array([not words for words in said], bool)
    false_accepts = np.zeros(count, np.int64)
    hits = np.zeros(count, np.int64)
    delays: list[list[float]] = [[] for _ in thresholds]
    grouped: dict[tuple[int, int], list[Detection]] = {}
    for level, place, step in _firings(traces, keyword, decision, geometry, thresholds):
        wrong = silent[place]
        false_accepts += np.bincount(level[wrong], minlength=count)
        times = (step + 1) * geometry.step / geometry.sample_rate
        for i, j, time in zip(level[~wrong], place[~wrong], times[~wrong], strict=True):
            time = min(float(time), traces[j].seconds)
            grouped.setdefault((int(i), int(j)), []).append(Detection(keyword, time, 0.0))
    for (i, j), detections in grouped.items():
        matching = match(detections, said[j], late)
        hits[i] += len(matching.hits)
        false_accepts[i] += len(matching.false_accepts)
        delays[i] += [detection.time - word.end for detection, word in matching.hits]
    return Curve(
        keyword,
        np.array(thresholds, float),
        sum(map(len, said)),
        hits,
        false_accepts,
        tuple(np.array(values, float) for values in delays),
        sum(t.seconds for t in traces),
    )


def _firings(
    traces: Sequence[Trace],
    keyword: str,
    decision: Decision,
    geometry: Geometry,
    thresholds: Sequence[float],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Which threshold fires, in which trace, at which of its steps; block by block."""
    step_seconds = geometry.step / geometry.sample_rate
    # After so many zeros the state of a decider is a fresh one, whatever fired among the first of
    # them: one run does for all traces.
    quiet = math.ceil((decision.smoothing + decision.refractory) / step_seconds) + 2
    pause = np.zeros(quiet, np.float32)
    parts = [part for t in traces for part in (t.posteriors[keyword], pause)]
    values = np.concatenate([pause, *parts])
    lengths = np.array([len(t.posteriors[keyword]) for t in traces], np.int64)
    place = np.repeat(np.arange(-1, len(traces)), [quiet, *(lengths + quiet)])
    starts = quiet + np.cumsum([0, *(lengths + quiet)])
    # The decision rule itself, with a column for each threshold.
    names = [str(i) for i in range(len(thresholds))]
    columns = dataclasses.replace(decision, thresholds=dict(zip(names, thresholds, strict=True)))
    decider = Decider(columns, names, step_seconds)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK, None]
        firings = decider.update(np.broadcast_to(block, (len(block), len(names))))
        if firings:
            found = np.array([(firing.label, start + firing.row) for firing in firings])
            where = place[found[:, 1]]
            step = found[:, 1] - starts[where]
            inside = step < lengths[where]
            yield found[inside, 0], where[inside], step[inside]
