"""The verbs ``bench`` and ``latency``."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from ...runtime.command import Command
from ...runtime.errors import EarmarkError
from ...runtime.files import check_file_writable, write_text

_OF_WHOLE_MODELS = ("precision", "mode", "device", "batch")
"""Options that do nothing without ``--full``."""
_MEASURING = (
    *("peers", "full", "scaling", "audio", "rounds", "turn", "paced"),
    *(*_OF_WHOLE_MODELS, "html"),
)
"""Options that do nothing beside ``--compare``."""


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="model files, the first to compare others with (default: the shipped one)",
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        metavar="NAME",
        help="other spotters beside them, as far as they are installed (default: all)",
    )
    parser.add_argument(
        "--full",
        nargs="*",
        metavar="NAME|RUN",
        help="whole models at the same job: beats ast whisper-tiny whisper-base whisper-small "
        "wavlm-base with random weights (default: all), or the run of a teacher",
    )
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="streams per core, and cost against chunk, size and keywords",
    )
    parser.add_argument("--audio", metavar="DIR", help="DIR/KEYWORD/* for the delay")
    timing = parser.add_argument_group("timing")
    timing.add_argument("--rounds", type=int, metavar="N", help="(default: 15)")
    timing.add_argument(
        "--turn", type=float, metavar="S", help="work of a row in a round, hot (default: 0.4)"
    )
    timing.add_argument(
        "--paced",
        type=float,
        metavar="S",
        help="audio of a row in a round at the pace of live audio, at least a chunk; 0 for none "
        "(default: 3)",
    )
    full = parser.add_argument_group("whole models, with --full")
    full.add_argument(
        "--precision",
        nargs="+",
        choices=("float32", "bfloat16", "float16"),
        help="(default: float32)",
    )
    full.add_argument(
        "--mode",
        nargs="+",
        choices=("eager", "compile", "graph"),
        help="eager, compiled by torch.compile, or a CUDA graph (default: eager)",
    )
    full.add_argument(
        "--device", nargs="+", choices=("cuda", "cpu"), help="(default: all there are)"
    )
    full.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="windows of the row that measures throughput, at "
        "most (default: 256 on a GPU, no such row on the CPU)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object on standard output")
    output.add_argument("--html", metavar="FILE", help="write a report that needs nothing else")
    output.add_argument(
        "--compare",
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="measure nothing: compare two files of --json; exit status 1 where AFTER is slower",
    )


def _run(arguments: Namespace) -> int:
    if arguments.compare:
        return _compare(arguments)
    from .bench import Plan, run
    from .html_page import page
    from .show import show
    from .timing import PACED, ROUNDS, TURN

    if arguments.full is None:
        _refuse(arguments, _OF_WHOLE_MODELS, "without --full")
    if arguments.batch is not None:
        if arguments.batch < 1:
            raise EarmarkError(f"--batch {arguments.batch}: expected at least 1")
        if arguments.mode and "eager" not in arguments.mode:
            raise EarmarkError(
                f"--batch {arguments.batch}: several windows at once are run in the mode eager "
                "alone: add it to --mode, or leave --batch out"
            )
    if arguments.audio and not Path(arguments.audio).is_dir():
        raise EarmarkError(f"--audio {arguments.audio}: no such folder")
    plan = Plan(
        models=tuple(arguments.models),
        peers=None if arguments.peers is None else tuple(arguments.peers),
        full=None if arguments.full is None else tuple(arguments.full),
        scaling=arguments.scaling,
        precisions=tuple(arguments.precision or ("float32",)),
        modes=tuple(arguments.mode or ("eager",)),
        devices=tuple(arguments.device or ()),
        batch=arguments.batch,
        audio=arguments.audio or "",
        rounds=ROUNDS if arguments.rounds is None else arguments.rounds,
        turn=TURN if arguments.turn is None else arguments.turn,
        paced=PACED if arguments.paced is None else arguments.paced,
    )
    if arguments.html:
        # Better known before minutes were measured.
        check_file_writable(arguments.html)
    report = run(plan, arguments.command_line)
    try:
        if arguments.html:
            write_text(arguments.html, page(report))
    finally:
        # Neither a full disk nor a closed pipe takes both with it.
        if arguments.json:
            print(report.to_json(), flush=True)
        else:
            show(report)
    return 0


def _compare(arguments: Namespace) -> int:
    from dataclasses import asdict

    from .compare import compare
    from .results import load
    from .show import show_comparison

    if arguments.models:
        raise EarmarkError(
            f"{arguments.models[0]}: --compare takes two reports, no models: leave it out"
        )
    _refuse(arguments, _MEASURING, "beside --compare")
    before, after = arguments.compare
    found = compare(load(before), load(after))
    if not found.changes:
        # Nothing slower among nothing would pass for no regression.
        raise EarmarkError(
            f"--compare {before} {after}: no row is in both: measure under one file name, with "
            "the same options"
        )
    if arguments.json:
        print(json.dumps(asdict(found) | {"regressed": found.regressed}, allow_nan=False))
    else:
        show_comparison(found)
    return 1 if found.regressed else 0


def _refuse(arguments: Namespace, names: Sequence[str], where: str) -> None:
    """Refuse options that do nothing there rather than leave who gave them in the belief that they
    did."""
    for name in names:
        value = getattr(arguments, name)
        # A number of 0 and an empty list were given, too.
        if value is not None and value is not False:
            raise EarmarkError(f"--{name}: does nothing {where}: leave it out")


def _configure_latency(parser: ArgumentParser) -> None:
    parser.add_argument(
        "reports", nargs="+", metavar="FILE", help="what `earmark bench --json` printed"
    )
    parser.add_argument(
        "-o",
        "--output",
        default="latency.md",
        metavar="FILE",
        help="page to write, its pictures beside it (default: %(default)s)",
    )


def _latency(arguments: Namespace) -> int:
    from .page import run

    return run(arguments)


bench = Command(
    summary="measure what spotting costs here, beside whole models and other spotters",
    configure=_configure,
    run=_run,
    extra="bench",
    examples=(
        "earmark bench model.onnx model.float32.onnx",
        "earmark bench --peers --full beats ast --scaling --html bench.html --json >bench.json",
        "earmark bench --full --device cuda --precision float32 bfloat16 --mode eager graph",
        "earmark bench --compare before.json after.json",
    ),
)
latency = Command(
    summary="write the page of what spotting costs from what earmark bench printed",
    configure=_configure_latency,
    run=_latency,
    extra="bench",
    examples=("earmark latency cpu.json gpu.json -o docs/latency.md",),
)
