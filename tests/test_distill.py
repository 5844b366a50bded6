"""Distillation: what it changes, what it must not change, and what is kept on disk."""

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from command import EARMARK
from earmark.export.export import export
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.layout import hashed_split
from earmark.train.data.clips import Clips
from earmark.train.data.dataset import SPEECH
from earmark.train.data.material import prepare
from earmark.train.fit import train
from earmark.train.recipe import Recipe, parse_recipe, recipe_toml
from earmark.train.run import load_run
from earmark.train.student import whole_steps
from earmark.train.teach import teach
from earmark.train.teachers import cache, ensemble
from earmark.train.teachers.distill import Distillation, DistillSettings, linear_cka, soft_loss
from earmark.train.teachers.run import load_teacher
from earmark.train.teachers.settings import TeacherSettings
from earmark.train.teachers.teacher import Outputs
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import tiny_recipe, write_corpus


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("distill")
    recipe = tiny_recipe(write_corpus(folder / "corpus"))
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, cache=str(folder / "cache")),
        augment=dataclasses.replace(recipe.augment, views=2),
    )


def make_teacher(recipe: Recipe, path: Path, seed: int) -> str:
    settings = TeacherSettings(kind="cnn2d", width=4)
    rate = dataclasses.replace(recipe.train, learning_rate=0.01, epochs=2)
    teach(dataclasses.replace(recipe, teacher=settings, seed=seed, train=rate), path)
    return str(path)


@pytest.fixture(scope="module")
def teachers(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("teachers")
    return make_teacher(recipe, folder / "a", 0), make_teacher(recipe, folder / "b", 1)


def distilled(recipe: Recipe, teachers: tuple[str, ...], **changes: Any) -> Recipe:
    return dataclasses.replace(recipe, distill=DistillSettings(teachers=teachers, **changes))


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in load_run(run).history]


def files(recipe: Recipe) -> dict[str, bytes]:
    folder = Path(recipe.data.cache) / "teachers"
    # A killed process leaves the temporary file that it was writing.
    return {file.name: file.read_bytes() for file in folder.rglob("[!.]*.npy")}


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


def test_the_cache_goes_on_after_a_kill_with_the_same_bytes(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    wanted = dataclasses.replace(
        distilled(recipe, teachers[:1]),
        train=dataclasses.replace(recipe.train, epochs=1),
        augment=dataclasses.replace(recipe.augment, views=12),
    )
    caches = [
        dataclasses.replace(wanted, data=dataclasses.replace(recipe.data, cache=str(tmp_path / n)))
        for n in ("whole", "killed")
    ]
    whole = train(caches[0], tmp_path / "a")
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(caches[1]))
    process = subprocess.Popen([*EARMARK, "train", str(file), "-o", str(tmp_path / "b")])
    deadline = time.monotonic() + 120
    while len(files(caches[1])) < 5 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(files(caches[1])) >= 5
    run = train(caches[1], tmp_path / "b")
    assert files(caches[0]) == files(caches[1])
    assert losses(run) == losses(whole)


def test_what_is_cached_is_not_asked_again(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(distilled(recipe, teachers[:1]), tmp_path / "first")
    before = files(recipe)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("asked a teacher")

    monkeypatch.setattr("earmark.train.teachers.cache.ask", never)
    train(distilled(recipe, teachers[:1], weight=0.5, temperature=4.0), tmp_path / "again")
    assert files(recipe) == before
    # Students of other seeds see the same views.
    seed = train(distilled(dataclasses.replace(recipe, seed=7), teachers[:1]), tmp_path / "seed")
    assert losses(seed) != losses(tmp_path / "again")
    louder = dataclasses.replace(recipe.augment, gain=(0.0, 6.0))
    with pytest.raises(AssertionError, match="asked a teacher"):
        train(
            distilled(dataclasses.replace(recipe, augment=louder), teachers[:1]), tmp_path / "gain"
        )


def test_what_is_cached_covers_free_speech(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for number in range(24):
        audio = random.normal(0, 0.1, 3 * 16000)
        (tmp_path / "talk").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "talk" / f"{number}.wav", audio, 16000)
    data = dataclasses.replace(
        recipe.data, speech=(str(tmp_path / "talk"),), speech_around=0.5, cache=str(tmp_path)
    )
    spoken = dataclasses.replace(recipe, data=data)
    cached, online = (
        train(distilled(spoken, teachers[:1], weight=1.0, mode=mode), tmp_path / mode)
        for mode in ("cached", "online")
    )
    assert losses(cached) == pytest.approx(losses(online), rel=2e-3)
    # Which words stand in speech is part of what was asked.
    monkeypatch.setattr("earmark.train.teachers.cache.ask", lambda *_: pytest.fail("asked"))
    train(distilled(spoken, teachers[:1], weight=0.5), tmp_path / "again")
    less = dataclasses.replace(spoken, data=dataclasses.replace(data, speech_around=0.1))
    with pytest.raises(pytest.fail.Exception, match="asked"):
        train(distilled(less, teachers[:1]), tmp_path / "less")


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


def test_damaged_answers_are_named(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    own = dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, cache=str(tmp_path / "cache"))
    )
    train(distilled(own, teachers[:1]), tmp_path / "first")
    for file in (tmp_path / "cache" / "teachers").rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(EarmarkError, match=r"logits\.npy: damaged .*: remove it"):
        train(distilled(own, teachers[:1]), tmp_path / "second")


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
    assert losses(runs["cached", 1.0]) == pytest.approx(losses(runs["online", 1.0]), rel=2e-3)
    info = load_run(runs["cached", 1.0]).info
    assert [s.name for s in info.sources if s.role == "unlabelled audio"] == ["free"]
    # Without the soft loss they only take part in the batch norms.
    assert losses(runs["cached", 0.0])[-1] < losses(runs["cached", 0.0])[0]


def test_two_processes_see_what_one_sees(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    runs = []
    for devices, batch in ((1, 32), (2, 16)):
        settings = dataclasses.replace(recipe.train, devices=devices, epochs=2, batch=batch)
        wanted = dataclasses.replace(
            distilled(recipe, teachers),
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


def outputs(logits: torch.Tensor) -> Outputs:
    return Outputs(torch.zeros(len(logits), 2), logits)


@given(temperature=st.floats(0.2, 8), weight=st.floats(0, 1), multilabel=st.booleans())
def test_the_soft_loss_is_least_where_student_and_teacher_agree(
    temperature: float, weight: float, multilabel: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, generator=generator)
    settings = DistillSettings(teachers=("x",), temperature=temperature, weight=weight)
    loss = Distillation(settings, 3, 2, multilabel)
    targets = loss.targets([outputs(logits)])
    agreed = soft_loss(logits[:, None], targets.probabilities, temperature, multilabel)
    assert agreed.abs() < 1e-4
    other = soft_loss(logits[:, None].flip(2), targets.probabilities, temperature, multilabel)
    assert other > agreed
    whole = loss(torch.tensor(2.0), logits[:, None].flip(2), None, targets)
    assert float(whole) == pytest.approx((1 - weight) * 2 + weight * float(other), abs=1e-4)


def test_an_ensemble_is_the_mean_of_its_teachers() -> None:
    a, b = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for average, multilabel, expected in (
        ("probabilities", False, (a.softmax(1) + b.softmax(1)) / 2),
        ("logits", False, ((a + b) / 2).softmax(1)),
        ("probabilities", True, (a.sigmoid() + b.sigmoid()) / 2),
        ("logits", True, ((a + b) / 2).sigmoid()),
    ):
        settings = DistillSettings(teachers=("x", "y"), average=average)  # pyright: ignore[reportArgumentType]
        targets = Distillation(settings, 3, 4, multilabel).targets([outputs(a), outputs(b)])
        torch.testing.assert_close(targets.probabilities, expected)


def test_the_soft_loss_of_several_labels_has_the_gradient_of_their_binary_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 3, generator=generator).requires_grad_()
    wanted = torch.rand(4, 3, generator=generator)
    wanted[0] = torch.tensor([0.0, 1.0, 0.5])
    soft = soft_loss(logits, wanted, 2.0, multilabel=True)
    cross_entropy = F.binary_cross_entropy(
        (logits / 2).sigmoid(), wanted[:, None].expand(-1, 2, -1)
    )
    assert 0 < soft.item() < 4 * cross_entropy.item()
    [found], [expected] = (torch.autograd.grad(x, logits) for x in (soft, 4 * cross_entropy))
    torch.testing.assert_close(found, expected)


def test_cka_does_not_mind_rotation_scale_and_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    assert float(linear_cka(x, 3 * x @ rotation + 1)) == pytest.approx(1, abs=1e-5)
    assert float(linear_cka(x, torch.randn(50, 9, generator=generator))) < 0.5


def test_components_keep_what_varies_most() -> None:
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(100, 1, generator=generator)
    embeddings = torch.cat([5 * signal, 0.01 * torch.randn(100, 3, generator=generator)], 1) + 7
    settings = DistillSettings(teachers=("x",), feature_weight=1.0, feature_components=1)
    loss = Distillation(settings, 3, 4)
    loss.reduce(embeddings)
    reduced = loss.targets([Outputs(embeddings, torch.zeros(100, 2))]).embedding
    assert reduced is not None and reduced.shape == (100, 1)
    correlation = torch.corrcoef(torch.cat([reduced, signal], 1).T)[0, 1]
    assert correlation.abs() > 0.999


def test_more_components_than_can_be_found_are_refused() -> None:
    field = r"distill\.feature_components: 4 are more than the 3"
    settings = DistillSettings(teachers=("x",), feature_weight=1.0, feature_components=4)
    with pytest.raises(EarmarkError, match=f"{field} numbers in .*: set it to at most 3, or to 0"):
        Distillation(settings, 3, 3)
    loss = Distillation(settings, 3, 5)
    with pytest.raises(EarmarkError, match=f"{field} clips to find them in"):
        loss.reduce(torch.eye(3, 5))


def test_the_cache_answers_as_the_teacher_does(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path
) -> None:
    wav = torch.randn(7, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    loaded = ensemble.Ensemble.load(
        teachers[:1], ("low", "high", "_unknown_", "_silence_"), "exclusive"
    )

    class Waves:
        def __len__(self) -> int:
            return 5

        def groups(self) -> Any:
            # A clip's answers are found wherever its group is.
            yield np.array([3, 1])
            yield np.array([0, 4, 2])

        def content(self, clips: np.ndarray) -> Any:
            yield clips.tobytes()
            yield wav[clips].numpy().tobytes()

    def render(clips: np.ndarray, view: int) -> torch.Tensor:
        return wav[clips] * (1 + view)

    device = torch.device("cpu")
    loaded.answer_all(tmp_path, Waves(), 2, 3, render, {}, embed=True, device=device)
    clip, view = torch.tensor([4, -1, 0, -2]), torch.tensor([2, 0, 1, 2])
    [got] = loaded(clip, view, wav)
    waves = torch.stack([wav[c] * (1 + v) for c, v in zip(clip, view, strict=True)])
    expected = load_teacher(teachers[0]).teacher(waves)
    torch.testing.assert_close(got.logits, expected.logits, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(got.embedding, expected.embedding, rtol=2e-3, atol=2e-3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """The clips and views that teachers were asked about; whoever looks may empty it."""
    found: set[tuple[int, int]] = set()
    ask = cache.ask

    def noted(teacher: Any, render: Any, clips: np.ndarray, view: int, *rest: Any) -> Outputs:
        found.update((clip, view) for clip in clips.tolist())
        return ask(teacher, render, clips, view, *rest)

    monkeypatch.setattr(cache, "ask", noted)
    return found


def short(recipe: Recipe, folder: Path, **data: Any) -> Recipe:
    """A recipe of one epoch on few clips, and with a cache of its own."""
    roots = (str(write_corpus(folder / "corpus", 8)),)
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, roots=roots, cache=str(folder / "cache"), **data),
        train=dataclasses.replace(recipe.train, epochs=1, batch=16),
    )


def test_other_teachers_noise_and_clips_are_asked_anew(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path, asked: set[tuple[int, int]]
) -> None:
    few = short(recipe, tmp_path)

    def clips_and_views(teacher: str, name: str) -> set[tuple[int, int]]:
        asked.clear()
        train(distilled(few, (teacher,)), tmp_path / name)
        return asked.copy()

    first = clips_and_views(teachers[0], "first")
    # Clips that are background alone are among them.
    assert min(first)[0] < 0 and {view for _, view in first} == {0, 1}
    assert not clips_and_views(teachers[0], "again")
    assert clips_and_views(teachers[1], "another") == first
    for file in (tmp_path / "corpus" / "_background_noise_").iterdir():
        soundfile.write(file, soundfile.read(file)[0][::-1], 16000)
    assert clips_and_views(teachers[0], "other noise") == first
    for file in (tmp_path / "corpus" / "low").iterdir():
        soundfile.write(file, soundfile.read(file)[0][::-1], 16000)
    assert clips_and_views(teachers[0], "other clips")


def test_with_other_speech_around_words_they_are_asked_about_anew(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path, asked: set[tuple[int, int]]
) -> None:
    """Be it in one of their views alone."""
    (tmp_path / "talk").mkdir()
    name = next(f"{i}.wav" for i in range(99) if hashed_split(f"talk/{i}.wav") == "train")
    audio = np.random.default_rng(0).normal(0, 0.1, 60 * 16000)
    soundfile.write(tmp_path / "talk" / name, audio, 16000)
    spoken = short(recipe, tmp_path, speech=(str(tmp_path / "talk"),), speech_around=0.5)
    wanted = distilled(spoken, teachers[:1])
    train(wanted, tmp_path / "first")
    asked.clear()

    material = prepare(wanted, tmp_path / "first")
    split, speech = material.splits["train"], material.speech
    pieces = [
        float(path.rpartition("=")[2])
        for path, word in zip(split.path, split.word, strict=True)
        if word == SPEECH
    ]

    def differ(second: float, view: int) -> set[int]:
        """Clips that another tenth of a second of speech changes in a view."""
        start, other = round(16000 * second), speech.copy()
        other[start : start + 1600] = 0
        old, new = (
            Clips(split, 3, speech=one, around=0.5, cut=wanted.augment.cut, views=2)
            .fetch([(row, view) for row in range(len(split))])
            .pcm.numpy()
            for one in (speech, other)
        )
        return set(np.flatnonzero((old != new).any(axis=1)).tolist())

    second = next(
        second
        for second in np.arange(0, 59, 0.5).tolist()
        if differ(second, 1)
        and not differ(second, 0)
        and not any(start - 0.1 < second < start + 1 for start in pieces)
    )
    audio[round(16000 * second) : round(16000 * second) + 1600] = 0
    soundfile.write(tmp_path / "talk" / name, audio, 16000)
    train(wanted, tmp_path / "second")
    assert {(clip, 1) for clip in differ(second, 1)} <= asked
