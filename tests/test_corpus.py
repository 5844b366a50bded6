"""Corpora on disk: splits, checks on load, sources, fingerprint."""

import json
import logging
import os
from collections import Counter
from pathlib import Path

import pytest
from earmark.runtime.errors import EarmarkError
from earmark.runtime.layout import SPLITS, folder_name, hashed_split
from earmark.runtime.manifest import Source
from earmark.train.data.audio_files import find_audio
from earmark.train.data.corpus import scan
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = st.text("abcdef0123456789", min_size=1, max_size=8)
CLIPS = st.sets(st.tuples(st.sampled_from(["yes", "no", "bed"]), NAMES, st.integers(0, 3)))


def make(root: Path, files: list[str]) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def clip_names(clips: set[tuple[str, str, int]]) -> list[str]:
    return sorted(f"{word}/{speaker}_nohash_{n}.wav" for word, speaker, n in clips)


def error_of(*roots: Path) -> str:
    with pytest.raises(EarmarkError) as caught:
        scan(*roots)
    text = str(caught.value)
    assert "\n" not in text
    return text


@settings(max_examples=40, deadline=None)
@given(clips=CLIPS.filter(len), lists=st.booleans(), data=st.data())
def test_no_speaker_and_no_clip_is_in_two_splits(tmp_path_factory, clips, lists, data) -> None:
    root = make(tmp_path_factory.mktemp("corpus"), clip_names(clips))
    wanted: dict[str, str] = {}
    if lists:
        speakers = sorted({speaker for _, speaker, _ in clips})
        wanted = {s: data.draw(st.sampled_from(SPLITS)) for s in speakers}
        for split, name in [("validation", "validation_list.txt"), ("test", "testing_list.txt")]:
            chosen = {clip for clip in clips if wanted[clip[1]] == split}
            (root / name).write_text("\n".join(clip_names(chosen)))
    corpus = scan(root)
    assert [clip.path.relative_to(root).as_posix() for clip in corpus.clips] == clip_names(clips)
    splits: dict[str, set[str]] = {}
    for clip in corpus.clips:
        splits.setdefault(clip.speaker, set()).add(clip.split)
        assert clip.split == (wanted[clip.speaker] if lists else hashed_split(clip.speaker))
    assert all(len(found) == 1 for found in splits.values())


def test_published_speaker_hash() -> None:
    # Speakers of the published lists of Speech Commands v0.02.
    assert hashed_split("0d82fd99") == "validation"
    counts = Counter(hashed_split(str(i)) for i in range(5000))
    assert 0.77 < counts["train"] / 5000 < 0.83
    assert 0.08 < counts["validation"] / 5000 < 0.12


def test_published_lists_agree_with_the_hash(shared: Path) -> None:
    corpus = scan(shared / "data" / "speech-commands")
    assert len(corpus.clips) == 12963
    assert Counter(clip.split for clip in corpus.clips)["validation"] == 1958
    assert all(clip.split == hashed_split(clip.speaker) for clip in corpus.clips)
    assert len(corpus.noise) == 6


def test_one_list_leaves_the_rest_to_training(tmp_path: Path) -> None:
    root = make(tmp_path, [f"yes/{i}_nohash_0.wav" for i in range(50)])
    # The list names the original format; the clips were re-encoded.
    (root / "testing_list.txt").write_text("yes/7_nohash_0.flac\r\n\n")
    splits = {clip.speaker: clip.split for clip in scan(root).clips}
    assert splits.pop("7") == "test"
    assert set(splits.values()) == {"train"}


def test_files_without_a_speaker_are_their_own(tmp_path: Path) -> None:
    root = make(tmp_path, ["yes/ann.wav", "no/ann.wav", "no/bob.take.2.FLAC"])
    assert [c.speaker for c in scan(root).clips] == ["ann", "bob.take.2", "ann"]
    (root / "validation_list.txt").write_text("yes/ann.wav")
    clips = {c.path.relative_to(root).as_posix(): c.split for c in scan(root).clips}
    assert clips["yes/ann.wav"] == "validation"
    assert clips["no/ann.wav"] == "train"


def test_official_test_archive_form(tmp_path: Path) -> None:
    root = make(tmp_path, ["yes/a_nohash_0.wav", "_unknown_/b_nohash_0.wav.wav", "_silence_/0.wav"])
    assert {(c.word, c.speaker) for c in scan(root).clips} == {
        ("yes", "a"),
        ("_unknown_", "b"),
        ("_silence_", "0"),
    }


def test_noise_is_found_below_its_folder_and_is_no_class(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        ["yes/a.wav", "_background_noise_/street/x.ogg", "_background_noise_/README.md"],
    )
    corpus = scan(root)
    assert corpus.words == ("yes",)
    assert corpus.noise == (root / "_background_noise_/street/x.ogg",)


def test_errors_name_the_place_and_the_remedy(tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in error_of(tmp_path / "gone")
    empty = tmp_path / "empty"
    make(empty, ["yes/readme.txt"])
    assert "<word>/" in error_of(empty)
    twice = make(tmp_path / "twice", ["yes/a_nohash_0.wav"])
    for name in ("validation_list.txt", "testing_list.txt"):
        (twice / name).write_text("yes/a_nohash_0.wav\n")
    assert "yes/a_nohash_0 is also in" in error_of(twice)
    torn = make(tmp_path / "torn", ["yes/a_nohash_0.wav", "no/a_nohash_0.wav"])
    (torn / "validation_list.txt").write_text("no/a_nohash_0.wav\n")
    text = error_of(torn)
    assert str(torn / "yes/a_nohash_0.wav") in text and str(torn / "no/a_nohash_0.wav") in text
    assert "given twice" in error_of(torn, tmp_path / "." / "torn")


def test_what_two_roots_reach_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "words", [f"yes/{name}_nohash_0.wav" for name in "abc"])
    (root / "clips.csv").write_text("file,word\nyes/a_nohash_0.wav,yes\n")
    assert "a_nohash_0.wav: is in two of the data folders" in error_of(root, root / "clips.csv")


def test_a_split_does_not_depend_on_how_a_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "words", [f"yes/{number}.wav" for number in range(40)])
    lines = "\n".join(f"yes/{number}.wav,yes" for number in range(40))
    (root / "clips.csv").write_text(f"file,word\n{lines}\n")

    def splits(place: str) -> list[str]:
        return [clip.split for clip in scan(Path(place)).clips]

    before = splits(str(root / "clips.csv"))
    monkeypatch.chdir(root)
    assert splits("clips.csv") == splits("../words/clips.csv") == before
    assert len(set(before)) == 3


def test_tables_have_the_speakers_that_names_tell(tmp_path: Path) -> None:
    names = [f"{word}/{speaker}_nohash_0.wav" for word in ("yes", "no") for speaker in range(20)]
    root = make(tmp_path, names)
    lines = "\n".join(f"{name},{name.partition('/')[0]}" for name in names)
    (root / "clips.csv").write_text(f"file,word\n{lines}\n")
    found = {(clip.speaker, clip.split) for clip in scan(root / "clips.csv").clips}
    assert found == {(clip.speaker, clip.split) for clip in scan(root).clips}
    assert len(found) == 20


def test_names_that_are_no_text_are_split(tmp_path: Path) -> None:
    folder = tmp_path / "yes"
    folder.mkdir()
    for name in (b"b\xe4r_nohash_0.wav", b"b\xe4r_nohash_1.wav"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    assert len({clip.split for clip in scan(tmp_path).clips}) == 1


def test_a_speaker_split_over_two_roots_is_refused(tmp_path: Path) -> None:
    one = make(tmp_path / "one", ["yes/a_nohash_0.wav"])
    two = make(tmp_path / "two", ["yes/a_nohash_1.wav"])
    other = "test" if hashed_split("a") != "test" else "validation"
    name = {"test": "testing_list.txt", "validation": "validation_list.txt"}[other]
    (two / name).write_text("yes/a_nohash_1.wav")
    assert "speaker a" in error_of(one, two)


def test_merged_roots(tmp_path: Path) -> None:
    one = make(tmp_path / "one", ["yes/a.wav", "_background_noise_/n.wav"])
    two = make(tmp_path / "two", ["yes/b.wav", "no/b.wav"])
    source = {"name": "Two", "licence": "CC0"}
    (two / "sources.json").write_text(json.dumps([source]))
    corpus = scan(one, two)
    assert [c.path for c in corpus.clips] == [
        one / "yes/a.wav",
        two / "no/b.wav",
        two / "yes/b.wav",
    ]
    assert corpus.sources == (Source("one", "unknown"), Source("Two", "CC0"))
    assert corpus.fingerprint not in (scan(one).fingerprint, scan(two).fingerprint)


@pytest.mark.parametrize("text", ["{", "[1]", '[{"name": "x"}]', '[{"name": 1, "licence": "y"}]'])
def test_malformed_sources(tmp_path: Path, text: str) -> None:
    root = make(tmp_path, ["yes/a.wav"])
    (root / "sources.json").write_text(text)
    assert "sources.json" in error_of(root)


def test_fingerprint_follows_names_sizes_and_splits_only(tmp_path: Path) -> None:
    files = ["yes/a_nohash_0.wav", "no/b_nohash_0.wav"]
    one, two = make(tmp_path / "one", files), make(tmp_path / "two", files)
    before = scan(one).fingerprint
    assert scan(two).fingerprint == before
    (two / "yes/a_nohash_0.wav").write_bytes(bytes(100))
    assert scan(two).fingerprint != before
    (one / "validation_list.txt").write_text(files[0])
    assert scan(one).fingerprint != before


def test_fingerprint_follows_what_is_said_in_ones_own_few_recordings(tmp_path: Path) -> None:
    words = make(tmp_path / "words", ["yes/a_nohash_0.wav"])
    mine = make(tmp_path / "mine", ["yes/me_nohash_0.wav", "_background_noise_/hum.wav"])
    others, before = scan(words, mine).fingerprint, scan(words, own=[mine]).fingerprint
    for name in ("yes/me_nohash_0.wav", "_background_noise_/hum.wav"):
        size = (mine / name).stat().st_size
        (mine / name).write_bytes(b"x" * size)
        again = scan(words, own=[mine]).fingerprint
        assert again != before
        before = again
    # Of many nobody reads all for it.
    assert scan(words, mine).fingerprint == others


def test_missing_listed_clips_and_stray_files_are_counted(tmp_path: Path, caplog) -> None:
    root = make(tmp_path, ["yes/a.wav", "yes/b.m4a", "_odd_/c.wav"])
    (root / "validation_list.txt").write_text("yes/gone.wav\nyes/lost.wav\n")
    with caplog.at_level(logging.WARNING):
        scan(root)
    assert "listed, but not there (2): yes/gone, yes/lost" in caplog.text
    assert "not audio, left out (2): _odd_/, yes/b.m4a" in caplog.text


def test_require(tmp_path: Path) -> None:
    speakers = [str(i) for i in range(60)]
    root = make(tmp_path, [f"{w}/{s}_nohash_0.wav" for w in ("hey_you", "bed") for s in speakers])
    (root / "empty").mkdir()
    corpus = scan(root)
    corpus.require(["Hey you"])
    for keywords, splits, least, words in [
        (["yes"], ["train"], 1, ["no folder 'yes'", "bed, hey_you"]),
        (["empty"], ["train"], 1, [str(root / "empty"), "no audio"]),
        (["hey you"], ["validation"], 50, ["'hey you'", "at least 50", "by more speakers"]),
        (["hey you", "bed"], ["train"], 1, ["add folders of other words", "data.speech"]),
    ]:
        with pytest.raises(EarmarkError) as caught:
            corpus.require(keywords, splits, least)
        assert all(word in str(caught.value) for word in words), caught.value


def test_folder_names() -> None:
    assert folder_name("Hey  Computer!") == "hey_computer"
    assert folder_name("../etc/passwd") == "etc_passwd"
    assert folder_name("_unknown_") == "_unknown_"
    assert folder_name("don't") == "don't"
    assert folder_name("Größe") == "größe"


@settings(deadline=None)
@given(st.text(max_size=30))
def test_folder_names_are_safe_and_stable(text: str) -> None:
    name = folder_name(text)
    assert folder_name(name) == name
    assert not set(name) & set('/\\:*?"<>|. \0')


def test_find_audio_skips_what_is_hidden(tmp_path: Path) -> None:
    make(tmp_path, ["b/x.wav", "a.opus", ".c/y.wav", "b/.z.wav", "b/notes.txt"])
    assert find_audio(tmp_path) == (tmp_path / "a.opus", tmp_path / "b/x.wav")
    with pytest.raises(EarmarkError, match="gone"):
        find_audio(tmp_path / "gone")
