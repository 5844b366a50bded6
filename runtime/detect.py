"""``earmark detect``: files or standard input to JSON lines, and to other sinks."""

import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import BinaryIO

from .cli import INTERRUPTED
from .engine import Engine
from .errors import EarmarkError
from .events import DetectionEvent, EndedEvent, summary
from .options import chosen_decision, open_sinks
from .sinks.sink import FanOut, Sink, output, tell
from .sources import FileSource, RawSource, Source
from .spotter import spot
from .stop import Stop
from .stream import Stream

TAIL_SECONDS = 0.5
"""Silence after the end of a file, so that a word that ends with it is decided."""


def run(arguments: Namespace) -> int:
    """Exit status 1 where a file could not be read, standard input had no audio at all, or a sink
    did not take what was heard; the others are done all the same.

    Ctrl-C and SIGTERM are a clean end: what was heard is decided and told, with a summary. The
    status is 0 then if standard input was heard, as live audio has no other end; a file is left
    unfinished, or what was heard in it undelivered, which is
    :data:`earmark.runtime.cli.INTERRUPTED`.
    """
    engine = Engine(arguments.model)
    decision = chosen_decision(engine.manifest, arguments.operating_point, arguments.threshold)
    stream = engine.stream(decision, arguments.gate)
    files: Sequence[str] = arguments.files
    live = "-" in files
    stop = Stop()
    # A file can wait for who takes its events; a signal ends that.
    waits = None if live else lambda: not stop.requested
    others = open_sinks(arguments, engine.manifest.name, tell, waits=waits)
    with stop, closing(FanOut([output(waits), *others])) as sinks:
        timed = live or bool(others)
        status = _hear(stream, files, sinks, stop, arguments.heartbeat, timed)
        # Audio that ended by itself has all its events delivered.
        sinks.finish(lambda: stop.requested)
    if stop.requested and not live:
        status = INTERRUPTED
    sinks.check()
    if sinks.undelivered:
        tell(f"events not delivered: {sinks.undelivered}")
        if not stop.requested:
            status = 1
    return status


def _hear(
    stream: Stream,
    files: Sequence[str],
    sinks: Sink,
    stop: Stop,
    heartbeat: float | None,
    timed: bool,
) -> int:
    """Run all files through the stream and return the exit status.

    ``timed``: events say when they were told.
    """

    def stopped() -> bool:
        sinks.check()  # an output that takes nothing any more ends it also while nothing happens
        return stop.requested

    failed = 0
    for file in files:
        found: Counter[str] = Counter()
        try:
            source = _source(file, stream.rate)
            for event in spot(
                stream,
                source,
                file,
                tail=TAIL_SECONDS,
                heartbeat=heartbeat,
                live=timed,
                undelivered=lambda: sinks.undelivered,
                stopped=stopped,
            ):
                sinks.send(event)
                sinks.check()
                if isinstance(event, DetectionEvent):
                    found[event.keyword] += 1
                elif isinstance(event, EndedEvent):
                    tell(summary(event, found))
                    return 0 if file == "-" else INTERRUPTED
            # Here, and not where it is read: this is the thread that takes Ctrl-C, which ends the
            # recorder, too, and is no failure.
            if isinstance(source, RawSource) and not source.samples and not stop.requested:
                # A recorder that failed must not look like one that heard nothing.
                raise EarmarkError(
                    "standard input: ended before any audio came: see what the program that writes "
                    "it says"
                )
        except EarmarkError as error:
            tell(str(error))
            stream.reset()
            failed += 1
    if failed and len(files) > 1:
        tell(f"{failed} of {len(files)} files could not be read")
    return 1 if failed else 0


def _source(file: str, rate: int) -> Source:
    if file != "-":
        return FileSource(file, rate)
    if sys.stdin is None:
        raise EarmarkError("standard input: is closed: pipe raw 16-bit mono audio into it")
    if sys.stdin.isatty():
        raise EarmarkError(
            f"standard input: is a terminal: pipe raw 16-bit mono audio at {rate} Hz into it"
        )
    return RawSource(_unbuffered(sys.stdin.buffer))


def _unbuffered(file: BinaryIO) -> BinaryIO:
    """The same input without a lock: a thread that waits for it must not hold up the end."""
    if sys.platform != "win32":
        # Where another program left it not to wait, nothing yet would look like the end.
        os.set_blocking(file.fileno(), True)
    return open(file.fileno(), "rb", buffering=0, closefd=False)
