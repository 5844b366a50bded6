"""The nearest-neighbour baseline of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import label_set, load_split
from earmark.train.knn import knn_figures, pooled_mfcc
from earmark.train.mfcc import Mfcc, MfccSettings
from earmark.train.run_info import _some
from tiny_corpus import write_corpus


def test_moments_are_standardised_and_come_one_after_the_other() -> None:
    settings = MfccSettings()
    pcm = np.random.default_rng(0).integers(-9000, 9000, (3, 16000)).astype(np.int16)
    x = Mfcc(settings)(torch.from_numpy(pcm).float() / 32768).double().numpy()
    normal = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    expected = [x.mean(1), x.var(1), (normal**3).mean(1), (normal**4).mean(1) - 3]
    got = pooled_mfcc(pcm, settings, 4)
    np.testing.assert_allclose(got, np.concatenate(expected, 1), rtol=1e-4, atol=1e-4)


def test_what_does_not_vary_has_no_shape() -> None:
    settings = MfccSettings()
    pooled = pooled_mfcc(np.zeros((1, 16000), np.int16), settings, 4)[0]
    assert not pooled[2 * settings.coefficients :].any()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_it_tells_tones_and_repeats_itself_also_on_some_of_the_clips(corpus: Path) -> None:
    found = scan(corpus)
    labels = label_set(["low", "high"])
    train, validation = (load_split(found, labels, name) for name in ("train", "validation"))
    few = _some(train, 60)
    assert len(few) == 60 == len(few.pcm) == len(few.target)
    for known in (train, few):
        first = knn_figures(known, validation, MfccSettings())
        assert set(first) == {"knn_mean_variance", "knn_four_moments"}
        assert min(first.values()) > 0.8
        assert knn_figures(known, validation, MfccSettings()) == first
