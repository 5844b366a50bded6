"""Views that are made once: what they would be if made anew, in half precision."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from earmark.train import fit, lesson, seen
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


def test_what_is_kept_changes_no_more_than_rounding_does(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = load_run(train(recipe, tmp_path / "kept"))
    monkeypatch.setattr(seen, "LIMIT", 0)
    monkeypatch.setattr(lesson, "SeenViews", lambda *_: pytest.fail("kept"))
    slow = load_run(train(recipe, tmp_path / "anew"))
    kept, anew = ([line["loss"] for line in run.history] for run in (fast, slow))
    assert kept == pytest.approx(anew, rel=1e-2) and kept[-1] < kept[0]
    assert kept != anew
    # A run that uses few of them makes each when it is used.
    monkeypatch.undo()
    monkeypatch.setattr(lesson, "SeenViews", lambda *_: pytest.fail("kept"))
    few = dataclasses.replace(recipe.augment, views=100)
    train(dataclasses.replace(recipe, augment=few), tmp_path / "few")


def test_an_interrupted_run_goes_on_with_the_same_views(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_run(train(recipe, tmp_path / "whole"))
    write = fit._History.on_train_epoch_end

    def stop(self: Any, trainer: Any, module: Any) -> None:
        write(self, trainer, module)
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(fit._History, "on_train_epoch_end", stop)
        train(recipe, tmp_path / "cut")
    resumed = load_run(train(recipe, tmp_path / "cut"))
    assert resumed.history == whole.history
    for key, value in whole.student.state_dict().items():
        assert torch.equal(value, resumed.student.state_dict()[key])
