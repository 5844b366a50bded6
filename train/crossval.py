"""k-fold cross-validation: every fold held out once, two recipes on the same folds, baselines.

Data sets of environmental sounds are small and come with folds that keep clips of one recording
together (K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", 2015); a single split
of them says little. Two recipes are compared fold by fold, since folds differ more than recipes do.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import EarmarkError
from ..runtime.files import write_text
from ..runtime.manifest import SILENCE
from .data.corpus import scan
from .data.dataset import Split, load_split
from .data.material import recipe_corpus
from .fit import begun_with, train
from .knn import knn_baselines
from .metrics import HEADLINES, headline, measure, spread
from .recipe import Recipe
from .run import load_run
from .score import clip_posteriors

REPORT = "crossval.json"
PROTOCOL = "float32 in torch, whole clips, weights of the last epoch; each fold is held out once"

Posteriors = NDArray[np.float32]


def crossval(recipes: Mapping[str, Recipe], folder: Path, command: str = "") -> dict[str, Any]:
    """Train and measure recipes on every fold of their data, and the baselines beside them.

    Each training is a run directory, ``folder/<name>/fold-<k>``: what is complete is not trained
    again, and an interrupted one goes on, when the same call is made again. Nothing is chosen on
    the fold that is held out.

    Args:
        recipes: one or two by name; they differ in how they train and not in their data, labels or
            task. The difference that is reported is the first minus the second.
        folder: is made; ``crossval.json`` in it gets the report.
        command: the command line, kept for the record.

    Returns:
        The report: ``metric``, the name of the figure; ``folds``; for each recipe under
        ``recipes``, and each baseline under ``baselines``, the figure by fold, its ``mean``,
        ``standard_deviation`` over the folds, and ``all_folds``, the measures over all clips
        together, each scored by the model that did not hear it; ``difference`` of two recipes, by
        fold, mean and standard deviation.

    Raises:
        EarmarkError: the data have fewer than two folds, the recipes differ in their data, labels
            or task, a recipe is a teacher's, a run to start from or to be taught by has heard a
            fold, or as :func:`earmark.train.fit.train`.
    """
    folder = Path(folder)
    shared = {name: _with_cache(recipe, folder / "cache") for name, recipe in recipes.items()}
    first = next(iter(shared.values()))
    _check_alike(*shared.values())
    folds = _folds(first)
    # Before hours are spent on the folds that can be trained.
    for recipe in shared.values():
        for fold in folds:
            begun_with(_of_fold(recipe, fold))
    held_out: list[Split] = []
    scores: dict[str, list[Posteriors]] = {}
    for fold in folds:
        train_split, test_split = (_load(first, fold, name) for name in ("train", "validation"))
        held_out.append(test_split)
        for name, posteriors in knn_baselines(train_split, test_split, first.features).items():
            scores.setdefault(name, []).append(posteriors)
        for name, recipe in shared.items():
            run_dir = folder / name / f"fold-{fold}"
            train(_of_fold(recipe, fold), run_dir, command)
            posteriors = clip_posteriors(load_run(run_dir).student, test_split)
            scores.setdefault(name, []).append(posteriors)
            measured = measure(test_split, posteriors)
            figure = headline(measured)
            print(
                f"fold {fold} of {len(folds)}  {name}: {HEADLINES[figure]} {measured[figure]:.2%}",
                file=sys.stderr,
            )
    found = {name: _summary(held_out, folds, rows) for name, rows in scores.items()}
    report = {
        "type": "crossval",
        "name": first.name,
        "task": first.task,
        "metric": headline(found[next(iter(shared))]["all_folds"]),
        "protocol": PROTOCOL,
        "folds": list(folds),
        "clips": sum(map(len, held_out)),
        "labels": list(first.labels),
        "recipes": {name: found[name] for name in shared},
        "baselines": {name: found[name] for name in found if name not in shared},
        "difference": _difference(*(found[name]["folds"] for name in shared)),
        "command": command,
    }
    write_text(folder / REPORT, json.dumps(report, ensure_ascii=False) + "\n")
    return report


def _with_cache(recipe: Recipe, cache: Path) -> Recipe:
    data = dataclasses.replace(recipe.data, cache=recipe.data.cache or str(cache))
    return dataclasses.replace(recipe, data=data)


def _check_alike(first: Recipe, *others: Recipe) -> None:
    """Refuse recipes that are not measured on the same clips."""
    for other in others:
        # Of noise clips are made where there is a class of it.
        noise = ("noise",) if SILENCE in first.labels else ()
        for name in ("roots", "own", "folds", "clip", "speech", *noise):
            if getattr(other.data, name) != getattr(first.data, name):
                raise EarmarkError(f"--against: field data.{name}: both must have the same")
        if (other.labels, other.task) != (first.labels, first.task):
            raise EarmarkError("--against: fields keywords and task: both must have the same")


def _of_fold(recipe: Recipe, fold: int) -> Recipe:
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, fold=fold))


def _folds(recipe: Recipe) -> tuple[int, ...]:
    data = recipe.data
    if not data.roots:
        raise EarmarkError("recipe field data.roots: names no corpus folder")
    folds = scan(*data.roots, folds=data.folds).folds
    if len(folds) < 2:
        raise EarmarkError(
            f"{', '.join(data.roots)}: {len(folds)} folds, at least 2 needed: give data.folds a "
            "pattern that finds them in the file names, or a table a column fold"
        )
    return folds


def _load(recipe: Recipe, fold: int, split: str) -> Split:
    data = recipe.data
    return load_split(
        recipe_corpus(recipe, fold),
        recipe.labels,
        split,
        data.clip,
        data.cache,
        noise_roots=data.noise,
        multilabel=recipe.multilabel,
        speech_roots=data.speech,
    )


def _summary(
    held_out: list[Split], folds: tuple[int, ...], posteriors: list[Posteriors]
) -> dict[str, Any]:
    by_fold: dict[str, float] = {}
    for fold, split, rows in zip(folds, held_out, posteriors, strict=True):
        measured = measure(split, rows)
        by_fold[str(fold)] = measured[headline(measured)]
    everything = measure(_together(held_out), np.concatenate(posteriors))
    return {"folds": by_fold, **spread(list(by_fold.values())), "all_folds": everything}


def _together(splits: list[Split]) -> Split:
    """The clips of all splits without their audio."""
    first = splits[0]

    def join(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(split, name) for split in splits])

    return Split(
        first.labels,
        np.zeros((sum(map(len, splits)), 0), np.int16),
        join("label"),
        join("word"),
        join("speaker"),
        join("path"),
        sum(split.skipped for split in splits),
        None if first.several is None else join("several"),
    )


def _difference(first: dict[str, float], *others: dict[str, float]) -> dict[str, Any] | None:
    """Fold by fold, the first minus the second; None where there is no second."""
    if not others:
        return None
    by_fold = {fold: value - others[0][fold] for fold, value in first.items()}
    return {"folds": by_fold, **spread(list(by_fold.values()))}
