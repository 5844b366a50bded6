"""A corpus in shards divided among processes: each has its part, and all of them the whole."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import UNKNOWN
from earmark.train.data import shards
from earmark.train.data.clips import Clips
from earmark.train.data.corpus import scan
from earmark.train.data.epoch import epoch_batches
from earmark.train.data.material import prepare
from earmark.train.data.shard_writer import write_shards
from earmark.train.data.share import Share
from earmark.train.data.stretches import pieces
from earmark.train.teachers import ensemble
from earmark.train.teachers.distill import DistillSettings
from sharded import sharded
from tiny_corpus import tiny_recipe


def write_free(folder: Path) -> str:
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, seconds in (("a", 100), ("b", 0.07), ("c", 2)):
        audio = random.normal(0, 0.1, round(16000 * seconds))
        soundfile.write(folder / f"{name}.wav", audio, 16000)
    return str(folder)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_each_process_decodes_its_shards_only(
    tone_shards: Path, tmp_path: Path, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(recording: shards.Recording, rate: int) -> np.ndarray:
        assert isinstance(recording, shards.Member)
        read.append(recording.shard)
        return shards.read_recording(recording, rate)

    monkeypatch.setattr("earmark.train.data.decoded.read_recording", noted)
    recipe = sharded(tone_shards, tmp_path)
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


def test_all_processes_have_as_many_batches_of_the_same_size(
    tone_shards: Path, tmp_path: Path
) -> None:
    recipe = sharded(tone_shards, tmp_path)
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


def test_what_cannot_be_divided_is_one_error_before_any_process_waits(
    tone_shards: Path, tmp_path: Path
) -> None:
    recipe = sharded(tone_shards, tmp_path)
    with pytest.raises(EarmarkError, match="4 shards with training clips for 5 processes: write"):
        prepare(recipe, tmp_path, Share(0, 5))
    corpus = scan(tone_shards / "*.tar")
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
    tone_shards: Path, tmp_path: Path
) -> None:
    distill = DistillSettings(
        teachers=("x",), unlabelled=(write_free(tmp_path / "free"),), unlabelled_share=0.3
    )
    recipe = dataclasses.replace(sharded(tone_shards, tmp_path / "cache"), distill=distill)
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


def test_a_process_holds_answers_to_its_clips_alone(tone_shards: Path, tmp_path: Path) -> None:
    recipe = sharded(tone_shards, tmp_path)
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
