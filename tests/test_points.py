"""Operating points: the best division of false accepts, against trying every combination."""

from itertools import product

import numpy as np
import pytest
from earmark.export.det import Curve
from earmark.export.points import frontier
from hypothesis import given
from hypothesis import strategies as st

LEVELS = 5


def curve(said: int, hits: list[int], false_accepts: list[int]) -> Curve:
    return Curve(
        "k",
        np.linspace(0.1, 0.9, len(hits)),
        said,
        np.array(hits),
        np.array(false_accepts),
        tuple(np.zeros(count) for count in hits),
        3600.0,
    )


COUNTS = st.lists(st.integers(0, 8), min_size=LEVELS, max_size=LEVELS)


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=3), st.integers(0, 20))
def test_no_combination_misses_fewer(pairs: list[tuple[list[int], list[int]]], most: int) -> None:
    positives = [curve(8, hits, [0] * LEVELS) for hits, _ in pairs]
    background = [curve(0, [0] * LEVELS, false) for _, false in pairs]
    found = frontier(positives, background, most)
    assert found.least == sum(min(false) for _, false in pairs)
    best: dict[int, int] = {}
    for combination in product(range(LEVELS), repeat=len(pairs)):
        count = sum(int(c.false_accepts[i]) for c, i in zip(background, combination, strict=True))
        misses = sum(int(c.misses[i]) for c, i in zip(positives, combination, strict=True))
        best[count] = min(best.get(count, 10**9), misses)
    for count in range(most + 1):
        levels = found.at_most(count)
        false = sum(int(c.false_accepts[i]) for c, i in zip(background, levels, strict=True))
        misses = sum(int(c.misses[i]) for c, i in zip(positives, levels, strict=True))
        assert false <= max(count, found.least)
        allowed = max(count, found.least)
        assert misses == min(value for key, value in best.items() if key <= allowed)


def test_more_than_there_are_takes_no_longer() -> None:
    pairs = [(curve(1, [1, 0], [0, 0]), curve(0, [0, 0], [7, 3])) for _ in range(2)]
    found = frontier([p for p, _ in pairs], [n for _, n in pairs], 10**12)
    assert found.at_most(10**12).tolist() == [0, 0]


def test_of_equals_the_middle_one_is_taken() -> None:
    positive = curve(9, [9, 9, 9, 9, 9, 3], [0] * 6)
    negative = curve(0, [0] * 6, [4, 0, 0, 0, 0, 0])
    assert frontier([positive], [negative], 10).at_most(0).tolist() == [3]
    # False accepts that gain nothing are not taken.
    assert frontier([positive], [negative], 10).at_most(10).tolist() == [3]


@pytest.mark.parametrize("count", [-1, 0, 10**9])
def test_any_count_has_an_answer(count: int) -> None:
    found = frontier([curve(1, [1, 0], [0, 0])], [curve(0, [0, 0], [7, 3])], 5)
    assert found.least == 3
    assert found.at_most(count).tolist() == [1]
    assert frontier([curve(1, [1, 0], [0, 0])], [curve(0, [0, 0], [7, 3])], 7).at_most(7) == [0]
