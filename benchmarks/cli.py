"""The verbs of the benchmarks. What they do is imported only when they run."""

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


def _configure_bench_streams(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model file (default: the one that is shipped)"
    )
    parser.add_argument(
        "--streams",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of streams (default: 1 10 100 1000)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        metavar="N",
        help="most chunks in one call (default: 1 8 32 128)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="audio of each stream in each round (default: 4)",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _bench_streams(arguments: Namespace) -> int:
    from dataclasses import asdict

    from ..runtime.engine import Engine
    from ..train.progress import progress
    from .machine import machine
    from .streams import BATCHES, ROUNDS, SECONDS, STREAMS, count_runs, measure, memory, settings

    found = machine()
    engine = Engine(arguments.model)
    streams = arguments.streams or STREAMS
    batches = arguments.batch or BATCHES
    seconds = SECONDS if arguments.seconds is None else arguments.seconds
    rounds = ROUNDS if arguments.rounds is None else arguments.rounds
    taken = memory(engine)
    with progress("streams", count_runs(streams, batches, rounds)) as advance:
        loads = measure(engine, streams, batches, seconds, rounds, advance=advance)
    geometry = engine.manifest.geometry
    chunk_ms = 1e3 * geometry.chunk / geometry.sample_rate
    if arguments.json:
        report = {
            "machine": found,
            "model": str(engine.path),
            "precision": engine.manifest.precision,
            "chunk_ms": chunk_ms,
            "settings": settings(seconds, rounds),
            "memory_kib_per_stream": taken,
            "loads": [asdict(load) for load in loads],
        }
        print(json.dumps(report))
    else:
        from .tables import show_loads

        show_loads(loads, taken, found, chunk_ms, seconds, rounds)
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


def _configure_gate(parser: ArgumentParser) -> None:
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


def _gate(arguments: Namespace) -> int:
    from .gate import run

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
    from .reliability import run

    return run(arguments)


def _soak(arguments: Namespace) -> int:
    from .soak import run

    return run(arguments)


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
bench_streams = Command(
    summary="measure how many live streams an engine carries: CPU, delay and memory of each",
    configure=_configure_bench_streams,
    run=_bench_streams,
    extra="bench",
    examples=(
        "earmark bench-streams",
        "earmark bench-streams model.onnx --streams 1 100 --batch 16 --json",
    ),
)
demo = Command(
    summary="train, export and measure a spotter of synthesized words, and write a report",
    configure=_configure_demo,
    run=_demo,
    extra="bench",
    examples=("earmark demo", 'earmark demo -o trial --keywords "open door" "close door"'),
)
gate = Command(
    summary="measure on recordings what the energy gate saves and which detections it costs",
    configure=_configure_gate,
    run=_gate,
    extra="bench",
    examples=("earmark gate recordings/ --level -70 --pause 10 --bed -75",),
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
few_shot = Command(
    summary="measure how many recordings a wake word takes: misses against false accepts",
    configure=_configure_few_shot,
    run=_few_shot,
    extra="bench",
    examples=(
        "earmark few-shot computer data/wake-words/computer --speech data/libri --noise data/noise",
    ),
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
faults = Command(
    summary="make faults one by one and show what the user sees and what is lost",
    configure=_configure_faults,
    run=_faults,
    extra="all",
    examples=("earmark faults", "earmark faults --json >faults.json"),
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
