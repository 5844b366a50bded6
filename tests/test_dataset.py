"""Splits as arrays: classes, padding, silence, bad files, the cache."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.runtime.errors import EarmarkError
from earmark.runtime.layout import SPLITS, hashed_split
from earmark.train.data import decoded
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import label_set, load_split
from earmark.train.data.decoded import fit
from earmark.train.data.stretches import noise_pool, recording_origin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

RATE = 16000
LABELS = label_set(["yes", "no"])


def speakers(split: str, count: int) -> list[str]:
    return [s for s in map(str, range(100 * count)) if hashed_split(s) == split][:count]


def write(path: Path, pcm, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, pcm, rate)


def tone(number: int, samples: int = RATE) -> np.ndarray:
    """A clip that can be told from others by its samples."""
    return np.full(samples, 100 + number, np.int16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two keywords, two other words, 20 speakers to train and 5 in each other split."""
    folder = tmp_path / "words"
    number = 0
    for split, count in [("train", 20), ("validation", 5), ("test", 5)]:
        for speaker in speakers(split, count):
            for word in ("yes", "no", "bed", "cat"):
                number += 1
                write(folder / word / f"{speaker}_nohash_0.wav", tone(number))
    return folder


def add_noise(root: Path, seconds: float = 30, name: str = "a") -> np.ndarray:
    """A recording whose every sample names its place, in units of 10 ms."""
    ramp = np.repeat(np.arange(1, 1 + round(seconds * 100), dtype=np.int16), RATE // 100)
    write(root / "_background_noise_" / f"{name}.wav", ramp)
    return ramp


def test_classes_words_and_order(root: Path) -> None:
    split = load_split(scan(root), LABELS, "validation")
    assert split.labels == ("yes", "no", "_unknown_", "_silence_")
    assert split.pcm.dtype == np.int16 and split.label.dtype == np.int64
    assert split.pcm.shape == (len(split), RATE)
    assert np.bincount(split.label).tolist() == [5, 5, 10, 1]
    for row, label, word, path in zip(split.pcm, split.label, split.word, split.path, strict=True):
        if word == "_silence_":
            assert label == 3
            continue
        assert label == {"yes": 0, "no": 1}.get(word, 2)
        assert Path(path).parent.name == word
        assert row[0] == soundfile.read(path, dtype="int16")[0][0]
    assert set(split.speaker[split.label < 3]) == set(speakers("validation", 5))


def test_the_splits_are_disjoint_and_all_is_their_union(root: Path) -> None:
    corpus = scan(root)
    paths = {s: set(load_split(corpus, LABELS, s).path) - {"digital silence"} for s in SPLITS}
    assert sum(map(len, paths.values())) == 120 == len(set().union(*paths.values()))
    everything = load_split(corpus, LABELS, "all")
    assert set(everything.path) - {"digital silence"} == set().union(*paths.values())


def test_phrases_and_case_map_to_their_class_folder(tmp_path: Path) -> None:
    write(tmp_path / "Hey_You" / "a.wav", tone(1))
    write(tmp_path / "bed" / "a.wav", tone(2))
    split = load_split(scan(tmp_path), label_set(["hey you"]), "all")
    assert split.label.tolist() == [0, 1]


def test_official_test_archive_gets_no_excerpts(root: Path) -> None:
    add_noise(root)
    write(root / "_silence_" / "0.wav", tone(7))
    write(root / "_unknown_" / "x_nohash_0.wav", tone(8))
    split = load_split(scan(root), LABELS, "all")
    assert np.bincount(split.label).tolist() == [30, 30, 61, 1]
    assert not any("#" in path for path in split.path)


@settings(deadline=None)
@given(arrays(np.int16, st.integers(1, 400)), st.integers(1, 400))
def test_fit_pads_on_both_sides_or_cuts(pcm: np.ndarray, samples: int) -> None:
    row = fit(pcm, samples)
    assert row.shape == (samples,) and row.dtype == np.int16
    missing = samples - len(pcm)
    if missing >= 0:
        left = missing // 2
        assert np.array_equal(row[left : left + len(pcm)], pcm)
        assert not row[:left].any() and not row[left + len(pcm) :].any()
    else:
        windows = np.lib.stride_tricks.sliding_window_view(pcm, samples)
        assert (windows == row).all(axis=1).any()


@settings(deadline=None)
@given(st.integers(0, 2 * RATE), st.integers(RATE // 10, RATE // 2))
def test_fit_centres_a_word_in_a_long_clip(start: int, length: int) -> None:
    pcm = np.zeros(3 * RATE, np.int16)
    pcm[start : start + length] = 1000
    row = fit(pcm, RATE)
    assert np.count_nonzero(row) >= 0.99 * np.count_nonzero(pcm)
    if RATE < start < 2 * RATE - length:
        assert abs(np.flatnonzero(row).mean() - RATE / 2) < RATE / 50


def test_bad_files_are_reported_skipped_and_counted(root: Path, caplog) -> None:
    (root / "yes" / "text_nohash_0.wav").write_text("no audio")
    (root / "yes" / "zero_nohash_0.wav").write_bytes(b"")
    write(root / "yes" / "empty_nohash_0.wav", np.zeros(0, np.int16))
    nan = np.zeros(RATE, np.float32)
    nan[5] = np.nan
    soundfile.write(root / "no" / "nan_nohash_0.wav", nan, RATE, subtype="FLOAT")
    (root / "no" / "dangling_nohash_0.wav").symlink_to(root / "gone")
    write(root / "yes" / "loud_nohash_0.wav", np.tile([32767, -32768], RATE).astype(np.int16))
    with caplog.at_level(logging.WARNING):
        split = load_split(scan(root), LABELS, "all")
    assert split.skipped == 5
    assert np.bincount(split.label)[:3].tolist() == [31, 30, 60]
    for name in ("text", "zero", "empty", "nan", "dangling"):
        assert f"{name}_nohash_0.wav" in caplog.text
    assert "files that could not be read, skipped: 5" in caplog.text
    assert "clipped, used all the same (1;" in caplog.text


def test_other_rates_and_channels(tmp_path: Path) -> None:
    left = np.sin(np.arange(44100) / 44100 * 2 * np.pi * 440)
    write(tmp_path / "yes" / "a.flac", 0.5 * np.stack([left, np.zeros(44100)], 1), 44100)
    row = load_split(scan(tmp_path), LABELS, "all").pcm[0]
    spectrum = np.abs(np.fft.rfft(row))
    assert spectrum.argmax() == 440
    assert abs(np.abs(row).max() / 32768 - 0.25) < 0.01


def test_errors(root: Path, tmp_path: Path) -> None:
    corpus = scan(root)
    for call, words in [
        (lambda: load_split(corpus, LABELS, "dev"), "split 'dev'"),
        (lambda: load_split(corpus, LABELS, "train", 0), "clip length"),
        (lambda: noise_pool(corpus, "train", [tmp_path / "gone"]), "gone"),
        (lambda: noise_pool(corpus, "dev"), "split 'dev'"),
    ]:
        with pytest.raises(EarmarkError, match=words):
            call()
    write(tmp_path / "one" / "yes" / f"{speakers('test', 1)[0]}_nohash_0.wav", tone(1))
    with pytest.raises(EarmarkError, match="no clip in the train split"):
        load_split(scan(tmp_path / "one"), LABELS, "train")
    (tmp_path / "void").mkdir()
    with pytest.raises(EarmarkError, match="no audio files"):
        noise_pool(corpus, "train", [tmp_path / "void"])


@pytest.mark.parametrize(
    "keywords", [[], [""], ["?"], ["_x"], ["go", "Go"], ["hey you", "hey_you"]]
)
def test_keywords_that_make_no_label_set(keywords: list[str]) -> None:
    with pytest.raises(EarmarkError, match="keyword"):
        label_set(keywords)


def test_silence_excerpts_of_two_splits_never_overlap(root: Path) -> None:
    """Every sample of the recording names its place, so an excerpt tells where it is from."""
    add_noise(root, 30)
    corpus = scan(root)
    bounds = {}
    for split, (low, high) in {
        "train": (0, 24),
        "validation": (24, 27),
        "test": (27, 30),
    }.items():
        pool = noise_pool(corpus, split)
        assert [len(pcm) for pcm in pool] == [(high - low) * RATE]
        bounds[split] = (pool[0][0], pool[0][-1])
        loaded = load_split(corpus, LABELS, split)
        for path, label in zip(loaded.path, loaded.label, strict=True):
            if label == 3 and "#t=" in path:
                start = float(path.partition("#t=")[2])
                assert low <= start and start + 1 <= high
    assert bounds == {"train": (1, 2400), "validation": (2401, 2700), "test": (2701, 3000)}
    assert len(noise_pool(corpus, "all")[0]) == 30 * RATE


def test_silence_is_deterministic_in_number_gain_and_place(root: Path) -> None:
    ramp = add_noise(root, 30)
    corpus = scan(root)
    for number in range(300):
        write(root / "yes" / f"{speakers('train', 1)[0]}_nohash_{number}.wav", tone(1, 160))
    split = load_split(scan(root), LABELS, "train", 0.5)
    again = load_split(scan(root), LABELS, "train", 0.5)
    assert np.array_equal(split.pcm, again.pcm) and np.array_equal(split.path, again.path)
    rows = np.flatnonzero(split.label == 3)
    assert len(rows) == round(0.1 * np.count_nonzero(split.label < 2)) == 34
    digital = [row for row in rows if not split.pcm[row].any()]
    assert len(digital) == 3 and set(split.path[digital]) == {"digital silence"}
    gains = []
    for row in sorted(set(rows) - set(digital)):
        start = round(float(split.path[row].partition("#t=")[2]) * RATE)
        original = ramp[start : start + RATE // 2].astype(float)
        gain = split.pcm[row] @ original / (original @ original)
        # The place is given to a millisecond, within which the ramp climbs by one at most.
        assert np.abs(split.pcm[row] - gain * original).max() <= 2
        gains.append(20 * np.log10(gain))
    assert -30.1 < min(gains) < -20 and -10 < max(gains) <= 0.1
    assert len(set(split.path[rows])) == 32
    assert len(noise_pool(corpus, "train")) == 1


def test_short_noise_goes_whole_to_one_split(root: Path, tmp_path: Path) -> None:
    for i in range(60):
        write(tmp_path / "extra" / "rain" / f"{i}.wav", tone(i, 5 * RATE))
    corpus = scan(root)
    pools = {s: [int(p[0]) for p in noise_pool(corpus, s, [tmp_path / "extra"])] for s in SPLITS}
    assert sorted(first for pool in pools.values() for first in pool) == list(range(100, 160))
    assert len(pools["train"]) > 38 and pools["validation"] and pools["test"]
    with_extra = load_split(corpus, LABELS, "train", noise_roots=[tmp_path / "extra"])
    assert any("rain" in path for path in with_extra.path)


def test_one_reader_or_source_of_many_recordings_counts_once(root: Path, tmp_path: Path) -> None:
    for reader in range(40):
        for number in range(3):
            name = f"{reader}/7/{reader}-7-{number:04d}.flac"
            write(tmp_path / "read" / name, tone(reader, 2 * RATE))
            write(tmp_path / "takes" / f"1-{reader}-{'ABC'[number]}-0.wav", tone(reader, 2 * RATE))
    split = load_split(
        scan(root),
        LABELS,
        "train",
        noise_roots=[tmp_path / "takes"],
        speech_roots=[tmp_path / "read"],
    )
    for word in ("_speech_", "_silence_"):
        rows = np.flatnonzero((split.word == word) & (split.path != "digital silence"))
        assert len(rows) > 3
        parts = [Path(path.partition("#")[0]).stem.split("-") for path in split.path[rows]]
        origins = {
            f"{word}/{first if word == '_speech_' else f'{first}-{second}'}"
            for first, second, *_ in parts
        }
        assert set(split.speaker[rows]) == origins


def test_without_noise_silence_is_digital_and_said(root: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        split = load_split(scan(root), LABELS, "train")
    assert not split.pcm[split.label == 3].any()
    assert "no noise recordings for the train split" in caplog.text


def test_cache_gives_the_same_and_notices_changes(root: Path, tmp_path: Path, monkeypatch) -> None:
    add_noise(root)
    (root / "yes" / "bad_nohash_0.wav").write_text("no audio")
    cache = tmp_path / "cache"
    fresh = load_split(scan(root), LABELS, "all")
    load_split(scan(root), LABELS, "all", cache_dir=cache)

    real = decoded.read_recording

    def no_decoding(recording: Path, rate: int) -> np.ndarray:
        assert recording.name == "bad_nohash_0.wav", "decoded again"
        return real(recording, rate)

    with monkeypatch.context() as patch:
        patch.setattr("earmark.train.data.decoded.read_recording", no_decoding)
        cached = load_split(scan(root), LABELS, "all", cache_dir=cache)
    assert np.array_equal(cached.pcm, fresh.pcm)
    assert np.array_equal(cached.path, fresh.path)
    assert cached.skipped == fresh.skipped == 1
    # The same length as before, so only its time tells that the file is another.
    changed = root / "yes" / f"{speakers('train', 1)[0]}_nohash_0.wav"
    write(changed, tone(9000))
    os.utime(changed, ns=(1, 1))
    after = load_split(scan(root), LABELS, "all", cache_dir=cache)
    assert after.pcm[after.path == str(changed)][0, 0] == 9100


def test_what_could_not_be_read_is_tried_again(
    root: Path, tmp_path: Path, monkeypatch, caplog
) -> None:
    add_noise(root)
    fresh, cache = load_split(scan(root), LABELS, "train"), tmp_path / "cache"
    first = str(fresh.path[0])
    real = decoded.read_recording

    def failing(recording: Path, rate: int) -> np.ndarray:
        if str(recording) == first:
            raise EarmarkError(f"{recording}: cannot be read (Input/output error)")
        return real(recording, rate)

    with monkeypatch.context() as patch:
        patch.setattr("earmark.train.data.decoded.read_recording", failing)
        for _ in range(2):
            caplog.clear()
            assert load_split(scan(root), LABELS, "train", cache_dir=cache).skipped == 1
            # Said again, though nothing else is decoded again.
            assert f"skipped {first}" in caplog.text
    healed = load_split(scan(root), LABELS, "train", cache_dir=cache)
    assert healed.skipped == 0 and np.array_equal(healed.pcm, fresh.pcm)


def test_an_interrupted_run_leaves_no_cache(root: Path, tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("earmark.train.data.decoded.read_recording", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_split(scan(root), LABELS, "train", cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_cache_is_named(root: Path, tmp_path: Path) -> None:
    load_split(scan(root), LABELS, "train", cache_dir=tmp_path)
    [data] = tmp_path.glob("*.s16")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(EarmarkError, match=rf"{data}: damaged cache"):
        load_split(scan(root), LABELS, "train", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("esc/1-100032-A-0.wav", "esc/1-100032-B-0.wav", True),
        ("esc/1-100032-A-0.wav", "esc/1-100038-A-14.wav", False),
        ("a/7_nohash_0.wav", "b/7_nohash_3.wav", True),
        ("ls/dev/84/121123/84-121123-0000.flac", "ls/dev/84/121550/84-121550-0021.flac", True),
        ("84/121123/84-121123-0000.flac", "85/121123/85-121123-0000.flac", False),
        ("84/121123/85-121123-0000.flac", "84/121123/85-121123-0001.flac", False),
        ("room/1.wav", "room/2.wav", False),
    ],
)
def test_what_shares_a_source_or_a_speaker_stays_together(one: str, other: str, same: bool) -> None:
    assert (recording_origin(one) == recording_origin(other)) == same
