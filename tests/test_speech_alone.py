"""Other words that are pieces of free speech, all of them, so that no folder need hold any."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.runtime.errors import EarmarkError
from earmark.train.data.clips import Clips
from earmark.train.data.corpus import scan
from earmark.train.data.epoch import keyword_rows
from earmark.train.data.material import prepare
from earmark.train.data.shard_writer import write_shards
from earmark.train.data.share import Share
from earmark.train.fit import train
from earmark.train.recipe import Recipe
from earmark.train.run import load_run
from tiny_corpus import PITCH, RATE, tiny_recipe, word_pcm, write_corpus


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Of keywords that have no other words beside them, and recordings of other sounds."""
    corpus, random = write_corpus(tmp_path / "corpus"), np.random.default_rng(0)
    (tmp_path / "talk").mkdir()
    for word in ("chirp", "buzz"):
        shutil.rmtree(corpus / word)
        for number in range(20):
            said = np.concatenate([word_pcm(PITCH[word], random) for _ in range(3)])
            soundfile.write(tmp_path / "talk" / f"{word}{number}.wav", said, RATE)
    recipe = tiny_recipe(corpus, epochs=2)
    data = dataclasses.replace(
        recipe.data,
        speech=(str(tmp_path / "talk"),),
        speech_share=1.0,
        cache=str(tmp_path / "cache"),
    )
    return dataclasses.replace(recipe, data=data)


def test_it_trains_and_is_judged_on_other_words(recipe: Recipe, tmp_path: Path) -> None:
    found = prepare(recipe, tmp_path / "run")
    clips = Clips(found.splits["train"], 3, speech=found.speech)
    rows = keyword_rows(clips, recipe, 2, np.random.default_rng(0), wanted=1000)
    assert len(rows) == 1000 and np.count_nonzero(rows >= len(clips)) == 300
    counts = load_run(train(recipe, tmp_path / "run")).info.clips
    assert counts["train"]["_unknown_"] == 60 and counts["validation"]["_unknown_"] == 20


def test_as_part_of_them_it_is_not_enough(recipe: Recipe, tmp_path: Path) -> None:
    half = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, speech_share=0.5))
    with pytest.raises(EarmarkError, match=r"'other words' .*set data\.speech_share = 1"):
        train(half, tmp_path / "run")


def test_without_a_recording_to_validate_on_it_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    # A recording is in one split, which follows from its name.
    for file in (tmp_path / "talk").iterdir():
        if file.stem != "buzz1":
            file.unlink()
    with pytest.raises(EarmarkError, match="readable clips of '_unknown_' in the"):
        train(recipe, tmp_path / "run")


def test_it_is_all_that_processes_need_who_divide_shards(recipe: Recipe, tmp_path: Path) -> None:
    write_shards(scan(recipe.data.roots[0]), tmp_path / "shards", 1.0)
    data = dataclasses.replace(recipe.data, roots=(str(tmp_path / "shards" / "*.tar"),))
    divided = dataclasses.replace(recipe, data=data)
    parts = [prepare(divided, tmp_path / "run", Share(rank, 2)).splits["train"] for rank in (0, 1)]
    assert all(part.counts[part.labels.index("_unknown_")] for part in parts)
