"""A corpus written as WebDataset shards: all of it, the same bytes again, for other readers too."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Source
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import label_set, load_split
from earmark.train.data.shard_writer import write_shards
from earmark.train.data.sources import write_source
from sharded import SOURCE, about
from tiny_corpus import KEYWORDS, write_corpus

LABELS = label_set(KEYWORDS)


def test_shards_hold_the_corpus_that_they_were_written_from(
    tone_folder: Path, tone_shards: Path
) -> None:
    before, after = scan(tone_folder), scan(tone_shards / "*.tar")
    assert about(after) == about(before)
    assert after.sources == before.sources == (SOURCE,)
    for name in ("train", "validation"):
        a, b = (load_split(corpus, LABELS, name) for corpus in (before, after))
        assert np.array_equal(a.pcm, b.pcm) and np.array_equal(a.speaker, b.speaker)
        assert np.array_equal(a.label, b.label) and np.array_equal(a.counts, b.counts)


def test_the_same_corpus_gives_the_same_bytes_and_what_is_there_is_kept(
    tone_folder: Path, tone_shards: Path, tmp_path: Path
) -> None:
    write_shards(scan(tone_folder), tmp_path / "out", 1.0)
    for path in tone_shards.glob("*.tar"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    kept, gone = (tmp_path / "out" / f"train-00000{i}.tar" for i in range(2))
    gone.unlink()
    os.utime(kept, ns=(1, 1))
    write_shards(scan(tone_folder), tmp_path / "out", 1.0)
    assert gone.exists() and kept.stat().st_mtime_ns == 1
    with pytest.raises(EarmarkError, match="was made with"):
        write_shards(scan(tone_folder), tmp_path / "out", 2.0)


@pytest.mark.parametrize("changed", [{"speaker": "corrected"}, {"fold": 2}])
def test_shards_are_not_kept_when_what_they_tell_has_changed(
    tone_folder: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    corpus = scan(tone_folder)
    write_shards(corpus, tmp_path / "out")
    first = dataclasses.replace(corpus.clips[0], **changed)
    corrected = dataclasses.replace(corpus, clips=(first, *corpus.clips[1:]))
    assert corrected.fingerprint == corpus.fingerprint
    with pytest.raises(EarmarkError, match="was made with"):
        write_shards(corrected, tmp_path / "out")


def test_how_clips_are_divided_does_not_change_the_fingerprint(
    tone_folder: Path, tone_shards: Path, tmp_path: Path
) -> None:
    corpus = scan(tone_shards / "*.tar")
    write_shards(corpus, tmp_path / "again", 0.5)
    again = scan(tmp_path / "again" / "*.tar")
    assert len(list((tmp_path / "again").glob("train-*"))) == 8
    assert again.fingerprint == corpus.fingerprint and about(again) == about(corpus)
    (tmp_path / "again" / "train-000000.tar").unlink()
    assert scan(tmp_path / "again" / "*.tar").fingerprint != corpus.fingerprint


def test_another_decoder_of_the_format_reads_what_is_written(
    tone_shards: Path, tone_folder: Path
) -> None:
    webdataset = pytest.importorskip("webdataset")
    found = [
        (json.loads(sample["json"])["word"], sample["wav"])
        for path in sorted(tone_shards.glob("train-*.tar"))
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    clips = [clip for clip in scan(tone_folder).clips if clip.split == "train"]
    assert sorted(found) == sorted((clip.word, clip.path.read_bytes()) for clip in clips)


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
