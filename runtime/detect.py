"""``earmark detect``: files or standard input to JSON lines."""

import sys
from argparse import Namespace
from collections.abc import Sequence

from .engine import Engine, Stream
from .errors import EarmarkError
from .events import write_event
from .options import chosen_decision
from .sources import FileSource, RawSource, Source, spot

TAIL_SECONDS = 0.5
"""Silence after the end of a file, so that a word that ends with it is decided."""


def run(arguments: Namespace) -> int:
    """Exit status 1 where a file could not be read; the others are done all the same."""
    engine = Engine(arguments.model)
    decision = chosen_decision(engine.manifest, arguments.operating_point, arguments.threshold)
    stream = engine.stream(decision)
    files: Sequence[str] = arguments.files
    failed = 0
    for file in files:
        try:
            _detect(stream, _source(file, engine.manifest.geometry.sample_rate), file)
        except EarmarkError as error:
            print(f"earmark: {error}", file=sys.stderr)
            stream.reset()
            failed += 1
    if failed and len(files) > 1:
        print(f"earmark: {failed} of {len(files)} files could not be read", file=sys.stderr)
    return 1 if failed else 0


def _source(file: str, rate: int) -> Source:
    if file != "-":
        return FileSource(file, rate)
    if sys.stdin.isatty():
        raise EarmarkError(
            f"standard input: is a terminal: pipe raw 16-bit mono audio at {rate} Hz into it"
        )
    return RawSource(sys.stdin.buffer)


def _detect(stream: Stream, source: Source, file: str) -> None:
    for keyword, time, score in spot(stream, source, TAIL_SECONDS):
        write_event("detection", file=file, keyword=keyword, time=time, score=score)
