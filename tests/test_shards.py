"""WebDataset shards: the same corpus as its folder, divided among processes, and hostile ones."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command import EARMARK
from earmark.export.export import export
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import UNKNOWN, Source
from earmark.train.data import shards
from earmark.train.data.clips import Clips
from earmark.train.data.corpus import Corpus, scan
from earmark.train.data.dataset import label_set, load_split
from earmark.train.data.epoch import epoch_batches
from earmark.train.data.material import prepare
from earmark.train.data.shard_writer import write_shards
from earmark.train.data.share import Share
from earmark.train.data.sources import write_source
from earmark.train.data.stretches import pieces
from earmark.train.fit import train
from earmark.train.recipe import Recipe, recipe_toml
from earmark.train.run import load_run
from earmark.train.score import clip_posteriors
from earmark.train.teachers import ensemble
from earmark.train.teachers.distill import DistillSettings
from earmark.train.teachers.run import teacher_posteriors
from earmark.train.teachers.settings import TeacherSettings
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import KEYWORDS, tiny_recipe, write_corpus

LABELS = label_set(KEYWORDS)
SOURCE = Source("Tones", "CC0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_corpus(tmp_path_factory.mktemp("folder") / "tones")
    write_source(root, SOURCE)
    return root


@pytest.fixture(scope="module")
def tars(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as shards: four of training clips."""
    target = tmp_path_factory.mktemp("shards") / "out"
    assert write_shards(scan(folder), target, 1.0) == {"train": 4, "validation": 1, "noise": 1}
    return target


def sharded(tars: Path, cache: Path, **train: object) -> Recipe:
    recipe = tiny_recipe(tars / "*.tar", **train)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, cache=str(cache)))


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in load_run(run).history]


# Reading and writing.


def about(corpus: Corpus) -> list[tuple[object, ...]]:
    return [(c.words, c.speaker, c.split, c.fold) for c in corpus.clips]


def test_shards_hold_the_corpus_that_they_were_written_from(folder: Path, tars: Path) -> None:
    before, after = scan(folder), scan(tars / "*.tar")
    assert about(after) == about(before)
    assert after.sources == before.sources == (SOURCE,)
    for name in ("train", "validation"):
        a, b = (load_split(corpus, LABELS, name) for corpus in (before, after))
        assert np.array_equal(a.pcm, b.pcm) and np.array_equal(a.speaker, b.speaker)
        assert np.array_equal(a.label, b.label) and np.array_equal(a.counts, b.counts)


def test_the_same_corpus_gives_the_same_bytes_and_what_is_there_is_kept(
    folder: Path, tars: Path, tmp_path: Path
) -> None:
    write_shards(scan(folder), tmp_path / "out", 1.0)
    for path in tars.glob("*.tar"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    kept, gone = (tmp_path / "out" / f"train-00000{i}.tar" for i in range(2))
    gone.unlink()
    os.utime(kept, ns=(1, 1))
    write_shards(scan(folder), tmp_path / "out", 1.0)
    assert gone.exists() and kept.stat().st_mtime_ns == 1
    with pytest.raises(EarmarkError, match="was made with"):
        write_shards(scan(folder), tmp_path / "out", 2.0)


@pytest.mark.parametrize("changed", [{"speaker": "corrected"}, {"fold": 2}])
def test_shards_are_not_kept_when_what_they_tell_has_changed(
    folder: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    corpus = scan(folder)
    write_shards(corpus, tmp_path / "out")
    first = dataclasses.replace(corpus.clips[0], **changed)
    corrected = dataclasses.replace(corpus, clips=(first, *corpus.clips[1:]))
    assert corrected.fingerprint == corpus.fingerprint
    with pytest.raises(EarmarkError, match="was made with"):
        write_shards(corrected, tmp_path / "out")


def test_how_clips_are_divided_does_not_change_the_fingerprint(
    folder: Path, tars: Path, tmp_path: Path
) -> None:
    corpus = scan(tars / "*.tar")
    write_shards(corpus, tmp_path / "again", 0.5)
    again = scan(tmp_path / "again" / "*.tar")
    assert len(list((tmp_path / "again").glob("train-*"))) == 8
    assert again.fingerprint == corpus.fingerprint and about(again) == about(corpus)
    (tmp_path / "again" / "train-000000.tar").unlink()
    assert scan(tmp_path / "again" / "*.tar").fingerprint != corpus.fingerprint


def test_another_decoder_of_the_format_reads_what_is_written(tars: Path, folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    found = [
        (json.loads(sample["json"])["word"], sample["wav"])
        for path in sorted(tars.glob("train-*.tar"))
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    clips = [clip for clip in scan(folder).clips if clip.split == "train"]
    assert sorted(found) == sorted((clip.word, clip.path.read_bytes()) for clip in clips)


def test_what_another_writer_of_the_format_wrote_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "x-%03d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(8):
            sample = {"__key__": f"{i:05d}", "flac": sound("flac")}
            writer.write(sample | {"json": {"word": "yes", "speaker": f"s{i}", "split": "train"}})
    corpus = scan(tmp_path / "x-{000..001}.tar")
    assert about(corpus) == [(("yes",), f"s{i}", "train", 0) for i in range(8)]
    assert load_split(corpus, label_set(["yes"], ()), "train").pcm.any(axis=1).all()


def sound(kind: str = "wav", seconds: float = 0.1) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(round(16000 * seconds), 0.1), 16000, format=kind)
    return buffer.getvalue()


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def test_class_speaker_and_split_are_told_by_text_or_by_the_name(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar",
        ("sources.json", b'[{"name": "mine", "licence": "CC0"}]'),
        ("yes/ann_nohash_0.wav", sound()),
        ("00/1.wav", sound()),
        ("00/1.cls", b"no\n"),
        ("00/2.wav", sound()),
        ("00/2.txt", b"stop"),
        ("00/2.json", b'{"speaker": "bob", "split": "val", "fold": 3}'),
        ("00/3.json", b'{"labels": ["rain", "dog"], "split": "test"}'),
        ("00/3.WAV", sound()),
        ("_background_noise_/x.wav", sound()),
        ("_notes_/x.wav", sound()),
        ("__info__/about.json", b"{}"),
        ("._hidden.wav", b"junk"),
        ("readme", b"text"),
    )
    corpus = scan(path)
    clips = {clip.path.name: clip for clip in corpus.clips}
    assert {name: clip.words for name, clip in clips.items()} == {
        "ann_nohash_0.wav": ("yes",),
        "1.wav": ("no",),
        "2.wav": ("stop",),
        "3.WAV": ("rain", "dog"),
    }
    assert clips["ann_nohash_0.wav"].speaker == "ann" and clips["2.wav"].speaker == "bob"
    assert (clips["2.wav"].split, clips["2.wav"].fold, clips["3.WAV"].split) == (
        *("validation", 3),
        "test",
    )
    assert [noise.path.name for noise in corpus.noise if isinstance(noise, shards.Member)] == [
        "x.wav"
    ]
    assert corpus.sources == (Source("mine", "CC0"),)


def test_a_speaker_in_two_splits_is_refused(tmp_path: Path) -> None:
    for i, split in enumerate(("val", "test")):
        told = json.dumps({"speaker": "a", "split": split}).encode()
        tar(tmp_path / f"{i}.tar", (f"yes/{i}.wav", sound()), (f"yes/{i}.json", told))
    with pytest.raises(EarmarkError, match="speaker a is in test here and in validation"):
        scan(tmp_path / "*.tar")
    with pytest.raises(EarmarkError, match=r"yes/1\.wav: is also in"):
        scan(tmp_path / "{1,1}.tar")


def test_shards_without_sources_say_so(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", ("sources.json", b'[{"name": "mine", "licence": "CC0"}]'))
    tar(tmp_path / "b.tar", ("yes/a.wav", sound()))
    assert [s.licence for s in scan(tmp_path / "*.tar").sources] == ["CC0", "unknown"]
    write_source(tmp_path, Source("other", "MIT"))
    assert [s.licence for s in scan(tmp_path / "*.tar").sources] == ["CC0", "MIT"]


@given(first=st.integers(0, 99), count=st.integers(1, 5))
def test_braces_name_a_row_of_shards(first: int, count: int) -> None:
    names = shards.expand(f"x/{{{first:03d}..{first + count - 1:03d}}}-{{a,b}}.tar")
    assert names == [Path(f"x/{first + i:03d}-{x}.tar") for i in range(count) for x in "ab"]


def entry(name: str = "yes/a.wav", **fields: object) -> bytes:
    found = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(found, field, value)
    return found.tobuf(tarfile.GNU_FORMAT)


def negative_size() -> bytes:
    header = bytearray(entry())
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def plain(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content in members:
            found = tarfile.TarInfo(name)
            found.size = len(content)
            file.addfile(found, io.BytesIO(content))
    return buffer.getvalue()


END = bytes(1024)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "link": (entry(type=tarfile.SYMTYPE, linkname="/etc/passwd") + END, "yes/a.wav: is neither"),
    "hard link": (entry(type=tarfile.LNKTYPE, linkname="b") + END, "yes/a.wav: is neither"),
    "device": (entry(type=tarfile.CHRTYPE) + END, "yes/a.wav: is neither"),
    "pipe": (entry(type=tarfile.FIFOTYPE) + END, "yes/a.wav: is neither"),
    "absolute": (entry("/yes/a.wav") + END, "/yes/a.wav: has a name outside"),
    "above": (entry("yes/../../a.wav") + END, "has a name outside"),
    "terminal": (entry("yes/\x1b[2Ja.wav") + END, r"\\x1b\[2Ja.wav: has a name"),
    "huge": (entry(size=1 << 40) + END, "yes/a.wav: the shard is cut off here"),
    "negative": (negative_size() + END, "shard.tar"),
    "long header": (entry("x", type=tarfile.XHDTYPE, size=1 << 33) + END, "no tar"),
    "long name": (entry("x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 20) + END, "no tar"),
    "nested headers": (entry("x", type=tarfile.XHDTYPE) * 20_000 + END, "no tar"),
    "sparse": (entry(type=tarfile.GNUTYPE_SPARSE) + END, "yes/a.wav: is neither"),
    "empty": (b"", "no tar"),
    "no tar": (b"RIFF" * 1000, "no tar"),
    "compressed": (b"\x1f\x8b" + bytes(100), "is compressed"),
    "cut off": (plain(("yes/a.wav", sound()))[:2000], "yes/a.wav: the shard is cut off"),
    "no end": (entry(), "damaged or cut off"),
    "damaged": (entry("yes/a.wav") + b"x" * 512 + END, "yes/a.wav: what follows is damaged"),
    "no class": (plain(("a.wav", sound())), "a: class: expected"),
    "reserved": (plain(("a.wav", sound()), ("a.cls", b"_x")), "a: cls: expected"),
    "no object": (plain(("y/a.wav", sound()), ("y/a.json", b"[1]")), "y/a: json: expected"),
    "deep": (plain(("y/a.wav", sound()), ("y/a.json", b"[" * 60_000)), "y/a: json: expected"),
    "long text": (plain(("y/a.txt", b"x" * (1 << 17))), "y/a.txt: 131072 bytes of text"),
    "no text": (plain(("y/a.txt", b"\xff")), "y/a.txt: no UTF-8"),
    "list": (plain(("y/a.wav", sound()), ("y/a.json", b'{"speaker": []}')), "speaker: expected"),
    "fold": (plain(("y/a.wav", sound()), ("y/a.json", b'{"fold": -1}')), "fold: expected"),
    "split": (plain(("y/a.wav", sound()), ("y/a.json", b'{"split": "x"}')), "split: expected"),
    "two": (plain(("y/a.b.wav", sound()), ("y/a.c.wav", sound())), "a second audio of one clip"),
    "sources": (plain(("y/a.wav", sound()), ("sources.json", b"{")), "sources.json: not a list"),
    "no clips": (plain(("readme.md", b"x")), "no clips"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_damaged_shards_are_refused_in_a_line(tmp_path: Path, name: str) -> None:
    content, expected = HOSTILE[name]
    path = tmp_path / "shard.tar"
    path.write_bytes(content)
    with pytest.raises(EarmarkError, match=expected) as caught:
        scan(path)
    assert "shard" in str(caught.value) and str(caught.value).isprintable()
    assert [file.name for file in tmp_path.iterdir()] == ["shard.tar"]


@given(data=st.data())
def test_no_change_of_bytes_breaks_the_reader(data: st.DataObject, tmp_path_factory) -> None:
    content = bytearray(plain(("yes/a.wav", b"RIFF"), ("yes/a.json", b'{"speaker": "ann"}')))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 2600))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("mutated") / "shard.tar"
    path.write_bytes(content)
    try:
        listing = shards.list_shard(path)
    except EarmarkError:
        return
    for sample in listing.samples:
        assert 0 <= sample.member.offset <= len(content) - sample.member.size


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    for pattern, expected in (
        (tmp_path / "x-*.tar", "no such shards"),
        (tmp_path / "gone.tar", "gone.tar: cannot be read"),
        (tmp_path / "{2..1}.tar", "the lower number first"),
    ):
        with pytest.raises(EarmarkError, match=expected):
            scan(pattern)
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(EarmarkError, match=r"folder\.tar: cannot be read"):
        scan(tmp_path / "folder.tar")


def test_a_shard_that_changed_and_a_bomb_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar(tmp_path / "a.tar", ("yes/a.wav", sound()), ("no/b.flac", sound("flac", 3.0)))
    corpus = scan(path)
    monkeypatch.setattr(shards, "MAX_SECONDS", 2)
    assert load_split(corpus, label_set(["yes", "no"], ()), "all").skipped == 1
    [clip] = [clip for clip in corpus.clips if clip.word == "yes"]
    os.truncate(path, 1024)
    with pytest.raises(EarmarkError, match=r"a\.tar/yes/a\.wav: the shard has changed"):
        shards.read_recording(clip.recording, 16000)


# Training.


def test_one_process_learns_from_shards_what_it_learns_from_the_folder(
    folder: Path, tars: Path, tmp_path: Path
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
            ("folder", tiny_recipe(folder, **settings)),
            ("shards", sharded(tars, tmp_path / "cache", **settings)),
        )
    ]
    a, b = map(load_run, runs)
    assert a.history == b.history
    for key, value in a.student.state_dict().items():
        assert torch.equal(value, b.student.state_dict()[key])
    assert a.info.clips == b.info.clips and a.info.sources == b.info.sources
    assert b.info.sources[0] == SOURCE


def test_a_class_that_cannot_be_read_is_refused_of_shards_too(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "tones"
    shutil.copytree(folder, corpus)
    for file in (corpus / "low").iterdir():
        file.write_bytes(b"no audio")
    write_shards(scan(corpus), tmp_path / "out", 1.0)
    with pytest.raises(EarmarkError, match="0 readable clips of 'low' in the train split"):
        train(sharded(tmp_path / "out", tmp_path / "cache"), tmp_path / "run")


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_each_process_decodes_its_shards_only(
    tars: Path, tmp_path: Path, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(recording: shards.Recording, rate: int) -> np.ndarray:
        assert isinstance(recording, shards.Member)
        read.append(recording.shard)
        return shards.read_recording(recording, rate)

    monkeypatch.setattr("earmark.train.data.decoded.read_recording", noted)
    recipe = sharded(tars, tmp_path)
    whole = prepare(recipe, tmp_path)
    held: dict[str, list[str]] = {"train": [], "validation": []}
    for rank in range(ranks):
        read.clear()
        material = prepare(recipe, tmp_path / "run", Share(rank, ranks))
        names = sorted({path.name for path in read if path.name.startswith("train")})
        assert names == [f"train-00000{i}.tar" for i in range(rank, 4, ranks)]
        for name, split in material.splits.items():
            assert len(split) < len(whole.splits[name])
            assert np.array_equal(split.counts, whole.splits[name].counts)
            held[name] += split.path.tolist()
            # A clip is the same one whoever holds it.
            assert split.part is not None
            assert np.array_equal(whole.splits[name].pcm[split.part.number], split.pcm)
    for name, paths in held.items():
        assert sorted(paths) == sorted(whole.splits[name].path.tolist())


def test_all_processes_have_as_many_batches_of_the_same_size(tars: Path, tmp_path: Path) -> None:
    recipe = sharded(tars, tmp_path)
    splits = [prepare(recipe, tmp_path, Share(rank, 3)).splits["train"] for rank in range(3)]
    counts: list[int] = []

    def counted(count: int) -> int:
        counts.append(count)
        return count

    clips = [Clips(split, 3) for split in splits]
    for one in clips:
        epoch_batches(one, recipe, 0, 1, 2, counted)
    assert len(set(counts)) > 1
    batches = [epoch_batches(one, recipe, 0, 1, 2, lambda _: min(counts)) for one in clips]
    assert len({tuple(map(len, some)) for some in batches}) == 1
    for split, some in zip(splits, batches, strict=True):
        rows = [row for batch in some for row, _ in batch]
        labels = [3 if row < 0 else int(split.label[row]) for row in rows]
        assert abs(labels.count(0) - labels.count(1)) <= 8


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


def test_two_processes_with_a_part_each_learn_what_one_learns_of_both(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference: one process, whose batches are those of the two, one after the other."""
    settings = {"epochs": 3, "learning_rate": 0.01}
    two = in_processes(
        sharded(tars, tmp_path / "cache", devices=2, batch=16, **settings), tmp_path / "two"
    )
    recipe = sharded(tars, tmp_path / "cache", batch=32, **settings)
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


def test_what_cannot_be_divided_is_one_error_before_any_process_waits(
    tars: Path, tmp_path: Path
) -> None:
    recipe = sharded(tars, tmp_path)
    with pytest.raises(EarmarkError, match="4 shards with training clips for 5 processes: write"):
        prepare(recipe, tmp_path, Share(0, 5))
    corpus = scan(tars / "*.tar")
    words = [c for c in corpus.clips if c.split == "train"]
    by_word = dataclasses.replace(corpus, clips=tuple(c for c in words if c.word == "low"))
    rest = dataclasses.replace(
        corpus, clips=tuple(c for c in corpus.clips if c not in by_word.clips)
    )
    write_shards(dataclasses.replace(by_word, noise=()), tmp_path / "low", 100)
    write_shards(rest, tmp_path / "rest", 100)
    unmixed = dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            recipe.data, roots=(str(tmp_path / "low/*.tar"), str(tmp_path / "rest/*.tar"))
        ),
    )
    with pytest.raises(EarmarkError, match="process 1 of 2 have no training clip of 'high': mix"):
        prepare(unmixed, tmp_path, Share(0, 2))
    prepare(unmixed, tmp_path)


def write_free(folder: Path) -> str:
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, seconds in (("a", 100), ("b", 0.07), ("c", 2)):
        audio = random.normal(0, 0.1, round(16000 * seconds))
        soundfile.write(folder / f"{name}.wav", audio, 16000)
    return str(folder)


def test_a_process_has_its_part_of_audio_without_labels_and_no_more(tmp_path: Path) -> None:
    folder, cache = write_free(tmp_path / "free"), tmp_path / "cache"
    whole = pieces([folder], 0.1, cache)
    assert len(whole) == 1021
    for rank, rows in ((0, whole[:512]), (1, whole[512:])):
        tracemalloc.start()
        part = pieces([folder], 0.1, cache, Share(rank, 2))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(part, rows)
        assert most < 1.3 * part.nbytes


def test_audio_without_labels_that_some_process_gets_none_of_is_refused(
    tars: Path, tmp_path: Path
) -> None:
    distill = DistillSettings(
        teachers=("x",), unlabelled=(write_free(tmp_path / "free"),), unlabelled_share=0.3
    )
    recipe = dataclasses.replace(sharded(tars, tmp_path / "cache"), distill=distill)
    for rank in range(2):
        with pytest.raises(EarmarkError, match=r"unlabelled: 102 pieces, .* 512, for 2 processes"):
            prepare(recipe, tmp_path, Share(rank, 2))
    assert len(prepare(recipe, tmp_path).unlabelled) == 102


def test_clips_without_a_label_take_no_part_in_the_division(tmp_path: Path) -> None:
    """Shards with such clips alone are nobody's, and those behind them are dealt out otherwise."""
    parts = [("low", "high"), ("buzz",), ("low",), ("low", "high"), ("low", "high")]
    roots = []
    for place, words in enumerate(parts):
        folder = tmp_path / f"part{place}"
        for word in words:
            (folder / word).mkdir(parents=True)
            for clip in range(6):
                tone = 0.1 * np.sin(np.arange(16000) / (2 + place + clip))
                soundfile.write(folder / word / f"{place}{word}{clip}.wav", tone, 16000)
        split = "train" if place < len(parts) - 1 else "validation"
        corpus = scan(folder)
        clips = tuple(dataclasses.replace(clip, split=split) for clip in corpus.clips)
        write_shards(dataclasses.replace(corpus, clips=clips), tmp_path / f"tar{place}", 100)
        roots.append(str(tmp_path / f"tar{place}" / "*.tar"))
    recipe = tiny_recipe(tmp_path)
    data = dataclasses.replace(recipe.data, roots=tuple(roots), balance="balanced")
    assert UNKNOWN not in dataclasses.replace(recipe, data=data).labels
    with pytest.raises(EarmarkError, match="process 2 of 2 have no training clip of 'high'"):
        prepare(dataclasses.replace(recipe, data=data), tmp_path, Share(0, 2))


# Teachers.


def cache_files(recipe: Recipe) -> set[str]:
    return {file.name for file in (Path(recipe.data.cache) / "teachers").rglob("*.npy")}


def test_teachers_are_asked_of_each_part_by_its_process_and_found_again(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sharded(tars, tmp_path / "cache", devices=2, batch=16, epochs=2)
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
    shard_clips = sum(clip.split == "train" for clip in scan(tars / "*.tar").clips)
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


def test_a_process_holds_answers_to_its_clips_alone(tars: Path, tmp_path: Path) -> None:
    recipe = sharded(tars, tmp_path)
    split = prepare(recipe, tmp_path, Share(1, 2)).splits["train"]
    clips = Clips(split, 3)
    groups = list(clips.groups())
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(split)))
    assert split.part is not None
    shards_of = [set(split.part.shard[group].tolist()) for group in groups]
    assert sorted(map(sorted, shards_of)) == [[-1], [1], [3]]
    whole = Clips(prepare(recipe, tmp_path).splits["train"], 3)
    digests = [
        {block.digest for group in one.groups() for block in ensemble.blocks(group, one.content)}
        for one in (whole, clips)
    ]
    assert len(digests[0] & digests[1]) == 2


def test_other_licences_are_not_left_out_of_shards_that_are_there(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "words", 8)
    write_shards(scan(folder), tmp_path / "out", 1.0)
    write_source(folder, Source(name="tones", licence="CC0-1.0"))
    with pytest.raises(EarmarkError, match="out: "):
        write_shards(scan(folder), tmp_path / "out", 1.0)


def test_what_readers_pass_over_is_not_written(tmp_path: Path) -> None:
    clip = write_corpus(tmp_path / "words", 8) / "low"
    clip.rename(clip.with_name("__a__"))
    table = tmp_path / "words" / "table.csv"
    rows = [f"__a__/{path.name},low" for path in sorted((tmp_path / "words/__a__").iterdir())]
    table.write_text("\n".join(["filename,category", *rows]) + "\n")
    with pytest.raises(EarmarkError, match="begin with __: rename it"):
        write_shards(scan(table), tmp_path / "out", 1.0)
