"""Cross-validation and its baseline: every clip is judged once, by a model that did not hear it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from earmark.train.crossval import crossval
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import load_split
from earmark.train.fit import train
from earmark.train.knn import knn_figures, knn_posteriors, pooled_mfcc
from earmark.train.mfcc import Mfcc, MfccSettings
from earmark.train.recipe import Recipe, parse_recipe, recipe_toml
from earmark.train.teachers.distill import DistillSettings
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from tiny_corpus import PITCH, RATE, word_pcm

SOUNDS = ("low", "high", "chirp")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sounds") / "data"
    random = np.random.default_rng(0)
    for name in SOUNDS:
        (root / name).mkdir(parents=True)
        for number in range(12):
            path = root / name / f"{number % 3 + 1}-{number}.wav"
            soundfile.write(path, word_pcm(PITCH[name], random), RATE)
    return root


def recipe_for(root: Path, **changes: object) -> Recipe:
    table: dict[str, object] = {
        "name": "sounds",
        "keywords": list(SOUNDS),
        "data": {"roots": [str(root)], "balance": "natural", "folds": r"(\d)-"},
        "student": {"width": 4, "dilations": [1], "window": 0.6},
        "augment": {"noise": 0.0, "reverb": 0.0},
        "train": {"epochs": 2, "batch": 8, "threads": 1, "accelerator": "cpu"},
    }
    return parse_recipe(table | changes, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crossval") / "out"


@pytest.fixture(scope="module")
def recipe_file(sounds: Path, folder: Path) -> Path:
    path = folder.parent / "sounds.toml"
    path.write_text(recipe_toml(recipe_for(sounds)))
    return path


def run(recipe_file: Path, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    assert main(["crossval", str(recipe_file), "-o", str(folder), *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_fold_is_held_out_and_the_difference_is_paired(
    recipe_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(recipe_file, folder, capsys)
    assert report["folds"] == [1, 2, 3] and report["clips"] == 36
    assert report["metric"] == "top1" and report["labels"] == list(SOUNDS)
    with_, without = (report["recipes"][name]["folds"] for name in ("recipe", "against"))
    by_fold = {fold: with_[fold] - without[fold] for fold in "123"}
    assert report["difference"]["folds"] == pytest.approx(by_fold)
    assert report["difference"]["mean"] == pytest.approx(np.mean(list(by_fold.values())))
    assert report["difference"]["standard_deviation"] == pytest.approx(
        np.std(list(by_fold.values()), ddof=1)
    )
    # Folds are equal here, so that the mean over folds is the accuracy over all clips.
    for column in (report["recipes"] | report["baselines"]).values():
        assert column["all_folds"]["clips"] == 36
        assert column["all_folds"]["top1"] == pytest.approx(column["mean"])
    assert set(report["baselines"]) == {"knn_mean_variance", "knn_four_moments"}
    assert report["baselines"]["knn_mean_variance"]["mean"] > 0.9
    assert json.loads((folder / "crossval.json").read_text()) == report
    off = (folder / "against" / "fold-2" / "recipe.toml").read_text()
    assert "time_masks = 0" in off and "frequency_masks = 0" in off and "fold = 2" in off


def test_what_is_complete_is_not_trained_again(
    recipe_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(recipe_file, folder, capsys)
    (folder / "against" / "fold-3" / "student.pt").unlink()
    (folder / "crossval.json").unlink()
    weights = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/student.pt")}
    assert len(weights) == 5
    again = run(recipe_file, folder, capsys)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert (folder / "against" / "fold-3" / "student.pt").exists()


def test_other_settings_and_none(
    sounds: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(recipe_file, tmp_path / "x", capsys, "--set", "train.epochs=1", "--alone")
    assert list(report["recipes"]) == ["recipe"] and report["difference"] is None
    other = ["crossval", str(recipe_file), "-o", str(tmp_path / "x"), "--against", "seed=1"]
    assert main(other) == 1
    assert "holds a run of another recipe" in capsys.readouterr().err


def test_what_heard_the_held_out_fold_is_refused(sounds: Path, tmp_path: Path) -> None:
    plain = recipe_for(sounds)
    first = train(_with(plain, "data", fold=3), tmp_path / "first")
    heard = (
        r"first: learned from clips that are held out here: it has data\.fold = 3, this recipe 1"
    )
    with pytest.raises(EarmarkError, match=heard):
        crossval({"recipe": _with(plain, "train", init=str(first))}, tmp_path / "init")
    taught = dataclasses.replace(
        _with(plain, "augment", views=1), distill=DistillSettings(teachers=(str(first),))
    )
    with pytest.raises(EarmarkError, match=heard):
        crossval({"recipe": taught}, tmp_path / "distill")
    # Before the folds that it has not heard are trained.
    second = train(_with(plain, "data", fold=1), tmp_path / "second")
    with pytest.raises(EarmarkError, match=r"it has data\.fold = 1, this recipe 2: train"):
        crossval({"recipe": _with(plain, "train", init=str(second))}, tmp_path / "late")
    assert not (tmp_path / "late" / "recipe").exists()
    otherwise = _with(_with(plain, "data", fold=3, folds=r".*(\d)\."), "train", init=str(first))
    with pytest.raises(EarmarkError, match=r"fold = 3, this recipe 3 \(data\.folds = .* and "):
        train(otherwise, tmp_path / "otherwise")


def test_what_cannot_be_cross_validated_is_refused_before_it_is_trained(
    sounds: Path, tmp_path: Path
) -> None:
    teacher = recipe_for(sounds, teacher={"kind": "cnn2d"})
    with pytest.raises(EarmarkError, match="field teacher: is for earmark teach"):
        crossval({"recipe": recipe_for(sounds), "against": teacher}, tmp_path / "out")
    short = recipe_for(
        sounds,
        data={"roots": [str(sounds)], "balance": "natural", "folds": r"(\d)-", "clip": 0.02},
    )
    with pytest.raises(EarmarkError, match=r"clips of 320 samples, .*features\.window.* 480"):
        crossval({"recipe": short}, tmp_path / "out")
    assert not list(tmp_path.rglob("fold-*"))


def test_how_folds_are_told_does_not_matter_where_none_is_held_out(
    sounds: Path, tmp_path: Path
) -> None:
    plain = recipe_for(sounds)
    first = train(plain, tmp_path / "first")
    train(_with(_with(plain, "data", folds=""), "train", init=str(first)), tmp_path / "second")


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"keywords": ["high", "low", "chirp"]}, "keywords"), ({"clip": 0.5}, r"data\.clip")],
)
def test_only_like_is_compared_with_like(
    sounds: Path, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    plain = recipe_for(sounds)
    other = _with(plain, "data", **changes) if "clip" in changes else recipe_for(sounds, **changes)
    with pytest.raises(EarmarkError, match=f"--against: fields? {field}"):
        crossval({"recipe": plain, "against": other}, tmp_path)


def test_with_and_without_noise_that_no_class_is_are_like(sounds: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.mkdir()
    soundfile.write(noise / "hum.wav", np.full(20 * RATE, 0.1), RATE)
    plain = recipe_for(sounds, train={"epochs": 1, "batch": 8, "threads": 1, "accelerator": "cpu"})
    noisy = _with(_with(plain, "data", noise=(str(noise),)), "augment", noise=0.5)
    report = crossval({"recipe": plain, "against": noisy}, tmp_path / "out")
    assert list(report["recipes"]) == ["recipe", "against"]


def _with(recipe: Recipe, section: str, **changes: Any) -> Recipe:
    settings = dataclasses.replace(getattr(recipe, section), **changes)
    return dataclasses.replace(recipe, **{section: settings})


def test_data_without_folds_are_refused(sounds: Path, tmp_path: Path) -> None:
    plain = recipe_for(sounds, data={"roots": [str(sounds)], "balance": "natural"})
    with pytest.raises(EarmarkError, match=r"0 folds, at least 2 needed: give data\.folds"):
        crossval({"recipe": plain}, tmp_path)
    with pytest.raises(EarmarkError, match="names no corpus folder"):
        crossval({"recipe": recipe_for(sounds, data={"balance": "natural"})}, tmp_path)


def test_several_labels_are_measured_by_average_precision(sounds: Path, tmp_path: Path) -> None:
    lines = ["filename,labels,fold"]
    for path in sorted(sounds.glob("*/*.wav")):
        words = {"low": "low;deep", "high": "high", "chirp": ""}[path.parent.name]
        lines.append(f"{path.parent.name}/{path.name},{words},{path.name[0]}")
    (sounds / "tags.csv").write_text("\n".join(lines))
    recipe = recipe_for(
        sounds,
        keywords=["low", "deep", "high"],
        task="multilabel",
        data={"roots": [str(sounds / "tags.csv")], "balance": "balanced"},
    )
    report = crossval({"recipe": recipe}, tmp_path)
    assert report["metric"] == "map"
    everything = report["baselines"]["knn_four_moments"]["all_folds"]
    assert everything["support"] == {"low": 12, "deep": 12, "high": 12}
    assert everything["map"] > 0.9


def test_pooled_features_are_moments_of_the_front_end() -> None:
    pcm = np.random.default_rng(0).integers(-3000, 3000, (3, RATE), dtype=np.int16)
    pooled = pooled_mfcc(pcm, MfccSettings(), 4)
    assert pooled.shape == (3, 160) and pooled.dtype == np.float32
    x = Mfcc(MfccSettings())(torch.from_numpy(pcm).float() / 32768).double().numpy()
    centred = x - x.mean(1, keepdims=True)
    deviation = x.std(1)
    expected = [x.mean(1), x.var(1), (centred**3).mean(1) / deviation**3]
    expected += [(centred**4).mean(1) / deviation**4 - 3]
    assert pooled == pytest.approx(np.concatenate(expected, axis=1), rel=1e-3, abs=1e-3)
    assert np.array_equal(pooled_mfcc(pcm, MfccSettings(), 2), pooled[:, :80])
    silent = pooled_mfcc(np.zeros((1, RATE), np.int16), MfccSettings(), 4)
    assert np.isfinite(silent).all()


@settings(max_examples=25)
@given(st.integers(0, 1000), st.lists(st.integers(0, 2), min_size=8, max_size=8))
def test_votes_are_those_of_scikit_learn(seed: int, classes: list[int]) -> None:
    train, test = np.split(np.random.default_rng(seed).normal(3, 2, (12, 4)).astype("f4"), [8])
    label = np.array(classes)
    found = knn_posteriors(train, label[:, None] == np.arange(3), test, 5)
    scaled = [(x - train.mean(0)) / train.std(0) for x in (train, test)]
    reference = KNeighborsClassifier(5, metric="cosine").fit(scaled[0], label)
    votes = np.zeros((4, 3))
    votes[:, reference.classes_] = reference.predict_proba(scaled[1])
    assert found == pytest.approx(votes)


def test_fewer_clips_than_neighbours() -> None:
    x = np.eye(2, dtype=np.float32)
    assert knn_posteriors(x, np.eye(2, dtype=bool), x, 5) == pytest.approx(np.full((2, 2), 0.5))


def test_the_baseline_of_a_split(sounds: Path) -> None:
    corpus = scan(sounds, folds=r"(\d)-", fold=1)
    train, test = (load_split(corpus, SOUNDS, name) for name in ("train", "validation"))
    figures = knn_figures(train, test, MfccSettings())
    assert set(figures) == {"knn_mean_variance", "knn_four_moments"}
    assert min(figures.values()) > 0.9
