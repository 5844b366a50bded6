"""What is learned from shards, by one process and by two, and by two that are taught."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command import EARMARK
from earmark.export.export import export
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.train.data.clips import Clips
from earmark.train.data.corpus import scan
from earmark.train.data.epoch import epoch_batches
from earmark.train.data.material import prepare
from earmark.train.data.shard_writer import write_shards
from earmark.train.data.share import Share
from earmark.train.fit import train
from earmark.train.recipe import Recipe, recipe_toml
from earmark.train.run import load_run
from earmark.train.score import clip_posteriors
from earmark.train.teachers import ensemble
from earmark.train.teachers.distill import DistillSettings
from earmark.train.teachers.run import teacher_posteriors
from earmark.train.teachers.settings import TeacherSettings
from sharded import SOURCE, sharded
from tiny_corpus import tiny_recipe


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in load_run(run).history]


def in_processes(recipe: Recipe, path: Path, verb: str = "train") -> Path:
    file = path.with_suffix(".toml")
    file.write_text(recipe_toml(recipe))
    done = subprocess.run(
        [*EARMARK, verb, str(file), "-o", str(path)],
        capture_output=True,
        text=True,
        timeout=250,
        env=os.environ | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return path


def cache_files(recipe: Recipe) -> set[str]:
    return {file.name for file in (Path(recipe.data.cache) / "teachers").rglob("*.npy")}


def test_one_process_learns_from_shards_what_it_learns_from_the_folder(
    tone_folder: Path, tone_shards: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 2}
    random = np.random.default_rng(0)
    (tmp_path / "talk").mkdir()
    for number in range(30):
        pcm = random.normal(0, 0.05, 3 * 16000)
        soundfile.write(tmp_path / "talk" / f"{number}.wav", pcm, 16000)
    talk = (str(tmp_path / "talk"),)
    runs = [
        train(
            dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, speech=talk)),
            tmp_path / name,
        )
        for name, recipe in (
            ("folder", tiny_recipe(tone_folder, **settings)),
            ("shards", sharded(tone_shards, tmp_path / "cache", **settings)),
        )
    ]
    a, b = map(load_run, runs)
    assert a.history == b.history
    for key, value in a.student.state_dict().items():
        assert torch.equal(value, b.student.state_dict()[key])
    assert a.info.clips == b.info.clips and a.info.sources == b.info.sources
    assert b.info.sources[0] == SOURCE


def test_a_class_that_cannot_be_read_is_refused_of_shards_too(
    tone_folder: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "tones"
    shutil.copytree(tone_folder, corpus)
    for file in (corpus / "low").iterdir():
        file.write_bytes(b"no audio")
    write_shards(scan(corpus), tmp_path / "out", 1.0)
    with pytest.raises(EarmarkError, match="0 readable clips of 'low' in the train split"):
        train(sharded(tmp_path / "out", tmp_path / "cache"), tmp_path / "run")


def test_two_processes_with_a_part_each_learn_what_one_learns_of_both(
    tone_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference: one process, whose batches are those of the two, one after the other."""
    settings = {"epochs": 3, "learning_rate": 0.01}
    two = in_processes(
        sharded(tone_shards, tmp_path / "cache", devices=2, batch=16, **settings), tmp_path / "two"
    )
    recipe = sharded(tone_shards, tmp_path / "cache", batch=32, **settings)
    parts = [
        Clips(prepare(recipe, tmp_path, Share(rank, 2)).splits["train"], 3) for rank in range(2)
    ]

    def joined(clips: Clips, recipe: Recipe, epoch: int, *_: object) -> list[list[tuple[int, int]]]:
        half = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch=16))
        each = [epoch_batches(part, half, epoch, 1, 2) for part in parts]
        both = []
        for batches in zip(*each, strict=False):
            rows: list[tuple[int, int]] = []
            for part, batch in zip(parts, batches, strict=True):
                local = np.array([row for row, _ in batch])
                numbers = part.__getitems__(batch).number.numpy()
                # Empty clips have numbers of their own in each process.
                numbers = np.where(local < 0, local - part.share.rank * 1000, numbers)
                rows += list(zip(numbers.tolist(), (draw for _, draw in batch), strict=True))
            both.append(rows)
        return both

    monkeypatch.setattr("earmark.train.lesson.epoch_batches", joined)
    number = Clips._number

    def as_in_two(self: Clips, clip: np.ndarray) -> np.ndarray:
        second = clip < -1000
        return np.where(second, clip + 1000 - (1 << 40), number(self, clip))

    monkeypatch.setattr(Clips, "_number", as_in_two)
    one = train(recipe, tmp_path / "one")
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert losses(two)[-1] < 0.9 * losses(two)[0]
    a, b = load_run(one), load_run(two)
    assert b.info.clips == a.info.clips and b.info.fingerprint == a.info.fingerprint
    # Validation is over the clips of both.
    split = prepare(recipe, tmp_path).splits["validation"]
    right = clip_posteriors(b.student, split).argmax(1) == split.label
    assert b.history[-1]["accuracy"] == pytest.approx(right.mean(), abs=1e-5)
    # The calibration clips are found in the first process' part, and the licence goes along.
    manifest = Engine(export(two, tmp_path / "tones.onnx").model).manifest
    assert manifest.sources == (SOURCE,)
    assert {Path(path).parts[-3] for path in b.info.calibration if path.endswith(".wav")} == {
        "train-000000.tar",
        "train-000002.tar",
    }


def test_teachers_are_asked_of_each_part_by_its_process_and_found_again(
    tone_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sharded(tone_shards, tmp_path / "cache", devices=2, batch=16, epochs=2)
    recipe = dataclasses.replace(
        recipe, augment=dataclasses.replace(recipe.augment, views=2, frequency_mask=0)
    )
    settings = TeacherSettings(kind="cnn2d", width=4)
    teacher = in_processes(
        dataclasses.replace(recipe, teacher=settings), tmp_path / "teacher", "teach"
    )
    # Its evaluation is over the validation clips of both processes.
    found = json.loads((teacher / "evaluation.json").read_text())
    split = prepare(recipe, tmp_path).splits["validation"]
    run = ensemble.load_teacher(teacher)
    right = teacher_posteriors(run.teacher, split).argmax(1) == split.label
    assert found["clips"] == len(split) and found["top1"] == pytest.approx(right.mean())

    taught = dataclasses.replace(
        recipe, distill=DistillSettings(teachers=(str(teacher),), feature_weight=0.1)
    )
    two = in_processes(taught, tmp_path / "two")
    assert losses(two)[-1] < losses(two)[0]
    before = cache_files(taught)
    asked: list[int] = []
    ask = ensemble.answers.__globals__["ask"]

    def counted(teacher, render, clips, *rest):
        asked.append(len(clips))
        return ask(teacher, render, clips, *rest)

    monkeypatch.setattr("earmark.train.teachers.cache.ask", counted)
    alone = dataclasses.replace(taught, train=dataclasses.replace(taught.train, devices=1))
    one = train(alone, tmp_path / "one")
    assert losses(one)[-1] < losses(one)[0]
    # What is in a shard was asked by two; excerpts and background alone are divided anew.
    shard_clips = sum(clip.split == "train" for clip in scan(tone_shards / "*.tar").clips)
    assert 0 < sum(asked) < shard_clips and before < cache_files(alone)
    # Nothing is asked again, and a file that is lost is one block of one process.
    asked.clear()
    lost = next((Path(taught.data.cache) / "teachers").rglob("*.logits.npy"))
    kept = lost.read_bytes()
    lost.unlink()
    train(dataclasses.replace(alone, name="again"), tmp_path / "again")
    assert len(asked) <= 1
    if asked:
        assert lost.read_bytes() == kept
