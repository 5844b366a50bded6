"""Timing of work that takes turns, back to back and at the pace of live audio.

Hot: step follows step without a pause. Paced: each step waits for its audio as a live source gives
it, so that caches have gone cold and the processor has slept; this is what a device sees.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ..spread import Spread, percentile_spread, spread

ROUNDS, TURN, PACED = 15, 0.4, 3.0
"""Rounds; seconds of work of each in a round, hot; seconds of audio of each in a round, paced."""
WARM_UP_STEPS = 50
MAX_STEPS = 100_000
"""Most steps of one turn."""
LEAST = {50: 1, 95: 20, 99: 100}
"""Steps that it takes to tell a percentile."""

Clock = Callable[[], int]
"""Nanoseconds since any moment."""


@dataclass(frozen=True)
class Work:
    """Something to time."""

    name: str
    audio: float
    """Seconds of audio that are done with after each step."""
    step: Callable[[int], object]
    """Does the step of this number: audio in, decision out."""
    live: bool = True
    """Whether it is also timed at the pace of live audio."""


@dataclass(frozen=True)
class Timing:
    """What the steps of one work took."""

    steps: int
    cpu_ms_per_second: Spread
    """CPU milliseconds of the whole process per second of audio."""
    real_time_factor: Spread
    """Time in steps per time of audio: 1 is as fast as the audio comes."""
    p50_us: Spread
    """Microseconds of a step: percentiles within a round, None where the steps are too few."""
    p95_us: Spread | None
    p99_us: Spread | None
    max_us: float
    """The slowest step of all rounds."""
    percentiles_us: tuple[float, ...]
    """Percentiles 0, 1, ... 100 of the steps of all rounds."""


@dataclass(frozen=True)
class Times:
    """Both timings of one work."""

    hot: Timing
    paced: Timing | None


def measure(
    works: Sequence[Work],
    *,
    rounds: int = ROUNDS,
    turn: float = TURN,
    paced: float = PACED,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
    sleep: Callable[[float], None] = time.sleep,
    advance: Callable[[int], None] = lambda turns: None,
) -> list[Times]:
    """Time every work.

    In each round every work has a turn, each round beginning with another, so that a change of the
    processor's clock or load falls on all of them alike. Each is warmed up beforehand.

    Args:
        works: what to time.
        rounds: how often.
        turn: seconds of work in a turn.
        paced: seconds of audio in a turn at the pace of live audio; 0 for none.
        clock: wall time.
        cpu_clock: CPU time of the process.
        sleep: waits so many seconds.
        advance: is told of every turn that is over, of ``count_turns`` in all.

    Raises:
        EarmarkError: ``rounds``, ``turn`` or ``paced`` is out of range.
    """
    check(rounds, turn, paced)
    takes = [_Take(work, clock, cpu_clock, sleep) for work in works]
    counts = [take.warm_up(turn) for take in takes]
    for number in range(rounds):
        order = [(number + place) % len(takes) for place in range(len(takes))]
        for index in order:
            takes[index].hot.append(takes[index].back_to_back(counts[index]))
            advance(1)
        for index in order:
            if takes[index].is_paced(paced):
                takes[index].paced.append(takes[index].live(paced))
                advance(1)
    return [take.times() for take in takes]


def check(rounds: int, turn: float, paced: float) -> None:
    """Raises EarmarkError: a setting of :func:`measure` is out of range."""
    if not 1 <= rounds <= 1000:
        raise EarmarkError(f"--rounds {rounds}: expected 1 to 1000")
    if not 0 < turn <= 600:
        raise EarmarkError(f"--turn {turn:g}: expected more than 0, at most 600 seconds")
    if not 0 <= paced <= 3600:
        raise EarmarkError(f"--paced {paced:g}: expected 0 to 3600 seconds")


def count_turns(works: Sequence[Work], rounds: int, paced: float) -> int:
    """How many turns :func:`measure` takes."""
    return rounds * sum(1 + (work.live and 0 < work.audio <= paced) for work in works)


@dataclass(frozen=True)
class _Turn:
    """What one turn took."""

    times: NDArray[np.int64]
    """Wall nanoseconds of each step."""
    cpu: int
    """CPU nanoseconds of all of them, waits between them included."""


class _Take:
    """A work and its turns."""

    def __init__(
        self, work: Work, clock: Clock, cpu_clock: Clock, sleep: Callable[[float], None]
    ) -> None:
        self.work = work
        self.hot: list[_Turn] = []
        self.paced: list[_Turn] = []
        self._clock, self._cpu_clock, self._sleep = clock, cpu_clock, sleep
        self._done = 0

    def warm_up(self, turn: float) -> int:
        """Run until caches and buffers are filled: how many steps then make a turn."""
        times = [self.back_to_back(1).times[0] for _ in range(2)]
        while len(times) < WARM_UP_STEPS and sum(times) < 1e9 * turn:
            times.append(self.back_to_back(1).times[0])
        typical = max(1.0, float(np.median(times[len(times) // 2 :])))
        return int(np.clip(round(1e9 * turn / typical), 1, MAX_STEPS))

    def is_paced(self, seconds: float) -> bool:
        return self.work.live and 0 < self.work.audio <= seconds

    def back_to_back(self, count: int) -> _Turn:
        times = np.empty(count, np.int64)
        step, clock, first = self.work.step, self._clock, self._done
        self._done += count
        spent = self._cpu_clock()
        for index in range(count):
            begin = clock()
            step(first + index)
            times[index] = clock() - begin
        return _Turn(times, self._cpu_clock() - spent)

    def live(self, seconds: float) -> _Turn:
        """Steps when their audio would be there; how late the system wakes is not counted."""
        count = round(seconds / self.work.audio)
        times = np.empty(count, np.int64)
        step, clock, first = self.work.step, self._clock, self._done
        self._done += count
        interval = 1e9 * self.work.audio
        spent = self._cpu_clock()
        start = clock()
        for index in range(count):
            wait = start + (index + 1) * interval - clock()
            if wait > 0:
                self._sleep(wait / 1e9)
            begin = clock()
            step(first + index)
            times[index] = clock() - begin
        return _Turn(times, self._cpu_clock() - spent)

    def times(self) -> Times:
        return Times(
            _timing(self.hot, self.work.audio),
            _timing(self.paced, self.work.audio) if self.paced else None,
        )


def _timing(turns: Sequence[_Turn], audio: float) -> Timing:
    micros = [turn.times / 1e3 for turn in turns]
    percentiles = {p: percentile_spread(micros, p, least) for p, least in LEAST.items()}
    p50 = percentiles[50]
    assert p50 is not None  # a turn has at least one step
    every = np.concatenate(micros)
    return Timing(
        steps=len(every),
        cpu_ms_per_second=spread([turn.cpu / 1e6 / (len(turn.times) * audio) for turn in turns]),
        real_time_factor=spread(
            [turn.times.sum() / 1e9 / (len(turn.times) * audio) for turn in turns]
        ),
        p50_us=p50,
        p95_us=percentiles[95],
        p99_us=percentiles[99],
        max_us=float(every.max()),
        percentiles_us=tuple(np.percentile(every, range(101)).round(2).tolist()),
    )
