"""A run begins with nothing that has learned from what it holds out, nor is taught by it."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.runtime.errors import EarmarkError
from earmark.train.fit import train
from earmark.train.recipe import Recipe, parse_recipe
from earmark.train.run import load_run
from earmark.train.teachers.distill import DistillSettings
from filelock import FileLock
from tiny_corpus import PITCH, RATE, tiny_recipe, word_pcm, write_corpus


def with_data(recipe: Recipe, **changes: object) -> Recipe:
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **changes))  # pyright: ignore[reportArgumentType]


def begun_with(recipe: Recipe, run: Path) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, init=str(run)))


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two corpora in three folds."""
    folder, random = tmp_path_factory.mktemp("folds"), np.random.default_rng(0)
    for root in ("sounds", "more"):
        for word in ("low", "high"):
            (folder / root / word).mkdir(parents=True)
            for number in range(24):
                file = folder / root / word / f"{number % 3 + 1}-{root}{number}.wav"
                soundfile.write(file, word_pcm(PITCH[word], random), RATE)
    fields = {
        "name": "folds",
        "keywords": ["low", "high"],
        "data": {
            "roots": [str(folder / "sounds")],
            "balance": "natural",
            "folds": r"(\d)-",
            "fold": 3,
            "cache": str(folder / "cache"),
        },
        "student": {"width": 4, "dilations": [1], "window": 0.6},
        "augment": {"noise": 0.0, "reverb": 0.0},
        "train": {"epochs": 1, "batch": 8, "threads": 1, "accelerator": "cpu"},
    }
    return parse_recipe(fields, "recipe")


def test_a_fold_goes_with_what_began_with_it(folds: Recipe, tmp_path: Path) -> None:
    first = train(folds, tmp_path / "first")
    more = str(Path(folds.data.roots[0]).with_name("more"))
    second = train(begun_with(with_data(folds, roots=(more,)), first), tmp_path / "second")
    assert load_run(second).info.learned_folders[r"roots, fold 3 of (\d)-"] == ("sounds",)
    other = begun_with(with_data(folds, fold=1), second)
    with pytest.raises(EarmarkError, match=r"second: began with what learned from clips of sounds"):
        train(other, tmp_path / "third")
    train(begun_with(folds, second), tmp_path / "third")


def test_a_run_begins_with_one_of_other_words(folds: Recipe, tmp_path: Path) -> None:
    root = tmp_path / "others"
    for word in ("rise", "fall"):
        (root / word).mkdir(parents=True)
        for number in range(24):
            pcm = word_pcm(PITCH["buzz"], np.random.default_rng(number))
            soundfile.write(root / word / f"{number % 3 + 1}-{word}{number}.wav", pcm, RATE)
    first = train(folds, tmp_path / "first")
    other = dataclasses.replace(with_data(folds, roots=(str(root),)), keywords=("rise", "fall"))
    settings = dataclasses.replace(other.train, init=str(first))
    second = load_run(train(dataclasses.replace(other, train=settings), tmp_path / "second"))
    assert second.info.labels == ("rise", "fall") and second.info.init_sha256


def test_audio_that_was_heard_without_labels_holds_nothing_out(tmp_path: Path) -> None:
    corpus, other = (write_corpus(tmp_path / name, 16) for name in ("corpus", "other"))
    for file in other.glob("*/*_nohash_*"):
        file.rename(file.with_name(f"m{file.name}"))
    few = tiny_recipe(corpus, epochs=1)
    few = dataclasses.replace(few, augment=dataclasses.replace(few.augment, views=1))
    teacher = train(few, tmp_path / "teacher")
    distill = DistillSettings(
        teachers=(str(teacher),), unlabelled=(str(other),), unlabelled_share=0.3
    )
    first = train(dataclasses.replace(few, distill=distill), tmp_path / "first")
    second = train(begun_with(few, first), tmp_path / "second")
    # A part of what is held out is as much of it.
    within = with_data(few, speech=(str(tmp_path),))
    with pytest.raises(EarmarkError, match=r"first: learned from all of .* without labels"):
        train(begun_with(within, first), tmp_path / "third")
    both = with_data(few, roots=(str(corpus), str(other)))
    for run in (first, second):
        with pytest.raises(EarmarkError, match=rf"{run.name}: learned from all of .*other without"):
            train(begun_with(both, run), tmp_path / "third")


def test_noise_and_speech_that_were_heard_are_nothing_else_here(tmp_path: Path) -> None:
    words, random = write_corpus(tmp_path / "words", 16), np.random.default_rng(0)
    beside = words / "_background_noise_"
    for name in ("sounds", "talk"):
        (tmp_path / name).mkdir()
        for number in range(30):
            pcm = random.normal(0, 0.1, 2 * RATE)
            soundfile.write(tmp_path / name / f"{number}.wav", pcm, RATE)
    sounds, talk = str(tmp_path / "sounds"), str(tmp_path / "talk")
    few = tiny_recipe(write_corpus(tmp_path / "corpus", 16), epochs=1)
    first = train(with_data(few, noise=(sounds, str(beside)), speech=(talk,)), tmp_path / "first")
    begun = begun_with(few, first)
    # What is the same here is divided in the same way, beside its words too.
    same = with_data(begun, roots=(str(words),), noise=(sounds,), speech=(talk,))
    second = train(same, tmp_path / "second")
    for data, expected in (
        ({"speech": (sounds,)}, r"learned from .*sounds as data\.noise, of which data\.speech"),
        ({"noise": (talk,)}, r"learned from .*talk as data\.speech, of which data\.noise"),
        (
            {"roots": (str(words), sounds)},
            r"learned from .*sounds as data\.noise, of which data\.roots",
        ),
    ):
        for run in (first, second):
            with pytest.raises(EarmarkError, match=rf"{run.name}: {expected}"):
                train(with_data(begun_with(few, run), **data), tmp_path / "third")
    # What it is a part of has as much of it.
    with pytest.raises(EarmarkError, match=r"first: .* as data\.speech, of which data\.noise"):
        train(with_data(begun, noise=(str(tmp_path),)), tmp_path / "third")


def test_two_programs_do_not_train_in_one_directory(folds: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (
        FileLock(run / ".lock"),
        pytest.raises(EarmarkError, match="run: is being trained by another program"),
    ):
        train(folds, run)
    assert not (run / "metrics.jsonl").exists()
    assert load_run(train(folds, run)).info.baselines


def test_a_start_that_was_cut_off_has_its_baselines(folds: Recipe, tmp_path: Path) -> None:
    whole = train(folds, tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(whole / "run.json", cut)
    found = load_run(train(folds, cut)).info.baselines
    assert found == load_run(whole).info.baselines and found
