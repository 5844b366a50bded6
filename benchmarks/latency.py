"""How long a chunk takes, and what a second of audio costs, from PCM to the list of detections.

Hot: chunks follow each other without a pause. A device that waits for its microphone between
chunks finds colder caches and a slower clock, and takes about twice as long per chunk.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError

SECONDS, ROUNDS = 40.0, 15
"""Audio for each model in each round, and rounds: a few seconds of work in short turns."""
WARM_UP_CHUNKS = 50
MAX_CHUNKS = 1_000_000

Clock = Callable[[], int]
"""Nanoseconds since any moment."""


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """The cost of one model."""

    model: str
    precision: str
    size: int
    """Bytes of the file."""
    chunk_ms: float
    """Audio in a chunk."""
    p50_us: Spread
    """Microseconds per chunk: percentiles within a round."""
    p95_us: Spread
    p99_us: Spread
    cpu_ms_per_second: Spread
    """CPU milliseconds of the whole process per second of audio."""


def measure(
    engines: Sequence[Engine],
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
    *,
    pcm: NDArray[np.int16] | None = None,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
) -> list[Timing]:
    """Time ``Stream.push`` chunk by chunk on one thread.

    In each round every model takes ``seconds`` of audio, each round beginning with another model,
    so that a change of the processor's clock or load falls on all of them alike.

    Args:
        engines: the models.
        seconds: audio per model and round.
        rounds: how often.
        pcm: int16 [samples], repeated as needed; None for noise with the loudness of speech.
        clock: wall time.
        cpu_clock: CPU time of the process.

    Raises:
        EarmarkError: ``seconds`` or ``rounds`` is out of range.
    """
    if not 1 <= rounds <= 1000:
        raise EarmarkError(f"{rounds} rounds: expected 1 to 1000")
    takes = [_Take(engine, seconds, pcm) for engine in engines]
    for take in takes:
        take.run(WARM_UP_CHUNKS, clock, cpu_clock)
    percentiles = np.empty((len(takes), rounds, 3))
    cpu = np.empty((len(takes), rounds))
    for turn in range(rounds):
        for place in range(len(takes)):
            index = (turn + place) % len(takes)
            times, spent = takes[index].run(takes[index].count, clock, cpu_clock)
            percentiles[index, turn] = np.percentile(times, (50, 95, 99)) / 1e3
            cpu[index, turn] = spent / 1e6 / takes[index].audio_seconds
    timings = []
    for engine, take, shares, spent in zip(engines, takes, percentiles, cpu, strict=True):
        p50, p95, p99 = (spread(column) for column in shares.T)
        timings.append(
            Timing(
                model=str(engine.path),
                precision=engine.manifest.precision,
                size=engine.path.stat().st_size,
                chunk_ms=1e3 * take.chunk / take.rate,
                p50_us=p50,
                p95_us=p95,
                p99_us=p99,
                cpu_ms_per_second=spread(spent),
            )
        )
    return timings


def settings(seconds: float, rounds: int) -> dict[str, Any]:
    """How :func:`measure` measured, for the record."""
    return {
        "mode": "hot",
        "path": "int16 PCM to detections (Stream.push)",
        "threads": 1,
        "warm_up_chunks": WARM_UP_CHUNKS,
        "seconds": seconds,
        "rounds": rounds,
        "interleaved": True,
    }


class _Take:
    """A stream and the audio that is pushed into it."""

    def __init__(self, engine: Engine, seconds: float, pcm: NDArray[np.int16] | None) -> None:
        geometry = engine.manifest.geometry
        self.rate, self.chunk = geometry.sample_rate, geometry.chunk
        self.count = round(seconds * self.rate / self.chunk) if 0 < seconds < 1e9 else 0
        if not 1 <= self.count <= MAX_CHUNKS:
            raise EarmarkError(
                f"{seconds:g} seconds: expected 1 to {MAX_CHUNKS} chunks of "
                f"{self.chunk / self.rate:g} s"
            )
        self.audio_seconds = self.count * self.chunk / self.rate
        audio = speech_like(self.rate) if pcm is None else pcm
        # Whole chunks cut beforehand, so that the loop measures the runtime alone.
        whole = np.resize(audio, -(-len(audio) // self.chunk) * self.chunk)
        self._chunks = whole.reshape(-1, self.chunk)
        self._stream = engine.stream()

    def run(self, count: int, clock: Clock, cpu_clock: Clock) -> tuple[NDArray[np.int64], int]:
        """Push ``count`` chunks: wall nanoseconds of each, CPU nanoseconds of all."""
        times = np.empty(count, np.int64)
        chunks, push = self._chunks, self._stream.push
        spent = cpu_clock()
        for index in range(count):
            chunk = chunks[index % len(chunks)]
            begin = clock()
            push(chunk)
            times[index] = clock() - begin
        return times, cpu_clock() - spent


def speech_like(rate: int) -> NDArray[np.int16]:
    """Ten seconds of noise that swells about four times a second, as syllables do."""
    samples = 10 * rate
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(samples) / rate)
    noise = np.random.default_rng(0).standard_normal(samples)
    return np.clip(np.round(2000 * swell * noise), -32768, 32767).astype(np.int16)


def spread(values: NDArray[np.float64]) -> Spread:
    """A figure over the rounds, of its values float [rounds]."""
    return Spread(float(np.median(values)), float(values.min()), float(values.max()))
