"""A synthetic corpus from text: keywords and confusable words spoken by eSpeak NG in many voices.

Formant speech is a start for words that nobody has recorded yet, and enough for a demonstration; a
model trained on it alone hears recorded people far worse than one trained on recordings.

The corpus has the layout of Speech Commands (see ``corpus``). Its speakers are the voice qualities
of eSpeak NG, so that one quality is never in two splits; accent, pitch, rate, intonation and level
vary from clip to clip. All of it follows from the arguments, whatever the number of processes.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ...runtime.files import write_bytes
from ...runtime.layout import NOISE_FOLDER, folder_name, hashed_split
from ...runtime.manifest import Source
from ...runtime.wav import wav_bytes
from ..claim import claim
from ..data.dataset import label_set
from ..data.decoded import SAMPLE_RATE
from ..data.sources import write_source
from .confusable import AUTO_WORDS, confusable_words, homophones
from .espeak import Synthesizer, synthesizer
from .named_rng import named_rng
from .noises import NOISES
from .processes import Task, run_tasks

SOURCE = Source(
    name="eSpeak NG synthesized speech",
    licence="GPL-3.0-or-later (the synthesizer; its output is not covered)",
    url="https://github.com/espeak-ng/espeak-ng",
)
WORDS_PER_TAKE = 4
"""Other words that are spoken for one clip of each keyword."""
NOISE_SECONDS = 40.0
_SETTINGS_FILE = "synth.json"
_ENDINGS = ("", "", "", "!", "?", ",")
# One process speaks this many clips. Fixed, as the samples depend on what was spoken before.
_BLOCK = 400
_BABBLE_VOICES = 12
_MARGIN_SECONDS = 0.02
_QUIET_DB = -45.0


@dataclass(frozen=True)
class Written:
    """What :func:`synthesize` did."""

    others: tuple[str, ...]
    """The words that are not keywords."""
    clips: int
    """Files written now."""
    kept: int
    """Files that were there from an earlier run."""


@dataclass(frozen=True)
class _Utterance:
    path: Path
    text: str
    voice: str
    words_per_minute: int
    pitch: int
    pitch_range: int
    peak: float
    """Level of the loudest sample, 1 being full scale."""
    place: float
    """Where in the clip the word stands: 0 at its begin, 1 at its end."""


def synthesize(
    keywords: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    other: Sequence[str] | Literal["auto"] = "auto",
    clips: int = 400,
    seed: int = 0,
    language: str = "en",
    clip_seconds: float = 1.0,
    workers: int | None = None,
) -> Written:
    """Write a corpus of spoken words and of noise to ``folder``.

    Each keyword gets ``clips`` clips, the other words together four times as many. A clip is 16 kHz
    mono 16-bit WAV of ``clip_seconds``, longer where the word is. Run again, it writes what is
    missing.

    Args:
        keywords: any text; the class folder is :func:`earmark.runtime.layout.folder_name` of it.
        folder: made if it is missing.
        other: words that are not keywords, or ``auto`` to choose them
            (:func:`earmark.train.collect.confusable.confusable_words`).
        clips: per keyword.
        seed: another seed gives other voices, places and levels.
        language: a language code of eSpeak NG; ``en`` takes all English accents.
        clip_seconds: least length of a clip.
        workers: processes; None for one per processor.

    Raises:
        EarmarkError: unusable words, language or numbers, a folder made with other settings or
            with a word that sounds like a keyword, a full disk, or eSpeak NG does not load.
    """
    label_set(keywords)
    if not 1 <= clips <= 100_000:
        raise EarmarkError(f"{clips} clips per word: expected 1 to 100000")
    if not 0.2 <= clip_seconds <= 10:
        raise EarmarkError(f"clips of {clip_seconds} s: expected 0.2 to 10 seconds")
    folder = Path(folder)
    engine = synthesizer()
    voices = engine.voices(language)
    others = _other_words(keywords, other, seed, language, engine)
    claim(
        folder, _SETTINGS_FILE, {"seed": seed, "language": language, "clip_seconds": clip_seconds}
    )
    _check_earlier_words(folder, [*keywords, *others], keywords, engine, voices)
    write_source(folder, SOURCE)

    plan = _plan(folder, keywords, others, clips, seed, voices, engine.variants)
    tasks: list[Task] = []
    for start in range(0, len(plan), _BLOCK):
        block = plan[start : start + _BLOCK]
        missing = frozenset(u.path for u in block if not u.path.exists())
        if missing:
            tasks.append(Task(len(missing), _speak_clips, (block, missing, clip_seconds)))
    total = sum(task.steps for task in tasks)
    noises = folder / NOISE_FOLDER
    for kind in NOISES:
        path = noises / f"{kind}.wav"
        if not path.exists():
            tasks.append(Task(1, _write_noise, (path, kind, seed)))
    path = noises / "babble.wav"
    if not path.exists() and others:
        babble = _babble_plan(path, others, seed, voices, engine.variants)
        tasks.append(Task(1, _speak_babble, (path, babble)))
    run_tasks("Speaking", tasks, workers or os.cpu_count() or 1, [__name__, "soxr"])
    return Written(others, total, len(plan) - total)


def speaker_id(variant: str) -> str:
    """The name, as of a speaker in a corpus, of one voice quality of eSpeak NG."""
    name = f"espeak-ng {variant}".encode()
    return hashlib.sha1(name, usedforsecurity=False).hexdigest()[:8]


def _other_words(
    keywords: Sequence[str],
    other: Sequence[str] | Literal["auto"],
    seed: int,
    language: str,
    engine: Synthesizer,
) -> tuple[str, ...]:
    voices = engine.voices(language)
    words = [*keywords, *([] if other == "auto" else other)]
    for word, sounds in zip(words, engine.phonemes(words, voices[0]), strict=True):
        if len(word) > 100 or not sounds:
            raise EarmarkError(f"word {word!r}: nothing in it can be spoken in language {language}")
    if other == "auto":
        return confusable_words(keywords, AUTO_WORDS, seed, language)
    alike = homophones(other, keywords, engine, voices)
    folders = {folder_name(keyword) for keyword in keywords}
    for word in other:
        if folder_name(word) in folders or word in alike:
            raise EarmarkError(f"other word {word!r}: sounds like a keyword: leave it out")
    label_set(other or ["none"])
    return tuple(other)


def _check_earlier_words(
    folder: Path,
    words: Sequence[str],
    keywords: Sequence[str],
    engine: Synthesizer,
    voices: Sequence[str],
) -> None:
    """Raises EarmarkError: another word of an earlier call sounds like one of the keywords now."""
    spoken = {folder_name(word) for word in words}
    earlier = {
        path.name.replace("_", " "): path
        for path in folder.glob("[!_]*/")
        if path.name not in spoken
        # What bears another name than a folder of Earmark's was not made here.
        and path.name == folder_name(path.name)
        and any(path.glob("*.wav"))
    }
    for word in sorted(homophones([*earlier], keywords, engine, voices)):
        raise EarmarkError(
            f"{earlier[word]}: sounds like a keyword, but stands for another word: remove it, or "
            "name another folder"
        )


def _plan(
    folder: Path,
    keywords: Sequence[str],
    others: Sequence[str],
    clips: int,
    seed: int,
    voices: Sequence[str],
    variants: Sequence[str],
) -> list[_Utterance]:
    order = _speaker_order(variants, seed)
    plan = []
    for take in range(clips):
        variant = order[take % len(order)]
        name = f"{speaker_id(variant)}_nohash_{take // len(order)}.wav"
        some = named_rng(seed, "other", take).permutation(len(others))[:WORDS_PER_TAKE]
        for word in [*keywords, *(others[i] for i in some)]:
            path = folder / folder_name(word) / name
            plan.append(_utterance(path, word, variant, voices, named_rng(seed, word, take)))
    return plan


def _speaker_order(variants: Sequence[str], seed: int) -> list[str]:
    """Voice qualities in random order, all splits being there among the first ten."""
    shuffled = [variants[int(i)] for i in named_rng(seed, "speakers").permutation(len(variants))]
    queues = {split: [] for split in ("train", "validation", "test")}
    for variant in shuffled:
        queues[hashed_split(speaker_id(variant))].append(variant)
    pattern = ["train"] * 4 + ["validation"] + ["train"] * 4 + ["test"]
    order = []
    while len(order) < len(shuffled):
        order += [queues[split].pop() for split in pattern if queues[split]]
    return order


def _utterance(
    path: Path, text: str, variant: str, voices: Sequence[str], rng: np.random.Generator
) -> _Utterance:
    voice = _pick(voices, rng)
    return _Utterance(
        path,
        text + _pick(_ENDINGS, rng),
        f"{voice}+{variant}" if variant else voice,
        words_per_minute=int(rng.integers(110, 211)),
        pitch=int(rng.integers(25, 76)),
        pitch_range=int(rng.integers(20, 81)),
        peak=float(10 ** (rng.uniform(-24, -3) / 20)),
        place=float(rng.uniform(0.2, 0.8)),
    )


def _babble_plan(
    path: Path, words: Sequence[str], seed: int, voices: Sequence[str], variants: Sequence[str]
) -> list[list[_Utterance]]:
    """For each of several talkers, phrases of other words, enough to fill the recording."""
    talkers = []
    for talker in range(_BABBLE_VOICES):
        rng = named_rng(seed, "babble", talker)
        variant = _pick(variants, rng)
        phrases = []
        for _ in range(round(NOISE_SECONDS / 2)):
            text = " ".join(_pick(words, rng) for _ in range(8))
            phrases.append(_utterance(path, text, variant, voices, rng))
        talkers.append(phrases)
    return talkers


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


# The functions below run in processes of their own, and yield after every step.


def _speak_clips(
    block: list[_Utterance], missing: frozenset[Path], clip_seconds: float
) -> Iterator[None]:
    engine = synthesizer()
    for utterance in block:
        # What is there already is spoken too: the samples depend on what was spoken before.
        speech = _spoken(engine, utterance)
        if utterance.path not in missing:
            continue
        free = max(round(clip_seconds * SAMPLE_RATE) - len(speech), SAMPLE_RATE // 5)
        before = round(free * utterance.place)
        _write_wav(utterance.path, np.pad(speech, (before, free - before)))
        yield


def _speak_babble(path: Path, talkers: list[list[_Utterance]]) -> Iterator[None]:
    engine = synthesizer()
    samples = round(NOISE_SECONDS * SAMPLE_RATE)
    mix = np.zeros(samples)
    for phrases in talkers:
        spoken: list[NDArray[np.float32]] = []
        while sum(map(len, spoken)) < samples:
            spoken += [_spoken(engine, phrase) for phrase in phrases]
        mix += np.concatenate(spoken)[:samples]
    _write_wav(path, mix / np.abs(mix).max() * 0.5)
    yield


def _write_noise(path: Path, kind: str, seed: int) -> Iterator[None]:
    noise = NOISES[kind](named_rng(seed, "noise", kind), round(NOISE_SECONDS * SAMPLE_RATE))
    _write_wav(path, noise / np.abs(noise).max() * 0.5)
    yield


def _spoken(engine: Synthesizer, utterance: _Utterance) -> NDArray[np.float32]:
    """A word at 16 kHz without the silence around it, float32 [samples]."""
    import soxr

    raw = engine.speak(
        utterance.text,
        utterance.voice,
        words_per_minute=utterance.words_per_minute,
        pitch=utterance.pitch,
        pitch_range=utterance.pitch_range,
    )
    speech = soxr.resample(raw.astype(np.float32), engine.rate, SAMPLE_RATE)
    level = np.abs(speech)
    peak = level.max(initial=0.0)
    if peak == 0:
        raise EarmarkError(f"{utterance.text!r}: voice {utterance.voice} speaks nothing")
    loud = np.flatnonzero(level > peak * 10 ** (_QUIET_DB / 20))
    margin = round(_MARGIN_SECONDS * SAMPLE_RATE)
    speech = speech[max(0, loud[0] - margin) : loud[-1] + margin]
    return speech * (utterance.peak / peak)


def _write_wav(path: Path, audio: NDArray[Any]) -> None:
    write_bytes(path, wav_bytes(np.round(audio * 32767).astype(np.int16), SAMPLE_RATE))
