"""``earmark record``: a person's own samples of a word, by microphone, into a corpus folder."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from .audio import FULL_SCALE, to_int16
from .clips import Place, noise_place, save, word_place
from .errors import EarmarkError, one_line
from .events import write_event
from .files import check_folder_writable
from .manifest import UNKNOWN
from .microphone.microphone import Microphone
from .options import chosen_channel, chosen_device
from .sources import DeviceBack, DeviceLost, Gap, Piece
from .utterance import (
    MAX_SECONDS,
    MIN_SECONDS,
    PAUSE_SECONDS,
    decibels,
    find,
    problem,
    trim,
)

RATE = 16000
TAKE_SECONDS = 6.0
"""Longest wait for a word to be said and to end."""
END_SECONDS = 2 * PAUSE_SECONDS
"""Quiet after which a word has ended."""
TAKES_IN_VAIN = 10
"""Unusable takes in a row after which nobody seems to be there."""
COUNT, MAX_COUNT = 20, 10_000
MIN_NOISE_SECONDS, MAX_NOISE_SECONDS = 1.0, 600.0


def run(arguments: Namespace) -> int:
    """Record until there are enough, or until Ctrl-C; either is a clean end."""
    word, noise = arguments.word, arguments.noise
    if word is None and noise is None:
        raise EarmarkError("nothing to record: name a word, or give --noise SECONDS")
    for option in ("count", "split"):
        if word is None and getattr(arguments, option) is not None:
            raise EarmarkError(f"--{option}: is for clips of a word: name one, or leave it out")
    count = COUNT if arguments.count is None else arguments.count
    if not 1 <= count <= MAX_COUNT:
        raise EarmarkError(f"--count {count}: expected 1 to {MAX_COUNT}")
    if noise is not None and not MIN_NOISE_SECONDS <= noise <= MAX_NOISE_SECONDS:
        raise EarmarkError(
            f"--noise {noise:g}: expected {MIN_NOISE_SECONDS:g} to {MAX_NOISE_SECONDS:g} seconds"
        )
    room = noise_place(arguments.output, arguments.speaker)
    place = None
    if word is not None:
        place = word_place(arguments.output, word, arguments.speaker, arguments.split)
    device, channel = chosen_device(arguments.device), chosen_channel(arguments.channel)
    for wanted in (None if noise is None else room, place):
        if wanted is not None:
            check_folder_writable(wanted.folder)
    with suppress(KeyboardInterrupt), Microphone(device, channel, RATE) as microphone:
        _say(f"recording from {microphone.name}; Ctrl-C ends")
        pieces = iter(microphone)
        _await_audio(pieces)
        if noise is not None:
            record_noise(pieces, room, noise)
        if place is not None:
            record_word(pieces, place, str(word), count)
    for there in (room, place):
        if there is not None and there.numbers():
            _say(f"{there.folder}: {len(there.numbers())} by {there.speaker} now")
    return 0


def record_word(pieces: Iterator[Piece], place: Place, word: str, count: int) -> None:
    """Prompt for ``count`` clips and save those that will do, one JSON line each.

    Args:
        pieces: float audio at 16 kHz and what happens to it; its end ends the recording.
        place: where the clips go.
        word: shown in the prompt.
        count: clips to save.

    Raises:
        EarmarkError: too many takes in a row would not do, or a file cannot be written.
    """
    said = "any other word" if place.folder.name == UNKNOWN else word
    saved = vain = 0
    while saved < count:
        _say(f"[{saved + 1}/{count}] say: {said}")
        pcm, trouble = take(pieces)
        if pcm is None:
            return
        found = find(pcm, RATE)
        trouble = trouble or problem(pcm, RATE, found)
        if found is None or trouble:
            _say(f"  not saved: {trouble}")
            vain += 1
            if vain == TAKES_IN_VAIN:
                raise EarmarkError(f"{vain} takes in a row would not do; the last was {trouble}")
            continue
        clip = trim(pcm, RATE, found)
        _tell("clip", save(place, clip, RATE), len(clip), found.peak_db, found.level_db)
        saved, vain = saved + 1, 0


def take(pieces: Iterator[Piece]) -> tuple[np.ndarray | None, str]:
    """Listen until something was said and has ended, or for :data:`TAKE_SECONDS`.

    Returns:
        float32 [samples] at 16 kHz, None where ``pieces`` has ended, and what spoiled them.
    """
    heard = np.zeros(round(TAKE_SECONDS * RATE), np.float32)
    filled = 0
    for piece in pieces:
        if isinstance(piece, Gap):
            return heard[:filled], "audio was lost"
        if not isinstance(piece, np.ndarray):
            _notice(piece)
            continue
        part = piece[: len(heard) - filled]
        heard[filled : filled + len(part)] = part
        filled += len(part)
        found = find(heard[:filled], RATE)
        # A click is waited out.
        if found is not None and found.end - found.begin >= MIN_SECONDS * RATE:
            ended = filled - found.end >= END_SECONDS * RATE
            if ended or found.end - found.begin > MAX_SECONDS * RATE:
                return heard[:filled], ""
        if filled == len(heard):
            return heard, ""
    return None, ""


def record_noise(pieces: Iterator[Piece], place: Place, seconds: float) -> None:
    """Record the room, one JSON line. Ctrl-C saves what there is and goes on its way.

    Args:
        pieces: float audio at 16 kHz and what happens to it.
        place: where the recording goes.
        seconds: its length; what is lost meanwhile is left out.

    Raises:
        EarmarkError: the microphone delivers only zeros, or the file cannot be written.
    """
    _say(f"be quiet for {seconds:g} s: the room is recorded")
    total = round(seconds * RATE)
    heard, filled = np.zeros(total, np.int16), 0
    try:
        for piece in pieces:
            if not isinstance(piece, np.ndarray):
                _notice(piece)
                continue
            part = to_int16(piece[: total - filled])
            heard[filled : filled + len(part)] = part
            filled += len(part)
            if filled == total:
                break
    finally:
        if filled >= MIN_NOISE_SECONDS * RATE:
            _save_noise(place, heard[:filled])


def _save_noise(place: Place, pcm: np.ndarray) -> None:
    if not pcm.any():
        raise EarmarkError("the microphone delivers only zeros: is it muted?")
    wide = pcm.astype(np.float64) / FULL_SCALE
    level = float(np.sqrt(np.mean(wide**2)))
    peak = float(np.abs(wide).max())
    _tell("noise", save(place, pcm, RATE), len(pcm), decibels(peak), decibels(level))


def _await_audio(pieces: Iterator[Piece]) -> None:
    """A sound server may take seconds to its first audio."""
    for piece in pieces:
        if isinstance(piece, np.ndarray):
            return
        _notice(piece)


def _notice(piece: Piece) -> None:
    if isinstance(piece, DeviceLost):
        _say(f"microphone {piece.device} is lost ({piece.reason}): waiting for it")
    elif isinstance(piece, DeviceBack):
        _say(f"microphone {piece.device} is back")


def _tell(kind: str, path: Path, samples: int, peak_db: float, level_db: float) -> None:
    seconds = samples / RATE
    write_event(kind, file=str(path), seconds=seconds, peak_db=peak_db, level_db=level_db)
    _say(f"  saved {path.name}: {seconds:.2f} s, peak {peak_db:.0f} dB")


def _say(text: str) -> None:
    text = one_line(text)
    print(f"earmark: {text}" if text[0] not in " [" else text, file=sys.stderr, flush=True)
