"""The verb ``gate``."""

from argparse import ArgumentParser, Namespace

from ...runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("audio", nargs="+", metavar="FILE|DIR", help="recordings to push")
    parser.add_argument("--model", metavar="FILE", help="model (default: the shipped one)")
    parser.add_argument(
        "--level",
        type=float,
        action="append",
        metavar="DB",
        help="level of the gate; may be repeated (default: -90, -80, -70 and -60)",
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=0.0,
        metavar="S",
        help="quiet after each recording (default: %(default)g)",
    )
    parser.add_argument(
        "--bed", type=float, metavar="DB", help="white noise under it all (default: none)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _run(arguments: Namespace) -> int:
    from .gate import run

    return run(arguments)


gate = Command(
    summary="measure on recordings what the energy gate saves and which detections it costs",
    configure=_configure,
    run=_run,
    extra="bench",
    examples=("earmark gate recordings/ --level -70 --pause 10 --bed -75",),
)
