"""Tasks beside keyword spotting: sounds without other words, several labels at once, imbalance."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.export.evaluate import score
from earmark.export.export import export
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.train.data.clips import Clips
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import Split, load_split
from earmark.train.data.epoch import balanced_rows, epoch_batches
from earmark.train.fit import train
from earmark.train.metrics import measure
from earmark.train.recipe import Recipe, parse_recipe
from earmark.train.run import load_run, read_history
from earmark.train.score import clip_posteriors
from earmark.train.teach import EVALUATION, teach
from earmark.train.teachers.run import load_teacher, teacher_posteriors
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import PITCH, RATE, word_pcm

SOUNDS = ("low", "high", "chirp")


def recipe_for(root: Path, **changes: object) -> Recipe:
    table: dict[str, object] = {
        "name": "sounds",
        "keywords": list(SOUNDS),
        "data": {"roots": [str(root)], "balance": "balanced"},
        "student": {"width": 8, "dilations": [1, 2], "window": 0.6},
        "augment": {"speed": 0.0, "frequency_mask": 2, "noise": 0.0, "gain": [-3.0, 3.0]},
        "train": {
            "epochs": 24,
            "batch": 16,
            "threads": 1,
            "accelerator": "cpu",
            "validate_every": 8,
            "learning_rate": 0.02,
            "label_smoothing": 0.02,
        },
    }
    return parse_recipe(table | changes, "test")


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of up to three tones at once, and a table that says which."""
    root = tmp_path_factory.mktemp("tagged")
    random = np.random.default_rng(0)
    lines = ["filename,labels,split\n"]
    for number in range(120):
        present = [name for name in SOUNDS if random.random() < 0.45]
        tones = [word_pcm(PITCH[name], random) for name in present]
        pcm = sum(tones, random.normal(0, 0.002, RATE)) / 3
        soundfile.write(root / f"{number}.wav", pcm, RATE)
        split = "train" if number < 90 else "validation"
        lines.append(f"{number}.wav,{';'.join(present)},{split}\n")
    (root / "clips.csv").write_text("".join(lines))
    return root / "clips.csv"


@pytest.fixture(scope="module")
def multilabel_run(tagged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet = {"noise": 0.0, "reverb": 0.0, "speed": 0.0, "time_masks": 0, "frequency_masks": 0}
    recipe = recipe_for(tagged, task="multilabel", augment=quiet | {"mixup": 0.1})
    return train(recipe, tmp_path_factory.mktemp("runs") / "tags")


def test_several_labels_are_learnt(multilabel_run: Path) -> None:
    run = load_run(multilabel_run)
    assert run.info.labels == SOUNDS
    assert set(run.history[-1]) == {"epoch", "loss", "map"}
    assert run.history[-1]["loss"] < 0.8 * run.history[0]["loss"]
    assert run.history[-1]["map"] > 0.9
    # What training watches and what is reported afterwards are one figure.
    recipe = run.recipe
    held_out = load_split(
        scan(*recipe.data.roots), SOUNDS, "validation", recipe.data.clip, multilabel=True
    )
    measured = measure(held_out, clip_posteriors(run.student, held_out))
    assert measured["map"] == pytest.approx(run.history[-1]["map"], abs=1e-4)


def test_the_exported_file_of_several_labels_gives_each_its_own_posterior(
    multilabel_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = export(multilabel_run, tmp_path / "tags.onnx")
    engine = Engine(result.model)
    assert engine.manifest.activation == "sigmoid"
    assert set(engine.manifest.decision.thresholds) == set(SOUNDS)
    assert result.metrics["int8_streaming"]["map"] > 0.9
    card = result.card.read_text()
    assert "mean average precision" in card and "sigmoid of the logits" in card
    run = load_run(multilabel_run)
    held_out = load_split(scan(*run.recipe.data.roots), SOUNDS, "validation", multilabel=True)
    floats = score(Engine(result.float_model), held_out)
    assert floats == pytest.approx(clip_posteriors(run.student, held_out), abs=1e-3)
    assert (floats.sum(axis=1) > 1.2).any()

    from earmark.runtime.cli import main

    arguments = ["evaluate", str(result.model), "--data", str(run.recipe.data.roots[0])]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["map"] == pytest.approx(result.metrics["int8_streaming"]["map"], abs=1e-4)
    assert main(arguments) == 0
    assert "mean average precision" in capsys.readouterr().err
    assert main([*arguments, "--confusion", str(tmp_path / "x.png")]) != 0


@pytest.fixture(scope="module")
def tagging_teacher(tagged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tagging(tagged, teacher={"kind": "cnn2d", "width": 4}, train={"epochs": 12})
    return teach(recipe, tmp_path_factory.mktemp("teachers") / "tags")


def tagging(tagged: Path, train: dict[str, object], **changes: object) -> Recipe:
    common = {"batch": 16, "threads": 1, "accelerator": "cpu", "learning_rate": 0.01}
    augment = {"speed": 0.0, "noise": 0.0, "frequency_mask": 2, "mixup": 0.2, "views": 2}
    return recipe_for(
        tagged, task="multilabel", augment=augment, train={**common, **train}, **changes
    )


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_history(run)]


def test_a_teacher_of_several_labels_learns_and_is_measured(
    tagging_teacher: Path, tagged: Path
) -> None:
    history = read_history(tagging_teacher)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    measured = json.loads((tagging_teacher / EVALUATION).read_text())
    assert measured["clips"] == 30 and "top1" not in measured and measured["map"] > 0.9
    assert measured["map"] == pytest.approx(history[-1]["map"], abs=1e-4)
    held_out = load_split(scan(tagged), SOUNDS, "validation", multilabel=True)
    found = teacher_posteriors(load_teacher(tagging_teacher).teacher, held_out)
    assert measure(held_out, found)["map"] == pytest.approx(measured["map"], abs=1e-6)
    assert (found.sum(axis=1) > 1.2).any()


def test_several_labels_are_distilled_cached_or_online(
    tagging_teacher: Path, tagged: Path, multilabel_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "free").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 12 * RATE)
    soundfile.write(tmp_path / "free" / "a.wav", noise, RATE)

    def distilled(mode: str, **changes: object) -> Path:
        # A student of several labels teaches beside the teacher.
        settings = {"teachers": [str(tagging_teacher), str(multilabel_run)], "mode": mode} | changes
        recipe = tagging(tagged, {"epochs": 3}, distill=settings)
        return train(recipe, tmp_path / f"run{len([*tmp_path.iterdir()])}")

    free = {"unlabelled": [str(tmp_path / "free")], "unlabelled_share": 0.3, "temperature": 2.0}
    cached, online = (distilled(mode, weight=1.0, **free) for mode in ("cached", "online"))
    # What is kept is rounded, and steps carry that on.
    assert losses(cached)[0] == pytest.approx(losses(online)[0], rel=2e-4)
    assert losses(cached) == pytest.approx(losses(online), rel=5e-3)
    assert losses(cached)[-1] < 0.8 * losses(cached)[0]
    assert load_run(cached).info.teacher == "sounds (cnn2d) + sounds (student)"
    # A weight of nothing is training on labels alone.
    labels = train(tagging(tagged, {"epochs": 3}), tmp_path / "labels")
    assert losses(distilled("cached", weight=0.0)) == losses(labels)


def test_clips_without_labels_have_none_in_a_multilabel_task(tagged: Path) -> None:
    split = load_split(scan(tagged), SOUNDS, "train", multilabel=True)
    batch = Clips(split, None, np.zeros((2, RATE), np.int16)).fetch([(0, 0), (len(split) + 1, 0)])
    assert split.several is not None
    assert batch.label.tolist() == [split.several[0].astype(int).tolist(), [-1] * len(SOUNDS)]


def test_teachers_of_another_task_are_refused(
    tagging_teacher: Path, tagged: Path, imbalanced: Path, tmp_path: Path
) -> None:
    distill = {"teachers": [str(tagging_teacher)], "mode": "online"}
    recipe = recipe_for(imbalanced, data=folded(imbalanced), distill=distill)
    with pytest.raises(EarmarkError, match="has the task multilabel, not exclusive: train it with"):
        train(recipe, tmp_path / "run")


@pytest.fixture(scope="module")
def imbalanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 60, 20 and 8 clips, named by fold; no noise and no other words."""
    root = tmp_path_factory.mktemp("imbalanced")
    random = np.random.default_rng(1)
    for name, count in zip(SOUNDS, (60, 20, 8), strict=True):
        (root / name).mkdir()
        for number in range(count):
            pcm = word_pcm(PITCH[name], random)
            soundfile.write(root / name / f"{number % 4 + 1}-{number}.wav", pcm, RATE)
    return root


def folded(root: Path, **data: object) -> dict[str, object]:
    return {"roots": [str(root)], "folds": r"(\d)-", "fold": 2, "balance": "balanced", **data}


def test_sounds_need_neither_noise_nor_other_words(imbalanced: Path, tmp_path: Path) -> None:
    recipe = recipe_for(imbalanced, data=folded(imbalanced))
    run = load_run(train(recipe, tmp_path / "runs" / "sounds"))
    assert run.info.labels == SOUNDS
    assert run.info.clips == {
        "train": {"low": 45, "high": 15, "chirp": 6},
        "validation": {"low": 15, "high": 5, "chirp": 2},
    }
    assert run.history[-1]["balanced_accuracy"] > 0.9
    result = export(tmp_path / "runs" / "sounds", tmp_path / "sounds.onnx")
    manifest = Engine(result.model).manifest
    assert manifest.activation == "softmax" and manifest.keywords == SOUNDS
    assert result.metrics["int8_streaming"]["top1"] > 0.9


def test_unknown_and_silence_are_classes_where_they_are_named(imbalanced: Path) -> None:
    asked = recipe_for(imbalanced, keywords=["low", "_unknown_", "_silence_"])
    assert asked.labels == ("low", "_unknown_", "_silence_")
    corpus = scan(imbalanced)
    split = load_split(corpus, asked.labels, "all")
    assert np.bincount(split.label).tolist() == [60, 28, 6]
    batches = epoch_batches(Clips(split, 2), asked, 0, 1, 1)
    rows = [row for row, _ in chain.from_iterable(batches)]
    assert min(rows) >= 0 and len(rows) >= len(split) - asked.train.batch


def test_training_without_noise_says_so_where_noise_is_asked_for(
    imbalanced: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(imbalanced, data=folded(imbalanced), augment={"noise": 0.5})
    with pytest.raises(EarmarkError, match=r"or set augment\.noise to 0"):
        train(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "tagging"}, "field task"),
        ({"task": "multilabel", "data": {"balance": "keywords"}}, "field data.balance: expected"),
        ({"task": "multilabel", "keywords": ["a", "_silence_"]}, "field keywords: expected names"),
        ({"keywords": ["a"]}, "field keywords: expected at least two"),
        ({"data": {"folds": "("}}, "field data.folds: expected a regular expression"),
        ({"data": {"folds": "1-"}}, "field data.folds: expected a regular expression"),
        ({"data": {"fold": -1}}, "field data.fold"),
        (
            {"teacher": {"kind": "cnn2d"}, "train": {"init": "run"}},
            "field train.init: expected none beside teacher",
        ),
    ],
)
def test_recipes_that_make_no_sense_are_refused(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(EarmarkError, match=expected):
        recipe_for(tmp_path, **changes)


def split_of(target: np.ndarray, several: bool) -> Split:
    names = np.array([str(i) for i in range(len(target))])
    label = np.where(target.any(axis=1), target.argmax(axis=1), -1)
    labels = tuple(str(k) for k in range(target.shape[1]))
    pcm = np.zeros((len(target), 8), np.int16)
    return Split(labels, pcm, label, names, names, names, 0, target if several else None)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 9))
def test_balanced_sampling_draws_every_class_equally_often(label: list[int], seed: int) -> None:
    split = split_of(np.eye(4, dtype=bool)[label], several=False)
    rows = balanced_rows(split, np.random.default_rng(seed))
    present = set(label)
    drawn = np.bincount(split.label[rows], minlength=4)
    each = -(-len(label) // len(present))
    assert drawn.tolist() == [each if k in present else 0 for k in range(4)]
    # No clip comes a second time more often than the others of its class have come.
    for k in present:
        times = np.bincount(rows, minlength=len(label))[split.label == k]
        assert times.max() - times.min() <= 1


@given(st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=40))
def test_balanced_sampling_of_several_labels_leaves_none_out(words: list[set[int]]) -> None:
    target = np.zeros((len(words), 4), bool)
    for row, present in zip(target, words, strict=True):
        row[list(present)] = True
    split = split_of(target, several=True)
    rows = balanced_rows(split, np.random.default_rng(0))
    groups = [*target.T, ~target.any(axis=1)]
    each = -(-len(words) // sum(bool(group.any()) for group in groups))
    assert all(group[rows].sum() >= each for group in groups if group.any())


def test_natural_sampling_takes_every_clip_once(imbalanced: Path) -> None:
    split = load_split(scan(imbalanced), SOUNDS, "all")
    recipe = recipe_for(imbalanced, data={"balance": "natural"}, train={"batch": 11})
    batches = epoch_batches(Clips(split, None), recipe, 0, 1, None)
    rows = sorted(row for row, _ in chain.from_iterable(batches))
    assert rows == list(range(88))
