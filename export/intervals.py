"""Confidence intervals of what is counted: false accepts in some hours, misses among some words."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


def poisson_interval(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval for the expectation behind a count of independent events.

    The limits are where the count is still within its ``(1 - confidence) / 2`` tails (F. Garwood,
    "Fiducial limits for the Poisson distribution", Biometrika 28, 1936).
    """
    tail = (1 - confidence) / 2
    low = _solve(lambda mean: 1 - _poisson_at_most(count - 1, mean) - tail, count) if count else 0.0
    return low, _solve(lambda mean: tail - _poisson_at_most(count, mean), count)


def wilson_interval(
    count: float, total: float, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """The score interval for the probability behind ``count`` of ``total`` independent trials
    (E. B. Wilson, "Probable inference", J. Am. Stat. Assoc. 22, 1927); None of no trials."""
    if not total:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = count / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # Rounding must not leave the ends a hair outside of what was counted.
    low = min((middle - spread) / scale, share) if count else 0.0
    high = max((middle + spread) / scale, share) if count < total else 1.0
    return low, high


def hours_to_measure(per_hour: float, confidence: float = CONFIDENCE) -> float:
    """Hours without a single event after which a rate above ``per_hour`` is excluded."""
    return poisson_interval(0, confidence)[1] / per_hour


def _poisson_at_most(count: int, mean: float) -> float:
    """Probability of at most ``count`` events where ``mean`` are expected."""
    if mean <= 0:
        return 1.0
    # Sums of logarithms: neither powers nor factorials overflow.
    orders = np.arange(1, count + 1)
    logs = np.concatenate([[0.0], np.cumsum(math.log(mean) - np.log(orders))]) - mean
    return min(1.0, float(np.exp(logs).sum()))


def _solve(rising: Callable[[float], float], count: int) -> float:
    """Where a rising function of the expectation is zero, to the last bits, by bisection."""
    low, high = 0.0, count + 10 * math.sqrt(count + 1) + 20
    while (middle := (low + high) / 2) not in (low, high):
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return high
