"""The run directory: what training hands to export, with a checked schema.

recipe.toml        the resolved recipe, every default filled in, the seed among them
run.json           labels, data fingerprint, sources, counts, versions, calibration (RunInfo)
checkpoints/       for resuming
metrics.jsonl      loss and validation accuracy as training went
events.out.*       the same for TensorBoard
student.pt         the weights, written last: a run that has it is complete
"""

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import nn

from ..runtime.errors import EarmarkError
from ..runtime.files import read_text, write_bytes, write_text
from ..runtime.manifest import Source
from .recipe import Recipe, load_recipe, recipe_toml
from .student import Student

RECIPE, INFO, WEIGHTS, CHECKPOINTS, METRICS = (
    "recipe.toml",
    "run.json",
    "student.pt",
    "checkpoints",
    "metrics.jsonl",
)
SCHEMA_VERSION = 1
_OF_THE_MACHINE = {"train.threads", "data.cache"}
"""Fields of a recipe that a run may go on with others of: they change no more than rounding."""
_PACKAGES = ("torch", "torchaudio", "lightning", "numpy", "onnx", "onnxruntime", "espeakng-loader")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RunInfo:
    """What a run knows besides its recipe and weights."""

    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    fingerprint: str
    """SHA-256 over the files of the corpus, of noise and of free speech (see
    :func:`earmark.train.data.corpus.data_fingerprint`)."""
    clips: dict[str, dict[str, int]]
    """Clips of each label in each split that was used."""
    calibration: tuple[str, ...]
    """Training clips that export uses to set the int8 ranges, named as in
    :attr:`earmark.train.data.dataset.Split.path`; of shards, those of one process."""
    versions: dict[str, str]
    git_revision: str | None
    command: str
    init_sha256: str = ""
    """SHA-256 of the weights that training started from; empty: random ones."""
    learned_folders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the folders that those weights and the teachers, and whatever these began with, had
    learned from: of ``own``, ``speech``, ``noise`` and ``unlabelled`` in their recipes, and of
    ``roots``, with the fold that was held out where there is one."""
    teacher: str | None = None
    """Who taught a distilled student."""
    unlabelled_sha256: str = ""
    """As ``fingerprint``, over the files of the audio without labels; empty: there is none."""
    teachers_sha256: tuple[str, ...] = ()
    """Of each teacher, of all that its answers follow from besides the audio."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Validation top-1, or mean average precision, of what needs no training (see
    :mod:`earmark.train.knn`)."""
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True))
class Run:
    """A complete run, read back."""

    path: Path
    recipe: Recipe
    info: RunInfo
    student: Student
    """In evaluation mode, on the CPU."""
    weights_sha256: str
    history: list[dict[str, Any]]


def package_versions() -> dict[str, str]:
    """Versions of Python, Earmark and the installed packages that shape a model."""
    found = {"python": platform.python_version(), "earmark": importlib.metadata.version("earmark")}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The revision of the source tree that this code runs from, with ``-dirty`` behind it where
    tracked files differ from it; None outside of a checkout."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            # No tag is to stand for it.
            ["git", "-C", here, "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # An installed package may lie in somebody else's checkout.
    tracked = (here.parent / "pyproject.toml").is_file() and (here.parent / ".git").exists()
    return done.stdout.strip() if done.returncode == 0 and tracked else None


def start(path: Path, recipe: Recipe, info: RunInfo) -> None:
    """Write the recipe and the facts of a run, or check that they are those of the run there.

    Raises:
        EarmarkError: the directory holds a run of another recipe, of other data or other teachers.
    """
    text = recipe_toml(recipe)
    if (path / RECIPE).exists():
        there = load_recipe(path / RECIPE)
        differ = set(_differences(asdict(there), asdict(recipe))) - _OF_THE_MACHINE
        if differ:
            raise EarmarkError(
                f"{path}: holds a run of another recipe, which differs in "
                f"{', '.join(sorted(differ))}: choose another directory"
            )
        before = _read_info(path) if (path / INFO).exists() else info
        changed = {
            "data has": before.fingerprint != info.fingerprint,
            "first weights (train.init) have": before.init_sha256 != info.init_sha256,
            # Runs of an earlier version noted neither.
            "unlabelled audio has": before.unlabelled_sha256 not in ("", info.unlabelled_sha256),
            "teachers have": before.teachers_sha256 not in ((), info.teachers_sha256),
        }
        for what, it_is in changed.items():
            if it_is:
                raise EarmarkError(
                    f"{path}: its {what} changed since the run began: choose another directory"
                )
        return
    write_text(path / INFO, json.dumps(asdict(info), indent=1))
    write_text(path / RECIPE, text)


def _differences(there: dict[str, Any], here: dict[str, Any], section: str = "") -> Iterator[str]:
    """The fields of two recipes that differ, named as in ``--set``."""
    for name, value in here.items():
        other = there[name]
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(other, value, f"{section}{name}.")
        elif value != other:
            yield f"{section}{name}"


def save_weights(file: Path, module: nn.Module) -> None:
    """Complete a run by writing its weights."""
    # Through memory: torch tells of a full disk by a RuntimeError, and names the archive inside
    # after the file, so that a temporary name would change the bytes.
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    write_bytes(file, buffer.getvalue())


def is_complete(path: Path, weights: str = WEIGHTS) -> bool:
    """Whether the run has been trained to its end."""
    return (path / weights).is_file()


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read a complete run.

    Raises:
        EarmarkError: it is no run directory, it is incomplete, or a file in it is damaged.
    """
    path = Path(path)
    recipe, info = open_run(path, WEIGHTS, "train")
    student = Student(len(info.labels), recipe.student, recipe.features)
    digest = read_weights(path / WEIGHTS, student, "train")
    return Run(path, recipe, info, student.eval(), digest, read_history(path))


def open_run(path: Path, weights: str, verb: str) -> tuple[Recipe, RunInfo]:
    """The recipe and the facts of a complete run that ``verb`` made.

    Raises:
        EarmarkError: it is no run directory, it is incomplete, or a file in it is damaged.
    """
    if not (path / RECIPE).is_file():
        raise EarmarkError(f"{path}: not a run directory (no {RECIPE}): give what {verb} wrote")
    if not is_complete(path, weights):
        raise EarmarkError(f"{path}: training is not complete: run the same {verb} command again")
    recipe, info = load_recipe(path / RECIPE), _read_info(path)
    if info.labels != recipe.labels:
        raise EarmarkError(f"{path / INFO}: field labels: not those of the keywords in {RECIPE}")
    return recipe, info


def read_weights(file: Path, module: nn.Module, verb: str) -> str:
    """Load the weights of a run into ``module``, and give their SHA-256.

    Raises:
        EarmarkError: the file is damaged or of another shape.
    """
    try:
        module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many types for a damaged file
        # Not what torch says: of a file that would run code it says how to let it.
        raise EarmarkError(
            f"{file}: is damaged, or not the weights of this run: remove it and run the same "
            f"{verb} command again"
        ) from error
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of the run's metrics, oldest first, up to one that was not written whole."""
    file = path / METRICS
    history: list[dict[str, Any]] = []
    if not file.exists():
        return history
    # A full disk or a kill may cut the last line; the epoch that it was of is trained again.
    with suppress(ValueError, RecursionError):
        for line in read_text(file).splitlines():
            row = json.loads(line)
            if not isinstance(row, dict):
                break
            history.append(row)
    return history


def _read_info(path: Path) -> RunInfo:
    file = path / INFO
    try:
        told = json.loads(read_text(file))
        if isinstance(told, dict) and "init_folders" in told:  # as runs of earlier code have it
            told.setdefault("learned_folders", told.pop("init_folders"))
        info = TypeAdapter(RunInfo).validate_python(told)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise EarmarkError(f"{file}: field {name}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise EarmarkError(f"{file}: not JSON ({error})") from error
    if info.schema > SCHEMA_VERSION:
        raise EarmarkError(f"{file}: schema {info.schema} is newer than this Earmark: upgrade it")
    return info
