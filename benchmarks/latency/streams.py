"""How many live streams an engine carries: their cost, their delay and their memory.

Chunks fall due as they would from live sources, evenly spread over time, and each is taken as soon
as there is time for it, in a pool after the wait that the pool asks for. The delay of a chunk is
from the moment it is due to its detections; what cannot keep up is seen by delays that reach the
length of a chunk and beyond.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...runtime.pool import StreamPool
from ...runtime.process import resident_bytes
from ..spread import Spread, percentile_spread, spread
from ..tables import spread_text
from .audio import blocks, speech_like
from .timing import LEAST, Clock

STREAMS = (1, 10, 100, 1000)
BATCHES = (1, 8, 32, 128)
SECONDS, ROUNDS = 3.0, 6
MEMORY_STREAMS, MEMORY_SECONDS = 64, 25.0
MAX_STREAMS, MAX_SECONDS = 100_000, 3600.0


@dataclass(frozen=True)
class Load:
    """What a number of streams costs in one way to run them."""

    streams: int
    batch: int | None
    """Most chunks in one call, None for a :class:`Stream` for each."""
    cpu_ms: Spread
    """CPU milliseconds of the whole process per second of one stream's audio."""
    p50_ms: Spread
    """Milliseconds from when a chunk is due to its detections: percentiles within a round, of so
    few chunks within several, as of :class:`earmark.benchmarks.latency.timing.Timing`."""
    p99_ms: Spread | None
    """None where all rounds have too few."""


LOAD_HEADS = ("streams", "chunks per call", "CPU ms per s of audio", "delay p50 ms", "p99 ms")


def load_cells(load: Load) -> list[str]:
    """A row of the table under ``LOAD_HEADS``."""
    return [
        f"{load.streams:,}",
        "one by one" if load.batch is None else f"up to {load.batch}",
        *(spread_text(figure, 2) for figure in (load.cpu_ms, load.p50_ms, load.p99_ms)),
    ]


def memory_text(taken: dict[str, float]) -> str:
    """What :func:`memory` found, in words."""
    return (
        f"Memory of a stream: {taken['single']:.0f} KiB one by one, "
        f"{taken['pool']:.0f} KiB in a pool"
    )


def measure(
    engine: Engine,
    streams: Sequence[int] = STREAMS,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
    *,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
    sleep: Callable[[float], None] = time.sleep,
    advance: Callable[[int], None] = lambda steps: None,
) -> list[Load]:
    """Run each number of streams in each way, the ways in turn in each round.

    Args:
        engine: the model.
        streams: numbers of streams.
        batches: most chunks in one call, each a way beside that of one stream after the other where
            there are as many streams.
        seconds: audio of each stream in each round.
        rounds: how often.
        clock: wall time.
        cpu_clock: CPU time of the process.
        sleep: waits so many seconds.
        advance: is told of every run that is done, of ``count_runs`` in all.

    Raises:
        EarmarkError: a number is out of range.
    """
    check(streams, batches, seconds, rounds)
    loads = []
    for number in streams:
        ways = [None, *(batch for batch in batches if batch <= number)]
        loads += measure_ways(
            engine,
            number,
            ways,
            seconds,
            rounds,
            clock=clock,
            cpu_clock=cpu_clock,
            sleep=sleep,
            advance=advance,
        )
    return loads


def check(streams: Sequence[int], batches: Sequence[int], seconds: float, rounds: int) -> None:
    """Raises EarmarkError: a setting of :func:`measure` is out of range."""
    for name, values, limit in (
        ("--streams", streams, MAX_STREAMS),
        ("--batch", batches, 4096),
        ("--rounds", (rounds,), 1000),
    ):
        for value in values:
            if not 1 <= value <= limit:
                raise EarmarkError(f"{name} {value}: expected 1 to {limit}")
    if not 0 < seconds <= MAX_SECONDS:
        raise EarmarkError(f"--seconds {seconds:g}: expected more than 0, at most {MAX_SECONDS:g}")


def measure_ways(
    engine: Engine,
    streams: int,
    ways: Sequence[int | None],
    seconds: float,
    rounds: int,
    *,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
    sleep: Callable[[float], None] = time.sleep,
    advance: Callable[[int], None] = lambda steps: None,
) -> list[Load]:
    """Run one number of streams in several ways, in turn in each round.

    Args:
        engine: the model.
        streams: number of streams.
        ways: most chunks in one call, None for one stream after the other.
        seconds: audio of each stream in each round; the rest as of :func:`measure`.
        rounds: how often.
    """
    takes = [_Take(engine, streams, batch) for batch in ways]
    count = max(1, round(seconds / takes[0].chunk_seconds))
    cpu_ms: list[list[float]] = [[] for _ in ways]
    delays_ms: list[list[NDArray[np.float64]]] = [[] for _ in ways]
    for turn in range(rounds):
        for place in range(len(ways)):
            index = (turn + place) % len(ways)
            spent = cpu_clock()
            delays = takes[index].run(count, clock, sleep)
            spent = cpu_clock() - spent
            audio = count * streams * takes[index].chunk_seconds
            cpu_ms[index].append(spent / 1e6 / audio)
            delays_ms[index].append(delays / 1e6)
            advance(1)
    return [_load(streams, *way) for way in zip(ways, cpu_ms, delays_ms, strict=True)]


def _load(
    streams: int,
    batch: int | None,
    cpu_ms: Sequence[float],
    delays_ms: Sequence[NDArray[np.float64]],
) -> Load:
    p50, p99 = (percentile_spread(delays_ms, percent, LEAST[percent]) for percent in (50, 99))
    assert p50 is not None  # a round has at least one chunk
    return Load(streams, batch, spread(cpu_ms), p50, p99)


def count_runs(streams: Sequence[int], batches: Sequence[int], rounds: int) -> int:
    """How many runs :func:`measure` makes."""
    return rounds * sum(1 + sum(batch <= number for batch in batches) for number in streams)


def memory(
    engine: Engine, streams: int = MEMORY_STREAMS, seconds: float = MEMORY_SECONDS
) -> dict[str, float] | None:
    """KiB of resident memory that each further stream takes, in a ``pool`` and ``single``.

    The difference between one stream and ``streams`` of them, each after ``seconds`` of audio,
    since buffers take memory as they are filled. None where the system does not tell.
    """
    if resident_bytes() is None:
        return None
    found = {}
    for way, batch in (("single", None), ("pool", 32)):
        # In a process of its own, since one that has lived takes memory from what it was given.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            task = process.submit(_growth, engine.path, batch, streams, seconds)
            found[way] = task.result() / 1024 / (streams - 1)
    return found


def _growth(model: Path, batch: int | None, streams: int, seconds: float) -> int:
    """Bytes that all streams but the first take."""
    engine = Engine(model)
    takes = [_Take(engine, 1, batch)]
    takes[0].fill(seconds)
    before = resident_bytes() or 0
    takes.append(_Take(engine, streams - 1, batch))
    takes[1].fill(seconds)
    return (resident_bytes() or 0) - before


def settings(seconds: float, rounds: int) -> dict[str, Any]:
    """How :func:`measure` measured, for the record."""
    return {
        "mode": "paced, chunks of all streams spread evenly over time",
        "path": "int16 PCM to detections",
        "threads": 1,
        "seconds": seconds,
        "rounds": rounds,
        "interleaved": True,
    }


class _Take:
    """Streams and the audio that is pushed into them, each with a chunk at its own time."""

    def __init__(self, engine: Engine, streams: int, batch: int | None) -> None:
        geometry = engine.manifest.geometry
        self._chunk = geometry.chunk
        self.chunk_seconds = geometry.chunk / geometry.sample_rate
        self._chunks = blocks(speech_like(geometry.sample_rate), geometry.chunk)
        self._number = streams
        self._pool = None if batch is None else StreamPool(engine, streams=streams, batch=batch)
        if self._pool is None:
            self._streams = [engine.stream() for _ in range(streams)]
        else:
            self._ids = [self._pool.open() for _ in range(streams)]

    def fill(self, seconds: float) -> None:
        """Take audio without waiting."""
        self.run(round(seconds / self.chunk_seconds), _late(), lambda seconds: None)

    def run(self, count: int, clock: Clock, sleep: Callable[[float], None]) -> NDArray[np.int64]:
        """Push ``count`` chunks into each stream: nanoseconds from due to done of each."""
        total = count * self._number
        interval = 1e9 * self.chunk_seconds / self._number
        delays = np.empty(total, np.int64)
        pool = self._pool
        start = clock()
        begun = done = 0
        while done < total:
            now = clock() - start
            due = min(total, int(now / interval) + 1)
            if pool is None:
                if done == due:
                    sleep(max(0.0, (due * interval - now) / 1e9))
                    continue
                # The n-th chunk of all is that of stream n modulo streams.
                self._streams[done % self._number].push(self._chunks[done % len(self._chunks)])
                finished = 1
            else:
                begun = self._push_due(pool, begun, due)
                until = done * interval + 1e9 * pool.patience if pool.pending else math.inf
                if now < until and begun == due:
                    # No chunk comes after the last.
                    next_due = due * interval if due < total else math.inf
                    sleep(max(0.0, (min(until, next_due) - now) / 1e9))
                    continue
                finished = len(pool.run()[0])  # in the order in which they were pushed
            now = clock() - start
            delays[done : done + finished] = now - interval * np.arange(done, done + finished)
            done += finished
        return delays

    def _push_due(self, pool: StreamPool, begun: int, due: int) -> int:
        """Push the chunks that are due, as far as their streams can take them."""
        while begun < due:
            stream = self._ids[begun % self._number]
            if pool.waiting(stream):
                break
            pool.push(stream, self._chunks[begun % len(self._chunks)])
            begun += 1
        return begun


def _late() -> Clock:
    """A clock by which everything is due."""
    times = itertools.chain([0], itertools.repeat(1 << 62))
    return lambda: next(times)
