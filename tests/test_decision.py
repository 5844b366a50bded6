"""Laws of the decision rule."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from earmark.runtime.decision import BatchDecider, Decider, Firing
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Decision
from hypothesis import given
from hypothesis import strategies as st

STEP = 0.02
LABELS = ("yes", "_silence_", "no")
QUANTUM = 2.0**-32


def settings(**changes: float) -> Decision:
    return Decision(thresholds={"yes": 0.7, "no": 0.5}, **changes)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    threshold = st.floats(0.05, 1.0)
    return Decision(
        thresholds={"yes": draw(threshold), "no": draw(threshold)},
        smoothing=draw(st.sampled_from([0.0, 0.02, 0.06, 0.2, 1.0])),
        release=draw(st.floats(0.0, 1.0)),
        refractory=draw(st.sampled_from([0.0, 0.02, 0.1, 0.5])),
    )


@st.composite
def posteriors(draw: st.DrawFn) -> np.ndarray:
    """Plateaus of random height and length with noise: what words look like."""
    pieces = []
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(1, 8))):
        height = draw(st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]), min_size=3, max_size=3))
        length = draw(st.integers(1, 40))
        noise = generator.uniform(-0.1, 0.1, (length, 3))
        pieces.append(np.clip(height + noise, 0, 1).astype(np.float32))
    return np.concatenate(pieces)


def fire(decider: Decider, rows: np.ndarray, cuts: list[int] | None = None) -> list[Firing]:
    """Feed in pieces of the lengths in ``cuts``, repeated; rows counted from the start."""
    if not cuts:
        return decider.update(rows)
    firings, start, turn = [], 0, 0
    while start < len(rows):
        count = cuts[turn % len(cuts)]
        for firing in decider.update(rows[start : start + count]):
            firings.append(firing._replace(row=firing.row + start))
        start, turn = start + count, turn + 1
    return firings


def reference(decision: Decision, rows: np.ndarray) -> list[Firing]:
    """The rule as the documentation words it, in exact arithmetic, step by step."""
    window = max(1, round(decision.smoothing / STEP))
    hold = int(np.ceil(decision.refractory / STEP - 1e-9))
    unit = 1 << 32
    firings = []
    armed, ready = dict.fromkeys(LABELS, True), dict.fromkeys(LABELS, 0)
    for row in range(len(rows)):
        for column, label in enumerate(LABELS):
            if label not in decision.thresholds:
                continue
            threshold = Fraction(decision.thresholds[label])
            past = rows[max(0, row - window + 1) : row + 1, column]
            mean = Fraction(sum(int(float(p) * unit) for p in past), window * unit)
            above = mean >= threshold - Fraction(1, unit)
            if above and armed[label] and row >= ready[label]:
                firings.append(Firing(column, row, float(mean)))
                armed[label], ready[label] = False, row + hold
            if mean < max(Fraction(1, window * unit), Fraction(decision.release) * threshold):
                armed[label] = True
    return firings


def smoothed(decision: Decision, rows: np.ndarray) -> np.ndarray:
    """The causal mean of each step, float64 [steps, 3]."""
    window = max(1, round(decision.smoothing / STEP))
    padded = np.concatenate([np.zeros((window - 1, 3)), rows.astype(np.float64)])
    return np.lib.stride_tricks.sliding_window_view(padded, window, axis=0).mean(axis=-1)


def near_release(decision: Decision, rows: np.ndarray) -> bool:
    """A mean lies within the arithmetic's resolution of a level where the rule changes."""
    means = smoothed(decision, rows)
    levels = [
        level
        for label, column in (("yes", 0), ("no", 2))
        for level in (
            np.abs(means[:, column] - decision.thresholds[label]).min(),
            np.abs(means[:, column] - decision.release * decision.thresholds[label]).min(),
        )
    ]
    return min(levels) < 1e-7


@given(decisions(), posteriors())
def test_agrees_with_the_rule_in_exact_arithmetic(decision: Decision, rows: np.ndarray) -> None:
    if not near_release(decision, rows):
        assert fire(Decider(decision, LABELS, STEP), rows) == reference(decision, rows)


@given(decisions(), posteriors(), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_chunking_changes_nothing(decision: Decision, rows: np.ndarray, cuts: list[int]) -> None:
    whole, cut = Decider(decision, LABELS, STEP), Decider(decision, LABELS, STEP)
    assert fire(whole, rows) == fire(cut, rows, cuts)
    assert np.array_equal(whole.smoothed, cut.smoothed)


@given(decisions(), posteriors())
def test_nothing_fires_below_the_threshold(decision: Decision, rows: np.ndarray) -> None:
    for label, column in (("yes", 0), ("no", 2)):
        rows[:, column] = np.minimum(rows[:, column], decision.thresholds[label] - 1e-6)
    assert fire(Decider(decision, LABELS, STEP), rows) == []


@given(decisions(), posteriors())
def test_no_smoothed_posterior_below_the_threshold_fires(
    decision: Decision, rows: np.ndarray
) -> None:
    means = smoothed(decision, rows)
    for label, row, score in fire(Decider(decision, LABELS, STEP), rows):
        assert score == pytest.approx(means[row, label], abs=2 * QUANTUM)
        assert means[row, label] >= decision.thresholds[LABELS[label]] - 2 * QUANTUM


@given(decisions(), posteriors())
def test_one_excursion_fires_at_most_once(decision: Decision, rows: np.ndarray) -> None:
    """Between two firings of a keyword its smoothed posterior has been below the release level."""
    means = smoothed(decision, rows)
    firings = fire(Decider(decision, LABELS, STEP), rows)
    for column in (0, 2):
        release = decision.release * decision.thresholds[LABELS[column]]
        at = [firing.row for firing in firings if firing.label == column]
        for first, second in pairwise(at):
            assert means[first + 1 : second, column].min() <= release + 2 * QUANTUM


@given(decisions(), posteriors())
def test_refractory_period_holds_per_keyword(decision: Decision, rows: np.ndarray) -> None:
    firings = fire(Decider(decision, LABELS, STEP), rows)
    assert [f.row for f in firings] == sorted(f.row for f in firings)
    for column in (0, 2):
        at = [firing.row * STEP for firing in firings if firing.label == column]
        assert all(np.diff(at) >= decision.refractory - 1e-9)


@given(decisions(), posteriors())
def test_keywords_are_independent(decision: Decision, rows: np.ndarray) -> None:
    both = fire(Decider(decision, LABELS, STEP), rows)
    rows[:, 2] = 0
    alone = fire(Decider(decision, LABELS, STEP), rows)
    assert [f for f in both if f.label == 0] == alone


@given(decisions(), posteriors(), posteriors())
def test_after_silence_the_state_is_a_fresh_one(
    decision: Decision, before: np.ndarray, after: np.ndarray
) -> None:
    used = Decider(decision, LABELS, STEP)
    used.update(before)
    used.update(np.zeros((round(max(decision.smoothing, decision.refractory) / STEP) + 1, 3)))
    assert used.update(after) == Decider(decision, LABELS, STEP).update(after)


@given(decisions(), posteriors(), posteriors())
def test_reset_gives_a_fresh_state(
    decision: Decision, before: np.ndarray, after: np.ndarray
) -> None:
    used = Decider(decision, LABELS, STEP)
    used.update(before)
    used.reset()
    assert not used.smoothed.any()
    assert used.update(after) == Decider(decision, LABELS, STEP).update(after)


@given(st.floats(0.515625, 1.0, width=32), st.integers(1, 3000))
def test_one_plateau_fires_once(height: float, length: int) -> None:
    rows = np.zeros((length + 20, 3))
    rows[:length, 2] = height
    decider = Decider(settings(smoothing=0.02, refractory=0.1), LABELS, STEP)
    assert fire(decider, rows) == [Firing(2, 0, pytest.approx(height, abs=1e-9))]


def test_a_dip_above_the_release_level_does_not_rearm() -> None:
    rows = np.zeros((60, 3))
    rows[:, 2] = 0.9
    rows[30:35, 2] = 0.3  # threshold 0.5, release 0.5: re-arms below 0.25
    decider = Decider(settings(smoothing=0.0, refractory=0.0), LABELS, STEP)
    assert [firing.row for firing in fire(decider, rows)] == [0]
    decider.reset()
    rows[30:35, 2] = 0.2
    assert [firing.row for firing in fire(decider, rows)] == [0, 35]


def test_smoothing_is_a_causal_mean_with_zeros_before_the_start() -> None:
    decider = Decider(settings(smoothing=0.08), LABELS, STEP)
    decider.update(np.array([[0.5, 0.25, 0.0], [0.5, 0.75, 0.0]], np.float32))
    assert decider.smoothed == pytest.approx([0.25, 0.25, 0.0], abs=QUANTUM)


def test_threshold_of_one_can_fire() -> None:
    decider = Decider(Decision({"yes": 1.0}), ("yes",), STEP)
    assert [f.row for f in decider.update(np.ones((30, 1), np.float32))] == [9]


def test_sums_do_not_drift() -> None:
    generator = np.random.default_rng(1)
    decider = Decider(settings(smoothing=0.1), LABELS, STEP)
    for _ in range(300):
        decider.update(generator.random((777, 3)).astype(np.float32))
    decider.update(np.zeros((5, 3)))
    assert not decider.smoothed.any()


def test_a_mean_is_there_after_any_length_of_quiet_steps() -> None:
    # Shares below every threshold, which are summed only when asked for, over many moves of the
    # buffer; then a word.
    decider = Decider(settings(smoothing=0.1, refractory=0.1), LABELS, STEP)
    quiet = np.full((7000, 3), 0.25, np.float32)
    for start in range(0, len(quiet), 7):
        assert decider.update(quiet[start : start + 7]) == []
    assert decider.smoothed.tolist() == [0.25, 0.25, 0.25]
    word = np.array([[0, 0, 1]], np.float32)
    fired = [decider.update(word) for _ in range(5)]
    means = [0.25 + 0.75 * count / 5 for count in range(1, 6)]
    first = next(i for i, mean in enumerate(means) if mean >= 0.5)
    assert [len(f) for f in fired] == [int(i == first) for i in range(5)]
    assert decider.smoothed[2] == 1


def test_a_gap_forgets_the_mean_but_not_the_refractory_period() -> None:
    decision = settings(smoothing=0.0, refractory=1.0)
    word = np.tile([0.0, 0.0, 0.9], (10, 1))
    word[0] = 0
    decider = Decider(decision, LABELS, STEP)
    assert len(decider.update(word)) == 1
    decider.gap()
    assert not decider.smoothed.any()
    assert decider.update(word) == []
    decider.gap(steps=100)
    assert len(decider.update(word)) == 1


@given(decisions(), posteriors(), posteriors(), st.integers(0, 40))
def test_a_gap_is_zeros_for_as_long_as_the_mean(
    decision: Decision, before: np.ndarray, after: np.ndarray, more: int
) -> None:
    lost, heard = Decider(decision, LABELS, STEP), Decider(decision, LABELS, STEP)
    lost.update(before)
    heard.update(before)
    lost.gap(lost.window + more)
    heard.update(np.zeros((heard.window + more, 3)))
    assert lost.update(after) == heard.update(after)
    assert np.array_equal(lost.smoothed, heard.smoothed)


def test_after_a_gap_of_unknown_length_a_keyword_is_armed() -> None:
    decider = Decider(settings(smoothing=0.0, refractory=0.0), LABELS, STEP)
    word = np.tile([0.0, 0.0, 0.9], (5, 1))
    assert len(decider.update(word)) == 1
    assert not decider.at_rest
    decider.gap()
    assert decider.at_rest
    assert [firing.row for firing in decider.update(word)] == [0]


@given(decisions(), posteriors(), posteriors(), posteriors())
def test_a_restored_gap_leaves_no_trace(
    decision: Decision, before: np.ndarray, skipped: np.ndarray, after: np.ndarray
) -> None:
    for label, column in (("yes", 0), ("no", 2)):
        # As quiet audio is: nothing in the gap fires, and the keywords are armed before it.
        skipped[:, column] *= decision.thresholds[label] * 0.99
    gated, whole = Decider(decision, LABELS, STEP), Decider(decision, LABELS, STEP)
    for decider in (gated, whole):
        decider.update(before)
        decider.update(np.zeros((decider.window, 3)))
        assert decider.at_rest
    whole.update(skipped)
    gated.gap(len(skipped))
    gated.restore(skipped[-gated.window :])
    if not near_release(decision, skipped):
        assert gated.update(after) == whole.update(after)


def test_a_long_gap_is_restored() -> None:
    # Longer than the window, and than the room for sums of one of half a second.
    decider = Decider(settings(smoothing=0.5), LABELS, STEP)
    decider.gap(1000)
    decider.restore(np.full((1000, 3), 0.25))
    assert decider.smoothed.tolist() == [0.25] * 3


def test_an_unreasonable_window_is_refused() -> None:
    with pytest.raises(EarmarkError, match="smoothing"):
        Decider(settings(smoothing=60.0), LABELS, 1e-6)


@given(decisions(), st.lists(posteriors(), min_size=1, max_size=4), st.data())
def test_streams_of_a_batch_fire_as_each_would_alone(
    decision: Decision, signals: list[np.ndarray], data: st.DataObject
) -> None:
    steps = data.draw(st.integers(1, 5))
    batch = BatchDecider(decision, LABELS, STEP, len(signals), steps)
    alone = [Decider(decision, LABELS, STEP) for _ in signals]
    rest = list(signals)
    expected: list[list[Firing]] = [[] for _ in signals]
    found: list[list[Firing]] = [[] for _ in signals]
    order = st.permutations(range(len(signals)))
    while True:
        # Any of the streams that have enough steps, in any order, some after a loss or anew.
        chosen = [i for i in data.draw(order) if len(rest[i]) >= steps and data.draw(st.booleans())]
        if not chosen:
            break
        for i in chosen:
            action = data.draw(st.sampled_from(["", "", "", "gap", "reset"]))
            if action == "gap":
                lost = data.draw(st.integers(0, 30))
                batch.gap(i, lost)
                alone[i].gap(lost)
            elif action == "reset":
                batch.reset(i)
                alone[i].reset()
            expected[i] += alone[i].update(rest[i][:steps])
        rows = np.stack([rest[i][:steps] for i in chosen])
        for place, firing in batch.update(np.array(chosen, np.intp), rows):
            found[chosen[place]].append(firing)
        for i in chosen:
            rest[i] = rest[i][steps:]
    assert found == expected


def test_a_batch_without_bound_is_refused() -> None:
    with pytest.raises(EarmarkError, match="MiB, which is too much"):
        BatchDecider(settings(smoothing=60.0), LABELS, STEP, 100_000, 4)
