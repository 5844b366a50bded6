"""Names, numbers and splits of recorded clips, read back by the corpus scanner."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earmark.runtime import EarmarkError, read_audio
from earmark.runtime.clips import noise_place, save, speaker_name, word_place
from earmark.runtime.layout import hashed_split
from earmark.train.data.corpus import scan
from hypothesis import given, settings
from hypothesis import strategies as st

PCM = np.arange(-800, 800, dtype=np.int16)


def splits(root: Path) -> dict[str, str]:
    return {f"{c.word}/{c.path.name}": c.split for c in scan(root).clips}


def test_a_clip_is_what_was_saved(tmp_path: Path) -> None:
    path = save(word_place(tmp_path, "Hey Robot", "me"), PCM, 16000)
    assert path == tmp_path / "hey_robot" / "me_nohash_0.wav"
    assert (read_audio(path) * 32768).tolist() == PCM.tolist()


def test_one_voice_trains_whatever_its_name_and_validates_apart(tmp_path: Path) -> None:
    held_out = next(n for n in map(str, range(100)) if hashed_split(n) == "test")
    for split in ("train", None, "validation", "validation", "test"):
        save(word_place(tmp_path, "go", held_out, split), PCM, 16000)
    assert splits(tmp_path) == {
        f"go/{held_out}_nohash_0.wav": "train",
        f"go/{held_out}_nohash_1.wav": "train",
        f"go/{held_out}-validation_nohash_0.wav": "validation",
        f"go/{held_out}-validation_nohash_1.wav": "validation",
        f"go/{held_out}-test_nohash_0.wav": "test",
    }


def test_a_folder_divided_by_names_stays_so(tmp_path: Path) -> None:
    by_split = {hashed_split(str(n)): str(n) for n in range(100)}
    (tmp_path / "go").mkdir()
    for split, name in by_split.items():
        for wish in (None, split):
            save(word_place(tmp_path, "go", name, wish), PCM, 16000)
        other = next(s for s in by_split if s != split)
        with pytest.raises(EarmarkError, match=f"{name} is for {split}"):
            word_place(tmp_path, "go", name, other)
    assert {Path(c).stem.partition("_")[0]: s for c, s in splits(tmp_path).items()} == {
        name: split for split, name in by_split.items()
    }
    assert not list(tmp_path.glob("*.txt"))


def test_a_folder_with_one_list_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "testing_list.txt").write_text("go/ann_nohash_0.wav\n")
    (tmp_path / "go").mkdir()
    (tmp_path / "go" / "ann_nohash_0.wav").touch()
    save(word_place(tmp_path, "go", "bob"), PCM, 16000)
    save(word_place(tmp_path, "go", "bob", "test"), PCM, 16000)
    assert splits(tmp_path) == {
        "go/ann_nohash_0.wav": "test",
        "go/bob_nohash_0.wav": "train",
        "go/bob-test_nohash_0.wav": "test",
    }


def test_numbers_go_on_after_the_highest_in_any_format(tmp_path: Path) -> None:
    place = word_place(tmp_path, "go", "me")
    place.folder.mkdir()
    for name in ("me_nohash_3.flac", "me_nohash_11.wav", "me_nohash_x.wav", "meme_nohash_20.wav"):
        (place.folder / name).touch()
    assert place.numbers() == [3, 11]
    assert save(place, PCM, 16000).name == "me_nohash_12.wav"


def test_nothing_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = word_place(tmp_path, "go", "me")
    first = save(place, PCM, 16000)
    monkeypatch.setattr(type(place), "numbers", lambda self: [])
    with pytest.raises(EarmarkError, match=r"me_nohash_0.wav: cannot be written .File exists"):
        save(place, PCM[:10], 16000)
    assert len(read_audio(first)) == len(PCM)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "go").write_text("in the way")
    place = word_place(tmp_path, "go", "me", "validation")
    with pytest.raises(EarmarkError, match=r"me-validation_nohash_0\.wav: cannot be written"):
        save(place, PCM, 16000)


class Full(io.BytesIO):
    """A file on a disk that has room for a part of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def write(self, data: Any, /) -> int:
        self._path.write_bytes(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_clip_that_cannot_be_written_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = word_place(tmp_path, "go", "me")
    with monkeypatch.context() as patch:
        opened = Path.open
        patch.setattr(
            Path,
            "open",
            lambda path, mode="r", **more: (
                Full(path) if mode == "xb" else opened(path, mode, **more)
            ),
        )
        with pytest.raises(EarmarkError, match=r"me_nohash_0\.wav: cannot be written \(No space"):
            save(place, PCM, 16000)
    assert list(place.folder.iterdir()) == [] and place.numbers() == []


def test_noise_is_found_as_noise(tmp_path: Path) -> None:
    save(word_place(tmp_path, "go", "me"), PCM, 16000)
    path = save(noise_place(tmp_path, "me"), PCM, 16000)
    assert scan(tmp_path).noise == (path,)


@settings(max_examples=50)
@given(st.text(max_size=45) | st.from_regex(r"[\w-]{1,45}", fullmatch=True))
def test_a_speaker_is_refused_or_found_again(name: str) -> None:
    try:
        speaker_name(name)
    except EarmarkError as error:
        assert "\n" not in str(error)
    else:
        path = Path("go") / f"{name}_nohash_7.wav"
        assert path.parts == ("go", f"{name}_nohash_7.wav")
        assert path.stem.partition("_nohash_")[0] == name
        assert not name.startswith(".")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a b", "-a", "_a", "x" * 41, "a:b"])
def test_speakers_that_are_no_file_name(tmp_path: Path, name: str) -> None:
    for refuses in (
        lambda: speaker_name(name),
        lambda: word_place(tmp_path, "go", name),
        lambda: noise_place(tmp_path, name),
    ):
        with pytest.raises(EarmarkError, match="--speaker"):
            refuses()


@pytest.mark.parametrize("word", ["", "!", "_silence_", "_background_noise_", "../"])
def test_words_that_are_none(tmp_path: Path, word: str) -> None:
    with pytest.raises(EarmarkError, match="is no word to record"):
        word_place(tmp_path, word, "me")
