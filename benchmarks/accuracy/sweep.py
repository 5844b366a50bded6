"""A grid of runs that differ in a few fields of one recipe, and the table of what they reach.

Students are judged as they ship: exported to int8 and streamed. Teachers and the reference, which
are not exported, are judged on whole clips. Both on the validation clips.
"""

import dataclasses
import hashlib
import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...export.export import export
from ...export.judge import STREAMING, WHOLE
from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...runtime.files import write_text
from ...train.fit import train
from ...train.metrics import HEADLINES, spread
from ...train.recipe import Recipe, load_recipe
from ...train.teach import EVALUATION, teach
from ..tables import markdown_table

TABLE, REPORT = "table.jsonl", "table.md"
_SEED = "seed"
_MODEL = "model.onnx"
NAME_LENGTH = 200
"""Characters of a folder's name before what tells it from others: systems allow 255 bytes."""
_MEASURES = HEADLINES | {"macro_f1": "macro F1"}


@dataclass(frozen=True)
class Row:
    """One run of the grid."""

    settings: dict[str, Any]
    """The fields that the grid sets."""
    run: str
    macro_f1: float
    parameters: int
    judged: str
    """``int8 streaming`` or ``whole clips``."""
    top1: float | None = None
    """Of exclusive classes."""
    map: float | None = None
    """Of a multi-label task."""
    recipe: str = ""
    """The recipe as it was named; empty in a table that does not say it."""


def sweep(
    recipe: str | Path,
    grid: Sequence[str],
    folder: Path,
    chunk_seconds: float = 0.08,
) -> Iterator[Row]:
    """Train and judge every combination, one after the other.

    What is complete is left as it is, so that a sweep that was interrupted, or got more values,
    goes on. After each run ``folder`` holds the table so far: ``table.jsonl``, a line a run, and
    ``table.md``, where runs that differ in their seed alone are one row.

    Args:
        recipe: a TOML file of a student or a teacher.
        grid: ``field=value,value,...`` with dotted names and TOML values; what is not TOML is text.
        folder: gets a run directory for each combination.
        chunk_seconds: audio per call of the exported students.

    Yields:
        Each run as it is complete.

    Raises:
        EarmarkError: no such field, a field or a value given twice, or a run fails.
    """
    axes = [_axis(text) for text in grid]
    names = [name for name, _ in axes]
    for name in names:
        if names.count(name) > 1:
            raise EarmarkError(f"setting {name}: given twice: list its values with commas between")
    # All combinations are checked before the first one takes its hours.
    runs = []
    for values in itertools.product(*(values for _, values in axes)):
        settings = dict(zip(names, values, strict=True))
        # JSON's texts, numbers, booleans and lists are TOML's too.
        given = [f"{name}={json.dumps(value, default=str)}" for name, value in settings.items()]
        runs.append((settings, load_recipe(recipe, given)))
    folders = _folder_names([settings for settings, _ in runs])
    rows: list[Row] = []
    for (settings, one), name in zip(runs, folders, strict=True):
        row = _run(one, settings, folder / name, chunk_seconds)
        rows.append(dataclasses.replace(row, recipe=str(recipe)))
        lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) for row in rows]
        write_text(folder / TABLE, "".join(line + "\n" for line in lines))
        write_text(folder / REPORT, markdown(rows))
        yield rows[-1]


def markdown(rows: Sequence[Row]) -> str:
    """The table for people: mean and standard deviation over seeds, in percent."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        rest = {name: value for name, value in row.settings.items() if name != _SEED}
        groups.setdefault(json.dumps(rest), []).append(row)
    names = [name for name in rows[0].settings if name != _SEED]
    measures = [name for name in _MEASURES if getattr(rows[0], name) is not None]
    heads = [*names, "runs", *(f"{_MEASURES[name]}, %" for name in measures)]
    heads += ["parameters", "judged"]
    lines = []
    for group in groups.values():
        first = group[0]
        cells = [*(str(first.settings[name]) for name in names), str(len(group))]
        cells += [percent_spread([getattr(row, name) for row in group]) for name in measures]
        cells += [f"{first.parameters:,}", first.judged]
        lines.append(cells)
    return markdown_table(heads, lines) + "\n"


def command(rows: Sequence[Row]) -> str:
    """The command line of a table: the grid that its rows are."""
    options: list[str] = []
    for name in rows[0].settings:
        values = dict.fromkeys(json.dumps(row.settings[name], ensure_ascii=False) for row in rows)
        options += ["--set", f"{name}={','.join(values)}"]
    recipe = rows[0].recipe or "RECIPE"
    return shlex.join(["earmark", "sweep", recipe, *options, "-o", "DIR"])


def percent_spread(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation, in percent."""
    found = spread(values)
    mean = f"{100 * found['mean']:.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * found['standard_deviation']:.2f}"


def _run(recipe: Recipe, settings: dict[str, Any], path: Path, chunk_seconds: float) -> Row:
    if recipe.teacher is not None:
        teach(recipe, path)
        measured = json.loads((path / EVALUATION).read_text(encoding="utf-8"))
        parameters, judged = measured["parameters"], WHOLE
    else:
        model = path / _MODEL
        train(recipe, path)
        if not model.exists():
            export(path, model, chunk_seconds)
        manifest = Engine(model).manifest
        measured = manifest.metrics["int8_streaming"]
        parameters, judged = manifest.parameters, f"int8 {STREAMING}"
    figures = {name: measured[name] for name in _MEASURES if name in measured}
    return Row(settings, str(path), parameters=parameters, judged=judged, **figures)


def _axis(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    if not equals or not name.strip() or not values.strip():
        raise EarmarkError(f"setting {text!r}: expected FIELD=VALUE,VALUE, as seed=0,1,2")
    try:
        found = tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        found = [value.strip() for value in values.split(",")]
    for value in found:
        if found.count(value) > 1:
            # One run would count as several, of which the table tells a spread.
            raise EarmarkError(f"setting {text!r}: {value!r} is given twice: leave one out")
    return name.strip(), found


def _folder_names(grid: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each combination, which tells its settings as far as they fit into it."""
    texts = [
        ",".join(f"{name}={json.dumps(value, default=str)}" for name, value in settings.items())
        for settings in grid
    ]
    whole = [re.sub(r"[^\w.=+-]+", "-", text).strip("-") or "run" for text in texts]
    names = []
    for text, name in zip(texts, whole, strict=True):
        if len(name) > NAME_LENGTH or whole.count(name) > 1:
            # What was cut away or replaced tells it from others.
            digest = hashlib.sha256(text.encode()).hexdigest()[:8]
            name = f"{name[:NAME_LENGTH]}-{digest}"
        names.append(name)
    return names
