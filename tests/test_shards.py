"""WebDataset shards read: what others wrote, and hostile and damaged ones."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Source
from earmark.train.data import shards
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import label_set, load_split
from earmark.train.data.sources import write_source
from hypothesis import given
from hypothesis import strategies as st
from sharded import about


def sound(kind: str = "wav", seconds: float = 0.1) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(round(16000 * seconds), 0.1), 16000, format=kind)
    return buffer.getvalue()


def packed(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content in members:
            found = tarfile.TarInfo(name)
            found.size = len(content)
            file.addfile(found, io.BytesIO(content))
    return buffer.getvalue()


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.write_bytes(packed(*members))
    return path


def test_what_another_writer_of_the_format_wrote_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "x-%03d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(8):
            sample = {"__key__": f"{i:05d}", "flac": sound("flac")}
            writer.write(sample | {"json": {"word": "yes", "speaker": f"s{i}", "split": "train"}})
    corpus = scan(tmp_path / "x-{000..001}.tar")
    assert about(corpus) == [(("yes",), f"s{i}", "train", 0) for i in range(8)]
    assert load_split(corpus, label_set(["yes"], ()), "train").pcm.any(axis=1).all()


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
    "cut off": (packed(("yes/a.wav", sound()))[:2000], "yes/a.wav: the shard is cut off"),
    "no end": (entry(), "damaged or cut off"),
    "damaged": (entry("yes/a.wav") + b"x" * 512 + END, "yes/a.wav: what follows is damaged"),
    "no class": (packed(("a.wav", sound())), "a: class: expected"),
    "reserved": (packed(("a.wav", sound()), ("a.cls", b"_x")), "a: cls: expected"),
    "no object": (packed(("y/a.wav", sound()), ("y/a.json", b"[1]")), "y/a: json: expected"),
    "deep": (packed(("y/a.wav", sound()), ("y/a.json", b"[" * 60_000)), "y/a: json: expected"),
    "long text": (packed(("y/a.txt", b"x" * (1 << 17))), "y/a.txt: 131072 bytes of text"),
    "no text": (packed(("y/a.txt", b"\xff")), "y/a.txt: no UTF-8"),
    "list": (packed(("y/a.wav", sound()), ("y/a.json", b'{"speaker": []}')), "speaker: expected"),
    "fold": (packed(("y/a.wav", sound()), ("y/a.json", b'{"fold": -1}')), "fold: expected"),
    "split": (packed(("y/a.wav", sound()), ("y/a.json", b'{"split": "x"}')), "split: expected"),
    "two": (packed(("y/a.b.wav", sound()), ("y/a.c.wav", sound())), "a second audio of one clip"),
    "sources": (packed(("y/a.wav", sound()), ("sources.json", b"{")), "sources.json: not a list"),
    "no clips": (packed(("readme.md", b"x")), "no clips"),
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
    content = bytearray(packed(("yes/a.wav", b"RIFF"), ("yes/a.json", b'{"speaker": "ann"}')))
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
