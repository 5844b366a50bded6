"""Where recorded clips go in a corpus folder, and how they get there."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import EarmarkError
from .files import write_text
from .layout import LISTS, NOISE_FOLDER, SPEAKER_MARK, folder_name, hashed_split
from .manifest import UNKNOWN
from .wav import wav_bytes

MAX_SPEAKER = 40
"""Characters of a speaker's name."""


@dataclass(frozen=True)
class Place:
    """Where the clips of one word by one speaker go."""

    folder: Path
    """The class folder."""
    speaker: str
    """As in the names of the files."""
    list_file: Path | None = None
    """What makes the folder one that is divided by lists; None where names decide."""
    listed: bool = False
    """Every clip is entered into ``list_file``."""

    def numbers(self) -> list[int]:
        """The numbers of the speaker's clips that are there, whatever their format.

        Raises:
            EarmarkError: the folder cannot be listed.
        """
        name = re.compile(re.escape(self.speaker + SPEAKER_MARK) + r"(\d+)\.")
        try:
            if not self.folder.is_dir():
                return []
            matches = [name.match(path.name) for path in self.folder.iterdir()]
        except OSError as error:
            raise EarmarkError(f"{self.folder}: cannot be listed ({error.strerror})") from error
        return sorted(int(match[1]) for match in matches if match)


def speaker_name(name: str) -> str:
    """``name`` if it can stand in a file name on any system.

    Raises:
        EarmarkError: it cannot, or it holds the mark that ends a speaker's name.
    """
    safe = all(c.isalnum() or c in "-_" for c in name) and SPEAKER_MARK not in f"{name}_"
    if not (safe and name[:1].isalnum() and len(name) <= MAX_SPEAKER):
        raise EarmarkError(
            f"--speaker {name!r}: give at most {MAX_SPEAKER} letters, digits, - and _, beginning "
            f"with a letter or digit and without {SPEAKER_MARK}"
        )
    return name


def word_place(root: Path, word: str, speaker: str, split: str | None = None) -> Place:
    """Where clips of a word go, by the rule that the corpus folder already has.

    A folder with lists holds out what they name; one without lists divides its speakers by hash; a
    new one is given a list, so that a single speaker can be trained on whatever the name. Clips
    that are held out get a speaker of their own, since no speaker may be in two splits.

    Args:
        root: the corpus folder, which may be missing.
        word: any text, or ``_unknown_``.
        speaker: see :func:`speaker_name`.
        split: ``train``, ``validation`` or ``test``; None for what the folder gives.

    Raises:
        EarmarkError: the word or the speaker cannot be a file name, or the folder divides by hash
            and gives the speaker to another split than the one asked for.
    """
    speaker_name(speaker)
    name = folder_name(word)
    if not name or (name.startswith("_") and name != UNKNOWN):
        raise EarmarkError(f"{word!r}: is no word to record: give one with letters, or {UNKNOWN}")
    if not any((root / file).is_file() for file in LISTS.values()) and _has_words(root):
        given = hashed_split(speaker)
        if split not in (None, given):
            raise EarmarkError(
                f"{root}: has no {LISTS['validation']}, so names decide, and {speaker} is for "
                f"{given}: leave --split out, or take another --speaker or folder"
            )
        return Place(root / name, speaker)
    if split is None or split == "train":
        return Place(root / name, speaker, root / LISTS["validation"])
    return Place(root / name, f"{speaker}-{split}", root / LISTS[split], listed=True)


def noise_place(root: Path, speaker: str) -> Place:
    """Where recordings of a speaker's room go."""
    return Place(root / NOISE_FOLDER, speaker_name(speaker))


def save(place: Place, pcm: np.ndarray, rate: int) -> Path:
    """Write int16 [samples] as WAV under the next free number and return the path.

    Raises:
        EarmarkError: it cannot be written; no part of it is left.
    """
    number = max(place.numbers(), default=-1) + 1
    path = place.folder / f"{place.speaker}{SPEAKER_MARK}{number}.wav"
    if place.list_file is not None:
        # First: a listed clip that is missing does no harm, one that is not listed is trained on.
        _enter(place.list_file, f"{place.folder.name}/{path.name}" if place.listed else None)
    data = wav_bytes(pcm, rate)
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            try:
                target.write(data)
                target.flush()
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def _has_words(root: Path) -> bool:
    try:
        return root.is_dir() and any(
            entry.is_dir() and not entry.name.startswith(".") and entry.name != NOISE_FOLDER
            for entry in root.iterdir()
        )
    except OSError as error:
        raise EarmarkError(f"{root}: cannot be listed ({error.strerror})") from error


def _enter(file: Path, entry: str | None) -> None:
    """Make sure that a list is there, and that ``entry`` is in it."""
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise EarmarkError(f"{file}: cannot be read ({error}): one clip path per line") from error
    lines = (text or "").splitlines()
    if entry is not None and entry not in lines:
        lines.append(entry)
    elif text is not None:
        return
    write_text(file, "".join(f"{line}\n" for line in lines))
