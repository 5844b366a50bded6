"""Corpora of tones in shards, and what is asked of them."""

import dataclasses
from pathlib import Path

from earmark.runtime.manifest import Source
from earmark.train.data.corpus import Corpus
from earmark.train.recipe import Recipe
from tiny_corpus import tiny_recipe

SOURCE = Source("Tones", "CC0")


def about(corpus: Corpus) -> list[tuple[object, ...]]:
    return [(c.words, c.speaker, c.split, c.fold) for c in corpus.clips]


def sharded(tars: Path, cache: Path, **train: object) -> Recipe:
    recipe = tiny_recipe(tars / "*.tar", **train)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, cache=str(cache)))
