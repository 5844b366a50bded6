"""The verb ``export``."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN", help="run directory that train completed")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="model.onnx",
        help="the int8 model (default: %(default)s); its float32 twin and card go beside it",
    )
    parser.add_argument(
        "--chunk",
        metavar="MS",
        type=float,
        default=80.0,
        help="audio per call, milliseconds, a multiple of the model's step (default: %(default)g)",
    )
    parser.add_argument(
        "--seeds",
        metavar="RUN",
        nargs="+",
        default=[],
        help="runs of the same recipe with other seeds, to report the spread of the accuracy",
    )
    parser.add_argument(
        "--set",
        metavar="decision.FIELD=VALUE",
        action="append",
        default=[],
        help="threshold, smoothing, release or refractory in place of the recipe's",
    )
    parser.add_argument("--licence", metavar="SPDX", default="", help="licence of the model")
    parser.add_argument(
        "--golden",
        type=Path,
        metavar="DIR",
        help="also write golden vectors of the int8 model (see earmark golden)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout")


def _run(arguments: Namespace) -> int:
    from .export import export
    from .golden import check_folder, write_golden

    if arguments.golden is not None:
        check_folder(arguments.golden)
    result = export(
        Path(arguments.run_dir),
        Path(arguments.output),
        arguments.chunk / 1000,
        seeds=[Path(path) for path in arguments.seeds],
        licence=arguments.licence,
        overrides=arguments.set,
        command=arguments.command_line,
    )
    if arguments.golden is not None:
        from ..runtime.engine import Engine

        write_golden(Engine(result.model), arguments.golden)
    if arguments.json:
        print(json.dumps({"parity": result.parity, "metrics": result.metrics}))
    from ..train.metrics import HEADLINES, headline

    m, p = result.metrics, result.parity
    name = headline(m["int8_streaming"])
    size = result.model.stat().st_size / 1000
    also = [result.float_model, result.card, *filter(None, [arguments.golden])]
    print(
        f"{result.model}: {size:.0f} kB, {m['split']} {HEADLINES[name]} "
        f"{100 * m['int8_streaming'][name]:.2f} % int8, "
        f"{100 * m['float32_streaming'][name]:.2f} % float32, streaming; "
        f"{p['operators']['int8']} convolutions in int8, "
        f"{100 * p['int8_labels_changed']:.1f} % of labels changed by it\n"
        f"also written: {', '.join(map(str, also))}",
        file=sys.stderr,
    )
    return 0


export = Command(
    summary="write a run's student as one ONNX file, int8 and float32, verified",
    configure=_configure,
    run=_run,
    extra="export",
    examples=(
        "earmark export runs/mine -o mine.onnx",
        "earmark export runs/mine -o mine.onnx --chunk 20 --licence Apache-2.0 --golden golden",
    ),
)
