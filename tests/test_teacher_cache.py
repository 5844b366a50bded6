"""What teachers said, as it is kept on disk: it goes on, and is asked anew where it must be."""

import dataclasses
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command import EARMARK
from earmark.runtime.errors import EarmarkError
from earmark.runtime.layout import hashed_split
from earmark.train.data.clips import Clips
from earmark.train.data.dataset import SPEECH
from earmark.train.data.material import prepare
from earmark.train.fit import train
from earmark.train.recipe import Recipe, recipe_toml
from earmark.train.teachers import cache, ensemble
from earmark.train.teachers.run import load_teacher
from earmark.train.teachers.teacher import Outputs
from taught import distilled, losses
from tiny_corpus import write_corpus


def files(recipe: Recipe) -> dict[str, bytes]:
    folder = Path(recipe.data.cache) / "teachers"
    # A killed process leaves the temporary file that it was writing.
    return {file.name: file.read_bytes() for file in folder.rglob("[!.]*.npy")}


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


def test_runs_that_start_together_share_what_they_ask(
    recipe: Recipe, teachers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = distilled(recipe, teachers[:1])
    other = dataclasses.replace(one, seed=7)
    ask, asked = cache.ask, []

    def while_another_asks(*arguments: Any, **named: Any) -> Outputs:
        asked.append(arguments[2:4])
        if len(asked) == 1:
            train(other, tmp_path / "other")
        return ask(*arguments, **named)

    monkeypatch.setattr("earmark.train.teachers.cache.ask", while_another_asks)
    train(one, tmp_path / "one")
    # The first block alone was asked by both.
    assert len(asked) == len(files(recipe)) + 1


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
    # Hours of speech are named by what they are without being held in memory.
    monkeypatch.setattr(np.memmap, "tobytes", lambda *_: pytest.fail("copied"), raising=False)
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
