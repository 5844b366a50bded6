"""The verbs ``bench``, ``demo`` and ``few-shot``. What they do is imported only when they run."""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from ..runtime.command import Command


def _configure_bench(parser: ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model files")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="audio for each model in each round (default: 40)",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default: 15)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _bench(arguments: Namespace) -> int:
    from dataclasses import asdict

    from ..runtime.engine import Engine
    from .latency import ROUNDS, SECONDS, measure, settings
    from .machine import machine

    # The load is that before the measurement adds its own.
    found = machine()
    engines = [Engine(path) for path in arguments.models]
    seconds = SECONDS if arguments.seconds is None else arguments.seconds
    rounds = ROUNDS if arguments.rounds is None else arguments.rounds
    timings = measure(engines, seconds, rounds)
    if arguments.json:
        report = {
            "machine": found,
            "settings": settings(seconds, rounds),
            "models": [asdict(timing) for timing in timings],
        }
        print(json.dumps(report))
    else:
        from .tables import show_timings

        show_timings(timings, found, seconds, rounds)
    return 0


def _configure_demo(parser: ArgumentParser) -> None:
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


def _demo(arguments: Namespace) -> int:
    from .demo import DemoSettings, run

    run(Path(arguments.output), DemoSettings.choose(arguments.keywords, arguments.quick))
    return 0


def _configure_few_shot(parser: ArgumentParser) -> None:
    parser.add_argument("word", metavar="WORD", help="the wake word")
    parser.add_argument(
        "recordings", metavar="DIR", help="recordings that each hold it once, of many speakers"
    )
    parser.add_argument(
        "--speech", required=True, metavar="DIR", help="free speech without it, many recordings"
    )
    parser.add_argument("--noise", required=True, metavar="DIR", help="noise to train with")
    parser.add_argument("--other", default="", metavar="DIR", help="more audio, measured only")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder for all that is made (default: few-shot-WORD)"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[0, 5, 20, 100],
        metavar="N",
        help="recordings to train with (default: 0 5 20 100)",
    )
    parser.add_argument("--seeds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--recipe", metavar="FILE", help="(default: the shipped wake-word.toml)")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], help="override the recipe"
    )


def _few_shot(arguments: Namespace) -> int:
    from ..runtime.errors import EarmarkError
    from .few_shot import FewShotSettings, run

    if min(arguments.sizes) < 0 or arguments.seeds < 1:
        raise EarmarkError("--sizes and --seeds: expected numbers of recordings, and of models")
    settings = FewShotSettings(
        word=arguments.word,
        recordings=arguments.recordings,
        speech=arguments.speech,
        noise=arguments.noise,
        other=arguments.other,
        sizes=tuple(sorted(set(arguments.sizes))),
        seeds=arguments.seeds,
        overrides=tuple(arguments.set),
    )
    if arguments.recipe:
        settings = replace(settings, recipe=arguments.recipe)
    target = run(Path(arguments.output or f"few-shot-{arguments.word}"), settings)
    print(target.read_text(encoding="utf-8"), file=sys.stderr)
    return 0


bench = Command(
    summary="time models on this machine: microseconds per chunk, CPU per second of audio",
    configure=_configure_bench,
    run=_bench,
    extra="bench",
    examples=(
        "earmark bench model.onnx model.float32.onnx",
        "earmark bench model.onnx --seconds 60 --json",
    ),
)
demo = Command(
    summary="train, export and measure a spotter of synthesized words, and write a report",
    configure=_configure_demo,
    run=_demo,
    extra="bench",
    examples=("earmark demo", 'earmark demo -o trial --keywords "open door" "close door"'),
)
few_shot = Command(
    summary="measure how many recordings a wake word takes: misses against false accepts",
    configure=_configure_few_shot,
    run=_few_shot,
    extra="bench",
    examples=(
        "earmark few-shot computer data/wake-words/computer --speech data/libri --noise data/noise",
    ),
)
