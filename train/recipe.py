"""The recipe: one TOML file that fixes a training run, checked field by field."""

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..runtime.errors import EarmarkError
from ..runtime.files import read_text
from ..runtime.manifest import SILENCE, UNKNOWN, Source
from .augment import AugmentSettings
from .data.dataset import label_set
from .mfcc import MfccSettings
from .optimizers import OptimizerName
from .recipe_conditions import conditions
from .student import StudentSettings
from .teachers.distill import DistillSettings
from .teachers.settings import TeacherSettings

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
RECIPES = Path(__file__).parent / "recipes"
"""The recipes that come with Earmark."""
MAX_RECIPE_BYTES = 1 << 20
Share = Annotated[float, Field(ge=0, le=1)]
_MESSAGES = {
    "unexpected_keyword_argument": "no such setting",
    "missing": "is missing: give it",
    "tuple_type": 'expected a list, as ["yes", "no"]',
    "dataclass_type": "expected a section of settings",
}
"""What TOML calls what pydantic calls otherwise, by the type of its error."""


@dataclass(frozen=True, config=_STRICT)
class DataSettings:
    """Where the recordings are and how they are drawn."""

    roots: tuple[str, ...] = ()
    """Corpus folders in the Speech Commands layout, CSV tables of clips (see
    :mod:`earmark.train.data.metadata`), or patterns of WebDataset shards (see
    :mod:`earmark.train.data.shards`), which several processes divide; read as one."""
    own: tuple[str, ...] = ()
    """More corpus folders, of a few recordings of one's own. Without lists all of their clips
    train, whoever speaks them, and ``roots`` must provide the validation split."""
    own_share: Share = 0.5
    """Share of each class's clips in a training epoch that comes from ``own``, where it has any."""
    leave_out: tuple[str, ...] = ()
    """Class folders whose training clips are left out, so that their validation clips are words
    that no clip taught; free speech and teachers may have them all the same."""
    speech: tuple[str, ...] = ()
    """Folders of free speech, any layout: pieces of it are ``_unknown_``, less the keywords that
    its transcripts tell of (see :mod:`earmark.train.data.transcripts`)."""
    speech_share: Share = 0.5
    """Share of the other words in a training epoch that is pieces of free speech."""
    speech_around: Share = 0.3
    """Share of the words in a training epoch that stand between pieces of free speech."""
    folds: str = ""
    """Regular expression whose first group is a clip's fold, matched at the beginning of its file
    name; for clips whose fold no table says."""
    fold: Annotated[int, Field(ge=0)] = 0
    """The fold that is held out for validation; 0: the corpus' own split."""
    balance: Literal["keywords", "balanced", "natural"] = "keywords"
    """How an epoch draws the classes. ``keywords``: every keyword equally often, and the shares
    below of other words (``_unknown_``) and of background (``_silence_``), which are classes then
    without being named. ``balanced``: every class equally often (class-aware sampling, Shen et al.
    2016). ``natural``: every clip once, but for those that do not fill a last batch, which are
    others in every epoch."""
    noise: tuple[str, ...] = ()
    """More folders of background noise, any layout."""
    clip: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Length of a training clip, seconds."""
    unknown: Share = 0.3
    """Share of each training epoch that is other words, where ``balance`` is ``keywords``."""
    silence: Share = 0.1
    """Share of each training epoch that is background alone, likewise."""
    unknown_balance: Share = 0.0
    """How evenly the words of ``_unknown_`` are drawn, where ``balance`` is ``keywords``: 0 as
    often as they have clips, 1 all equally often, 0.5 by the square roots of their clips. What lies
    in a folder ``_unknown_`` counts as one word."""
    at_least: Annotated[int, Field(ge=1)] = 4
    """Least clips of each class in the training split; fewer are refused."""
    sources: tuple[Source, ...] = ()
    """Origin and licence of the recordings of folders whose own ``sources.json`` does not say."""
    cache: str = ""
    """Folder for decoded clips; empty: ``cache`` in the run directory's parent."""


@dataclass(frozen=True, config=_STRICT)
class TrainSettings:
    """Optimizer (one cosine cycle after a warm-up) and loop."""

    epochs: Annotated[int, Field(ge=1)] = 100
    steps_per_epoch: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps of an epoch; 0: as many as go once through the clips of keywords. Few clips
    need this, as an epoch of theirs is only a step or two."""
    batch: Annotated[int, Field(ge=2)] = 128
    """Clips per step on each device."""
    optimizer: OptimizerName = "adamw"
    """``muon``: AdamW, and Muon for the weights of 2-D convolutions, of which a student is made;
    ``sgd`` has a momentum of 0.9."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Share = 0.05
    """Share of the steps in which the learning rate rises."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    init: str = ""
    """Complete run directory of a student of the same shape to start from; empty: at random."""
    validate_every: Annotated[int, Field(ge=1)] = 5
    """At most so many epochs between two looks at the validation split; the last epoch has one."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Annotated[int, Field(ge=1)] = 1
    """Devices (GPUs, or processes on a CPU) of each machine."""
    nodes: Annotated[int, Field(ge=1)] = 1
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto"
    """``auto``: mixed on a GPU, 32 bits on a CPU."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of each process; 0: torch's choice."""


@dataclass(frozen=True, config=_STRICT)
class DecisionSettings:
    """How the exported model decides until thresholds are tuned."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    smoothing: Annotated[float, Field(ge=0, le=60)] = 0.2
    release: Share = 0.5
    refractory: Annotated[float, Field(ge=0, le=3600)] = 0.8


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """All choices of one run."""

    name: str
    keywords: Annotated[tuple[str, ...], Field(min_length=1)]
    """The words to be spotted, or the sounds to be told apart. Unless ``data.balance`` is
    ``keywords``, ``_unknown_`` (all other folders) and ``_silence_`` may be among them, last."""
    task: Literal["exclusive", "multilabel"] = "exclusive"
    """Whether a clip has one class (cross-entropy) or any number of them (binary cross-entropy)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataSettings = DataSettings()
    features: MfccSettings = MfccSettings()
    augment: AugmentSettings = AugmentSettings()
    student: StudentSettings = StudentSettings()
    train: TrainSettings = TrainSettings()
    decision: DecisionSettings = DecisionSettings()
    teacher: TeacherSettings | None = None
    """The recipe is that of a teacher (``earmark teach``), and has no student."""
    distill: DistillSettings | None = None
    """The student learns from teachers too."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the model, in the order of its logits.

        Raises:
            EarmarkError: as :func:`earmark.train.data.dataset.label_set`.
        """
        if self.data.balance == "keywords":
            return label_set(self.keywords)
        reserved = [name for name in (UNKNOWN, SILENCE) if name in self.keywords]
        return label_set([k for k in self.keywords if k not in reserved], reserved)

    @property
    def view_seed(self) -> int:
        """The seed that the clips' views follow from: of numbered views always 0, so that runs of
        other seeds share them, and what teachers said of them."""
        return 0 if self.augment.views else self.seed

    @property
    def multilabel(self) -> bool:
        """Whether a clip may have several classes."""
        return self.task == "multilabel"


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Args:
        path: a TOML file.
        overrides: ``field=value`` settings that go before the file's, with dotted field names and
            TOML values: ``train.epochs=3``, ``keywords=["yes","no"]``; what is not TOML is text.

    Raises:
        EarmarkError: the file cannot be read or is not TOML, or a field is unknown or has a wrong
            value. The message names the file, the overrides and the field.
    """
    try:
        table = tomllib.loads(read_text(path, MAX_RECIPE_BYTES))
    except (ValueError, RecursionError) as error:
        raise EarmarkError(f"{path}: not a TOML file ({error})") from error
    for override in overrides:
        _override(table, override)
    where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    return parse_recipe(table, where)


def parse_recipe(table: dict[str, Any], where: str) -> Recipe:
    """Check the fields of a recipe; ``where`` is named in errors.

    Raises:
        EarmarkError: a field is unknown, missing or has a wrong value.
    """
    try:
        recipe = TypeAdapter(Recipe).validate_python(table)
    except ValidationError as error:
        # A misspelt field is told before the one that is missing for it.
        unknown = [e for e in error.errors() if e["type"] == "unexpected_keyword_argument"]
        first = (unknown or error.errors())[0]
        name = ".".join(str(part) for part in first["loc"])
        told = _MESSAGES.get(first["type"], first["msg"])
        raise EarmarkError(f"{where}: field {name}: {told}") from error
    for name, expected, holds in (*_numbers(table, recipe), *conditions(recipe)):
        if not holds:
            raise EarmarkError(f"{where}: field {name}: expected {expected}")
    try:
        _ = recipe.labels
    except EarmarkError as error:
        raise EarmarkError(f"{where}: field keywords: {error}") from error
    return recipe


def _numbers(
    table: dict[str, Any], settings: Any, where: str = ""
) -> Iterator[tuple[str, str, bool]]:
    """As :func:`conditions`: pydantic takes true for 1 where a number is wanted."""
    for name, given in table.items():
        value = getattr(settings, name)
        if isinstance(given, dict) and dataclasses.is_dataclass(value):
            yield from _numbers(given, value, f"{where}{name}.")
        else:
            pairs = zip(given, value, strict=True) if isinstance(given, list) else ((given, value),)
            yield (
                f"{where}{name}",
                "a number",
                all(isinstance(a, bool) <= isinstance(b, bool) for a, b in pairs),
            )


def recipe_toml(recipe: Recipe) -> str:
    """The recipe with every default filled in, as TOML that reads back to an equal recipe."""
    return tomli_w.dumps(_plain(dataclasses.asdict(recipe)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        # TOML has no null: what is not there reads back as None.
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _override(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        raise EarmarkError(f"setting {override!r}: expected FIELD=VALUE, as train.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = name.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise EarmarkError(f"setting {override!r}: {parent} has no fields")
    table[last] = value
