"""The baseline: nearest neighbours among clips that are summed up by moments of their MFCCs.

No training, no augmentation, seconds on a CPU: what a network must beat to be worth its training.
"""

import warnings
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ..runtime.errors import EarmarkError
from .data.dataset import Split
from .metrics import headline, measure
from .mfcc import Mfcc, MfccSettings

NEIGHBOURS = 5
MOMENTS = {"knn_mean_variance": 2, "knn_four_moments": 4}
"""The baselines by name: moments of each coefficient over time, the first two being mean and
variance, the other two skewness and kurtosis."""
_BATCH = 256


def long_enough(samples: int, features: MfccSettings) -> bool:
    """Whether clips of so many samples have a frame to be summed up."""
    return samples >= features.window


def pooled_mfcc(
    pcm: NDArray[np.int16], features: MfccSettings, moments: int
) -> NDArray[np.float32]:
    """Moments over time of the MFCCs of clips.

    Args:
        pcm: int16 [N, samples].
        features: of the front end.
        moments: 2 for mean and variance, 4 for skewness and (excess) kurtosis as well.

    Returns:
        float32 [N, moments * coefficients].

    Raises:
        EarmarkError: clips are shorter than a window.
    """
    if not long_enough(pcm.shape[1], features):
        raise EarmarkError(
            f"clips of {pcm.shape[1]} samples, and a window (features.window) has "
            f"{features.window}: nearest neighbours need longer clips (data.clip)"
        )
    mfcc = Mfcc(features)
    rows = []
    for start in range(0, len(pcm), _BATCH):
        wav = torch.from_numpy(np.array(pcm[start : start + _BATCH])).float() / 32768
        x = mfcc(wav).double().numpy()
        pooled = [x.mean(axis=1), x.var(axis=1)]
        if moments == 4:
            with warnings.catch_warnings():
                # A coefficient that does not move has no shape: NaN, taken as that of the normal
                # distribution, 0.
                warnings.simplefilter("ignore", RuntimeWarning)
                shape = [scipy.stats.skew(x, axis=1), scipy.stats.kurtosis(x, axis=1)]
            pooled += [np.nan_to_num(part) for part in shape]
        rows.append(np.concatenate(pooled, axis=1).astype(np.float32))
    return np.concatenate(rows)


def knn_posteriors(
    train: NDArray[np.float32],
    target: NDArray[np.bool_],
    test: NDArray[np.float32],
    neighbours: int = NEIGHBOURS,
) -> NDArray[np.float32]:
    """Votes of the nearest training clips by cosine distance, as shares.

    Features are brought to zero mean and unit variance over the training clips first, since one
    coefficient alone would decide the angle between raw ones. The largest share is the majority's
    vote.

    Args:
        train: float32 [N, numbers].
        target: bool [N, labels], the classes of those clips, one or any number each.
        test: float32 [M, numbers].
        neighbours: how many vote, at most N.

    Returns:
        float32 [M, labels].
    """
    scaler = StandardScaler().fit(train)
    search = NearestNeighbors(n_neighbors=min(neighbours, len(train)), metric="cosine")
    search.fit(scaler.transform(train))
    nearest = search.kneighbors(scaler.transform(test), return_distance=False)
    return target[nearest].mean(axis=1, dtype=np.float32)


def knn_baselines(
    train: Split, test: Split, features: MfccSettings, neighbours: int = NEIGHBOURS
) -> dict[str, NDArray[np.float32]]:
    """Posteriors, float32 [len(test), labels], of each baseline in :data:`MOMENTS`."""
    most = max(MOMENTS.values())
    known, asked = (pooled_mfcc(split.pcm, features, most) for split in (train, test))
    # The first moments of many are those of few.
    return {
        name: knn_posteriors(
            known[:, : moments * features.coefficients],
            train.target,
            asked[:, : moments * features.coefficients],
            neighbours,
        )
        for name, moments in MOMENTS.items()
    }


def knn_figures(train: Split, test: Split, features: MfccSettings) -> dict[str, float]:
    """The headline figure (top-1, or mean average precision) of each baseline."""
    figures: dict[str, float] = {}
    for name, posteriors in knn_baselines(train, test, features).items():
        measured: dict[str, Any] = measure(test, posteriors)
        figures[name] = measured[headline(measured)]
    return figures
