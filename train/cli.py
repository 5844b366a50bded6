"""The verbs ``train`` and ``teach``."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="TOML file that fixes the run")
    parser.add_argument(
        "-o", "--output", metavar="RUN", help="run directory (default: runs/<name of the recipe>)"
    )
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="override a field of the recipe, such as train.epochs=20; may be repeated",
    )


@contextmanager
def _resumable() -> Iterator[None]:
    """Say of a run that Ctrl-C stops that it is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped: the same command goes on after the last whole epoch", file=sys.stderr)
        raise


def _run(arguments: Namespace) -> int:
    from .recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.set)
    from .fit import train

    path = Path(arguments.output or Path("runs") / recipe.name)
    with _resumable():
        train(recipe, path, arguments.command_line)
    print(f"trained: {path}\nnext: earmark export {path} -o {recipe.name}.onnx", file=sys.stderr)
    return 0


train = Command(
    summary="train a student from a recipe, or go on with an interrupted run",
    configure=_configure,
    run=_run,
    extra="train",
    examples=("earmark train recipe.toml -o runs/mine --set train.epochs=20 --set seed=1",),
)


def _run_teach(arguments: Namespace) -> int:
    from .recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.set)
    from .teach import EVALUATION, teach

    path = Path(arguments.output or Path("runs") / recipe.name)
    with _resumable():
        teach(recipe, path, arguments.command_line)
    measured = json.loads((path / EVALUATION).read_text(encoding="utf-8"))
    print(json.dumps({"type": "teach", "run": str(path)} | measured, ensure_ascii=False))
    return 0


teach = Command(
    summary="train a teacher, or the reference that students are compared with",
    configure=_configure,
    run=_run_teach,
    extra="train",
    examples=("earmark teach teacher.toml -o runs/teacher",),
)
