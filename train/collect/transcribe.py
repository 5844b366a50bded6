"""Free speech written down by a recogniser, so that keywords in it are found: PocketSphinx.

It needs no download, since its package has an English model (CMUSphinx, with the CMU pronouncing
dictionary), and it learned nothing from what Earmark's models learn. It mishears words, short ones
more than others, so that what it finds is most of the keywords and not all of them.
"""

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import read_audio, to_int16
from ...runtime.errors import EarmarkError
from ...runtime.files import write_text
from ...runtime.manifest import Source
from ..data.corpus import find_audio, read_sources, write_source
from ..data.transcripts import (
    TRANSCRIPTS,
    WORDS_FILE,
    Said,
    Transcript,
    ctm,
    read_transcripts,
    recording_name,
)
from ..progress import progress

SOURCE = Source(
    name="PocketSphinx, its English model and the CMU pronouncing dictionary",
    licence="BSD-2-Clause",
    role=TRANSCRIPTS,
    url="https://github.com/cmusphinx/pocketsphinx",
    attribution="Carnegie Mellon University",
)
_RATE = 16000
_UTTERANCE = (10, 20)
"""Least and most seconds that are heard at once; longer recordings are cut at their quietest."""
_SAVE_EVERY = 20
"""Recordings after which the table is written, so that what is interrupted goes on from there."""


@dataclass(frozen=True)
class Transcribed:
    """What a folder holds afterwards."""

    recordings: int
    heard: int
    """Those of them that this call listened to."""
    words: int


def transcribe(folder: Path, workers: int | None = None) -> Transcribed:
    """Write ``words.ctm`` of a folder: the words of its recordings with their times, each with all
    words of the dictionary that are pronounced the same. ``sources.json`` names the recogniser.

    Recordings that the file has already are not heard again.

    Args:
        folder: recordings of English speech, any layout.
        workers: processes; one per processor where it is None.

    Raises:
        EarmarkError: the folder has no audio, a recording cannot be read, or the file is damaged.
    """
    recordings = {recording_name(path, folder): path for path in find_audio(folder)}
    if not recordings:
        raise EarmarkError(f"{folder}: no audio files: name a folder of free speech")
    # What it hears decides what a model learns from.
    for source in (*read_sources(folder, "free speech"), SOURCE):
        write_source(folder, source)
    table = folder / WORDS_FILE
    known = read_transcripts(folder) if table.is_file() else {}
    left = [name for name in recordings if name not in known]
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(workers or os.cpu_count(), context, _prepare) as pool,
        progress("Transcribing", len(left)) as advance,
    ):
        try:
            tasks = {pool.submit(_transcript, recordings[name]): name for name in left}
            for count, task in enumerate(as_completed(tasks), 1):
                known[tasks[task]] = task.result()
                advance(1)
                if count % _SAVE_EVERY == 0:
                    write_text(table, ctm(known))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            write_text(table, ctm(known))
    return Transcribed(len(recordings), len(left), sum(len(t.said) for t in known.values()))


_recogniser: tuple[Any, dict[str, frozenset[str]]] | None = None
"""Of a process: the decoder, and by a word of its dictionary all that sound the same."""


def _prepare() -> None:
    global _recogniser
    # An interrupt goes to the parent alone, which cancels what has not begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from pocketsphinx import Decoder, get_model_path

    alike: defaultdict[str, set[str]] = defaultdict(set)
    sounds: dict[str, str] = {}
    with Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as lines:
        for line in lines:
            entry, _, phones = line.strip().partition(" ")
            sounds[entry] = phones
            alike[phones].add(_word(entry))
    same = {entry: frozenset(alike[phones]) for entry, phones in sounds.items()}
    _recogniser = Decoder(loglevel="FATAL"), same


def _word(entry: str) -> str:
    """An entry of the dictionary without the number of its pronunciation."""
    return entry.partition("(")[0]


def _transcript(path: Path) -> Transcript:
    assert _recogniser is not None
    decoder, same = _recogniser
    said: list[Said] = []
    for start, pcm in _utterances(to_int16(read_audio(path, _RATE))):
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        for segment in decoder.seg() or ():
            # Silence and noises are in the output too: <sil>, [NOISE].
            if segment.word in same:
                first, last = segment.start_frame / 100, (segment.end_frame + 1) / 100
                said.append(Said(start + first, start + last, same[segment.word]))
    return Transcript(tuple(said))


def _utterances(pcm: NDArray[np.int16]) -> Iterator[tuple[float, NDArray[np.int16]]]:
    """A recording in parts: the second at which each starts, and its samples."""
    least, most = (seconds * _RATE for seconds in _UTTERANCE)
    frame = _RATE // 10
    start = 0
    while len(pcm) - start > most:
        energy = np.square(pcm[start + least : start + most].reshape(-1, frame), dtype=np.float64)
        stop = start + least + int(energy.mean(1).argmin()) * frame + frame // 2
        yield start / _RATE, pcm[start:stop]
        start = stop
    if start < len(pcm):
        yield start / _RATE, pcm[start:]
