"""One spoken word in a recording: where it is, whether it will do, and the clip made of it."""

from dataclasses import dataclass

import numpy as np

from .audio import to_int16

FRAME_SECONDS = 0.01
PAUSE_SECONDS = 0.3
"""Sound on both sides of a shorter pause is one utterance: a phrase has gaps between its words."""
MARGIN_SECONDS = 0.2
"""Kept on both sides, since a word begins and ends more softly than what is found of it."""
MIN_SECONDS, MAX_SECONDS = 0.1, 2.5
RISE_DB = 9.0
"""Sound is what rises above the noise of the room by so much."""
CLEAR_DB = 15.0
"""By so much must the loudest frame of an utterance rise above the noise."""
QUIETEST_DB = -60.0
"""Less is no sound, however quiet the room is."""
QUIET_PEAK_DB = -36.0
CLIPPED_AT = 0.99
CLIPPED_SAMPLES = 3
FLOOR_PERCENTILE = 15
SILENCE_DB = -100.0


@dataclass(frozen=True)
class Utterance:
    """Where an utterance is in a recording, and how loud. Levels are in dB of full scale."""

    begin: int
    """Sample at which it rises above the noise."""
    end: int
    """Sample after its last."""
    peak_db: float
    """The largest sample."""
    level_db: float
    """Root mean square of the whole."""
    clear_db: float
    """Loudest frame above the noise of the room."""
    clipped: int
    """Samples at the end of the scale."""


def find(pcm: np.ndarray, rate: int) -> Utterance | None:
    """The utterance with most energy in float32 [samples], None where nothing is heard.

    Energy end-pointing: frames whose level rises above a low percentile of all levels, which is
    the noise as long as a part of the recording is free of speech.
    """
    size = round(FRAME_SECONDS * rate)
    count = len(pcm) // size
    if not count:
        return None
    power = np.mean(np.square(pcm[: count * size], dtype=np.float64).reshape(count, size), axis=1)
    levels = 10 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10)))
    floor = float(np.percentile(levels, FLOOR_PERCENTILE))
    sounding = np.flatnonzero(levels > max(floor + RISE_DB, QUIETEST_DB))
    if not len(sounding):
        return None
    pauses = np.flatnonzero(np.diff(sounding) > round(PAUSE_SECONDS / FRAME_SECONDS))
    runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(sounding, pauses + 1)]
    first, last = max(runs, key=lambda run: power[run[0] : run[1]].sum())
    sound = pcm[first * size : last * size]
    magnitude = np.abs(sound)
    return Utterance(
        begin=first * size,
        end=last * size,
        peak_db=decibels(float(magnitude.max())),
        level_db=decibels(float(np.sqrt(power[first:last].mean()))),
        clear_db=float(levels[first:last].max()) - floor,
        clipped=int(np.count_nonzero(magnitude >= CLIPPED_AT)),
    )


def problem(pcm: np.ndarray, rate: int, found: Utterance | None) -> str:
    """Why what was found in a recording will not do, in words for the speaker; empty if it will."""
    if found is None:
        return "nothing heard: is the microphone on, and the right one?"
    seconds = (found.end - found.begin) / rate
    if found.clipped >= CLIPPED_SAMPLES:
        return "clipped: lower the input gain or speak from further away"
    if seconds > MAX_SECONDS:
        return f"too long ({seconds:.1f} s of sound): say the word alone and then be quiet"
    if seconds < MIN_SECONDS:
        return f"too short ({seconds:.2f} s of sound): that was a click, not a word"
    if found.peak_db < QUIET_PEAK_DB:
        return f"too quiet (peak {found.peak_db:.0f} dB): raise the input gain or come closer"
    if found.clear_db < CLEAR_DB:
        return f"only {found.clear_db:.0f} dB above the noise: speak up, or find a quieter room"
    margin = round(MARGIN_SECONDS * rate) // 2
    if found.begin < margin or len(pcm) - found.end < margin:
        return "cut off: begin after the prompt, and then be quiet"
    return ""


def trim(pcm: np.ndarray, rate: int, found: Utterance) -> np.ndarray:
    """The utterance with a margin on both sides, as int16 [samples]."""
    margin = round(MARGIN_SECONDS * rate)
    return to_int16(pcm[max(0, found.begin - margin) : found.end + margin])


def decibels(amplitude: float) -> float:
    """An amplitude in dB of full scale."""
    return 20 * float(np.log10(max(amplitude, 10 ** (SILENCE_DB / 20))))
