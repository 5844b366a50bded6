"""What a model makes of a user's own recordings: its keywords, each set into other audio, and the
background."""

import dataclasses
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.detect import TAIL_SECONDS
from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..runtime.layout import folder_name
from ..runtime.manifest import Manifest
from ..runtime.sources import Piece, Source
from ..train.data.clip import Clip
from ..train.data.corpus import word_clips
from ..train.progress import progress
from .det import Trace, trace
from .held_out import Trained, measured_corpus
from .trials import Excerpts, trial


@dataclass(frozen=True)
class Heard:
    """What a model made of the recordings."""

    positives: tuple[Trace, ...]
    background: tuple[Trace, ...]
    skipped: tuple[str, ...]
    """Why recordings could not be used, one line for each."""


def keyword_clips(
    manifest: Manifest, folder: Path, keyword: str | None = None, split: str = "all"
) -> list[Clip]:
    """The clips of the model's keywords; ``word`` of each is the keyword itself.

    Args:
        manifest: of the model.
        folder: a corpus folder, or with ``keyword`` a folder of clips of that keyword.
        keyword: the one keyword in ``folder``.
        split: ``train``, ``validation``, ``test`` or ``all``; with ``keyword`` ``all``.

    Raises:
        EarmarkError: as :func:`earmark.train.data.corpus.scan`, the keyword is not the model's, a
            folder of one keyword is to have a split, or there are no clips.
    """
    if keyword is not None:
        if keyword not in manifest.keywords:
            raise EarmarkError(
                f"--keyword {keyword}: the model's keywords are {', '.join(manifest.keywords)}"
            )
        if split != "all":
            raise EarmarkError(
                f"--split {split}: a folder of one keyword (--keyword) has no split: leave it out, "
                "or name a folder with one subfolder per keyword"
            )
        return list(word_clips(folder, keyword))
    names = {folder_name(keyword): keyword for keyword in manifest.keywords}
    trained = Trained.of_file(manifest.name, manifest)
    found = [
        dataclasses.replace(clip, word=names[folder_name(clip.word)])
        for clip in measured_corpus([folder], [trained]).clips
        if folder_name(clip.word) in names
    ]
    words = ", ".join(manifest.keywords)
    if not found:
        raise EarmarkError(
            f"{folder}: no clips of {words}: name a folder with one subfolder per keyword, or give "
            "--keyword"
        )
    clips = [clip for clip in found if split in ("all", clip.split)]
    if not clips:
        raise EarmarkError(
            f"{folder}: no clips of {words} in the {split} split: neither a list nor the hash of a "
            f"speaker's name puts one there: record some (earmark record --split {split}), or take "
            "all (--split all)"
        )
    return clips


def hear(
    engine: Engine,
    clips: Sequence[Clip],
    background: Iterable[tuple[str, Source]],
    *,
    seed: int,
    silence: bool = False,
    recordings: int = 1,
    seconds: float | None = None,
) -> Heard:
    """Run everything through the model once, the background first.

    Args:
        engine: the model.
        clips: of its keywords.
        background: names and sources of audio in which nobody says a keyword.
        seed: of the places of the clips.
        silence: set the clips into digital silence rather than into the background.
        recordings: how many ``background`` has, for the progress bar.
        seconds: length of a single one, where it is known beforehand.

    Raises:
        EarmarkError: no recording or no clip could be used.
    """
    rate = engine.manifest.geometry.sample_rate
    excerpts = Excerpts(rate, seed)
    skipped: list[str] = []
    heard: list[Trace] = []
    total = recordings if seconds is None else round(seconds)
    with progress("Hearing the background", total) as advance:
        for name, source in background:
            pieces = excerpts.sample(source)
            if seconds is not None:
                pieces = _counted(pieces, rate, advance)
            try:
                heard += trace(engine, pieces, group=name, tail=TAIL_SECONDS)
            except EarmarkError as error:
                skipped.append(str(error))
            if seconds is None:
                advance(1)
    if not heard:
        raise EarmarkError(skipped[0] if skipped else "the background holds no audio")
    around = [] if silence else excerpts.kept
    positives: list[Trace] = []
    with progress("Hearing the clips", len(clips)) as advance:
        for clip in clips:
            try:
                positives.append(trial(engine, clip, around, _generator(clip, seed)))
            except EarmarkError as error:
                skipped.append(str(error))
            advance(1)
    if not positives:
        raise EarmarkError(skipped[-1])
    return Heard(tuple(positives), tuple(heard), tuple(skipped))


def _generator(clip: Clip, seed: int) -> np.random.Generator:
    """Of each clip its own, so that one more or less changes no other; not that of the excerpts."""
    # The last parts of a path do not tell where the corpus lies.
    name = os.fsencode("/".join(clip.path.absolute().parts[-2:]))
    return np.random.default_rng((seed, zlib.crc32(name), 1))


def _counted(pieces: Iterable[Piece], rate: int, advance: Callable[[int], None]) -> Iterator[Piece]:
    """Pass on a source and tell ``advance`` of every whole second of it."""
    samples = 0
    for piece in pieces:
        yield piece
        if isinstance(piece, np.ndarray):
            advance((samples + len(piece)) // rate - samples // rate)
            samples += len(piece)
