"""Folders of recorded words: which clips there are, who speaks them, and which split has them.

The layout is that of Google Speech Commands: ``<word>/<speaker>_nohash_<n>.<suffix>``, with
``validation_list.txt`` and ``testing_list.txt`` beside the word folders where the corpus fixes its
split, and long noise recordings in ``_background_noise_``. Folders ``_unknown_`` and ``_silence_``
hold clips of those classes.
"""

import hashlib
import json
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath, PurePosixPath

from ..runtime.errors import EarmarkError
from ..runtime.files import write_text
from ..runtime.manifest import SILENCE, UNKNOWN, Source

_LOG = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
NOISE_FOLDER = "_background_noise_"
SOURCES_FILE = "sources.json"
_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
SPEAKER_MARK = "_nohash_"
_HASH_RANGE = 2**27 - 1
# Suffixes of what libsndfile reads. Others are counted and reported, not tried one by one.
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".voc"),
)


@dataclass(frozen=True)
class Clip:
    """One recording of one word."""

    path: Path
    word: str
    """Name of its class folder."""
    speaker: str
    split: str
    """``train``, ``validation`` or ``test``."""
    own: bool = False
    """Whether it is from a folder of few speakers (see :func:`scan`)."""


@dataclass(frozen=True)
class Corpus:
    """What :func:`scan` found. Clips and noise are sorted by path, root by root."""

    roots: tuple[Path, ...]
    clips: tuple[Clip, ...]
    noise: tuple[Path, ...]
    """Recordings of background noise, of any length."""
    sources: tuple[Source, ...]
    """Where the recordings come from and under which licence."""
    fingerprint: str
    """SHA-256, hexadecimal, over the relative path, size and split of every file."""

    @property
    def words(self) -> tuple[str, ...]:
        """The class folders that hold clips, sorted."""
        return tuple(sorted({clip.word for clip in self.clips}))

    def require(
        self,
        keywords: Iterable[str],
        splits: Sequence[str] = ("train", "validation"),
        at_least: int = 1,
    ) -> None:
        """Check that every keyword and the class of other words have clips enough.

        Args:
            keywords: the words to be spotted.
            splits: the splits that will be used.
            at_least: least number of clips of one class in each of ``splits``.

        Raises:
            EarmarkError: a class folder is missing or empty, or has too few clips in a split. The
                message tells what a corpus of few speakers can do.
        """
        where = ", ".join(str(root) for root in self.roots)
        wanted = {folder_name(keyword): keyword for keyword in keywords}
        counts = Counter((wanted_name(clip.word, wanted), clip.split) for clip in self.clips)
        for name, keyword in wanted.items():
            if any(counts[name, split] for split in SPLITS):
                continue
            empty = [root / name for root in self.roots if (root / name).is_dir()]
            if empty:
                raise EarmarkError(f"{empty[0]}: no audio files: record clips of {keyword!r} there")
            raise EarmarkError(
                f"{where}: no folder {name!r} for the keyword {keyword!r} "
                f"(found: {_some(self.words)}): record it or run earmark synth"
            )
        for name, keyword in [*wanted.items(), (UNKNOWN, "other words")]:
            for split in splits:
                if counts[name, split] < at_least:
                    raise EarmarkError(
                        f"{where}: {counts[name, split]} clips of {keyword!r} in the {split} "
                        f"split, at least {at_least} needed: add recordings by more speakers, or "
                        "name a folder of few speakers in data.own and one from earmark synth in "
                        "data.roots"
                    )


def scan(*roots: str | os.PathLike[str], own: Sequence[str | os.PathLike[str]] = ()) -> Corpus:
    """List the clips of one corpus folder, or of several as if they were one.

    The split of a folder is that of its lists. A clip in neither list, one list or both being
    present, is for training. A folder without lists is split by :func:`hashed_split`. Files without
    ``_nohash_`` in their name have no known speaker: each counts as its own (in a folder without
    lists those of equal name count as one, so that ``yes/ann.wav`` and ``no/ann.wav`` stay
    together).

    Args:
        roots: corpus folders.
        own: more of them, of few speakers: without lists all of their clips are for training. A
            speaker's hash would send a single voice to one split, whichever it is.

    Raises:
        EarmarkError: a root is missing, unreadable or has no class folder; a clip is in both lists;
            a speaker has clips in two splits; ``sources.json`` is malformed.
    """
    if not roots:
        raise EarmarkError("no data folder given")
    paths = tuple(Path(root) for root in (*roots, *own))
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise EarmarkError(f"{path}: given twice: name each data folder once")
    digest = hashlib.sha256()
    clips: list[Clip] = []
    noise: list[Path] = []
    sources: list[Source] = []
    for index, path in enumerate(paths):
        found, sounds = _scan_root(path, own=index >= len(roots))
        clips += found
        noise += sounds
        sources += read_sources(path)
        for split, file in [(c.split, c.path) for c in found] + [("noise", s) for s in sounds]:
            name = file.relative_to(path).as_posix()
            digest.update(f"{name}\0{_size(file)}\0{split}\n".encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
    _check_speakers(clips)
    return Corpus(
        paths, tuple(clips), tuple(noise), tuple(dict.fromkeys(sources)), digest.hexdigest()
    )


def data_fingerprint(corpus: Corpus, *folders: str | os.PathLike[str]) -> str:
    """The corpus' fingerprint, extended by the audio files of folders of any layout.

    Args:
        corpus: what :func:`scan` found.
        folders: of noise and of free speech, in the order of the recipe. None leaves the corpus'
            fingerprint as it is.

    Returns:
        SHA-256, hexadecimal, over relative paths and sizes.

    Raises:
        EarmarkError: a folder is missing or unreadable.
    """
    if not folders:
        return corpus.fingerprint
    digest = hashlib.sha256(f"{corpus.fingerprint}\n".encode())
    for root in map(Path, folders):
        for file in find_audio(root):
            name = file.relative_to(root).as_posix()
            digest.update(f"{name}\0{_size(file)}\n".encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
    return digest.hexdigest()


def hashed_split(speaker: str) -> str:
    """The split of a speaker in a corpus that has no lists: 80, 10 and 10 % of all names.

    The formula that Speech Commands publishes (P. Warden, "Speech Commands: A Dataset for
    Limited-Vocabulary Speech Recognition", 2018, arXiv 1804.03209, section 7): the SHA-1 of the
    name, reduced to a percentage, so that a speaker stays in a split while a corpus grows.
    """
    number = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    percentage = number % (_HASH_RANGE + 1) * (100.0 / _HASH_RANGE)
    if percentage < 10:
        return "validation"
    return "test" if percentage < 20 else "train"


def folder_name(keyword: str) -> str:
    """The class folder of a keyword: lower case, safe on any file system, words joined by ``_``."""
    text = unicodedata.normalize("NFC", keyword).lower()
    kept = "".join(
        c if c.isalnum() or c in "-_'" or unicodedata.combining(c) else " " for c in text
    )
    return "_".join(kept.split())


def wanted_name(word: str, wanted: Iterable[str]) -> str:
    """The class of a clip: its own folder name if ``wanted``, ``_silence_``, or ``_unknown_``."""
    name = folder_name(word)
    return name if name in wanted or name == SILENCE else UNKNOWN


def find_audio(folder: Path) -> tuple[Path, ...]:
    """All audio files under ``folder``, hidden ones left out, sorted by path.

    Raises:
        EarmarkError: the folder is missing or unreadable.
    """
    found: list[Path] = []
    try:
        # A scandir error inside os.walk is swallowed unless it is asked for.
        for place, folders, files in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(place, name) for name in files if _is_audio(name)]
    except OSError as error:
        raise EarmarkError(f"{folder}: cannot be listed ({error.strerror})") from error
    return tuple(sorted(found))


def read_sources(root: Path, role: str = "training data") -> list[Source]:
    """The sources that ``sources.json`` of a folder names, else the folder itself, in ``role``.

    Raises:
        EarmarkError: the file is no JSON list of objects with ``name`` and ``licence``.
    """
    path = root / SOURCES_FILE
    if not path.is_file():
        return [Source(name=root.resolve().name, licence="unknown", role=role)]
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        sources = [Source(**item) for item in raw]
        if any(not isinstance(value, str) for source in sources for value in vars(source).values()):
            raise TypeError("a field is not text")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise EarmarkError(
            f"{path}: not a list of objects with name and licence ({error}): mend or remove it"
        ) from error
    return sources


def write_source(root: Path, source: Source) -> None:
    """Record in ``sources.json`` of a corpus folder where its recordings come from."""
    known = read_sources(root) if (root / SOURCES_FILE).is_file() else []
    if source not in known:
        text = json.dumps([asdict(s) for s in [*known, source]], indent=1, ensure_ascii=False)
        write_text(root / SOURCES_FILE, text + "\n")


def _scan_root(root: Path, own: bool) -> tuple[list[Clip], list[Path]]:
    if not root.is_dir():
        raise EarmarkError(f"{root}: no such folder: name a folder with one subfolder per word")
    listed = {split: _read_list(root / name) for split, name in _LISTS.items()}
    has_lists = any(names is not None for names in listed.values())
    split_of: dict[str, str] = {}
    for split, names in listed.items():
        for name in names or ():
            if split_of.setdefault(name, split) != split:
                raise EarmarkError(
                    f"{root / _LISTS[split]}: {name} is also in {_LISTS[split_of[name]]}: "
                    "remove it from one of the two"
                )
    clips: list[Clip] = []
    ignored: list[str] = []
    for folder in _folders(root):
        word = folder.name
        if word.startswith("_") and word not in (UNKNOWN, SILENCE):
            if word != NOISE_FOLDER:
                ignored.append(f"{word}/")
            continue
        for name in _listing(folder):
            if name.startswith("."):
                continue
            if not _is_audio(name):
                ignored.append(f"{word}/{name}")
                continue
            stem = _stem(name)
            speaker, mark, _ = stem.partition(SPEAKER_MARK)
            if has_lists and not mark:
                speaker = f"{root.name}/{word}/{stem}"
            listed_split = split_of.get(f"{word}/{stem}", "train")
            split = listed_split if has_lists or own else hashed_split(speaker)
            clips.append(Clip(folder / name, word, speaker, split, own))
    if not clips:
        raise EarmarkError(
            f"{root}: no class folders with audio: expected <word>/<speaker>{SPEAKER_MARK}<n>.wav"
        )
    if ignored:
        _LOG.warning("%s: %d entries are not audio: %s", root, len(ignored), _some(ignored))
    missing = split_of.keys() - {f"{clip.word}/{_stem(clip.path.name)}" for clip in clips}
    if missing:
        _LOG.warning("%s: %d listed clips do not exist: %s", root, len(missing), _some(missing))
    noise = find_audio(root / NOISE_FOLDER) if (root / NOISE_FOLDER).is_dir() else ()
    return clips, list(noise)


def _read_list(path: Path) -> list[str] | None:
    """Clips named in a list as ``word/stem``: a corpus may be re-encoded to another format."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EarmarkError(f"{path}: cannot be read ({error}): one clip path per line") from error
    entries = [PurePosixPath(line.strip().replace("\\", "/")) for line in lines if line.strip()]
    return [str(entry.with_name(_stem(entry.name))) for entry in entries if entry.name]


def _check_speakers(clips: list[Clip]) -> None:
    first: dict[str, Clip] = {}
    for clip in clips:
        other = first.setdefault(clip.speaker, clip)
        if other.split != clip.split:
            raise EarmarkError(
                f"{clip.path}: speaker {clip.speaker} is in {clip.split} here and in {other.split} "
                f"with {other.path}: put all clips of a speaker in one split"
            )


def _folders(root: Path) -> list[Path]:
    return [root / n for n in _listing(root) if not n.startswith(".") and (root / n).is_dir()]


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise EarmarkError(f"{folder}: cannot be listed ({error.strerror})") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # A dangling link: decoding reports it by name.
        return -1


def _is_audio(name: str) -> bool:
    return not name.startswith(".") and PurePath(name).suffix.lower() in AUDIO_SUFFIXES


def _stem(name: str) -> str:
    """A file name without its audio suffix, or suffixes (official test clips end in .wav.wav)."""
    while _is_audio(name):
        name = PurePath(name).stem
    return name


def _some(names: Iterable[str], limit: int = 5) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (", ..." if len(ordered) > limit else "")


def _raise(error: OSError) -> None:
    raise error
