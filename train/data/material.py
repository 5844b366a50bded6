"""What a run learns from: the recordings that a recipe names, found, checked and decoded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ...runtime.layout import folder_name
from ...runtime.manifest import SILENCE, UNKNOWN
from ..recipe import Recipe
from .apart import check_apart
from .clip import Clip
from .corpus import Corpus, scan, wanted_name
from .dataset import Split, load_split, owners
from .share import WHOLE, Share
from .stretches import noise_pool, pieces, speech_pool


@dataclass(frozen=True)
class Material:
    """What is learned from."""

    labels: tuple[str, ...]
    corpus: Corpus
    splits: dict[str, Split]
    """``train`` and ``validation``."""
    pool: NDArray[np.int16]
    """Background noise for training, int16 [length]; empty where nothing draws from it."""
    unlabelled: NDArray[np.int16]
    """Clips that only teachers know the class of, int16 [clips, samples]; those of the process
    where the corpus is divided."""
    speech: NDArray[np.int16]
    """Free speech without keywords, int16 [samples]; empty where there is none."""
    cache: Path
    """Folder for what is computed once."""


def prepare(recipe: Recipe, run_dir: Path, share: Share = WHOLE) -> Material:
    """Find and decode the recordings of a recipe.

    Args:
        recipe: of a student or a teacher.
        run_dir: of the run.
        share: the process that they are for. It gets its part of a corpus that has shards, and all
            of one that has none.

    Raises:
        EarmarkError: the corpus is missing or too small, or cannot be divided, or as
            :func:`earmark.train.data.apart.check_apart`.
    """
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    labels = recipe.labels
    corpus = _scan(recipe)
    foreign = recipe.distill.unlabelled if recipe.distill else ()
    check_apart(recipe, corpus)
    if not corpus.sharded:
        share = WHOLE
    if share != WHOLE:
        _check_shares(corpus, recipe, share.ranks)
    cache = Path(recipe.data.cache) if recipe.data.cache else run_dir.parent / "cache"
    splits = {
        name: load_split(
            corpus,
            labels,
            name,
            recipe.data.clip,
            cache,
            noise_roots=recipe.data.noise,
            multilabel=recipe.multilabel,
            speech_roots=recipe.data.speech,
            share=share,
        )
        for name in ("train", "validation")
    }
    _check_readable(splits, recipe)
    pool = _background(corpus, recipe, splits, cache)
    speech = _free_speech(recipe, cache, splits["train"].pcm.shape[1])
    unlabelled = pieces(foreign, recipe.data.clip, cache, share)
    return Material(labels, corpus, splits, pool, unlabelled, speech, cache)


def _scan(recipe: Recipe) -> Corpus:
    if not recipe.data.roots:
        hint = ": data.own alone gives no validation split, name one from earmark synth"
        raise EarmarkError(
            "recipe field data.roots: names no corpus folder" + (hint if recipe.data.own else "")
        )
    corpus = recipe_corpus(recipe)
    require_clips(corpus, recipe)
    return corpus


def require_clips(corpus: Corpus, recipe: Recipe) -> None:
    """Check that every class of a recipe has clips enough to train on, and some to validate on.

    Where pieces of free speech are all of the other words, no clips of these are needed.

    Raises:
        EarmarkError: as :meth:`earmark.train.data.corpus.Corpus.require`.
    """
    classes = [label for label in recipe.labels if label not in (UNKNOWN, SILENCE)]
    unknown = UNKNOWN in recipe.labels and not _only_spoken(recipe)
    corpus.require(classes, ("train",), recipe.data.at_least, unknown)
    corpus.require(classes, ("validation",), unknown=unknown)


def recipe_corpus(recipe: Recipe, fold: int | None = None) -> Corpus:
    """The clips that a recipe names, less the training clips that it leaves out.

    Args:
        recipe: of a student or a teacher.
        fold: the fold to hold out, in place of the recipe's.

    Raises:
        EarmarkError: as :func:`earmark.train.data.corpus.scan`, or there is no such class to leave
            out.
    """
    data = recipe.data
    fold = data.fold if fold is None else fold
    corpus = scan(*data.roots, own=data.own, folds=data.folds, fold=fold)
    return _without(corpus, data.leave_out)


def _only_spoken(recipe: Recipe) -> bool:
    """Whether pieces of free speech are all of the other words."""
    return bool(recipe.data.speech) and recipe.data.speech_share == 1


def _without(corpus: Corpus, words: Sequence[str]) -> Corpus:
    """A corpus less the training clips of some class folders."""
    left = {folder_name(word) for word in words}
    if missing := left - {folder_name(word) for word in corpus.words}:
        roots = ", ".join(map(str, corpus.roots))
        raise EarmarkError(
            f"recipe field data.leave_out: {roots} has no class {min(missing)!r}: name a folder"
        )

    def kept(clip: Clip) -> bool:
        return clip.split != "train" or not left & {folder_name(word) for word in clip.words}

    return replace(corpus, clips=tuple(filter(kept, corpus.clips)))


def _check_shares(corpus: Corpus, recipe: Recipe, ranks: int) -> None:
    """Refuse what cannot be divided before any process waits for another."""
    names = {folder_name(label) for label in recipe.labels}
    # As they are divided: without those that have no label.
    held = [c for c in corpus.clips if recipe.multilabel or wanted_name(c.word, names) in names]
    clips = {s: [c for c in held if c.split == s] for s in ("train", "validation")}
    owner = {split: owners(some, split, ranks) for split, some in clips.items()}
    if recipe.data.balance == "natural":
        return
    needed = {*recipe.labels} - {SILENCE, *([UNKNOWN] if _only_spoken(recipe) else [])}
    labels = {folder_name(label): label for label in recipe.labels if label in needed}
    there = {
        (wanted_name(word, labels), rank)
        for clip, rank in zip(clips["train"], owner["train"].tolist(), strict=True)
        for word in clip.words
    }
    for rank in range(ranks):
        for name, label in labels.items():
            if (name, rank) not in there:
                raise EarmarkError(
                    f"{', '.join(recipe.data.roots)}: the shards of process {rank + 1} of {ranks} "
                    f"have no training clip of {label!r}: mix clips before they are divided into "
                    "shards (earmark corpus DIR --shards OUT does), or use fewer processes"
                )


def _check_readable(splits: dict[str, Split], recipe: Recipe) -> None:
    """What the corpus lists was checked when it was scanned; this is what could be read of it."""
    for name, needed in (("train", recipe.data.at_least), ("validation", 1)):
        split = splits[name]
        for index, label in enumerate(split.labels):
            count = int(split.counts[index])
            if label != SILENCE and count < needed:
                raise EarmarkError(
                    f"{', '.join(recipe.data.roots)}: {count} readable clips of {label!r} in the "
                    f"{name} split, at least {needed} needed: replace those reported above"
                )


def _background(
    corpus: Corpus, recipe: Recipe, splits: dict[str, Split], cache: Path
) -> np.ndarray:
    """The noise that training draws from, int16 [length]; empty where nothing draws from it."""
    train, nothing = splits["train"], np.zeros(0, np.int16)
    background = recipe.data.balance == "keywords"
    needed = bool(recipe.augment.noise) or background
    if not needed and SILENCE not in train.labels:
        return nothing
    pool = noise_pool(corpus, "train", recipe.data.noise, cache)
    if sum(map(len, pool)) <= train.pcm.shape[1]:
        # Clips of silence that are all zeros are filled with noise where there is some.
        if not needed:
            return nothing
        optional = "" if background else ", or set augment.noise to 0"
        raise EarmarkError(
            f"{', '.join((*recipe.data.roots, *recipe.data.noise))}: no background noise of more "
            "than a clip's length for training: add recordings of 10 s or more to the corpus' "
            f"folder _background_noise_, or name a folder of some in data.noise{optional}"
        )
    return np.concatenate(pool)


def _free_speech(recipe: Recipe, cache: Path, clip: int) -> np.ndarray:
    """The free speech to train on, int16 [samples]; empty where the recipe names none."""
    folders = recipe.data.speech
    if not folders:
        return np.zeros(0, np.int16)
    pool = speech_pool(folders, "train", recipe.keywords, cache)
    if len(pool) <= clip:
        raise EarmarkError(
            f"{', '.join(folders)}: no free speech without keywords of more than a clip's length "
            "for training: a recording is in one split only, so give some dozens of them"
        )
    return pool
