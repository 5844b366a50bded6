"""Distillation: what it changes, and what it must not change."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import torch
from command import EARMARK
from earmark.export.export import export
from earmark.export.held_out import Trained, measured_corpus
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.train.data.material import prepare
from earmark.train.fit import train
from earmark.train.lesson import StudentLesson
from earmark.train.recipe import Recipe, parse_recipe, recipe_toml
from earmark.train.run import load_run
from earmark.train.student import whole_steps
from earmark.train.teachers.run import load_teacher
from taught import distilled, losses


def test_a_weight_of_zero_is_training_on_labels_alone(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    labels = train(recipe, tmp_path / "labels")
    for mode in ("cached", "online"):
        run = train(distilled(recipe, teachers, weight=0.0, mode=mode), tmp_path / mode)
        assert losses(run) == losses(labels)
        before, after = load_run(labels).student, load_run(run).student
        for key, value in before.state_dict().items():
            assert torch.equal(value, after.state_dict()[key])


@pytest.mark.parametrize("extra", [{}, {"feature_weight": 0.5, "feature_components": 3}])
def test_asked_beforehand_or_in_every_step_the_losses_are_the_same(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path, extra: dict[str, Any]
) -> None:
    runs = [
        train(distilled(recipe, teachers[:1], mode=mode, **extra), tmp_path / mode)
        for mode in ("cached", "online")
    ]
    cached, online = map(losses, runs)
    assert cached == pytest.approx(online, rel=2e-3)
    assert cached[-1] < cached[0]
    assert cached != pytest.approx(losses(train(recipe, tmp_path / "labels")), rel=2e-2)


@pytest.mark.parametrize("likeness", ["cosine", "cka"])
def test_matching_embeddings_changes_the_student_and_leaves_nothing_behind(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path, likeness: str
) -> None:
    plain = train(distilled(recipe, teachers), tmp_path / "plain")
    run = train(
        distilled(recipe, teachers, features=likeness, feature_weight=1.0), tmp_path / likeness
    )
    a, b = load_run(plain).student.state_dict(), load_run(run).student.state_dict()
    assert a.keys() == b.keys()
    assert not torch.equal(a["head.weight"], b["head.weight"])


def test_the_run_names_its_teachers(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    info = load_run(train(distilled(recipe, teachers), tmp_path / "run")).info
    assert info.teacher == "tones (cnn2d) + tones (cnn2d)"
    assert [s.name for s in info.sources if s.role == "teacher"] == ["tones (cnn2d)"]


def test_what_teachers_learned_from_goes_with_the_student(recipe: Recipe, tmp_path: Path) -> None:
    """Recordings of which they had all are held out by nothing, whoever they taught."""
    mine = tmp_path / "mine"
    shutil.copytree(Path(recipe.data.roots[0]) / "low", mine / "low")
    for file in (mine / "low").iterdir():
        file.rename(file.with_name(f"mine{file.name}"))
    with_own = dataclasses.replace(recipe.data, own=(str(mine),))
    first = train(dataclasses.replace(recipe, data=with_own), tmp_path / "first")
    second = train(distilled(recipe, (str(first),)), tmp_path / "second")
    third = train(distilled(recipe, (str(second),)), tmp_path / "third")
    for run in map(load_run, (second, third)):
        trained = Trained.of("run", {}, run.info.sources, run.info.learned_folders)
        assert trained.own == {"mine"}
        clips = measured_corpus([mine], [trained]).clips
        assert {clip.split for clip in clips} == {"train"}


def test_the_exported_file_names_them_too(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    longer = dataclasses.replace(recipe.train, epochs=10, batch=8)
    wanted = distilled(dataclasses.replace(recipe, train=longer), teachers, weight=0.1)
    exported = export(train(wanted, tmp_path / "run"), tmp_path / "model.onnx")
    manifest = Engine(exported.model).manifest
    assert manifest.teacher == "tones (cnn2d) + tones (cnn2d)"
    assert "teacher" in [source.role for source in manifest.sources]
    assert manifest.training["recipe"]["distill"]["weight"] == 0.1
    assert set(manifest.training["baselines"]) == set(load_run(tmp_path / "run").info.baselines)


def test_students_teach_with_what_they_say_at_the_end_of_a_clip(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = train(recipe, tmp_path / "first")
    teacher = load_teacher(run)
    wav = torch.randn(3, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    student = load_run(run).student
    said = teacher.teacher(wav)
    torch.testing.assert_close(said.logits, student(whole_steps(wav, student.step))[0][:, -1])
    assert said.embedding.shape == (3, student.settings.width)
    again = load_run(train(distilled(recipe, (str(run),), weight=1.0), tmp_path / "second"))
    assert again.info.teacher == "tones (student)"
    assert again.history[-1]["loss"] < again.history[0]["loss"]


def test_recordings_without_labels_are_heard_by_the_soft_loss_alone(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "free").mkdir()
    for name, seconds in (("a", 7.0), ("b", 3.6), ("c", 0.3)):
        audio = random.normal(0, 0.1, round(seconds * 16000))
        soundfile.write(tmp_path / "free" / f"{name}.wav", audio, 16000)
    free = {"unlabelled": (str(tmp_path / "free"),), "unlabelled_share": 0.4}
    runs = {
        (mode, weight): train(
            distilled(recipe, teachers[:1], mode=mode, weight=weight, **free),
            tmp_path / f"{mode}{weight}",
        )
        for mode, weight in (("cached", 1.0), ("online", 1.0), ("cached", 0.0))
    }
    cached, online = (losses(runs[mode, 1.0]) for mode in ("cached", "online"))
    # Answers are kept in half precision, and steps carry the rounding on.
    assert cached[0] == pytest.approx(online[0], rel=2e-4)
    assert cached == pytest.approx(online, rel=5e-3)
    info = load_run(runs["cached", 1.0]).info
    assert [s.name for s in info.sources if s.role == "unlabelled audio"] == ["free"]
    # Without the soft loss they only take part in the batch norms.
    assert losses(runs["cached", 0.0])[-1] < losses(runs["cached", 0.0])[0]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("task", ["exclusive", "multilabel"])
def test_labels_count_only_where_both_clips_of_a_mixture_have_them(
    recipe: Recipe, tmp_path: Path, task: Literal["exclusive", "multilabel"]
) -> None:
    """Of two clips one has a label: mixed with itself it counts, mixed with the other it does not,
    and the seed says with which."""
    data = dataclasses.replace(recipe.data, balance="balanced")
    of_task = dataclasses.replace(recipe, task=task, data=data)
    heard = prepare(of_task, tmp_path / "run")
    labelled = heard.splits["train"]
    noise = np.random.default_rng(0).normal(0, 3000, (1, labelled.pcm.shape[1]))
    material = dataclasses.replace(heard, unlabelled=noise.astype(np.int16))

    def loss(seed: int, mixup: float) -> float:
        augment = dataclasses.replace(recipe.augment, mixup=mixup)
        lesson = StudentLesson(dataclasses.replace(of_task, seed=seed, augment=augment), material)
        batch = lesson.clips.fetch([(0, 0), (len(labelled), 0)])
        return lesson.training_step(batch, 0).item()

    mixed, alone = ([loss(seed, mixup) for seed in range(8)] for mixup in (5.0, 0.0))
    counted = [value > 0 for value in mixed]
    assert 0 < sum(counted) < 8
    assert mixed == pytest.approx(np.multiply(alone, counted).tolist(), rel=1e-4)


def test_audio_without_labels_is_none_of_what_is_held_out(recipe: Recipe, tmp_path: Path) -> None:
    corpus, free, own = Path(recipe.data.roots[0]), tmp_path / "free", tmp_path / "own"
    talk = free / "talk"
    shutil.copytree(corpus / "low", talk)
    shutil.copytree(corpus / "low", own / "low")
    for file in (own / "low").iterdir():
        file.rename(file.with_name(f"own{file.name}"))
    table = tmp_path / "table" / "clips.csv"
    table.parent.mkdir()
    shutil.copytree(corpus / "low", table.parent / "audio")
    files = sorted(file.name for file in (table.parent / "audio").iterdir())
    table.write_text("filename,label\n" + "".join(f"{name},low\n" for name in files))

    def heard(folder: Path, **fields: Any) -> None:
        one = distilled(recipe, ("x",), unlabelled=(str(folder),), unlabelled_share=0.3)
        data = dataclasses.replace(recipe.data, **fields)
        prepare(dataclasses.replace(one, data=data), tmp_path / "run")

    heard(free)
    for folder in (corpus, corpus.parent, corpus / "low"):
        with pytest.raises(EarmarkError, match=r"distill\.unlabelled: .*data\.roots\), of which"):
            heard(folder)
    with pytest.raises(EarmarkError, match=r"free has .*talk \(data\.speech\), of which"):
        heard(free, speech=(str(talk),))
    with pytest.raises(EarmarkError, match=r"free has .*talk \(data\.noise\), of which"):
        heard(free, noise=(str(talk),))
    with pytest.raises(EarmarkError, match=r"low has .*low \(data\.own\), of which"):
        heard(own / "low", own=(str(own),))
    with pytest.raises(EarmarkError, match=r"table has .*audio \(data\.roots\), of which"):
        heard(table.parent, roots=(str(corpus), str(table)))


def test_two_processes_see_what_one_sees(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    random, free = np.random.default_rng(0), tmp_path / "free"
    free.mkdir()
    for number in range(20):
        soundfile.write(free / f"{number}.wav", random.normal(0, 0.1, 3 * 16000), 16000)
    runs = []
    # Some clips without labels, of which a batch of one process has more than that of another.
    foreign = {"unlabelled": (str(free),), "unlabelled_share": 0.2, "weight": 0.3}
    for devices, batch in ((1, 32), (2, 16)):
        settings = dataclasses.replace(recipe.train, devices=devices, epochs=2, batch=batch)
        wanted = dataclasses.replace(
            distilled(recipe, teachers, **foreign),
            train=settings,
            data=dataclasses.replace(recipe.data, cache=str(tmp_path / f"cache{devices}")),
        )
        file = tmp_path / f"{devices}.toml"
        file.write_text(recipe_toml(wanted))
        runs.append(tmp_path / f"run{devices}")
        done = subprocess.run(
            [*EARMARK, "train", str(file), "-o", str(runs[-1])],
            capture_output=True,
            text=True,
            timeout=250,
            env=os.environ | {"MASTER_ADDR": "127.0.0.1"},
        )
        assert done.returncode == 0, done.stderr
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)
    a, b = (load_run(run).student.state_dict() for run in runs)
    for key, value in a.items():
        # A weight whose gradient is but rounding moves by the learning rate in a step all the same.
        torch.testing.assert_close(value, b[key], rtol=1e-3, atol=recipe.train.learning_rate)


def test_a_teacher_that_was_replaced_is_noticed(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(teachers[0], teacher)
    student = distilled(recipe, (str(teacher),))
    train(student, tmp_path / "run")
    train(student, tmp_path / "run")
    shutil.rmtree(teacher)
    shutil.copytree(teachers[1], teacher)
    with pytest.raises(EarmarkError, match="its teachers have changed since the run began"):
        train(student, tmp_path / "run")


def test_teachers_of_other_words_are_refused(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    other = dataclasses.replace(distilled(recipe, teachers), keywords=("high", "low"))
    with pytest.raises(EarmarkError, match=r"teaches low, high.* not high, low"):
        train(other, tmp_path / "run")
    with pytest.raises(EarmarkError, match="not a run directory"):
        train(distilled(recipe, (str(tmp_path),)), tmp_path / "run")
    again = f"{teachers[0]}/../{Path(teachers[0]).name}"
    with pytest.raises(EarmarkError, match=r"teachers: .* is named twice: name each run once"):
        train(distilled(recipe, (*teachers, again)), tmp_path / "run")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.toml").write_text(recipe_toml(recipe))
    with pytest.raises(EarmarkError, match="not complete: run the same train command again"):
        load_teacher(tmp_path / "begun")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"distill": {"teachers": []}}, "distill.teachers"),
        ({"distill": {"teachers": ["a"]}}, "augment.views: expected at least 1"),
        (
            {"distill": {"teachers": ["a"], "mode": "online", "unlabelled_share": 0.1}},
            "distill.unlabelled_share: expected more than 0 with",
        ),
        (
            {
                "distill": {"teachers": ["a"], "mode": "online"},
                "teacher": {"kind": "cnn2d"},
            },
            "distill: expected nothing beside teacher",
        ),
    ],
)
def test_wrong_settings_are_named(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(EarmarkError, match=expected):
        parse_recipe({"name": "a", "keywords": ["yes"], **table}, "x")
