"""The verb ``crossval``."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from ..runtime.command import Command

SPECAUGMENT_OFF = ("augment.time_masks=0", "augment.frequency_masks=0")


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="TOML file that fixes the runs")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="folder of the runs and of crossval.json (default: runs/<recipe's name>-crossval)",
    )
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="override a field of the recipe, such as train.epochs=20; may be repeated",
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--against",
        metavar="FIELD=VALUE",
        nargs="+",
        action="extend",
        help="compare the recipe with itself under these settings (default: without SpecAugment)",
    )
    other.add_argument("--alone", action="store_true", help="train the recipe and no other")


def _run(arguments: Namespace) -> int:
    from .recipe import load_recipe

    recipes = {"recipe": load_recipe(arguments.recipe, arguments.set)}
    against = [] if arguments.alone else arguments.against or [*SPECAUGMENT_OFF]
    if against:
        recipes["against"] = load_recipe(arguments.recipe, [*arguments.set, *against])
    from .crossval import crossval

    folder = Path(arguments.output or Path("runs") / f"{recipes['recipe'].name}-crossval")
    report = crossval(recipes, folder, arguments.command_line)
    print(json.dumps(report, ensure_ascii=False))
    _show(report, against)
    print(f"written: {folder / 'crossval.json'}", file=sys.stderr)
    return 0


def _show(report: dict[str, Any], against: list[str]) -> None:
    """Print the table for people."""
    from rich.table import Table

    from .metrics import HEADLINES
    from .terminal import stderr_console

    columns = report["recipes"] | report["baselines"]
    difference = report["difference"]
    table = Table("fold", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    if difference:
        table.add_column("recipe - against", justify="right")
    for fold in map(str, report["folds"]):
        cells = [f"{100 * column['folds'][fold]:.2f}" for column in columns.values()]
        cells += [f"{100 * difference['folds'][fold]:+.2f}"] if difference else []
        table.add_row(fold, *cells)
    shown = [*columns.values(), *([difference] if difference else [])]
    table.add_row(
        "mean ± sd",
        *(f"{100 * x['mean']:.2f} ± {100 * x['standard_deviation']:.2f}" for x in shown),
    )
    console = stderr_console()
    console.print(f"{HEADLINES[report['metric']]}, %, {report['protocol']}")
    console.print(table)
    if against:
        console.print(f"against: {' '.join(against)}")


crossval = Command(
    summary="train on all folds but one, in turn, and compare two settings",
    configure=_configure,
    run=_run,
    extra="train",
    examples=(
        "earmark crossval train/recipes/esc-10.toml",
        "earmark crossval recipe.toml --against student.width=32 train.epochs=100",
    ),
)
