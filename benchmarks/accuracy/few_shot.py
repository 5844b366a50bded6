"""A wake word from few recordings: how many does it take? Measured on recordings held out.

For each number of recordings and each seed: train as a user would, export, and stream the int8 file
over recordings of the word that no training saw, over speech of recordings that this training did
not hear, and over other audio. All of it is kept in one folder, so that an interrupted benchmark
goes on where it was.

What is trained on and what is measured follows from names alone. Recordings of the word are put in
order by the hash of their names: the first ones are the pool that training takes from, a smaller
set being a part of the larger, and the others are measured. Free speech is halved in the same way:
even seeds train on one half and are measured on the other, odd seeds the other way round. One more
file would shift all of that, and leave behind what was made before: a folder goes on only with the
files that it was begun with.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ...export.det import sweep, trace
from ...export.export import export
from ...export.verify import Limits
from ...runtime.audio import read_audio, to_int16
from ...runtime.detect import TAIL_SECONDS
from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...runtime.files import atomic_path, write_text
from ...runtime.layout import SOURCES_FILE, SPEAKER_MARK, folder_name, place_name
from ...train.claim import claim
from ...train.collect.synth import synthesize
from ...train.data.audio_files import find_audio
from ...train.data.decoded import SAMPLE_RATE
from ...train.data.sources import read_sources, write_source
from ...train.data.speech import word_bounds
from ...train.data.stretches import recording_origin
from ...train.fit import begun_with, train
from ...train.learned import learned_folders
from ...train.progress import progress
from ...train.recipe import RECIPES, Recipe, load_recipe
from ...train.run import load_run
from .few_shot_table import THRESHOLDS, Curve, det, table

SETTINGS_FILE = "few-shot.json"
RESULTS_FILE, TABLE_FILE, PICTURE_FILE = "results.json", "results.md", "det.png"
LEAST_MEASURED = 50
AROUND_SECONDS = 1.5
AROUND_DB = (-5.0, 0.0)
LEAST_SAMPLES = SAMPLE_RATE // 100
FADE_SAMPLES = SAMPLE_RATE // 50
SEED_TEXT = "few-shot"
CLIP_SECONDS = 1.5
# The validation clips are synthesized voices, on whose border a model of few recordings may sit.
LIMITS = Limits(int8_labels=0.1)
OWN_FIELDS = (
    *("name", "keywords", "seed"),
    *(f"data.{field}" for field in ("roots", "own", "speech", "noise", "cache")),
)
"""Fields of the recipe that are not the user's."""


@dataclass(frozen=True)
class FewShotSettings:
    """All that a benchmark depends on besides the audio itself."""

    word: str
    recordings: str
    """Folder of recordings of the word, any layout; each holds it once."""
    speech: str
    """Folder of free speech without the word, any layout."""
    noise: str
    """Folder of background noise to train with."""
    other: str = ""
    """Folder of other audio without the word that is measured only; empty: none."""
    sizes: tuple[int, ...] = (0, 5, 20, 100)
    """Numbers of recordings to train with."""
    seeds: int = 2
    synthetic: int = 400
    """Synthesized clips of the word."""
    recipe: str = str(RECIPES / "wake-word.toml")
    overrides: tuple[str, ...] = ()
    """Settings that go before the recipe's, ``field=value``."""


def run(folder: Path, settings: FewShotSettings) -> Path:
    """Make the benchmark in ``folder`` and return its table.

    Raises:
        EarmarkError: the folder holds something else, was begun with other settings or other
            files, audio is missing, or a stage fails.
    """
    for name in (override.partition("=")[0].strip() for override in settings.overrides):
        if name in OWN_FIELDS:
            raise EarmarkError(f"--set {name}: is what this benchmark sets itself: leave it out")
    recordings = _ordered(Path(settings.recordings))
    needed = max(settings.sizes) + LEAST_MEASURED
    if len(recordings) < needed:
        raise EarmarkError(
            f"{settings.recordings}: {len(recordings)} recordings, at least {needed} needed for "
            f"{max(settings.sizes)} to train with: record more or ask for fewer with --sizes"
        )
    origins = _speech_origins(Path(settings.speech))
    if len(origins) < 2:
        held = "all by one speaker" if origins else "no audio"
        raise EarmarkError(f"--speech {settings.speech}: {held}: add recordings of others")
    _check_unheard(folder, settings)
    # What is measured does not depend on how many recordings a model was trained with.
    pool, measured = recordings[: max(settings.sizes)], recordings[max(settings.sizes) :]
    files = {
        f"{field}_files": _digest(Path(getattr(settings, field)))
        for field in ("recordings", "speech", "noise", "other")
        if getattr(settings, field)
    }
    claim(folder, SETTINGS_FILE, dataclasses.asdict(settings) | files)
    halves = [
        _half(folder, Path(settings.speech), which, set(origins[which::2])) for which in (0, 1)
    ]
    synthesize(
        [settings.word], folder / "synth", clips=settings.synthetic, clip_seconds=CLIP_SECONDS
    )
    curves: list[Curve] = []
    for seed in range(settings.seeds):
        trained, other = halves if seed % 2 == 0 else halves[::-1]
        for size in settings.sizes:
            own = _own(folder, settings.word, pool[:size])
            recipe = _recipe(folder, settings, own, trained, seed)
            model = _model(folder, f"{size:03d}-{seed}", recipe)
            curves.append(_measured(model, size, seed, measured, other, settings.other))
            _write(folder, settings, curves)
    return folder / TABLE_FILE


def measure(
    engine: Engine, words: Sequence[Path], speech: Sequence[Path], other: Sequence[Path]
) -> dict[str, Any]:
    """The fields of :class:`earmark.benchmarks.accuracy.few_shot_table.Curve` that are measured.

    Every recording is a stream of its own, as of ``earmark detect``. A recording of the word is
    missed where nothing fires in it, and so is its word put between pieces of the speech.

    Args:
        engine: a model of one keyword.
        words: recordings that hold the word once.
        speech: recordings of free speech without it.
        other: more recordings without it.
    """
    rate = engine.manifest.geometry.sample_rate
    random = np.random.default_rng(0)
    alone, within = [], []
    background = {}
    with progress("Measuring", 2 * len(words) + len(speech) + len(other)) as advance:
        for name, files in (("speech", speech), ("other", other)):
            counts, samples = np.zeros(len(THRESHOLDS), np.int64), 0
            for file in files:
                pcm = read_audio(file, rate=rate)
                samples += len(pcm)
                counts += _firings(engine, pcm)
                advance(1)
            background[name] = samples / rate / 3600, tuple(counts.tolist())
        for file in words:
            pcm = read_audio(file, rate=rate)
            alone.append(_firings(engine, pcm))
            talk = read_audio(speech[int(random.integers(len(speech)))], rate=rate)
            within.append(_firings(engine, between(pcm, talk, random)))
            advance(2)
    return {
        "words": len(words),
        "misses": tuple(np.sum(np.array(alone) == 0, axis=0).tolist()),
        "misses_in_speech": tuple(np.sum(np.array(within) == 0, axis=0).tolist()),
        "speech_hours": background["speech"][0],
        "speech_accepts": background["speech"][1],
        "other_hours": background["other"][0],
        "other_accepts": background["other"][1],
    }


def between(
    pcm: NDArray[np.float32], talk: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.float32]:
    """The word of a recording, without what is before and after it, between two pieces of speech.

    Args:
        pcm: a recording of the word, float32 [samples] at 16 kHz.
        talk: free speech, float32 [samples].
        random: draws the place in ``talk`` and its level, up to 5 dB below the word's.

    Returns:
        float32 [samples]: up to :data:`AROUND_SECONDS` of speech, the word, as much again.
    """
    # A recording may be shorter than what a word is looked for in, and than both fades.
    pcm = np.pad(pcm, (0, max(0, LEAST_SAMPLES - len(pcm))))
    start, stop = word_bounds(to_int16(pcm))
    word = pcm[start:stop].copy()
    fade = np.linspace(0, 1, min(FADE_SAMPLES, len(word) // 2), dtype=np.float32)
    word[: len(fade)] *= fade
    word[-len(fade) :] *= fade[::-1]
    length = round(AROUND_SECONDS * SAMPLE_RATE)
    first = int(random.integers(max(1, len(talk) - 2 * length)))
    piece = talk[first : first + 2 * length]
    level = np.sqrt(np.mean(np.square(word)) / max(np.mean(np.square(piece)), 1e-9))
    piece = np.clip(piece * level * 10 ** (random.uniform(*AROUND_DB) / 20), -1, 1)
    return np.concatenate([piece[:length], word, piece[length:]]).astype(np.float32)


def _firings(engine: Engine, pcm: NDArray[np.float32]) -> list[int]:
    """Detections of the model's keyword in a recording at each threshold."""
    manifest = engine.manifest
    heard = trace(engine, [pcm], tail=TAIL_SECONDS)
    [keyword] = manifest.keywords
    # No word of it is named, so that all detections are false accepts here.
    curve = sweep(heard, keyword, manifest.decision, manifest.geometry, tuple(THRESHOLDS))
    return curve.false_accepts.tolist()


def _ordered(folder: Path) -> list[Path]:
    """The audio files of a folder in an order that follows from their names alone."""

    def key(file: Path) -> bytes:
        name = file.relative_to(folder).as_posix()
        return hashlib.sha256(f"{SEED_TEXT}\0{name}".encode()).digest()

    return sorted(find_audio(folder), key=key)


def _digest(folder: Path) -> str:
    """What tells the audio files of a folder from others: how many, and a hash of their names and
    sizes."""
    files, digest = find_audio(folder), hashlib.sha256()
    for file in files:
        try:
            size = file.stat().st_size
        except OSError as error:
            raise EarmarkError(f"{file}: cannot be read ({error.strerror})") from error
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return f"{len(files)}, {digest.hexdigest()[:16]}"


def _check_unheard(folder: Path, settings: FewShotSettings) -> None:
    """Refuse to measure on what the runs that the recipe begins with have heard, by the names of
    their folders."""
    first, ensemble = begun_with(_recipe(folder, settings, None, Path(settings.speech), 0))
    begun = [*([first] if first else []), *(ensemble.runs if ensemble else ())]
    heard = {name for names in learned_folders(begun).values() for name in names}
    for option, measured in (
        ("recordings", settings.recordings),
        ("--speech", settings.speech),
        ("--other", settings.other),
    ):
        if measured and place_name(measured) in heard:
            raise EarmarkError(
                f"{option} {measured}: what the recipe begins with (train.init, distill.teachers) "
                "learned from a folder of this name: measure on other recordings"
            )


def _speech_origins(speech: Path) -> list[str]:
    """The origins of free speech in an order that follows from their names alone."""
    origins = sorted({_origin(file, speech) for file in find_audio(speech)})
    origins.sort(key=lambda name: hashlib.sha256(f"{SEED_TEXT}\0{name}".encode()).digest())
    return origins


def _origin(file: Path, speech: Path) -> str:
    return recording_origin(file.relative_to(speech).as_posix())


def _half(folder: Path, speech: Path, which: int, origins: Set[str]) -> Path:
    """A folder with the free speech of these origins, copied from ``speech``."""
    files = [file for file in find_audio(speech) if _origin(file, speech) in origins]
    target = folder / f"speech-{'ab'[which]}"
    for file in files:
        _copy(file, target / file.relative_to(speech))
    if (speech / SOURCES_FILE).is_file():
        _copy(speech / SOURCES_FILE, target / SOURCES_FILE)
    return target


def _own(folder: Path, word: str, recordings: Sequence[Path]) -> Path | None:
    """A corpus folder of these recordings, each by an unknown speaker; None of no recordings."""
    if not recordings:
        return None
    target = folder / f"own-{len(recordings):03d}"
    for number, file in enumerate(recordings):
        name = f"{file.stem}{SPEAKER_MARK}{number}{file.suffix}"
        _copy(file, target / folder_name(word) / name)
    for source in read_sources(recordings[0].parent):
        write_source(target, source)
    return target


def _copy(file: Path, target: Path) -> None:
    if not target.is_file():
        with atomic_path(target) as temporary:
            shutil.copyfile(file, temporary)


def _recipe(
    folder: Path, settings: FewShotSettings, own: Path | None, speech: Path, seed: int
) -> Recipe:
    recipe = load_recipe(settings.recipe, settings.overrides)
    data = dataclasses.replace(
        recipe.data,
        roots=(str(folder / "synth"),),
        own=(str(own),) if own else (),
        speech=(str(speech),),
        noise=(settings.noise,),
        cache=str(folder / "cache"),
    )
    return dataclasses.replace(
        recipe, name=folder_name(settings.word), keywords=(settings.word,), seed=seed, data=data
    )


def _model(folder: Path, name: str, recipe: Recipe) -> Path:
    """The int8 file of a recipe, trained and exported unless that has been done."""
    print(f"{name}: training", file=sys.stderr)
    # A complete run is only checked to be of this recipe and of these recordings.
    run_dir = train(recipe, folder / "runs" / name, progress=False)
    model = folder / "models" / f"{name}.onnx"
    weights = load_run(run_dir).weights_sha256
    if not model.is_file() or Engine(model).manifest.checkpoint_sha256 != weights:
        export(run_dir, model, limits=LIMITS)
    return model


def _measured(
    model: Path, size: int, seed: int, words: Sequence[Path], speech: Path, other: str
) -> Curve:
    """What :func:`measure` finds, kept beside the model."""
    target = model.with_suffix(".curve.json")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    # A file of another model, or one that was damaged, is written anew.
    with suppress(OSError, ValidationError):
        known = TypeAdapter(Curve).validate_json(target.read_bytes())
        if known.model_sha256 == digest:
            return known
    more = find_audio(Path(other)) if other else ()
    fields = measure(Engine(model), words, find_audio(speech), more)
    curve = Curve(size=size, seed=seed, model_sha256=digest, **fields)
    write_text(target, json.dumps(dataclasses.asdict(curve)) + "\n")
    return curve


def _write(folder: Path, settings: FewShotSettings, curves: Sequence[Curve]) -> None:
    results = {
        "settings": dataclasses.asdict(settings),
        "thresholds": [round(float(t), 6) for t in THRESHOLDS],
        "curves": [dataclasses.asdict(curve) for curve in curves],
    }
    write_text(folder / RESULTS_FILE, json.dumps(results) + "\n")
    write_text(folder / TABLE_FILE, table(settings.word, curves))
    with atomic_path(folder / PICTURE_FILE) as temporary:
        det(settings.word, curves).savefig(temporary, format="png", dpi=150)
