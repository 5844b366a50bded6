"""The verb ``bench-streams``."""

import json
from argparse import ArgumentParser, Namespace

from ...runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
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
        help="audio of each stream in each round (default: 3)",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default: 6)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _run(arguments: Namespace) -> int:
    from dataclasses import asdict

    from ...runtime.engine import Engine
    from ...runtime.errors import EarmarkError
    from ...train.progress import progress
    from ..machine import machine
    from .streams import (
        BATCHES,
        ROUNDS,
        SECONDS,
        STREAMS,
        check,
        count_runs,
        measure,
        memory,
        settings,
    )

    streams = arguments.streams or STREAMS
    batches = arguments.batch or BATCHES
    seconds = SECONDS if arguments.seconds is None else arguments.seconds
    rounds = ROUNDS if arguments.rounds is None else arguments.rounds
    check(streams, batches, seconds, rounds)
    for batch in arguments.batch or ():
        # One that some numbers of streams cannot fill is left out there, but not everywhere.
        if batch > max(streams):
            raise EarmarkError(
                f"--batch {batch}: no call has more chunks than there are streams, of which "
                f"--streams gives {max(streams)} at most: give as many streams, or a smaller batch"
            )
    found = machine()
    engine = Engine(arguments.model)
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
            "backend": engine.backend,
            "chunk_ms": chunk_ms,
            "settings": settings(seconds, rounds),
            "memory_kib_per_stream": taken,
            "loads": [asdict(load) for load in loads],
        }
        print(json.dumps(report))
    else:
        from .show import show_loads

        show_loads(loads, taken, found, chunk_ms, seconds, rounds)
    return 0


bench_streams = Command(
    summary="measure how many live streams an engine carries: CPU, delay and memory of each",
    configure=_configure,
    run=_run,
    extra="bench",
    examples=(
        "earmark bench-streams",
        "earmark bench-streams model.onnx --streams 1 100 --batch 16 --json",
    ),
)
