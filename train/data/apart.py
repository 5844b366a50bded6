"""Which folders a recipe may name together, so that nothing hears what another field holds out."""

from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import EarmarkError
from ...runtime.layout import NOISE_FOLDER
from ..recipe import Recipe
from .corpus import Corpus

Place = tuple[Path, str]
"""A folder, and the field of the recipe by way of which it is read."""


def check_apart(recipe: Recipe, corpus: Corpus) -> None:
    """Refuse noise, free speech and audio without labels that are of the corpus too, or of one
    another, or named twice: each field holds another part of its recordings out, or none.

    Clips that are in two of ``data.roots`` and ``data.own`` were refused when they were listed.

    Args:
        recipe: of a student or a teacher.
        corpus: the clips that it names.

    Raises:
        EarmarkError: as said; the message names both fields.
    """
    data = recipe.data
    unlabelled = recipe.distill.unlabelled if recipe.distill else ()
    beside, words = list(_noise_beside(recipe, corpus)), _of_clips(corpus)
    divided = [
        *((Path(folder), "data.speech") for folder in data.speech),
        *((Path(folder), "data.noise") for folder in data.noise),
    ]
    places = [(place, place[0].resolve()) for place in (*beside, *sorted(words), *divided)]
    for heard in (*divided, *((Path(folder), "distill.unlabelled") for folder in unlabelled)):
        folder, field = heard
        here = folder.resolve()
        for place, there in places:
            # Folders of noise and speech are read with all that is below them, those of clips not.
            shared = there.is_relative_to(here) if place in words else overlap(here, there)
            # Not by value: a folder may be named twice.
            if place is heard or not shared:
                continue
            if place in beside and field == "data.noise" and here.is_relative_to(there):
                raise EarmarkError(
                    f"recipe field data.noise: {folder} is read by way of {place[1]} already: "
                    "leave it out"
                )
            raise EarmarkError(
                f"recipe field {field}: {folder} has recordings in common with {place[0]} "
                f"({place[1]}), of which some are held out: name a folder of others"
            )


def overlap(one: Path, other: Path) -> bool:
    """Whether one of two resolved folders is in the other, or is the other."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _noise_beside(recipe: Recipe, corpus: Corpus) -> Iterator[Place]:
    """The folders of noise that are read by way of the corpus."""
    fields = [*("data.roots" for _ in recipe.data.roots), *("data.own" for _ in recipe.data.own)]
    files = [sound for sound in corpus.noise if isinstance(sound, Path)]
    for root, field in zip(corpus.roots, fields, strict=True):
        folder = root / NOISE_FOLDER
        if any(file.is_relative_to(folder) for file in files):
            yield folder, field


def _of_clips(corpus: Corpus) -> set[Place]:
    """The folders that clips lie in, which tables and links may have elsewhere."""
    fields = {False: "data.roots", True: "data.own"}
    return {(clip.path.parent, fields[clip.own]) for clip in corpus.clips if not clip.member}
