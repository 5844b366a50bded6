"""The verb ``accuracy``."""

from argparse import ArgumentParser, Namespace

from ...runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
    for name, text in (
        ("clips", "what `earmark evaluate --json` printed"),
        ("bench", "what `earmark bench --json` printed, for the cost"),
        ("det", "what `earmark det` printed"),
    ):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="FILE",
            help=f"{text}; may be repeated",
        )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="TITLE=FILE",
        help="a table.jsonl of `earmark sweep`; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="accuracy.md",
        metavar="FILE",
        help="page to write, its pictures beside it (default: %(default)s)",
    )


def _run(arguments: Namespace) -> int:
    from .page import run

    return run(arguments)


accuracy = Command(
    summary="write the page of accuracy from what evaluate, det, bench and sweep wrote",
    configure=_configure,
    run=_run,
    extra="bench",
    examples=(
        "earmark accuracy --clips clips.jsonl --det det.jsonl --bench bench.json "
        "--sweep Temperature=runs/sweep/table.jsonl -o docs/accuracy.md",
    ),
)
