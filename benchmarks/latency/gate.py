"""What the energy gate saves and what it costs: CPU and detections, with and without it."""

import json
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import read_audio, to_int16
from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...runtime.stream import Detection, Stream
from ...train.data.audio_files import find_audio
from ...train.progress import progress
from ..machine import machine, machine_line

LEVELS = (-90.0, -80.0, -70.0, -60.0)
MAX_PAUSE = 3600.0


@dataclass(frozen=True)
class GateResult:
    """One level, over all recordings."""

    level: float | None
    """dB of full scale; None without a gate."""
    seconds: float
    """Audio heard, pauses included."""
    skipped: float
    """Share of the audio that the network did not see."""
    cpu_ms_per_second: float
    """CPU milliseconds of the process per second of audio."""
    detections: int
    lost: int
    """Detections that the ungated stream has and this one has not, time and score compared."""
    added: int
    """The other way round."""


def run(arguments: Namespace) -> int:
    """The verb ``gate``."""
    if not 0 <= arguments.pause <= MAX_PAUSE:
        raise EarmarkError(f"--pause {arguments.pause:g}: give 0 to {MAX_PAUSE:g} seconds")
    if arguments.bed is not None and not arguments.bed < 0:
        raise EarmarkError(f"--bed {arguments.bed:g}: give a level below 0 dB")
    found = machine()
    engine = Engine(arguments.model)
    names = [Path(name) for name in arguments.audio]
    files = [file for name in names for file in (find_audio(name) if name.is_dir() else [name])]
    if not files:
        raise EarmarkError(f"{', '.join(map(str, names))}: no audio files there: name others")
    levels = arguments.level or LEVELS
    with progress("Pushing recordings", len(files)) as done:

        def recordings() -> Iterator[NDArray[np.int16]]:
            for file in files:
                yield to_int16(read_audio(file, engine.manifest.geometry.sample_rate))
                done(1)

        results = compare(engine, recordings(), levels, arguments.pause, arguments.bed)
    if arguments.json:
        settings = {"recordings": len(files), "pause": arguments.pause, "bed": arguments.bed}
        report = {
            "machine": found,
            "model": engine.path.name,
            "backend": engine.backend,
            "settings": settings,
            "levels": [asdict(result) for result in results],
        }
        print(json.dumps(report))
    else:
        bed = "no noise" if arguments.bed is None else f"noise of {arguments.bed:g} dB"
        heard = f"{len(files)} recordings, {arguments.pause:g} s of pause after each, over {bed}"
        _show(results, f"{engine.path.name} by {engine.backend}: {heard}\n{machine_line(found)}")
    return 0


def compare(
    engine: Engine,
    recordings: Iterable[NDArray[np.int16]],
    levels: Sequence[float],
    pause: float = 0.0,
    bed: float | None = None,
    seed: int = 0,
) -> list[GateResult]:
    """Push recordings through an ungated stream and one for each level, chunk by chunk.

    The streams take turns recording by recording, each turn beginning with another one, so that a
    change of the machine's load falls on all alike.

    Args:
        engine: the model.
        recordings: int16 [samples] at the model's rate.
        levels: of the gate, dB of full scale.
        pause: seconds after each recording.
        bed: level of white noise under recordings and pauses, dB of full scale; None for none.
        seed: of the noise.

    Raises:
        EarmarkError: a level is out of range.
    """
    rate, chunk = engine.manifest.geometry.sample_rate, engine.manifest.geometry.chunk
    settings = [None, *levels]
    streams = [engine.stream(gate=level) for level in settings]
    found: list[Counter[Detection]] = [Counter() for _ in streams]
    spent = [0] * len(streams)
    noise = np.random.default_rng(seed)
    for turn, recording in enumerate(recordings):
        pcm = np.append(recording, np.zeros(round(pause * rate), np.int16))
        if bed is not None:
            sound = pcm + noise.normal(0, 32768 * 10 ** (bed / 20), len(pcm))
            pcm = np.clip(np.round(sound), -32768, 32767).astype(np.int16)
        pieces = [pcm[start : start + chunk] for start in range(0, len(pcm), chunk)]
        for place in range(len(streams)):
            index = (turn + place) % len(streams)
            spent[index] += _push(streams[index], pieces, found[index])
    seconds = max(streams[0].seconds, 1 / rate)
    return [
        GateResult(
            level=level,
            seconds=round(seconds, 2),
            skipped=round(stream.skipped / rate / seconds, 4),
            cpu_ms_per_second=round(cpu / 1e6 / seconds, 3),
            detections=detected.total(),
            lost=(found[0] - detected).total(),
            added=(detected - found[0]).total(),
        )
        for level, stream, cpu, detected in zip(settings, streams, spent, found, strict=True)
    ]


def _push(stream: Stream, pieces: Sequence[NDArray[np.int16]], found: Counter[Detection]) -> int:
    """Push ``pieces``, count what is detected, and return the CPU nanoseconds that it took."""
    push = stream.push
    detected: list[Detection] = []
    begin = time.process_time_ns()
    for piece in pieces:
        detected += push(piece)
    spent = time.process_time_ns() - begin
    found.update(detected)
    return spent


def _show(results: Sequence[GateResult], caption: str) -> None:
    from ..tables import show_table

    rows = [
        (
            "no gate" if result.level is None else f"{result.level:g} dB",
            f"{100 * result.skipped:.1f}",
            f"{result.cpu_ms_per_second:.2f}",
            str(result.detections),
            str(result.lost),
            str(result.added),
        )
        for result in results
    ]
    heads = ("gate", "skipped %", "CPU ms per s", "detections", "lost", "added")
    show_table(heads, rows, f"{results[0].seconds:g} s of audio\n{caption}")
