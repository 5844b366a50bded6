"""The verb ``sweep``."""

import dataclasses
import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ...runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="TOML file of a student or a teacher")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the runs"
    )
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE,...",
        action="append",
        required=True,
        help="values of a field of the recipe, such as seed=0,1,2; all combinations are run",
    )


def _run(arguments: Namespace) -> int:
    from .sweep import REPORT, sweep

    for row in sweep(arguments.recipe, arguments.set, arguments.output):
        print(json.dumps({"type": "sweep"} | dataclasses.asdict(row), ensure_ascii=False))
    print((arguments.output / REPORT).read_text(encoding="utf-8"), end="", file=sys.stderr)
    return 0


sweep = Command(
    summary="train and judge a grid of recipes, and keep the table",
    configure=_configure,
    run=_run,
    extra="export",
    examples=(
        "earmark sweep recipe.toml --set distill.weight=0.5,0.9 --set seed=0,1,2 -o runs/sweep",
    ),
)
