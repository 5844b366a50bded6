"""The nearest-neighbour baseline."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from earmark.train.corpus import scan
from earmark.train.dataset import label_set, load_split
from earmark.train.knn import baselines, pooled
from earmark.train.mfcc import MfccSettings
from tiny_corpus import write_corpus


def test_moments_are_those_of_scipy() -> None:
    x = torch.randn(3, 98, 5, generator=torch.Generator().manual_seed(0)).double().exp()
    got = pooled(x).numpy().reshape(3, 4, 5)
    array = x.numpy()
    expected = np.stack(
        [
            array.mean(1),
            array.var(1),
            scipy.stats.skew(array, axis=1),
            scipy.stats.kurtosis(array, axis=1),
        ],
        axis=1,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_what_does_not_vary_has_no_shape() -> None:
    assert pooled(torch.full((1, 10, 2), 3.0)).tolist() == [[3, 3, 0, 0, 0, 0, 0, 0]]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_it_tells_tones_and_repeats_itself(corpus: Path) -> None:
    found = scan(corpus)
    labels = label_set(["low", "high"])
    train, validation = (load_split(found, labels, name) for name in ("train", "validation"))
    first = baselines(train, validation, MfccSettings())
    assert set(first) == {"knn_mean_variance", "knn_mean_variance_skew_kurtosis"}
    assert min(first.values()) > 0.8
    assert baselines(train, validation, MfccSettings()) == first
