"""What is said in free speech, so that stretches with a keyword are not taken for other words.

A folder says it in ``words.ctm`` (times of words, as ``earmark transcribe`` writes them: lines of
NIST's CTM, one channel, no alternatives) or in the transcripts of LibriSpeech, which have no times.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import quote, unquote

from ...runtime.errors import EarmarkError
from ...runtime.files import read_text
from ...runtime.layout import folder_name
from .audio_files import audio_stem

WORDS_FILE = "words.ctm"
TRANSCRIPTS = "transcripts"
"""The role of a source that recordings were written down by."""
NOTHING = "<sil>"
MARGIN = 0.15
"""Seconds left out on either side of a keyword: a recogniser places a word to a few 10 ms."""
LEAST = 1.0
"""Seconds that must lie before a keyword or between two, so that what does is used."""
_MAX_BYTES = 1 << 28
_LIBRISPEECH = re.compile(r"\d+-\d+\.trans\.txt")


@dataclass(frozen=True)
class Said:
    """A place in a recording and what may be said there: words that sound the same."""

    start: float
    end: float
    """Seconds."""
    words: frozenset[str]
    """Casefolded."""


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording."""

    said: tuple[Said, ...]
    """One after the other."""
    timed: bool = True
    """Whether ``start`` and ``end`` are known."""


def recording_name(path: Path, folder: Path) -> str:
    """What a recording goes by in the transcripts of its folder: its path there, no suffix."""
    return _no_suffix(path.relative_to(folder))


def _no_suffix(path: PurePath) -> str:
    return path.with_name(audio_stem(path.name)).as_posix() if path.name else ""


def read_transcripts(folder: Path) -> dict[str, Transcript]:
    """The transcripts of a folder of free speech by :func:`recording_name`; empty where it has
    none. What ``words.ctm`` says of a recording goes before LibriSpeech's words without times.

    Raises:
        EarmarkError: a file of them cannot be read or has a line that is none of its format.
    """
    found: dict[str, Transcript] = {}
    for path in transcript_files(folder):
        if path.name == WORDS_FILE:
            found |= {name: Transcript(tuple(said)) for name, said in _read_ctm(path)}
        else:
            found |= dict(_read_librispeech(path, folder))
    return found


def transcript_files(folder: Path) -> list[Path]:
    """The files that say what is said in a folder: LibriSpeech's, then its ``words.ctm``."""
    found = sorted(p for p in folder.rglob("*.trans.txt") if _LIBRISPEECH.fullmatch(p.name))
    table = folder / WORDS_FILE
    return [*found, table] if table.is_file() else found


def ctm(transcripts: Mapping[str, Transcript]) -> str:
    """The lines of a ``words.ctm``: recording, channel, start, duration (seconds) and word. Words
    that sound the same are lines with the same times; a recording without any has ``<sil>``."""
    lines = []
    for name, transcript in sorted(transcripts.items()):
        recording = quote(name, errors="surrogateescape")
        for said in transcript.said or (Said(0.0, 0.0, frozenset([NOTHING])),):
            times = f"{said.start:.2f} {said.end - said.start:.2f}"
            lines += [f"{recording} 1 {times} {quote(w, safe='<>')}\n" for w in sorted(said.words)]
    return "".join(lines)


def without_keywords(
    transcript: Transcript | None, keywords: Iterable[str]
) -> list[tuple[float, float]]:
    """The stretches of a recording in which no keyword is said: start and end in seconds, the last
    one's end infinite. All of it where there is no transcript; where words have no times, all of it
    or nothing."""
    whole = [(0.0, float("inf"))]
    found = list(_keywords(transcript.said, keywords)) if transcript else []
    if not found or transcript is None:
        return whole
    if not transcript.timed:
        return []
    stretches, start = [], 0.0
    for first, last in [*sorted(found), (float("inf"), float("inf"))]:
        stop = first - MARGIN
        if stop - start >= LEAST:
            stretches.append((start, stop))
        start = max(start, last + MARGIN)
    return stretches


def _keywords(said: Sequence[Said], keywords: Iterable[str]) -> Iterator[tuple[float, float]]:
    """Where keywords are said, in seconds; one of several words where those follow one another."""
    wanted = [_plain(keyword) for keyword in keywords]
    names = [set(map(_plain, place.words)) for place in said]

    def end(rest: str, at: int) -> int | None:
        """The last place of ``rest``, said from a place on."""
        for name in names[at] if at < len(names) else ():
            if rest == name:
                return at
            if name and rest.startswith(f"{name}_"):
                last = end(rest[len(name) + 1 :], at + 1)
                if last is not None:
                    return last
        return None

    for at, place in enumerate(said):
        for keyword in wanted:
            last = end(keyword, at)
            if last is not None:
                yield place.start, said[last].end


def _plain(words: str) -> str:
    # As transcripts are read: lower case alone does not tell that STRASSE is straße.
    return folder_name(words).casefold().replace("-", "_")


def _read_ctm(path: Path) -> Iterator[tuple[str, list[Said]]]:
    """Recordings and what is said in them, in the order of their times."""
    places: dict[str, dict[tuple[float, float], set[str]]] = {}
    text = read_text(path, _MAX_BYTES).removeprefix("\ufeff")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        try:
            name, _, start, length, word = line.split()[:5]
            place = float(start), float(start) + float(length)
            if not 0 <= place[0] <= place[1] < float("inf"):
                raise ValueError
        except ValueError as error:
            raise EarmarkError(
                f"{path}: line {number}: expected recording, channel, start, duration and word: "
                "mend it, or remove the file and run earmark transcribe"
            ) from error
        # Others name the file, suffix and all.
        known = _no_suffix(PurePosixPath(unquote(name, errors="surrogateescape")))
        said = places.setdefault(known, {})
        if word != NOTHING:
            said.setdefault(place, set()).add(unquote(word).casefold())
    for name, said in places.items():
        yield name, [Said(*place, frozenset(words)) for place, words in sorted(said.items())]


def _read_librispeech(path: Path, folder: Path) -> Iterator[tuple[str, Transcript]]:
    """Lines of an utterance's name and its words, beside the recordings."""
    for line in read_text(path, _MAX_BYTES).splitlines():
        name, *words = line.split() or [""]
        said = tuple(Said(0.0, 0.0, frozenset([word.casefold()])) for word in words)
        recording = path.parent.relative_to(folder) / name
        yield recording.as_posix(), Transcript(said, timed=False)
