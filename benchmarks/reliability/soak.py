"""Hours of audio faster than real time: does memory stay flat, does time drift, is all detected?

The audio is a loop of recordings under noise that never repeats, made as it is needed. It goes
through the loop that ``earmark detect`` uses and through a connection to ``earmark wyoming``, and
what each detects is compared with one stream that the same audio was pushed into.
"""

import asyncio
import hashlib
import json
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...runtime.stream import Detection
from ...train.progress import progress
from ..machine import machine, machine_line
from ..tables import show_table
from .soak_audio import Audio, loop
from .soak_outcome import HEADS, Outcome, row
from .soak_paths import MINUTE, detect, one_pass, wyoming
from .soak_state import State

PATHS = ("detect", "wyoming")
ONE_PASS = "one-pass"
MAX_HOURS = 1000.0


def run(arguments: Namespace) -> int:
    """The verb ``soak``: exit status 1 where detections differ, there are none, time drifts or
    memory grows."""
    seconds = round(3600 * arguments.hours) if 0 < arguments.hours <= MAX_HOURS else 0
    if seconds < 1:
        raise EarmarkError(f"--hours {arguments.hours:g}: give more than 0, at most {MAX_HOURS:g}")
    found = machine()
    engine = Engine(arguments.model)
    paths = PATHS if arguments.path == "both" else (arguments.path,)
    audio = Audio(loop(engine, arguments.audio), engine.manifest.geometry.sample_rate, seconds)
    state = State.open(arguments.state, _settings(engine, audio, found))
    outcomes: dict[str, Outcome] = {}

    def report() -> None:
        if not arguments.json:
            _show(outcomes, found)
            return
        about = {
            "machine": found,
            "model": engine.path.name,
            "backend": engine.backend,
            "hours": arguments.hours,
            "audio": "recordings" if arguments.audio else "synthesized keywords",
        }
        print(json.dumps(about | {"paths": {path: asdict(o) for path, o in outcomes.items()}}))

    try:
        with _terminable(), progress("Soaking", (1 + len(paths)) * (seconds // MINUTE)) as done:
            for path, outcome in _outcomes(engine, audio, paths, state, done):
                outcomes[path] = outcome
    except EarmarkError:
        # The hours of a path that is finished are not lost by another that failed.
        if outcomes:
            report()
        raise
    report()
    return 0 if all(outcome.sound for outcome in outcomes.values()) else 1


def _outcomes(
    engine: Engine,
    audio: Audio,
    paths: Sequence[str],
    state: State,
    done: Callable[[int], None],
) -> Iterator[tuple[str, Outcome]]:
    """Go through what ``state`` has not yet, and keep it there."""
    expected = state.get(ONE_PASS, list[Detection])
    if expected:
        done(audio.seconds // MINUTE)
    else:
        expected = one_pass(engine, audio, done)
        state.put(ONE_PASS, expected)
    for path in paths:
        outcome = state.get(path, Outcome)
        if outcome:
            done(audio.seconds // MINUTE)
        else:
            if path == "detect":
                outcome = detect(engine, audio, expected, done)
            else:
                outcome = asyncio.run(wyoming(engine, audio, expected, done))
            state.put(path, asdict(outcome))
        yield path, outcome


def _settings(engine: Engine, audio: Audio, found: dict[str, Any]) -> dict[str, Any]:
    """What an outcome depends on."""
    return {
        "model": hashlib.sha256(engine.read()).hexdigest(),
        "backend": engine.backend,
        "audio": audio.fingerprint,
        "seconds": audio.seconds,
        "processor": found["cpu"],
        "versions": found["versions"],
    }


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM does what Ctrl-C does, so that no server is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(outcomes: dict[str, Outcome], found: dict[str, Any]) -> None:
    show_table(HEADS, [row(path, asdict(o)) for path, o in outcomes.items()], machine_line(found))
