"""How long after the end of a word its detection comes, in audio time."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...export.matching import Word, loud, match
from ...runtime.audio import read_audio
from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...runtime.layout import folder_name
from ...runtime.stream import Detection
from ...train.collect.speak import spoken
from ...train.data.audio_files import find_audio
from .results import Delay

CLIPS = 20
"""Most clips of a keyword."""
PAUSE_SECONDS = 1.0
NOISE_DB = -60.0

Clip = tuple[str, NDArray[np.float32]]


def clips(keywords: Sequence[str], rate: int, folder: str = "") -> list[Clip]:
    """Keywords to listen to: recordings ``folder/KEYWORD/*``, or spoken by eSpeak NG.

    Args:
        keywords: what is said.
        rate: Hz.
        folder: of recordings; a keyword without a folder there is left out.

    Raises:
        EarmarkError: no keyword has a folder, a recording cannot be read, or there is no eSpeak NG.
    """
    if not folder:
        return list(spoken(keywords, rate))
    found = list(_recorded(keywords, rate, Path(folder)))
    if not found:
        raise EarmarkError(f"{folder}: has no folder of {', '.join(keywords)}")
    return found


def _recorded(keywords: Sequence[str], rate: int, folder: Path) -> Iterator[Clip]:
    for keyword in keywords:
        place = folder / folder_name(keyword)
        if not place.is_dir():
            continue
        files = find_audio(place)
        # Evenly over all of them, since names sort by speaker.
        for index in np.linspace(0, len(files) - 1, min(CLIPS, len(files))).round().astype(int):
            yield keyword, read_audio(files[index], rate)


def with_delay(delay: Delay, engine: Engine, said: Sequence[Clip], on: str) -> Delay:
    """``delay`` with what is measured on ``said``, clips with pauses between in faint noise."""
    rate = engine.manifest.geometry.sample_rate
    pause = np.zeros(round(PAUSE_SECONDS * rate), np.float32)
    pieces, truth, place = [pause], [], len(pause)
    for keyword, clip in said:
        start, end = loud(clip, rate)
        truth.append(Word(keyword, (place + start) / rate, (place + end) / rate))
        pieces += [clip, pause]
        place += len(clip) + len(pause)
    audio = np.concatenate(pieces)
    noise = np.random.default_rng(0).standard_normal(len(audio), np.float32)
    stream = engine.stream()
    detections: list[Detection] = stream.push(audio + np.float32(10 ** (NOISE_DB / 20)) * noise)
    summary = match(detections + stream.flush(PAUSE_SECONDS), truth).summary(len(audio) / rate)
    p50, p95 = (
        None if summary[name] is None else 1e3 * summary[name]
        for name in ("delay_p50", "delay_p95")
    )
    return dataclasses.replace(
        delay, p50_ms=p50, p95_ms=p95, found=summary["hits"], said=summary["keywords"], on=on
    )
