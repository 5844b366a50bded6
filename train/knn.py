"""The baseline that keeps a student honest: nearest neighbours on pooled MFCCs.

Moments over time of each coefficient, standardised, nearest by cosine, majority vote. No training,
seconds on a CPU.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sklearn.neighbors
import sklearn.pipeline
import sklearn.preprocessing
import torch
from numpy.typing import NDArray

from .dataset import Split
from .mfcc import Mfcc, MfccSettings

NEIGHBOURS = 5
MOMENTS = {"mean_variance": 2, "mean_variance_skew_kurtosis": 4}
"""What is pooled, by name: how many moments of a coefficient."""
_LEARNED, _JUDGED = 4000, 2000
# It ships no types, and what a checker infers from its default values is wrong.
_NEIGHBORS: Any = sklearn.neighbors
_PREPROCESSING: Any = sklearn.preprocessing


def baselines(train: Split, validation: Split, settings: MfccSettings) -> dict[str, float]:
    """Top-1 of the baseline on the validation clips, for each of ``MOMENTS``.

    At most 4000 clips are learned from and 2000 judged, drawn evenly with a fixed seed.

    Returns:
        Shares by name, ``knn_mean_variance`` and ``knn_mean_variance_skew_kurtosis``.
    """
    mfcc = Mfcc(settings)
    (known, known_label), (new, new_label) = (
        _moments(split, rows, mfcc)
        for split, rows in (
            (train, _some(train, _LEARNED)),
            (validation, _some(validation, _JUDGED)),
        )
    )
    found = {}
    for name, moments in MOMENTS.items():
        width = moments * settings.coefficients
        classifier = sklearn.pipeline.make_pipeline(
            _PREPROCESSING.StandardScaler(),
            _NEIGHBORS.KNeighborsClassifier(
                min(NEIGHBOURS, len(known)), metric="cosine", algorithm="brute"
            ),
        )
        classifier.fit(known[:, :width], known_label)
        found[f"knn_{name}"] = round(float(classifier.score(new[:, :width], new_label)), 4)
    return found


def pooled(coefficients: torch.Tensor) -> torch.Tensor:
    """Mean, variance, skewness and excess kurtosis over time.

    Args:
        coefficients: float [batch, frames, coefficients].

    Returns:
        [batch, 4 * coefficients], moment by moment. Skewness and kurtosis of what does not vary
        are 0.
    """
    mean = coefficients.mean(1, keepdim=True)
    centred = coefficients - mean
    variance = centred.square().mean(1, keepdim=True)
    normal = centred / variance.clamp_min(1e-6).sqrt()
    varies = (variance > 1e-6).squeeze(1)
    skew = normal.pow(3).mean(1) * varies
    kurtosis = (normal.pow(4).mean(1) - 3) * varies
    return torch.cat([mean.squeeze(1), variance.squeeze(1), skew, kurtosis], 1)


def _some(split: Split, most: int) -> NDArray[np.int64]:
    rows = np.random.default_rng(0).permutation(len(split))[:most]
    return np.sort(rows)


@torch.no_grad()
def _moments(
    split: Split, rows: Sequence[int] | NDArray[np.int64], mfcc: Mfcc
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    parts = []
    for start in range(0, len(rows), 256):
        pcm = torch.from_numpy(np.array(split.pcm[rows[start : start + 256]])).float() / 32768
        parts.append(pooled(mfcc(pcm)).numpy())
    return np.concatenate(parts), split.label[rows]
