"""How many live streams one core carries before chunks come late."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from ...runtime.engine import Engine
from .results import Capacity
from .streams import MAX_STREAMS, Load, measure_ways
from .timing import LEAST

WAYS = (None, 32)
"""A stream after the other, and a pool with the most chunks in one call."""
SECONDS, ROUNDS = 2.0, 6
MAX_BUSY_MS = 1e3
"""CPU milliseconds of one core in a second."""
NEAR = 1.1
"""The search ends when the numbers that are carried and refused are within this factor."""

Measure = Callable[[Engine, int, Sequence[int | None], float, int], list[Load]]


def capacity(
    engine: Engine,
    name: str,
    batch: int | None,
    cpu_ms_per_second: float,
    measure: Measure = measure_ways,
) -> Capacity | None:
    """Search for the most streams whose p99 stays within the length of a chunk in every round.

    Their CPU time must fit into that of one core besides: a round of a few seconds is over before
    what one core cannot keep up with is late by a chunk.

    Args:
        engine: the model.
        name: of it.
        batch: one of :data:`WAYS`.
        cpu_ms_per_second: what one stream costs, for a first guess.
        measure: what tries a number.

    Returns:
        None where even one stream is too much.
    """
    geometry = engine.manifest.geometry
    chunk_ms = 1e3 * geometry.chunk / geometry.sample_rate
    carried: Capacity | None = None
    refused: int | None = None
    number = max(1, min(MAX_STREAMS, round(0.7e3 / max(cpu_ms_per_second, 1e-3))))
    while True:
        # So long that every round has chunks enough to tell a p99, be there but one stream.
        seconds = max(SECONDS, math.ceil(LEAST[99] / number) * chunk_ms / 1e3)
        (load,) = measure(engine, number, (batch,), seconds, ROUNDS)
        assert load.p99_ms is not None
        busy = number * load.cpu_ms.median
        if busy < MAX_BUSY_MS and max(load.p99_ms.rounds) <= chunk_ms:
            carried = Capacity(
                model=name,
                precision=engine.manifest.precision,
                batch=batch,
                chunk_ms=chunk_ms,
                streams=number,
                p99_ms=load.p99_ms,
                cpu_ms=load.cpu_ms,
                refused=None,
            )
        else:
            refused = number
        if carried is None:
            if number == 1:
                return None
            number = max(1, number // 2)
        elif refused is None:
            if number == MAX_STREAMS:
                break
            number = min(MAX_STREAMS, 2 * number)
        elif refused <= max(NEAR * carried.streams, carried.streams + 1):
            break
        else:
            middle = round(math.sqrt(carried.streams * refused))
            number = min(max(middle, carried.streams + 1), refused - 1)
    return dataclasses.replace(carried, refused=refused)
