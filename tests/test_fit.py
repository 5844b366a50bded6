"""Training on a corpus of tones: it learns, repeats itself, and survives being killed."""

import dataclasses
import json
import os
import pickle
import resource
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
from command import EARMARK
from earmark.runtime.errors import EarmarkError
from earmark.train.checkpoints import AtomicCheckpointIO, epochs_done
from earmark.train.data.clips import Clips
from earmark.train.data.epoch import epoch_batches
from earmark.train.fit import train
from earmark.train.recipe import Recipe, recipe_toml
from earmark.train.run import load_run, read_history
from earmark.train.teach import teach
from earmark.train.teachers.run import load_teacher
from earmark.train.teachers.settings import TeacherSettings
from tiny_corpus import tiny_recipe, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def with_cache(recipe: Recipe, folder: Path) -> Recipe:
    return dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, cache=str(folder / "cache"))
    )


@pytest.fixture(scope="module")
def recipe(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    learns = tiny_recipe(corpus, optimizer="muon", learning_rate=0.01)
    return with_cache(learns, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def run_dir(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe, tmp_path_factory.mktemp("runs") / "tones", "earmark train x")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_run(run).student.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_that_learned_from_what_is_held_out_here_is_no_start(
    corpus: Path, tmp_path: Path
) -> None:
    """All of data.own trains, so that it can hold nothing out where it is one of data.roots."""
    mine = write_corpus(tmp_path / "mine", 20)
    for file in mine.glob("*/*_nohash_*"):
        file.rename(file.with_name(f"m{file.name}"))
    few = tiny_recipe(corpus, epochs=1)
    own = dataclasses.replace(few, data=dataclasses.replace(few.data, own=(str(mine),)))
    first = train(own, tmp_path / "first")
    other = dataclasses.replace(
        few,
        data=dataclasses.replace(few.data, roots=(str(corpus), str(mine))),
        train=dataclasses.replace(few.train, init=str(first)),
    )
    with pytest.raises(EarmarkError, match=r"first: learned from all of .*mine, its data\.own"):
        train(other, tmp_path / "second")
    from_first = dataclasses.replace(few, train=dataclasses.replace(few.train, init=str(first)))
    second = train(from_first, tmp_path / "second")
    from_second = dataclasses.replace(other.train, init=str(second))
    with pytest.raises(EarmarkError, match=r"second: learned from all of .*mine, its data\.own"):
        train(dataclasses.replace(other, train=from_second), tmp_path / "third")


def test_a_run_of_earlier_code_says_what_its_first_weights_had_learned_from(
    run_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    told = json.loads(file.read_text())
    del told["learned_folders"]
    file.write_text(json.dumps(told | {"init_folders": {"own": ["mine"]}}))
    assert load_run(tmp_path / "run").info.learned_folders == {"own": ("mine",)}


def test_all_steps_may_warm_up(corpus: Path, tmp_path: Path) -> None:
    train(tiny_recipe(corpus, epochs=1, warmup=1.0), tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"fields train\.accelerator and train\.devices: not on"):
        train(tiny_recipe(corpus, accelerator="gpu"), tmp_path / "run")


def test_half_precision_of_a_gpu_is_not_taken_for_that_of_a_cpu(
    corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(EarmarkError, match=r"field train\.precision: 16-mixed is for a GPU"):
        train(tiny_recipe(corpus, precision="16-mixed"), tmp_path / "run")


def test_the_run_directory_is_complete_and_the_loss_falls(run_dir: Path, recipe: Recipe) -> None:
    run = load_run(run_dir)
    assert run.recipe == recipe
    assert run.info.labels == ("low", "high", "_unknown_", "_silence_")
    assert run.info.clips["train"]["low"] == 30 and run.info.clips["validation"]["low"] == 10
    assert run.info.command == "earmark train x"
    assert run.info.calibration and "torch" in run.info.versions
    assert set(run.info.baselines) == {"knn_mean_variance", "knn_four_moments"}
    history = run.history
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert set(history[-1]) == {"epoch", "loss", "accuracy", "balanced_accuracy"}
    assert list(run_dir.glob("events.out.*"))


def test_same_seed_same_weights_other_seed_other_weights(
    run_dir: Path, recipe: Recipe, tmp_path: Path
) -> None:
    again = train(recipe, tmp_path / "again")
    assert same(weights(run_dir), weights(again))
    # The model names its checkpoint by a hash of the file.
    assert load_run(run_dir).weights_sha256 == load_run(again).weights_sha256
    other = train(dataclasses.replace(recipe, seed=1), tmp_path / "other")
    assert not same(weights(run_dir), weights(other))


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    run_dir: Path, recipe: Recipe, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(recipe))
    target = tmp_path / "killed"
    process = subprocess.Popen([*EARMARK, "train", str(file), "-o", str(target)])
    deadline = time.monotonic() + 120
    while len(read_history(target)) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (target / "student.pt").exists()
    train(recipe, target)
    assert same(weights(run_dir), weights(target))
    assert [line["epoch"] for line in read_history(target)] == [1, 2, 3, 4]
    assert read_history(target) == read_history(run_dir)


def test_ctrl_c_is_one_line_and_leaves_a_run_to_resume(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(recipe))
    target = tmp_path / "interrupted"
    process = subprocess.Popen(
        [*EARMARK, "train", str(file), "-o", str(target), "--set", "train.epochs=10000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not read_history(target) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors and errors.strip().endswith("interrupted")
    with pytest.raises(EarmarkError, match="training is not complete"):
        load_run(target)


def test_two_processes_train_together(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    two = dataclasses.replace(recipe.train, devices=2, epochs=2, batch=16)
    file.write_text(recipe_toml(dataclasses.replace(recipe, train=two)))
    target = tmp_path / "two"
    done = subprocess.run(
        [*EARMARK, "train", str(file), "-o", str(target)],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"MASTER_ADDR": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    history = load_run(target).history
    assert [line["epoch"] for line in history] == [1, 2]
    assert history[1]["loss"] < history[0]["loss"]


def test_a_complete_run_is_left_alone(run_dir: Path, recipe: Recipe) -> None:
    before = (run_dir / "student.pt").stat().st_mtime_ns
    train(recipe, run_dir)
    assert (run_dir / "student.pt").stat().st_mtime_ns == before


def test_another_recipe_or_other_data_is_refused(
    run_dir: Path, recipe: Recipe, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(EarmarkError, match="holds a run of another recipe"):
        train(dataclasses.replace(recipe, seed=5), run_dir)
    info = json.loads((run_dir / "run.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "recipe.toml").write_text((run_dir / "recipe.toml").read_text())
    (copy / "run.json").write_text(json.dumps(info | {"fingerprint": "other"}))
    with pytest.raises(EarmarkError, match="its data has changed"):
        train(recipe, copy)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("student.pt", b"garbage", "student.pt: is damaged, or not the weights"),
        pytest.param(
            *("student.pt", pickle.dumps(Path("x"), 2), r"student.pt: is damaged, [\w\s:]+ again$"),
            id="pickle",
        ),
        ("run.json", b"{", "run.json: not JSON"),
        ("run.json", b"{}", "run.json: field labels"),
    ],
)
def test_damaged_runs_are_named(
    run_dir: Path, tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    for file in ("recipe.toml", "run.json", "student.pt"):
        (tmp_path / file).write_bytes((run_dir / file).read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EarmarkError, match=expected):
        load_run(tmp_path)


def test_metrics_cut_by_a_full_disk_are_read_up_to_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2, "lo')
    assert read_history(tmp_path) == [{"epoch": 1}]


def test_no_run_and_no_noise_are_errors(tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="not a run directory"):
        load_run(tmp_path)
    corpus = write_corpus(tmp_path / "corpus")
    for file in (corpus / "_background_noise_").iterdir():
        file.unlink()
    with pytest.raises(EarmarkError, match="noise"):
        train(with_cache(tiny_recipe(corpus), tmp_path), tmp_path / "run")


def test_noise_shorter_than_a_clip_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    for file in (corpus / "_background_noise_").iterdir():
        soundfile.write(file, 0.1 * np.ones(1000), 16000)
    with pytest.raises(EarmarkError, match="no background noise of more than a clip's length"):
        train(with_cache(tiny_recipe(corpus), tmp_path), tmp_path / "run")


def test_a_class_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    for file in (corpus / "low").iterdir():
        file.write_bytes(b"no audio")
    with pytest.raises(EarmarkError, match="0 readable clips of 'low' in the train split"):
        train(with_cache(tiny_recipe(corpus), tmp_path), tmp_path / "run")


def test_a_damaged_checkpoint_is_named(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"half a file")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(EarmarkError, match=r"last\.ckpt: is damaged: remove it"):
        train(recipe, tmp_path / "run")


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    saver = AtomicCheckpointIO()
    saver.save_checkpoint({"epoch": 4}, target)
    assert epochs_done(target) == 5
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(EarmarkError, match=r"last\.ckpt: cannot be written"):
            saver.save_checkpoint({"epoch": 5, "weights": torch.zeros(10_000)}, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert epochs_done(target) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_epoch_balances_keywords_and_follows_from_its_number(
    recipe: Recipe, corpus: Path
) -> None:
    from earmark.train.data.corpus import scan
    from earmark.train.data.dataset import label_set, load_split

    split = load_split(scan(corpus), label_set(recipe.keywords), "train")
    clips = Clips(split, 3, split.pcm[:0])
    batches = epoch_batches(clips, recipe, 3, 1, unknown=2)
    assert batches == epoch_batches(clips, recipe, 3, 1, unknown=2)
    assert batches != epoch_batches(clips, recipe, 4, 1, unknown=2)
    rows = [row for batch in batches for row, _ in batch]
    labels = [3 if row < 0 else int(split.label[row]) for row in rows]
    # The last, partial batch is left out, so the counts are near the shares and not at them.
    assert abs(labels.count(0) - labels.count(1)) <= 8
    assert abs(labels.count(2) / len(labels) - recipe.data.unknown) < 0.1
    assert abs(labels.count(3) / len(labels) - recipe.data.silence) < 0.06
    assert len(epoch_batches(clips, recipe, 0, 2, unknown=2)) % 2 == 0


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe of one epoch of eight small steps."""
    folder = tmp_path_factory.mktemp("short")
    few = tiny_recipe(write_corpus(folder / "corpus", 8), epochs=1, steps_per_epoch=8, batch=8)
    return with_cache(few, folder)


def learned(learner: str, recipe: Recipe, path: Path) -> dict[str, torch.Tensor]:
    """The weights of a student or a teacher of the recipe."""
    if learner == "student":
        return weights(train(recipe, path))
    of_teacher = dataclasses.replace(recipe, teacher=TeacherSettings(kind="cnn2d", width=4))
    return load_teacher(teach(of_teacher, path)).teacher.state_dict()


@pytest.fixture(scope="module")
def before(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each learns by the recipe as it is."""
    folder = tmp_path_factory.mktemp("before")
    return {name: learned(name, short, folder / name) for name in ("student", "teacher")}


@pytest.mark.parametrize("learner", ["student", "teacher"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train.label_smoothing", 0.3),
        ("train.warmup", 0.9),
        ("train.weight_decay", 2.0),
        ("train.optimizer", "sgd"),
        ("augment.cut", 1.0),
        ("augment.noise", 0.0),
        ("augment.gain", (0.0, 0.0)),
        ("augment.time_masks", 0),
        ("augment.mixup", 0.5),
    ],
)
def test_each_setting_changes_what_is_learned(
    short: Recipe, before: dict[str, Any], tmp_path: Path, learner: str, field: str, value: Any
) -> None:
    section, name = field.split(".")
    changed = dataclasses.replace(getattr(short, section), **{name: value})
    after = learned(learner, dataclasses.replace(short, **{section: changed}), tmp_path / "run")
    assert not same(before[learner], after)


def test_what_no_step_depends_on_changes_nothing_that_is_learned(
    short: Recipe, before: dict[str, Any], tmp_path: Path
) -> None:
    named = dataclasses.replace(short, name="other")
    for learner, expected in before.items():
        assert same(expected, learned(learner, named, tmp_path / learner))
