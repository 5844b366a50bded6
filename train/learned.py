"""What a run had learned from, by itself and by way of what it began with."""

from collections.abc import Sequence
from pathlib import Path

from ..runtime.errors import EarmarkError
from ..runtime.layout import LISTS, NOISE_FOLDER, place_name
from . import run as runs
from .data.apart import overlap
from .recipe import DataSettings, Recipe
from .teachers.run import TeacherRun

ROOTS = "roots"


def learned_folders(before: Sequence[runs.Run | TeacherRun]) -> dict[str, tuple[str, ...]]:
    """The names of the folders that some runs, and whatever they began with, have learned from.

    Args:
        before: the runs that another begins with, or is taught by.

    Returns:
        Names by the field of the recipe that has them; those of ``data.roots``, which hold out what
        their own split does or a fold, by both.
    """
    found: dict[str, set[str]] = {}
    for run in before:
        data, distill = run.recipe.data, run.recipe.distill
        fields = {
            _roots(data): data.roots,
            "own": data.own,
            "speech": data.speech,
            "noise": data.noise,
            "unlabelled": distill.unlabelled if distill else (),
        }
        for field, folders in fields.items():
            found.setdefault(field, set()).update(map(place_name, folders))
        for field, names in run.info.learned_folders.items():
            found.setdefault(field, set()).update(names)
    return {field: tuple(sorted(names)) for field, names in found.items()}


def check_held_out(recipe: Recipe, run: runs.Run | TeacherRun) -> None:
    """Refuse a run that has learned from the clips on which one of ``recipe`` is judged.

    Raises:
        EarmarkError: it has; the message names the folder.
    """
    path, data, other = run.path, recipe.data, run.recipe.data
    before = run.info.learned_folders
    # Of what it began with in its turn only names are known.
    names = {place_name(root): root for root in data.roots}
    by_here, by_there = _roots(data), _roots(other)
    if by_here != by_there and _resolved(data.roots) & _resolved(other.roots):
        by = ""
        if other.fold == data.fold:
            by = f" (data.folds = {other.folds!r} and {data.folds!r})"
        raise EarmarkError(
            f"{path}: learned from clips that are held out here: it has data.fold = {other.fold}, "
            f"this recipe {data.fold}{by}: train it on the same fold"
        )
    for field, folders in before.items():
        if field.startswith(ROOTS) and field != by_here and names.keys() & set(folders):
            raise EarmarkError(
                f"{path}: began with what learned from clips of {min(names.keys() & set(folders))} "
                f"that are held out here ({field} there, {by_here} here): begin with another, or "
                "train on the same fold"
            )
    own = _resolved(other.own) & _resolved(data.roots)
    own |= {Path(root).resolve() for name, root in names.items() if name in before.get("own", ())}
    for folder in sorted(own):
        # Lists hold out the same clips wherever the folder stands.
        if not any((folder / name).is_file() for name in LISTS.values()):
            raise EarmarkError(
                f"{path}: learned from all of {folder}, its data.own, of which data.roots of this "
                "recipe holds clips out: name it in data.own here too"
            )
    _check_heard(recipe, run)


def _check_heard(recipe: Recipe, run: runs.Run | TeacherRun) -> None:
    """Refuse a run that heard as noise, as free speech or without labels what another field of
    ``recipe`` holds some out of."""
    other, distill = run.recipe.data, run.recipe.distill
    heard = {
        "noise": ("{} as data.noise", other.noise),
        "speech": ("{} as data.speech", other.speech),
        "unlabelled": (
            "all of {} without labels (distill.unlabelled)",
            distill.unlabelled if distill else (),
        ),
    }
    for name, (what, folders) in heard.items():
        known, places = run.info.learned_folders.get(name, ()), _resolved(folders)
        for field in ("roots", "own", "speech", "noise"):
            # A folder is divided alike by a field of the same name.
            for folder in getattr(recipe.data, field) if field != name else ():
                here = Path(folder).resolve()
                # Which is divided alike by way of its corpus.
                shared = places - {here / NOISE_FOLDER} if name == "noise" else places
                if place_name(folder) in known or any(overlap(here, x) for x in shared):
                    raise EarmarkError(
                        f"{run.path}: learned from {what.format(folder)}, of which data.{field} of "
                        "this recipe holds some out: name a folder of other recordings"
                    )


def _roots(data: DataSettings) -> str:
    """What the clips of ``data.roots`` are divided by."""
    return f"{ROOTS}, fold {data.fold} of {data.folds or 'tables'}" if data.fold else ROOTS


def _resolved(folders: Sequence[str]) -> set[Path]:
    return {Path(folder).resolve() for folder in folders}
