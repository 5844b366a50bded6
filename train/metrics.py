"""Measures of a classifier of clips: one place, so that every stage reports the same figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn.metrics
from numpy.typing import NDArray

from ..runtime.errors import EarmarkError
from ..runtime.manifest import UNKNOWN
from .data.dataset import Split

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import MetricCollection

# It ships no types, and what a checker infers from its default values is wrong.
_SKLEARN: Any = sklearn.metrics
INTERVAL = (0.025, 0.975)
"""Quantiles of the bootstrap that bound the interval: 95 %."""
HEADLINES = {"top1": "top-1", "map": "mean average precision"}
"""The figures that stand for all others, one for each task, and what people call them."""


def measure(split: Split, posteriors: NDArray[np.float32]) -> dict[str, Any]:
    """The measures of posteriors, float32 [N, labels], of the clips of a split.

    Returns:
        Those of :func:`classification`, or of :func:`multilabel` where clips may have several
        classes, and ``skipped``, the number of clips that could not be read. Where there is
        ``_unknown_``, ``others`` has by class folder (``_speech_``: pieces of free speech) the
        ``support`` and ``recall`` of the clips that are ``_unknown_``.

    Raises:
        EarmarkError: as those functions.
    """
    if split.several is not None:
        found = multilabel(split.labels, split.several, posteriors, split.speaker)
    else:
        found = classification(split.labels, split.label, posteriors, split.speaker)
        if UNKNOWN in split.labels:
            found["others"] = _others(split, posteriors)
    return found | {"skipped": split.skipped}


def _others(split: Split, posteriors: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """How many of the clips of each other word there are, and the share that is ``_unknown_``."""
    unknown = split.labels.index(UNKNOWN)
    other = split.label == unknown
    right = posteriors[other].argmax(axis=1) == unknown
    words, word, support = np.unique(split.word[other], return_inverse=True, return_counts=True)
    recall = np.bincount(word, weights=right, minlength=len(words)) / support
    return {
        str(name): {"support": int(count), "recall": float(share)}
        for name, count, share in zip(words, support, recall, strict=True)
    }


def headline(measures: dict[str, Any]) -> str:
    """Which of :data:`HEADLINES` the measures have."""
    return next(name for name in HEADLINES if name in measures)


def watched(labels: int, multilabel: bool) -> "MetricCollection":
    """What training looks at on the validation split, for logits [N, labels].

    ``accuracy`` and ``balanced_accuracy`` (mean recall over the classes that have clips) against
    int64 [N], or ``map`` against int64 [N, labels] of zeros and ones.
    """
    from torchmetrics import MetricCollection
    from torchmetrics.classification import (
        MulticlassAccuracy,
        MulticlassConfusionMatrix,
        MultilabelAveragePrecision,
    )

    class OfLogits(MultilabelAveragePrecision):
        def update(self, preds: "Tensor", target: "Tensor") -> None:
            # It takes a batch of logits for posteriors if they all lie in [0, 1].
            super().update(preds.sigmoid(), target)

    class MeanRecall(MulticlassConfusionMatrix):
        def compute(self) -> "Tensor":
            # torchmetrics' own mean counts a class without clips, as 0, once one is taken for it.
            confusion = super().compute().float()
            support = confusion.sum(dim=1)
            return (confusion.diagonal() / support)[support > 0].mean()

    if multilabel:
        return MetricCollection({"map": OfLogits(labels, average="macro")})
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(labels, average="micro"),
            "balanced_accuracy": MeanRecall(labels),
        }
    )


def classification(
    labels: Sequence[str],
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    speakers: NDArray[np.str_],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of posteriors, as plain numbers that go into JSON as they are.

    Args:
        labels: class names in the order of the columns.
        truth: int64 [N], indices into ``labels``.
        probabilities: float32 [N, labels].
        speakers: str [N]; clips of one speaker are drawn together in the bootstrap.
        bootstrap: number of resamples.
        seed: of the resamples.

    Returns:
        ``clips``, ``speakers`` (counts); ``top1``; ``top1_interval``, its 95 % percentile interval
        under resampling of speakers (cluster bootstrap, Field and Welsh 2007), None for a single
        speaker; ``top5``, where there are more than five labels; ``macro_f1`` and
        ``balanced_accuracy`` (mean recall), over the classes that have clips; ``recall`` and
        ``support`` by label, recall None where there is no clip; ``confusion``, clips by
        [true][predicted] label.

    Raises:
        EarmarkError: there is no clip, or a posterior is not finite.
    """
    _check(probabilities)
    every = np.arange(len(labels))
    predicted = probabilities.argmax(axis=1)
    present = np.unique(truth)
    support = np.bincount(truth, minlength=len(labels))
    recall = _SKLEARN.recall_score(truth, predicted, labels=every, average=None, zero_division=0)
    result = {
        "clips": len(truth),
        "speakers": len(np.unique(speakers)),
        "top1": float(_SKLEARN.accuracy_score(truth, predicted)),
        "top1_interval": speaker_interval(predicted == truth, speakers, bootstrap, seed),
        "macro_f1": float(
            _SKLEARN.f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
        ),
        "balanced_accuracy": float(np.mean(recall[present])),
        "recall": {
            label: float(recall[i]) if support[i] else None for i, label in enumerate(labels)
        },
        "support": {label: int(support[i]) for i, label in enumerate(labels)},
        "confusion": _SKLEARN.confusion_matrix(truth, predicted, labels=every).tolist(),
    }
    if len(labels) > 5:
        result["top5"] = float(
            _SKLEARN.top_k_accuracy_score(truth, probabilities, k=5, labels=every)
        )
    return result


def multilabel(
    labels: Sequence[str],
    truth: NDArray[np.bool_],
    probabilities: NDArray[np.float32],
    speakers: NDArray[np.str_],
    *,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Measures of posteriors of labels that do not exclude one another, as plain numbers.

    Args:
        labels: class names in the order of the columns.
        truth: bool [N, labels].
        probabilities: float32 [N, labels].
        speakers: str [N], counted only.
        threshold: posterior from which a label counts as given, for F1 and recall.

    Returns:
        ``clips``, ``speakers`` (counts); ``map``, the mean average precision over the classes that
        have clips; ``average_precision``, ``recall`` and ``support`` by label, None where there is
        no clip; ``macro_f1`` over the classes that have clips, and the ``threshold``.

    Raises:
        EarmarkError: there is no clip, no clip has a class, or a posterior is not finite.
    """
    _check(probabilities)
    support = truth.sum(axis=0)
    present = np.flatnonzero(support).tolist()
    if not len(present):
        raise EarmarkError("no clip has a class of the model: name other data")
    # Column by column: scikit-learn takes a lone column for a list of classes.
    sure = probabilities >= threshold
    precision = [
        float(_SKLEARN.average_precision_score(truth[:, k], probabilities[:, k])) for k in present
    ]
    f1 = [float(_SKLEARN.f1_score(truth[:, k], sure[:, k], zero_division=0)) for k in present]
    recall = [float(_SKLEARN.recall_score(truth[:, k], sure[:, k])) for k in present]

    def by_label(values: list[float]) -> dict[str, float | None]:
        known = {labels[k]: value for k, value in zip(present, values, strict=True)}
        return {label: known.get(label) for label in labels}

    return {
        "clips": len(truth),
        "speakers": len(np.unique(speakers)),
        "map": float(np.mean(precision)),
        "macro_f1": float(np.mean(f1)),
        "threshold": threshold,
        "average_precision": by_label(precision),
        "recall": by_label(recall),
        "support": {label: int(support[i]) for i, label in enumerate(labels)},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation (0 for a single value) of repeated measurements."""
    found = np.asarray(values, np.float64)
    deviation = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return {"mean": float(found.mean()), "standard_deviation": deviation}


def _check(probabilities: NDArray[np.float32]) -> None:
    if not len(probabilities):
        raise EarmarkError("no clips to measure accuracy on: name a split that has some")
    if not np.isfinite(probabilities).all():
        raise EarmarkError(
            "the model gives posteriors that are no numbers: train it again, at a lower "
            "train.learning_rate"
        )


def speaker_interval(
    correct: NDArray[np.bool_], names: NDArray[np.str_], resamples: int = 1000, seed: int = 0
) -> list[float] | None:
    """Interval of the share of ``correct``, bool [N], when speakers (``names``, str [N]) are drawn
    with replacement; None for a single speaker."""
    found, speaker = np.unique(names, return_inverse=True)
    speakers = len(found)
    if speakers < 2 or not resamples:
        return None
    clips = np.bincount(speaker, minlength=speakers)
    right = np.bincount(speaker, weights=correct, minlength=speakers)
    # How often each speaker is drawn is all that a resample needs to know of its order.
    drawn = np.random.default_rng(seed).multinomial(
        speakers, np.full(speakers, 1 / speakers), size=resamples
    )
    shares = (drawn @ right) / (drawn @ clips)
    return [float(bound) for bound in np.quantile(shares, INTERVAL)]
