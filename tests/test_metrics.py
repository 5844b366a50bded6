"""Measures of a classifier of clips."""

import json

import numpy as np
import pytest
import torch
from earmark.runtime.errors import EarmarkError
from earmark.train.metrics import classification, multilabel, spread, watched
from hypothesis import given, settings
from hypothesis import strategies as st

LABELS = ("yes", "no", "_unknown_", "_silence_")


def one_hot(predicted: list[int], classes: int = len(LABELS)) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


def measure(truth: list[int], predicted: list[int], speakers: list[str] | None = None, **more):
    names = np.array(speakers or [str(i) for i in range(len(truth))])
    return classification(LABELS, np.array(truth), one_hot(predicted), names, **more)


def test_a_small_case_by_hand() -> None:
    found = measure([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0], list("aabbcc"))
    assert found["clips"] == 6 and found["speakers"] == 3
    assert found["top1"] == pytest.approx(4 / 6)
    assert found["recall"] == {
        "yes": pytest.approx(2 / 3),
        "no": 1.0,
        "_unknown_": 0.0,
        "_silence_": None,
    }
    assert found["support"] == {"yes": 3, "no": 2, "_unknown_": 1, "_silence_": 0}
    # F1: yes 2*2/(3+3), no 2*2/(2+3), _unknown_ 0; the class without clips does not count.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert found["confusion"] == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert "top5" not in found
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_top5_counts_the_five_best() -> None:
    labels = tuple("abcdefg")
    probabilities = np.tile(np.arange(7, 0, -1, dtype=np.float32) / 28, (4, 1))
    found = classification(labels, np.array([0, 4, 5, 6]), probabilities, np.array(list("wxyz")))
    assert found["top1"] == 0.25 and found["top5"] == 0.5


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_interval_holds_the_figure_and_order_does_not_matter(pairs) -> None:
    truth, predicted = [list(column) for column in zip(*pairs, strict=True)]
    speakers = [f"speaker {i % 7}" for i in range(len(pairs))]
    found = measure(truth, predicted, speakers)
    low, high = found["top1_interval"]
    assert 0 <= low <= found["top1"] <= high <= 1
    assert measure(truth[::-1], predicted[::-1], speakers[::-1]) == found


def test_interval_is_wider_where_speakers_differ() -> None:
    truth = [0] * 400
    predicted = [0] * 300 + [1] * 100

    def width(speakers: list[str]) -> float:
        low, high = measure(truth, predicted, speakers)["top1_interval"]
        return high - low

    alone = width([str(i) for i in range(400)])
    # The binomial law gives 2 * 1.96 * sqrt(0.75 * 0.25 / 400) for clips that are independent.
    assert alone == pytest.approx(0.085, abs=0.01)
    # The same clips by 20 speakers, each wholly right or wholly wrong.
    assert width([str(i // 20) for i in range(400)]) == pytest.approx(0.085 * 20**0.5, rel=0.15)


def test_interval_follows_the_seed() -> None:
    truth, predicted = [0] * 50, [0] * 30 + [1] * 20
    speakers = [str(i * i // 50) for i in range(50)]
    intervals = [
        measure(truth, predicted, speakers, seed=seed)["top1_interval"] for seed in (0, 0, 1)
    ]
    assert intervals[0] == intervals[1] != intervals[2]


def test_one_speaker_has_no_interval() -> None:
    assert measure([0, 1], [0, 0], ["a", "a"])["top1_interval"] is None


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(EarmarkError, match="no clips"):
        measure([], [])
    with pytest.raises(EarmarkError, match="no numbers"):
        classification(LABELS, np.array([0]), np.full((1, 4), np.nan, np.float32), np.array(["a"]))


def test_a_small_multi_label_case_by_hand() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    scores = np.array([[0.9, 0.6, 0.1], [0.4, 0.8, 0.1], [0.6, 0.7, 0.9], [0.1, 0.1, 0.1]], "f4")
    found = multilabel(("a", "b", "c"), truth, scores, np.array(list("wxyz")))
    # a: its two clips rank first and third: (1 + 2/3) / 2. b: first and second.
    assert found["average_precision"] == {"a": pytest.approx(5 / 6), "b": 1.0, "c": None}
    assert found["map"] == pytest.approx(11 / 12)
    assert found["recall"] == {"a": 0.5, "b": 1.0, "c": None}
    # F1: a 2*1/(2+2), b 2*2/(2+3).
    assert found["macro_f1"] == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert found["support"] == {"a": 2, "b": 2, "c": 0} and found["clips"] == 4
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_one_label_is_measured_as_one_of_many_is() -> None:
    truth = np.array([[True], [False], [True]])
    scores = np.array([[0.9], [0.8], [0.1]], np.float32)
    found = multilabel(("a",), truth, scores, np.array(list("xyz")))
    assert found["map"] == pytest.approx((1 + 2 / 3) / 2) and found["recall"] == {"a": 0.5}
    with pytest.raises(EarmarkError, match="no clip has a class"):
        multilabel(("a",), ~truth[1:2] & False, scores[:1], np.array(["x"]))


def test_spread() -> None:
    assert spread([1.0, 3.0]) == {"mean": 2.0, "standard_deviation": pytest.approx(2**0.5)}
    assert spread([5.0]) == {"mean": 5.0, "standard_deviation": 0.0}


def test_what_training_watches_does_not_depend_on_batches() -> None:
    """One batch has logits that could be posteriors."""
    logits = torch.tensor([[0.6, 0.6], [0.1, 0.1], [0.5, 0.5], [-3.0, -3.0], [4.0, 4.0]])
    truth = torch.tensor([[1, 1], [0, 0], [0, 0], [0, 0], [1, 1]])
    batches, whole = watched(2, multilabel=True), watched(2, multilabel=True)
    for part in (slice(0, 2), slice(2, 5)):
        batches.update(logits[part], truth[part])
    whole.update(logits, truth)
    assert batches.compute()["map"] == whole.compute()["map"] == 1.0


def test_training_watches_what_is_measured_of_a_class_without_clips_too() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 3])
    scores = np.eye(4, dtype=np.float32)[predicted]
    seen = watched(4, multilabel=False)
    for part in (slice(0, 2), slice(2, 5)):
        seen.update(torch.from_numpy(scores[part]), torch.from_numpy(truth[part]))
    measured = classification(list("abcd"), truth, scores, np.array(["s"] * 5))
    found = {name: float(value) for name, value in seen.compute().items()}
    assert found["balanced_accuracy"] == pytest.approx(measured["balanced_accuracy"])
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["accuracy"] == pytest.approx(measured["top1"])
