"""Noise and free speech are none of the recordings that another field divides."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from earmark.runtime.errors import EarmarkError
from earmark.train.data.material import prepare
from earmark.train.recipe import Recipe
from tiny_corpus import RATE, tiny_recipe, write_corpus


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(write_corpus(tmp_path_factory.mktemp("data") / "words", 16))


def write_sounds(folder: Path) -> str:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(30):
        soundfile.write(folder / f"{number}.wav", random.normal(0, 0.1, 2 * RATE), RATE)
    return str(folder)


def prepared(recipe: Recipe, folder: Path, **data: Any) -> None:
    prepare(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **data)), folder)


@pytest.mark.parametrize("field", ["noise", "speech"])
def test_what_the_corpus_divides_is_not_heard_in_another_way(
    recipe: Recipe, tmp_path: Path, field: str
) -> None:
    words = Path(recipe.data.roots[0])
    mine = tmp_path / "mine"
    shutil.copytree(words / "low", mine / "low")
    for file in (mine / "low").iterdir():
        file.rename(file.with_name(f"m{file.name}"))
    for folder in (words, words.parent, words / "low", words / "low" / ".." / "high"):
        with pytest.raises(EarmarkError, match=rf"data\.{field}: .* \(data\.roots\), of which"):
            prepared(recipe, tmp_path / "run", **{field: (str(folder),)})
    with pytest.raises(EarmarkError, match=rf"data\.{field}: .* \(data\.own\), of which"):
        prepared(recipe, tmp_path / "run", own=(str(mine),), **{field: (str(mine),)})
    # By way of a link.
    (tmp_path / "elsewhere").symlink_to(words / "high")
    with pytest.raises(EarmarkError, match=rf"data\.{field}: .*elsewhere has .* \(data\.roots\)"):
        prepared(recipe, tmp_path / "run", **{field: (str(tmp_path / "elsewhere"),)})


def test_noise_and_speech_share_nothing_and_have_nothing_twice(
    recipe: Recipe, tmp_path: Path
) -> None:
    sounds, others = write_sounds(tmp_path / "sounds"), write_sounds(tmp_path / "sounds" / "more")
    with pytest.raises(EarmarkError, match=r"data\.speech: .*more has .*sounds \(data\.noise\)"):
        prepared(recipe, tmp_path / "run", speech=(others,), noise=(sounds,))
    for again in (sounds, others, f"{others}/../../sounds"):
        for field in ("noise", "speech"):
            with pytest.raises(EarmarkError, match=rf"data\.{field}: .* \(data\.{field}\), of"):
                prepared(recipe, tmp_path / "run", **{field: (sounds, again)})


def test_the_noise_beside_the_words_is_read_once(recipe: Recipe, tmp_path: Path) -> None:
    words = Path(recipe.data.roots[0])
    noise = str(words / "_background_noise_")
    with pytest.raises(EarmarkError, match=r"data\.noise: .* by way of data\.roots already: leave"):
        prepared(recipe, tmp_path / "run", noise=(noise,))
    with pytest.raises(EarmarkError, match=r"data\.speech: .* \(data\.roots\), of which"):
        prepared(recipe, tmp_path / "run", speech=(noise,))
    # What lies beside words and is read by nobody is no part of them.
    sounds, talk = (write_sounds(words / name) for name in ("_sounds_", "_talk_"))
    prepared(recipe, tmp_path / "run", noise=(sounds,), speech=(talk,))
