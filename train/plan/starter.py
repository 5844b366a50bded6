"""Looks at a corpus and puts a starter recipe together."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...runtime.errors import EarmarkError
from ...runtime.layout import LISTS, SPEAKER_MARK, folder_name
from ...runtime.manifest import SILENCE, UNKNOWN
from ..data.audio_files import find_audio
from ..data.corpus import Corpus, scan, with_fold_held_out, with_folds
from ..data.material import require_clips
from ..data.survey import Survey
from ..recipe import Recipe, parse_recipe
from . import choices
from .head import head
from .scale import Device, Network, choose_network, plan_lesson
from .text import recipe_text

FOLD_PATTERN = r"(\d+)-"
"""How data sets after ESC-50 put the fold into a file name."""
_MAX_FOLDS = 20


def find_folds(roots: Sequence[str]) -> tuple[Corpus, str]:
    """The corpus of ``roots``, and the pattern of ``data.folds`` that its file names need, empty
    where a table names the folds or there are none.

    Raises:
        EarmarkError: as :func:`earmark.train.data.corpus.scan`.
    """
    corpus = scan(*roots)
    if corpus.folds:
        return corpus, ""
    named = with_folds(corpus, FOLD_PATTERN)
    every = all(clip.fold for clip in named.clips)
    return (named, FOLD_PATTERN) if every and 2 <= len(named.folds) <= _MAX_FOLDS else (corpus, "")


def plan(
    roots: Sequence[str],
    corpus: Corpus,
    found: Survey,
    *,
    folds: str = "",
    device: Device = "edge",
    keywords: Sequence[str] = (),
    noise: Sequence[str] = (),
    speech: Sequence[str] = (),
    name: str = "",
) -> str:
    """Write a starter recipe: of a student, or, where there is room for a large network and there
    are clips enough for one, of that (a ``teacher`` section, for ``earmark teach``).

    Args:
        roots: the folders and tables, as the recipe will name them.
        corpus, folds: what :func:`find_folds` gave for them.
        found: the survey of ``corpus``.
        device: where the model will run: ``edge`` for a small processor in real time.
        keywords: words to be spotted among others; none to tell all classes apart.
        noise, speech: folders of background noise and of free speech, any layout.
        name: of the recipe; empty for one made of the first root's.

    Returns:
        TOML that loads as a recipe and trains.

    Raises:
        EarmarkError: there are too few classes or clips to train on.
    """
    if not keywords and len(found.classes) < 2:
        raise EarmarkError(
            f"{roots[0]}: one class only ({', '.join(found.classes)}): add clips of other classes, "
            "in folders of their own"
        )
    if keywords and found.multilabel:
        raise EarmarkError("--keywords: clips have several classes here: leave it out")
    if speech and not keywords:
        raise EarmarkError("--speech: goes with --keywords, beside which it is other words")
    more = sum(len(find_audio(Path(folder))) for folder in noise)
    found = replace(found, noise=found.noise + more)
    if found.folds:
        corpus = with_fold_held_out(corpus, found.folds[-1])
    words = [*keywords] or _told_apart(corpus)
    train = _counts(corpus, "train", words)
    network = choose_network(found, device)
    lesson = plan_lesson(found, train, network, bool(keywords))
    fields = [
        choices.Choice("name", name or _name(corpus, network)),
        *choices.task(found, corpus, words, bool(keywords)),
        choices.Choice("data.roots", list(roots)),
        *choices.folders(corpus, noise, speech, words),
        *choices.data(found, train, folds, bool(keywords)),
        *(
            choices.student(found, bool(keywords))
            if network == "student"
            else choices.teacher(network, lesson)
        ),
        *choices.augmentation(found, bool(keywords)),
        *choices.training(found, network, lesson),
    ]
    paragraphs = [*head(found, network, device, bool(keywords))]
    lacking = [word for word in corpus.words if word not in (*words, UNKNOWN, SILENCE)]
    if lacking and not keywords:
        paragraphs.append(
            f"Left out, with no clip to train or none to validate on: {', '.join(lacking)}."
        )
    text = recipe_text(paragraphs, fields)
    _check_trainable(parse_recipe(tomllib.loads(text), "plan"), corpus, found.noise)
    return text


def _name(corpus: Corpus, network: Network) -> str:
    """After the folder, and another for a teacher, whose run is to stand beside its student's."""
    name = folder_name(corpus.roots[0].resolve().name) or "planned"
    return name if network == "student" else f"{name}-teacher"


def _told_apart(corpus: Corpus) -> list[str]:
    """The classes that have clips to train on and to validate on."""
    named = [word for word in corpus.words if word not in (UNKNOWN, SILENCE)]
    splits = [_counts(corpus, split, named) for split in ("train", "validation")]
    words = [word for word in named if all(counts[word] for counts in splits)]
    if len(words) < 2:
        lacking = ", ".join(word for word in named if word not in words)
        raise EarmarkError(
            f"{corpus.roots[0]}: fewer than two classes have clips in both the training and the "
            f"validation split (not: {lacking}): add clips by more speakers, or name some of them "
            f"in {LISTS['validation']} (lines word/stem; of a single speaker call those another, "
            f"as me-validation{SPEAKER_MARK}0)"
        )
    return words


def _counts(corpus: Corpus, split: str, words: Sequence[str]) -> Counter[str]:
    """Clips in a split of each of ``words``, by the name that the corpus has for it."""
    wanted = {folder_name(word) for word in words}
    return Counter(
        word
        for clip in corpus.clips
        if clip.split == split
        for word in clip.words
        if folder_name(word) in wanted
    )


def _check_trainable(recipe: Recipe, corpus: Corpus, noise: int) -> None:
    require_clips(corpus, recipe)
    if recipe.data.balance == "keywords" and not noise:
        raise EarmarkError(
            f"{corpus.roots[0]}: no background noise: name a folder of recordings of 10 s or more "
            "by --noise, or add some in _background_noise_, which a spotter needs for _silence_"
        )
