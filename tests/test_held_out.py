"""What a measurement takes for held out follows from what training held out, and from nothing
else."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.export.held_out import Trained, check_folders, measured_corpus
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Source
from earmark.train.data.corpus import scan

SOUNDS = Source("Sounds", "CC0-1.0")


def sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(10), 16000)


def named(folder: Path) -> None:
    (folder / "sources.json").write_text('[{"name": "Sounds", "licence": "CC0-1.0"}]')


def held_out(roots: list[Path], trained: Trained) -> set[str]:
    clips = measured_corpus(roots, [trained]).clips
    return {clip.path.name for clip in clips if clip.split == "validation"}


def test_a_fold_is_held_out_whatever_lies_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folds, other = tmp_path / "folds", tmp_path / "other"
    for number in range(12):
        sound(folds / "low" / f"{number % 4 + 1}-{number}.wav")
        sound(other / "low" / f"s{number}_nohash_0.wav")
    trained = Trained.of("model", {"data": {"folds": r"(\d)-", "fold": 2}}, ())
    fold = {"2-1.wav", "2-5.wav", "2-9.wav"}
    assert held_out([folds], trained) == fold
    others = {clip.path.name for clip in scan(other).clips if clip.split == "validation"}
    assert held_out([folds, other], trained) == fold | others
    # Nobody knows whether training had what was added.
    sound(folds / "low" / "new.wav")
    assert held_out([folds, other], trained) == fold | others
    assert "1 clips beside those of fold 2 are in none" in caplog.text


def test_a_table_of_clips_without_speakers_is_refused_under_another_name(tmp_path: Path) -> None:
    table = tmp_path / "sounds" / "clips.csv"
    rows = ["filename,category"]
    for number in range(60):
        sound(table.parent / f"{number}.wav")
        rows.append(f"{number}.wav,{'ab'[number % 2]}")
    table.write_text("\n".join(rows) + "\n")
    named(table.parent)
    trained = Trained.of("model", {"data": {"roots": ["sounds/clips.csv"]}}, [SOUNDS])
    assert held_out([table], trained)
    shutil.move(table.parent, tmp_path / "renamed")
    with pytest.raises(EarmarkError, match=r"model was trained on Sounds as sounds/clips\.csv"):
        measured_corpus([tmp_path / "renamed" / "clips.csv"], [trained])


def test_a_folder_that_may_have_been_trained_on_whole_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound(tmp_path / "me" / "low" / "ann_nohash_0.wav")
    named(tmp_path / "me")
    trained = Trained.of("model", {"data": {"roots": ["words"], "own": ["mine"]}}, [SOUNDS])
    measured_corpus([tmp_path / "me"], [trained])
    assert "if this folder was mine, all of it was trained on" in caplog.text


def test_one_own_table_is_not_another(tmp_path: Path) -> None:
    for name in ("mine", "public"):
        for number in range(40):
            sound(tmp_path / name / f"s{number}_nohash_0.wav")
        rows = "".join(f"s{number}_nohash_0.wav,a\n" for number in range(40))
        (tmp_path / name / "clips.csv").write_text("filename,category\n" + rows)
    trained = Trained.of("model", {"data": {"own": ["data/mine/clips.csv"]}}, ())
    assert not held_out([tmp_path / "mine" / "clips.csv"], trained)
    assert held_out([tmp_path / "public" / "clips.csv"], trained)


@pytest.mark.parametrize(("field", "option"), [("noise", "--speech"), ("speech", "--noise")])
def test_noise_and_free_speech_are_divided_in_other_ways(
    tmp_path: Path, field: str, option: str
) -> None:
    sound(tmp_path / "rooms" / "a.wav")
    named(tmp_path / "rooms")
    trained = Trained.of("model", {"data": {field: ["data/rooms"]}}, [SOUNDS])
    check_folders([trained], f"--{field}", [str(tmp_path / "rooms")])
    with pytest.raises(EarmarkError, match="as the other of noise and free speech"):
        check_folders([trained], option, [str(tmp_path / "rooms")])
