"""Intervals against a library's quantiles and against what they promise."""

import numpy as np
import pytest
from earmark.export.intervals import hours_to_measure, poisson_interval, wilson_interval
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


@given(st.integers(0, 3000), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_poisson_limits_are_quantiles_of_chi_square(count: int, confidence: float) -> None:
    tail = (1 - confidence) / 2
    low = stats.chi2.ppf(tail, 2 * count) / 2 if count else 0
    high = stats.chi2.ppf(1 - tail, 2 * count + 2) / 2
    assert poisson_interval(count, confidence) == pytest.approx((low, high), rel=1e-8)


def test_known_values() -> None:
    assert poisson_interval(0) == pytest.approx((0, 3.6889), abs=1e-4)
    assert poisson_interval(10) == pytest.approx((4.7954, 18.3904), abs=1e-4)
    assert wilson_interval(0, 0) is None
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, total, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson_interval(count, total) == pytest.approx((low, high), abs=1e-4)
    assert hours_to_measure(0.2) == pytest.approx(18.444, abs=1e-3)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_agrees_with_scipy_and_holds_the_share(count: int, total: int) -> None:
    count = min(count, total)
    interval = wilson_interval(count, total)
    assert interval is not None
    expected = stats.binomtest(count, total).proportion_ci(method="wilson")
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= interval[0] <= count / total <= interval[1] <= 1


def test_the_poisson_interval_holds_the_truth_as_often_as_it_says() -> None:
    counts = np.random.default_rng(0).poisson(4.0, 4000)
    held = np.mean([low <= 4.0 <= high for low, high in map(poisson_interval, counts.tolist())])
    assert 0.95 <= held < 0.99
