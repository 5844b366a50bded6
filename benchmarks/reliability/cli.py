"""The verbs ``faults``, ``soak``, ``fuzz``, and ``reliability``, which writes their page."""

from argparse import ArgumentParser, Namespace

from ...runtime.command import Command


def _configure_faults(parser: ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FILE", help="model (default: the shipped one)")
    parser.add_argument(
        "--audio",
        nargs="+",
        default=[],
        metavar="FILE|DIR",
        help="recordings to hear (default: the model's keywords, synthesized)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _faults(arguments: Namespace) -> int:
    from .faults import run

    return run(arguments)


def _configure_soak(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model file (default: the one that is shipped)"
    )
    parser.add_argument(
        "--hours", type=float, default=24.0, metavar="N", help="of audio (default: %(default)g)"
    )
    parser.add_argument(
        "--path",
        choices=("detect", "wyoming", "both"),
        default="both",
        help="what the audio goes through (default: %(default)s)",
    )
    parser.add_argument(
        "--audio",
        nargs="+",
        default=[],
        metavar="FILE|DIR",
        help="recordings to repeat (default: the model's keywords, synthesized)",
    )
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="folder for what is finished (the one pass, each path); run again, it goes on",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _soak(arguments: Namespace) -> int:
    from .soak import run

    return run(arguments)


def _configure_fuzz(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--cases", type=int, default=1000, metavar="N", help="of each target (default: %(default)d)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all cases")
    parser.add_argument(
        "--target", action="append", metavar="NAME", help="may be repeated (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once")
    parser.add_argument("--case", type=int, metavar="N", help="only this case, with its traceback")


def _fuzz(arguments: Namespace) -> int:
    from .fuzz import run

    return run(arguments)


def _configure_reliability(parser: ArgumentParser) -> None:
    for name in ("faults", "soak", "fuzz", "streams"):
        command = "bench-streams" if name == "streams" else name
        shown = "" if name == "fuzz" else " --json"
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="FILE",
            help=f"what `earmark {command}{shown}` printed; may be repeated",
        )
    parser.add_argument(
        "-o",
        "--output",
        default="reliability.md",
        metavar="FILE",
        help="page to write (default: %(default)s)",
    )


def _reliability(arguments: Namespace) -> int:
    from .page import run

    return run(arguments)


faults = Command(
    summary="make faults one by one and show what the user sees and what is lost",
    configure=_configure_faults,
    run=_faults,
    extra="all",
    examples=("earmark faults", "earmark faults --json >faults.json"),
)
soak = Command(
    summary="push hours of audio through detect and Wyoming: memory, drift, detections",
    configure=_configure_soak,
    run=_soak,
    extra="all",
    examples=(
        "earmark soak --state soak --json >soak.json",
        "earmark soak model.onnx --hours 1 --path detect",
    ),
)
fuzz = Command(
    summary="feed mutated audio, models, recipes and lists to every reader; exit 1 on findings",
    configure=_configure_fuzz,
    run=_fuzz,
    extra="bench",
    examples=(
        "earmark fuzz --cases 15000 --jobs 2 >fuzz.json",
        "earmark fuzz --target model --case 7",
    ),
)
reliability = Command(
    summary="write the page of faults, soak, fuzz and streams from what those commands printed",
    configure=_configure_reliability,
    run=_reliability,
    extra="all",
    examples=(
        "earmark reliability --faults faults.json --soak soak.json --fuzz fuzz.json "
        "--streams streams.json -o docs/reliability.md",
    ),
)
