"""Whoever gives posteriors of clips: model files as they ship, and what they are compared with.

A model file is streamed. Teachers, reference networks and students in torch hear whole clips in one
call, and nearest neighbours remember the training clips; what is printed of each says which it was.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..train.data.dataset import Split
from ..train.recipe import parse_recipe
from .evaluate import clip_seconds, score
from .held_out import Trained

STREAMING, WHOLE = "streaming", "whole clips"
ENSEMBLE = "ensemble"
_PLACES = {
    "data": ("cache", "sources"),
    "train": ("threads", "devices", "nodes", "accelerator"),
}
"""Fields of a recipe that change where it runs or what is said of it, not what it is."""

_HEARD = ("teachers", "unlabelled")
"""Fields of a distillation that name folders."""


@dataclass(frozen=True)
class Judge:
    """One of those that are compared."""

    labels: tuple[str, ...]
    clip: float
    """Length of the clips that it was trained on, seconds."""
    multilabel: bool
    trained: tuple[Trained, ...]
    """What the training of each of its models had."""
    about: dict[str, Any]
    """Plain values: ``model`` (the path), ``name``, ``kind`` (``student``, the kind of a teacher,
    ``ensemble``, or the name of a baseline), ``judged``, ``precision``, ``parameters``, ``bytes``,
    ``seed``, ``teacher``, the settings of ``distill`` but for what it heard, and hashes of its
    ``recipe`` without the seed and of its ``base``, which is the recipe without distillation as
    well."""
    posteriors: Callable[[Split], NDArray[np.float32]]
    """float32 [N, labels] of the clips of a split."""


def open_judge(name: str) -> Judge:
    """A model file, the complete run directory of a student or a teacher, or several of them with
    ``+`` between, which are one: the mean of their posteriors.

    Raises:
        EarmarkError: it is none of these, or damaged.
    """
    path = Path(name)
    if path.is_dir():
        return _run(path)
    return _file(path) if path.exists() or "+" not in name else _ensemble(name)


def neighbours(train: Split, clip: float) -> list[Judge]:
    """The baselines of :mod:`earmark.train.knn`, which know the clips of ``train``."""
    from ..train.knn import MOMENTS, knn_posteriors, pooled_mfcc
    from ..train.mfcc import MfccSettings

    features = MfccSettings()
    known = {name: pooled_mfcc(train.pcm, features, moments) for name, moments in MOMENTS.items()}

    def posteriors(name: str, split: Split) -> NDArray[np.float32]:
        asked = pooled_mfcc(split.pcm, features, MOMENTS[name])
        return knn_posteriors(known[name], train.target, asked)

    return [
        Judge(
            train.labels,
            clip,
            train.several is not None,
            (),
            _about(name, name, kind=name, judged=WHOLE, precision="float32", recipe={}),
            partial(posteriors, name),
        )
        for name in MOMENTS
    ]


def _file(path: Path) -> Judge:
    engine = Engine(path)
    manifest = engine.manifest
    about = _about(
        str(engine.path),
        manifest.name,
        kind="student",
        judged=f"{manifest.precision} {STREAMING}",
        precision=manifest.precision,
        parameters=manifest.parameters,
        size=engine.size,
        teacher=manifest.teacher,
        recipe=manifest.training.get("recipe"),
    )
    return Judge(
        manifest.labels,
        clip_seconds(manifest),
        manifest.activation == "sigmoid",
        (Trained.of_file(str(engine.path), manifest),),
        about,
        partial(score, engine),
    )


def _run(path: Path) -> Judge:
    from ..train.recipe import load_recipe
    from ..train.run import RECIPE, load_run
    from ..train.score import clip_posteriors
    from ..train.teachers.run import load_teacher, teacher_posteriors

    if not (path / RECIPE).is_file():
        raise EarmarkError(f"{path}: no run directory: name one, or a model file")
    settings = load_recipe(path / RECIPE).teacher
    if settings is None:
        run, kind = load_run(path), "student"
        parameters = run.student.parameters_trained
        posteriors = partial(clip_posteriors, run.student)
    else:
        run, kind = load_teacher(path), settings.kind
        parameters = sum(p.numel() for p in run.teacher.parameters())
        posteriors = partial(teacher_posteriors, run.teacher)
    recipe = asdict(run.recipe)
    about = _about(
        str(path),
        run.recipe.name,
        kind=kind,
        judged=f"float32 {WHOLE}",
        precision="float32",
        parameters=parameters,
        teacher=run.info.teacher,
        recipe=recipe,
    )
    trained = (Trained.of(str(path), recipe, run.info.sources, run.info.learned_folders),)
    clip, multilabel = run.recipe.data.clip, run.recipe.multilabel
    return Judge(run.info.labels, clip, multilabel, trained, about, posteriors)


def _ensemble(name: str) -> Judge:
    parts = name.split("+")
    if not all(parts):
        raise EarmarkError(f"{name}: expected models with + between them")
    members = [open_judge(part) for part in parts]
    first = members[0]
    for other in members[1:]:
        check_alike(first, other)

    def posteriors(split: Split) -> NDArray[np.float32]:
        said = np.stack([member.posteriors(split) for member in members])
        return said.mean(axis=0, dtype=np.float32)

    abouts = [member.about for member in members]
    sizes = [about["parameters"] for about in abouts]

    def joined(field: str) -> str | None:
        return " + ".join(dict.fromkeys(a[field] for a in abouts if a[field])) or None

    about = _about(
        name,
        " + ".join(f"{a['name']} ({a['kind']})" for a in abouts),
        kind=ENSEMBLE,
        judged=joined("judged") or "",
        precision=joined("precision") or "",
        parameters=None if None in sizes else sum(sizes),
        teacher=joined("teacher"),
        recipe={"members": [a["recipe"] for a in abouts]},
    ) | {"seed": ", ".join(str(a["seed"]) for a in abouts)}
    trained = tuple(one for member in members for one in member.trained)
    return Judge(first.labels, first.clip, first.multilabel, trained, about, posteriors)


def check_alike(first: Judge, other: Judge) -> None:
    """Refuse to compare models of other labels or clips.

    Raises:
        EarmarkError: they have.
    """
    if (other.labels, other.clip, other.multilabel) != (
        first.labels,
        first.clip,
        first.multilabel,
    ):
        raise EarmarkError(
            f"{other.about['model']}: has other labels or clips than {first.about['model']}: "
            "measure it by itself"
        )


def _about(
    model: str,
    name: str,
    *,
    kind: str,
    judged: str,
    precision: str,
    recipe: Any,
    parameters: int | None = None,
    size: int | None = None,
    teacher: str | None = None,
) -> dict[str, Any]:
    recipe = recipe if isinstance(recipe, dict) else {}
    return {
        "model": model,
        "name": name,
        "kind": kind,
        "judged": judged,
        "precision": precision,
        "parameters": parameters,
        "bytes": size,
        "seed": recipe.get("seed"),
        "teacher": teacher,
        "distill": _distillation(recipe.get("distill")),
        "recipe": _digest(recipe, ("seed",)),
        "base": _digest(recipe, ("seed", "name", "distill")),
    }


def _distillation(settings: Any) -> dict[str, Any] | None:
    if not isinstance(settings, dict):
        return None
    return {name: value for name, value in settings.items() if name not in _HEARD}


def _digest(recipe: dict[str, Any], without: tuple[str, ...]) -> str:
    """A short hash of a recipe without some of its fields. What it does not say has its default: a
    field that a later version added makes no other recipe of it."""
    with suppress(EarmarkError):  # a recipe of another version, or of another program
        recipe = asdict(parse_recipe(recipe, "recipe"))
    left: dict[str, Any] = {}
    for name, value in recipe.items():
        dropped = _PLACES.get(name, ())
        if isinstance(value, dict):
            value = {key: part for key, part in value.items() if key not in dropped}
        if name not in without:
            left[name] = value
    text = json.dumps(left, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
