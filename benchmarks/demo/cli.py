"""The verb ``demo``."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ...runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        default="demo",
        metavar="DIR",
        help="folder for all that is made; run again, it goes on (default: %(default)s)",
    )
    parser.add_argument(
        "--keywords",
        nargs="+",
        metavar="WORD",
        help="keywords or phrases to spot (quote phrases)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a small run that shows the steps, not the accuracy"
    )


def _run(arguments: Namespace) -> int:
    from .demo import DemoSettings, run

    run(Path(arguments.output), DemoSettings.choose(arguments.keywords, arguments.quick))
    return 0


demo = Command(
    summary="train, export and measure a spotter of synthesized words, and write a report",
    configure=_configure,
    run=_run,
    extra="bench",
    examples=("earmark demo", 'earmark demo -o trial --keywords "open door" "close door"'),
)
