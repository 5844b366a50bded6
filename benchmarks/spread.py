"""Figures with what the rounds say of their certainty: the bootstrap (Efron 1979)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
"""Percentiles of the resampled figure: a 95 % interval."""


@dataclass(frozen=True)
class Spread:
    """A figure over rounds."""

    median: float
    low: float
    """The 95 % bootstrap interval of the median: over few rounds, all of their range."""
    high: float
    rounds: tuple[float, ...] = ()
    """The figure of each round, in their order."""


def spread(values: ArrayLike) -> Spread:
    """The median of a figure over rounds, float [rounds], and its interval."""
    rounds = np.asarray(values, np.float64)
    return _spread(rounds, np.median(_resampled(rounds, 0), axis=1), np.median(rounds))


def paired_ratio(values: Sequence[float], reference: Sequence[float]) -> Spread | None:
    """The ratio of two figures that were taken round by round beside each other: the median over
    rounds, which what slows a whole round does not touch. None where the reference is ever 0."""
    if min(reference) <= 0:
        return None
    return spread(np.asarray(values) / np.asarray(reference))


def ratio(values: Sequence[float], reference: Sequence[float]) -> Spread | None:
    """The ratio of the medians of two figures that were taken in runs of their own. None where the
    reference's is 0 or either has no rounds."""
    if not values or not reference or np.median(reference) <= 0:
        return None
    above, below = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    resampled = np.median(_resampled(above, 0), axis=1) / np.maximum(
        np.median(_resampled(below, 1), axis=1), np.finfo(np.float64).tiny
    )
    return _spread(np.empty(0), resampled, np.median(above) / np.median(below))


def percentile_spread(
    rounds: Sequence[NDArray[np.float64]], percent: float, least: int
) -> Spread | None:
    """A percentile within rounds, its median over them.

    Args:
        rounds: values of each round.
        percent: which percentile.
        least: values that it takes to tell it. Rounds with fewer are joined with those after them
            until there are as many.

    Returns:
        None where all rounds together have fewer than ``least`` values.
    """
    groups: list[list[NDArray[np.float64]]] = [[]]
    for values in rounds:
        if sum(map(len, groups[-1])) >= least:
            groups.append([])
        groups[-1].append(values)
    if sum(map(len, groups[-1])) < least:
        # What is left over at the end is too little for itself.
        rest = groups.pop()
        if not groups:
            return None
        groups[-1] += rest
    return spread([np.percentile(np.concatenate(group), percent) for group in groups])


def _resampled(rounds: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """float64 [RESAMPLES, rounds], each row drawn with replacement."""
    generator = np.random.default_rng(seed)
    return rounds[generator.integers(0, len(rounds), (RESAMPLES, len(rounds)))]


def _spread(
    rounds: NDArray[np.float64], resampled: NDArray[np.float64], middle: np.floating
) -> Spread:
    low, high = np.percentile(resampled, INTERVAL)
    # Interpolation between equal numbers may differ from them in the last bit.
    low, high = min(float(low), float(middle)), max(float(high), float(middle))
    return Spread(float(middle), low, high, tuple(rounds.tolist()))
