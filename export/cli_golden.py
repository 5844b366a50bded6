"""The verbs ``golden`` and ``check-port``."""

import sys
from argparse import REMAINDER, ArgumentParser, Namespace
from pathlib import Path

from ..runtime.command import Command
from ..runtime.errors import EarmarkError


def _configure_golden(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model file (default: the one that is shipped)"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the vectors"
    )
    parser.add_argument(
        "--audio",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="recordings beside the built-in ones, of a minute at most",
    )


def _golden(arguments: Namespace) -> int:
    from ..runtime.engine import Engine
    from .golden import check_folder, write_golden

    check_folder(arguments.output)
    names = write_golden(Engine(arguments.model), arguments.output, arguments.audio)
    print(f"{arguments.output}: golden vectors of {', '.join(names)}", file=sys.stderr)
    if "words" not in names:
        print(
            'earmark: no keywords are spoken among them: pip install "earmark[synth]"',
            file=sys.stderr,
        )
    return 0


def _configure_check(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="golden vectors")
    parser.add_argument(
        "command",
        nargs=REMAINDER,
        metavar="COMMAND",
        help="reads PCM on standard input, takes --threshold T, prints detections as JSON lines",
    )


def _check(arguments: Namespace) -> int:
    from .golden import check_port

    if not arguments.command:
        raise EarmarkError("no command to check: name one after the folder")
    wrong = 0
    for case, difference in check_port(arguments.folder, arguments.command):
        print(f"{case}: {difference or 'agrees'}")
        wrong += bool(difference)
    if wrong:
        raise EarmarkError(f"{arguments.command[0]}: differs in {wrong} cases")
    return 0


golden = Command(
    summary="write recordings with a model's posteriors and detections, to check ports against",
    configure=_configure_golden,
    run=_golden,
    examples=("earmark golden -o golden", "earmark golden mine.onnx -o golden --audio hello.wav"),
)
check_port = Command(
    summary="run another implementation on golden vectors and compare its detections",
    configure=_configure_check,
    run=_check,
    examples=(
        "earmark check-port golden ./detect mine.onnx",
        "earmark check-port golden node detect.js mine.onnx",
        "earmark check-port golden earmark detect - --model mine.onnx",
    ),
)
