"""Students that are taught by small teachers, and what tests of them share."""

import dataclasses
from pathlib import Path
from typing import Any

from earmark.train.recipe import Recipe
from earmark.train.run import load_run
from earmark.train.teach import teach
from earmark.train.teachers.distill import DistillSettings
from earmark.train.teachers.settings import TeacherSettings
from tiny_corpus import tiny_recipe, write_corpus


def two_views(folder: Path) -> Recipe:
    """A recipe of a tiny corpus and a cache of its own, both in ``folder``."""
    recipe = tiny_recipe(write_corpus(folder / "corpus"))
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, cache=str(folder / "cache")),
        augment=dataclasses.replace(recipe.augment, views=2),
    )


def two_teachers(recipe: Recipe, folder: Path) -> tuple[str, str]:
    return _teacher(recipe, folder / "a", 0), _teacher(recipe, folder / "b", 1)


def _teacher(recipe: Recipe, path: Path, seed: int) -> str:
    settings = TeacherSettings(kind="cnn2d", width=4)
    rate = dataclasses.replace(recipe.train, learning_rate=0.01, epochs=2)
    teach(dataclasses.replace(recipe, teacher=settings, seed=seed, train=rate), path)
    return str(path)


def distilled(recipe: Recipe, teachers: tuple[str, ...], **changes: Any) -> Recipe:
    return dataclasses.replace(recipe, distill=DistillSettings(teachers=teachers, **changes))


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in load_run(run).history]
