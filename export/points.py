"""Choosing operating points: thresholds of all keywords for a number of false accepts in all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .det import Curve


@dataclass(frozen=True)
class Frontier:
    """For every number of false accepts, the thresholds that miss the fewest words."""

    least: int
    """Fewest false accepts that any thresholds allow."""
    levels: NDArray[np.int64]
    """int64 [numbers, keywords]: index of each keyword's threshold. Row ``i`` is for at most
    ``least + i`` false accepts."""

    def at_most(self, count: int) -> NDArray[np.int64]:
        """Thresholds for at most ``count`` false accepts, or for the fewest there can be."""
        return self.levels[min(max(0, count - self.least), len(self.levels) - 1)]


def frontier(positives: Sequence[Curve], background: Sequence[Curve], most: int) -> Frontier:
    """Divide false accepts among the keywords such that the fewest words are missed in all.

    A keyword's false accepts do not depend on another's threshold, so this is a knapsack problem,
    solved exactly by dynamic programming over the number of false accepts.

    Args:
        positives: a curve for each keyword where it is said.
        background: for each keyword, in the same order, where it is not.
        most: greatest number of false accepts of interest.
    """
    least = sum(int(curve.false_accepts.min()) for curve in background)
    # More than all there are change nothing, and would take time by their square.
    highest = sum(int(curve.false_accepts.max()) for curve in background)
    budget = max(0, min(most, highest) - least)
    lost = np.zeros(budget + 1)
    shares: list[NDArray[np.int64]] = []
    options: list[NDArray[np.int64]] = []
    for positive, negative in zip(positives, background, strict=True):
        best = _best(positive, negative, budget)
        misses = positive.misses[best]
        # Row b: misses of this keyword with f of b false accepts and of those before with the rest.
        share = np.zeros(budget + 1, np.int64)
        total = np.zeros(budget + 1)
        for b in range(budget + 1):
            sums = lost[b::-1] + misses[: b + 1]
            share[b] = sums.argmin()
            total[b] = sums[share[b]]
        lost = total
        shares.append(share)
        options.append(best)
    levels = np.zeros((budget + 1, len(shares)), np.int64)
    for b in range(budget + 1):
        left = b
        for keyword in reversed(range(len(shares))):
            levels[b, keyword] = options[keyword][shares[keyword][left]]
            left -= shares[keyword][left]
    return Frontier(least, levels)


def _best(positive: Curve, negative: Curve, budget: int) -> NDArray[np.int64]:
    """int64 [budget + 1]: the threshold of one keyword for each number of false accepts above the
    least it can have.

    Of thresholds that miss equally few words those with the fewest false accepts count, and of
    these the middle one, which is the farthest from where either figure changes.
    """
    extra = negative.false_accepts - negative.false_accepts.min()
    best = np.zeros(budget + 1, np.int64)
    for b in range(budget + 1):
        allowed = np.flatnonzero(extra <= b)
        fewest = allowed[positive.misses[allowed] == positive.misses[allowed].min()]
        tied = fewest[extra[fewest] == extra[fewest].min()]
        best[b] = tied[len(tied) // 2]
    return best
