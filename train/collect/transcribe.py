"""Free speech written down by a recogniser, so that keywords in it are found: PocketSphinx.

It needs no download, since its package has an English model (CMUSphinx, with the CMU pronouncing
dictionary), and it learned nothing from what Earmark's models learn. It mishears words, short ones
more than others, so that what it finds is most of the keywords and not all of them.
"""

import logging
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import read_audio, to_int16
from ...runtime.errors import EarmarkError
from ...runtime.files import write_text
from ...runtime.manifest import Source
from ..data.audio_files import find_audio
from ..data.sources import read_sources, write_source
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

_LOG = logging.getLogger(__name__)
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
_SAVE_SECONDS = 60
"""Time after which the table is written, so that what is interrupted goes on from there."""


@dataclass(frozen=True)
class Transcribed:
    """What a folder holds afterwards."""

    recordings: int
    heard: int
    """Those of them that this call listened to."""
    unreadable: int
    """Those that could not be read; each was reported."""
    words: int


def transcribe(folder: Path, workers: int | None = None) -> Transcribed:
    """Write ``words.ctm`` of a folder: the words of its recordings with their times, each with all
    words of the dictionary that are pronounced the same. ``sources.json`` names the recogniser.

    Recordings that have a transcript already, LibriSpeech's own among them, are not heard again.

    Args:
        folder: recordings of English speech, any layout.
        workers: processes; one per processor where it is None.

    Raises:
        EarmarkError: the folder has no audio, two recordings that differ in their suffix alone or
            a damaged transcript, or a process died.
        ModuleNotFoundError: PocketSphinx is not installed.
    """
    # Told before anything is written, and here, not in a process of the pool.
    import pocketsphinx  # noqa: F401

    recordings: dict[str, Path] = {}
    for path in find_audio(folder):
        other = recordings.setdefault(recording_name(path, folder), path)
        if other != path:
            raise EarmarkError(f"{path}: goes by the same name as {other.name}: rename one of them")
    if not recordings:
        raise EarmarkError(f"{folder}: no audio files: name a folder of free speech")
    known = read_transcripts(folder)
    left = [name for name in recordings if name not in known]
    heard = unreadable = 0
    saved = time.monotonic()
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare)
    try:
        with progress("Transcribing", len(left)) as advance:
            tasks = {pool.submit(_transcript, recordings[name]): name for name in left}
            for task in as_completed(tasks):
                found = task.result()
                if isinstance(found, str):
                    _LOG.warning("skipped %s", found)
                    unreadable += 1
                else:
                    known[tasks[task]] = found
                    heard += 1
                advance(1)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    _save(folder, known)
                    saved = time.monotonic()
    except BrokenProcessPool as error:
        raise EarmarkError(
            f"{folder}: a process of the recogniser died, most likely for want of memory: run it "
            "again with fewer --workers"
        ) from error
    finally:
        if heard:
            _save(folder, known)
        # Nobody waits for what is being heard: that may be an hour of speech.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(active_children()) - others:
            process.terminate()
    return Transcribed(len(recordings), heard, unreadable, sum(len(t.said) for t in known.values()))


def _save(folder: Path, known: dict[str, Transcript]) -> None:
    """Write the table, and who wrote it: what it hears decides what a model learns from."""
    write_text(folder / WORDS_FILE, ctm({name: t for name, t in known.items() if t.timed}))
    for source in (*read_sources(folder, "free speech"), SOURCE):
        write_source(folder, source)


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


def _transcript(path: Path) -> Transcript | str:
    """What is said in a recording, or why it cannot be read."""
    assert _recogniser is not None
    decoder, same = _recogniser
    # What was heard before would shift its means: a word's time followed from who was first.
    decoder.reinit_feat()
    said: list[Said] = []
    try:
        audio = to_int16(read_audio(path, _RATE))
    except EarmarkError as error:
        return str(error)
    for start, pcm in _utterances(audio):
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
