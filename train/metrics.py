"""Measures of a classifier of clips: one place, so that every stage reports the same figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sklearn.metrics
from numpy.typing import NDArray

from ..runtime.errors import EarmarkError

# It ships no types, and what a checker infers from its default values is wrong.
_SKLEARN: Any = sklearn.metrics
INTERVAL = (0.025, 0.975)
"""Quantiles of the bootstrap that bound the interval: 95 %."""


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
        speaker; ``top5``, where there are more than five labels; ``macro_f1``, the mean over the
        classes that have clips; ``recall`` and ``support`` by label, recall None where there is no
        clip; ``confusion``, clips by [true][predicted] label.

    Raises:
        EarmarkError: there is no clip, or a posterior is not finite.
    """
    if not len(truth):
        raise EarmarkError("no clips to measure accuracy on: name a split that has some")
    if not np.isfinite(probabilities).all():
        raise EarmarkError("the model gives posteriors that are no numbers: export it again")
    every = np.arange(len(labels))
    predicted = probabilities.argmax(axis=1)
    present = np.unique(truth)
    support = np.bincount(truth, minlength=len(labels))
    recall = _SKLEARN.recall_score(truth, predicted, labels=every, average=None, zero_division=0)
    names, speaker = np.unique(speakers, return_inverse=True)
    result = {
        "clips": len(truth),
        "speakers": len(names),
        "top1": float(_SKLEARN.accuracy_score(truth, predicted)),
        "top1_interval": _interval(predicted == truth, speaker, len(names), bootstrap, seed),
        "macro_f1": float(
            _SKLEARN.f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
        ),
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


def _interval(
    correct: NDArray[np.bool_],
    speaker: NDArray[np.intp],
    speakers: int,
    resamples: int,
    seed: int,
) -> list[float] | None:
    """Interval of the share of ``correct`` when speakers are drawn with replacement."""
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
