"""Views that are made once: what they would be if made anew, in half precision."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from earmark.train import seen
from earmark.train.fit import train
from earmark.train.recipe import Recipe
from earmark.train.run import load_run
from earmark.train.seen import SeenViews
from numpy.typing import NDArray
from tiny_corpus import tiny_recipe, write_corpus
from torch import Tensor


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = tiny_recipe(write_corpus(tmp_path_factory.mktemp("seen") / "corpus"))
    return dataclasses.replace(recipe, augment=dataclasses.replace(recipe.augment, views=2))


def test_each_view_is_made_once_and_is_what_it_was() -> None:
    made: list[tuple[int, int]] = []

    def content(clips: Tensor, view: Tensor) -> Tensor:
        return (clips * 3 + view + 0.1)[:, None, None].expand(-1, 4, 2).float()

    def make(clips: NDArray[np.int64], view: int) -> tuple[Tensor, Tensor]:
        made.extend((clip, view) for clip in clips.tolist())
        numbers = torch.from_numpy(clips)
        return content(numbers, torch.tensor(view)), numbers

    views = SeenViews(clips=150, empty=9, views=3, shape=(4, 2), make=make)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        clip = torch.randint(-9, 150, (32,), generator=generator)
        view = torch.randint(0, 3, (32,), generator=generator)
        log_mel, label = views(clip, view)
        assert torch.equal(log_mel, content(clip, view).half().float())
        assert torch.equal(label, clip)
    assert len(made) == len(set(made)) == 159 * 3


def test_a_run_is_the_same_whether_views_are_kept_or_made_anew(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = load_run(train(recipe, tmp_path / "kept"))
    monkeypatch.setattr(seen, "LIMIT", 0)
    slow = load_run(train(recipe, tmp_path / "anew"))
    kept, anew = ([line["loss"] for line in run.history] for run in (fast, slow))
    assert kept == pytest.approx(anew, rel=1e-2) and kept[-1] < kept[0]
