"""The clips that a model is measured on, in the splits that its training had."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..runtime.errors import EarmarkError
from ..train.data.corpus import Corpus, scan


def held_out_fold(recipe: Any) -> tuple[str, int]:
    """``data.folds`` and ``data.fold`` of a recipe as a manifest has it; ("", 0) where it has none.

    Args:
        recipe: plain values.
    """
    data = recipe.get("data") if isinstance(recipe, dict) else None
    data = data if isinstance(data, dict) else {}
    folds, fold = data.get("folds"), data.get("fold")
    return (folds, fold) if isinstance(folds, str) and isinstance(fold, int) and fold else ("", 0)


def measured_corpus(roots: Sequence[str | Path], folds: Iterable[tuple[str, int]]) -> Corpus:
    """The clips of some data, the fold that training held out being the validation split.

    Args:
        roots: as of :func:`earmark.train.data.corpus.scan`.
        folds: of each model, as of :func:`held_out_fold`. Data that have other folds, or none, keep
            their split: they are not what the model was trained on.

    Raises:
        EarmarkError: the models held out other clips of these data; or as
            :func:`earmark.train.data.corpus.scan`.
    """
    corpus, *others = (_split_by(roots, *fold) for fold in sorted(set(folds)))
    if any(other.clips != corpus.clips for other in others):
        raise EarmarkError(
            "the models' trainings held out other folds of --data: measure each by itself"
        )
    return corpus


def _split_by(roots: Sequence[str | Path], pattern: str, number: int) -> Corpus:
    corpus = scan(*roots)
    if not number:
        return corpus
    named = scan(*roots, folds=pattern)
    if number not in named.folds or not all(clip.fold for clip in named.clips):
        return corpus
    return scan(*roots, folds=pattern, fold=number)
