"""Recorded words and sounds: which clips there are, who speaks them, and which split has them.

The layout is that of Google Speech Commands: ``<word>/<speaker>_nohash_<n>.<suffix>``, with
``validation_list.txt`` and ``testing_list.txt`` beside the word folders where the corpus fixes its
split, and long noise recordings in ``_background_noise_``. Folders ``_unknown_`` and ``_silence_``
hold clips of those classes. In place of a folder, a CSV file may list clips and their classes
(:mod:`earmark.train.data.metadata`), or tar files may hold them (:mod:`earmark.train.data.shards`).
"""

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from ...runtime.errors import EarmarkError, one_line
from ...runtime.files import read_text, write_text
from ...runtime.layout import (
    LISTS,
    NOISE_FOLDER,
    SOURCES_FILE,
    SPEAKER_MARK,
    SPLITS,
    folder_name,
    hashed_split,
)
from ...runtime.manifest import SILENCE, UNKNOWN, Source
from ..progress import progress
from . import metadata, shards
from .audio_files import AUDIO_SUFFIXES, audio_stem, is_audio
from .shards import Member, Recording
from .transcripts import transcript_files

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """One recording of one word, or of several sounds at once."""

    path: Path
    word: str
    """Its class: the name of its class folder, or what a table says; the first of several, empty
    for a clip of none."""
    speaker: str
    split: str
    """``train``, ``validation`` or ``test``."""
    fold: int = 0
    """Number of its fold, from 1; 0 where there are no folds."""
    others: tuple[str, ...] = ()
    """Its classes after the first."""

    @property
    def words(self) -> tuple[str, ...]:
        """All its classes."""
        return (self.word, *self.others) if self.word else ()

    own: bool = False
    """Whether it is from a folder of few speakers (see :func:`scan`)."""
    member: Member | None = None
    """Where it lies in a shard; ``path`` is then that of the shard and the name in it."""

    @property
    def recording(self) -> Recording:
        """What its audio is read from."""
        return self.member or self.path


@dataclass(frozen=True)
class Corpus:
    """What :func:`scan` found. Clips and noise are sorted by path, root by root."""

    roots: tuple[Path, ...]
    """The folders; of a table, the one that its clips lie in; of shards, the one that they are
    in."""
    clips: tuple[Clip, ...]
    noise: tuple[Recording, ...]
    """Recordings of background noise, of any length."""
    sources: tuple[Source, ...]
    """Where the recordings come from and under which licence."""
    fingerprint: str
    """SHA-256, hexadecimal, over the relative path, size and split of every file. How clips are
    divided into shards does not change it."""

    @property
    def words(self) -> tuple[str, ...]:
        """The classes that have clips, sorted."""
        return tuple(sorted({word for clip in self.clips for word in clip.words}))

    @property
    def sharded(self) -> bool:
        """Whether some of the clips lie in shards."""
        return any(clip.member for clip in self.clips)

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that hold clips, sorted."""
        return tuple(sorted({clip.fold for clip in self.clips} - {0}))

    def require(
        self,
        keywords: Iterable[str],
        splits: Sequence[str] = ("train", "validation"),
        at_least: int = 1,
        unknown: bool = True,
    ) -> None:
        """Check that every keyword and the class of other words have clips enough.

        Args:
            keywords: the words to be spotted, or the sounds to be told apart.
            splits: the splits that will be used.
            at_least: least number of clips of one class in each of ``splits``.
            unknown: whether there is a class of other words.

        Raises:
            EarmarkError: a class folder is missing or empty, or has too few clips in a split. The
                message tells what a corpus of few speakers can do.
        """
        where = ", ".join(str(root) for root in self.roots)
        wanted = {folder_name(keyword): keyword for keyword in keywords}
        counts = Counter(
            (name, clip.split)
            for clip in self.clips
            for name in {wanted_name(word, wanted) for word in clip.words}
        )
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
        rest = [(UNKNOWN, "other words")] if unknown else []
        for name, keyword in [*wanted.items(), *rest]:
            for split in splits:
                if counts[name, split] < at_least:
                    raise EarmarkError(
                        f"{where}: {counts[name, split]} clips of {keyword!r} in the {split} "
                        f"split, at least {at_least} needed: add recordings by more speakers, or "
                        "name a folder of few speakers in data.own and one from earmark synth in "
                        "data.roots"
                    )


def scan(
    *roots: str | os.PathLike[str],
    own: Sequence[str | os.PathLike[str]] = (),
    folds: str = "",
    fold: int = 0,
) -> Corpus:
    """List the clips of one corpus folder, table or set of shards, or of several as if one.

    The split of a folder is that of its lists. A clip in neither list, one list or both being
    present, is for training. A folder without lists is split by :func:`hashed_split`. Files without
    ``_nohash_`` in their name have no known speaker: each counts as its own (in a folder without
    lists those of equal name count as one, so that ``yes/ann.wav`` and ``no/ann.wav`` stay
    together). A table is split by its column ``split``, and by the hash where that is empty, and
    so are shards.

    Args:
        roots: folders, CSV files as :mod:`earmark.train.data.metadata` describes them, or patterns
            of tar files as :func:`earmark.train.data.shards.expand` does.
        folds: a regular expression whose first group is the fold of a clip, matched at the
            beginning of its file name; for clips whose fold no table says.
        fold: the fold that is the validation split, all others being for training; 0 for the
            corpus' own split.
        own: more folders, of few speakers: without lists all of their clips are for training. A
            speaker's hash would send a single voice to one split, whichever it is.

    Raises:
        EarmarkError: a root is missing, unreadable or has no class folder; a clip is in both lists;
            a speaker has clips in two splits; ``sources.json`` is malformed; a table is malformed
            or names a clip that does not exist; a shard is refused (see
            :func:`earmark.train.data.shards.list_shard`); a clip has no fold, or the fold has no
            clip.
    """
    if not (roots or own):
        raise EarmarkError("no data folder given")
    paths = tuple(Path(root) for root in (*roots, *own))
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise EarmarkError(f"{path}: given twice: name each data folder once")
    digest = hashlib.sha256()
    clips: list[Clip] = []
    noise: list[Recording] = []
    sources: list[Source] = []
    places: list[Path] = []
    for index, path in enumerate(paths):
        few = index >= len(roots)
        kind = path.suffix.lower()
        if kind == shards.SUFFIX:
            found = _scan_shards(path, few)
        elif kind == metadata.SUFFIX:
            found = _scan_table(path, _audio_root(path), few)
        else:
            found = _scan_root(path, few)
        if folds:
            found = replace(found, clips=[_with_fold(clip, folds) for clip in found.clips])
        if fold:
            found = replace(found, clips=[_held_out(clip, fold) for clip in found.clips])
        places.append(found.place)
        clips += found.clips
        noise += found.noise
        sources += found.sources
        for name, size, text in found.facts(classes=kind in (shards.SUFFIX, metadata.SUFFIX)):
            digest.update(f"{name}\0{size}\0{text}\n".encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
    if fold and not any(clip.fold == fold for clip in clips):
        known = ", ".join(map(str, sorted({clip.fold for clip in clips})))
        raise EarmarkError(f"{paths[0]}: no clip in fold {fold} (there are folds {known})")
    _check_speakers(clips)
    return Corpus(
        tuple(places),
        tuple(clips),
        # Two tables of one folder have the same noise beside them.
        tuple(dict.fromkeys(noise)),
        tuple(dict.fromkeys(sources)),
        digest.hexdigest(),
    )


@dataclass(frozen=True)
class _Found:
    """What one root holds."""

    place: Path
    clips: list[Clip]
    noise: Sequence[Recording]
    sources: list[Source]

    def facts(self, classes: bool) -> Iterator[tuple[str, int, str]]:
        """Relative name, size and split of each recording, and its classes where they are not in
        its path."""
        for clip in self.clips:
            text = "\0".join((clip.split, *clip.words)) if classes else clip.split
            yield *self._name_and_size(clip.recording), text
        for sound in self.noise:
            yield *self._name_and_size(sound), "noise"

    def _name_and_size(self, recording: Recording) -> tuple[str, int]:
        if isinstance(recording, Member):
            return recording.name, recording.size
        return recording.relative_to(self.place).as_posix(), _size(recording)


def data_fingerprint(corpus: Corpus, *folders: str | os.PathLike[str]) -> str:
    """The corpus' fingerprint, extended by the recordings and transcripts of folders of any layout.

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
        for file in (*find_audio(root), *transcript_files(root)):
            name = file.relative_to(root).as_posix()
            digest.update(f"{name}\0{_size(file)}\n".encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
    return digest.hexdigest()


def word_clips(folder: Path, word: str) -> tuple[Clip, ...]:
    """The clips of a folder that holds recordings of one word alone, in no split.

    Raises:
        EarmarkError: the folder is missing, unreadable or has no audio.
    """
    files = find_audio(folder)
    if not files:
        raise EarmarkError(f"{folder}: no audio files: record clips of {word!r} there")
    return tuple(
        Clip(path, word, audio_stem(path.name).split(SPEAKER_MARK)[0], "") for path in files
    )


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
            found += [Path(place, name) for name in files if is_audio(name)]
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
    return parse_sources(read_text(path), path)


def parse_sources(text: str, path: Path) -> list[Source]:
    """The sources that the text of a ``sources.json`` names; ``path`` is named in errors.

    Raises:
        EarmarkError: it is no JSON list of objects with ``name`` and ``licence``.
    """
    try:
        raw = json.loads(text)
        sources = [Source(**item) for item in raw]
        values = [value for source in sources for value in vars(source).values()]
        if not all(isinstance(value, str) and value.isprintable() for value in values):
            raise TypeError("a field is not printable text")
    except (ValueError, TypeError, RecursionError) as error:
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


def _scan_root(root: Path, own: bool) -> _Found:
    if not root.is_dir():
        raise EarmarkError(f"{root}: no such folder: name a folder with one subfolder per word")
    listed = {split: _read_list(root / name) for split, name in LISTS.items()}
    has_lists = any(names is not None for names in listed.values())
    split_of: dict[str, str] = {}
    for split, names in listed.items():
        for name in names or ():
            if split_of.setdefault(name, split) != split:
                raise EarmarkError(
                    f"{root / LISTS[split]}: {name} is also in {LISTS[split_of[name]]}: "
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
            if not is_audio(name):
                ignored.append(f"{word}/{name}")
                continue
            stem = audio_stem(name)
            speaker, mark, _ = stem.partition(SPEAKER_MARK)
            if has_lists and not mark:
                speaker = f"{root.name}/{word}/{stem}"
            listed_split = split_of.get(f"{word}/{stem}", "train")
            split = listed_split if has_lists or own else hashed_split(speaker)
            clips.append(Clip(folder / name, word, speaker, split, own=own))
    if not clips:
        raise EarmarkError(
            f"{root}: no class folders with audio: expected <word>/<speaker>{SPEAKER_MARK}<n>.wav"
        )
    if ignored:
        _LOG.warning("%s: %d entries are not audio: %s", root, len(ignored), _some(ignored))
    missing = split_of.keys() - {f"{clip.word}/{audio_stem(clip.path.name)}" for clip in clips}
    if missing:
        _LOG.warning("%s: %d listed clips do not exist: %s", root, len(missing), _some(missing))
    return _Found(root, clips, _noise_beside(root), read_sources(root))


def _noise_beside(root: Path) -> tuple[Path, ...]:
    return find_audio(root / NOISE_FOLDER) if (root / NOISE_FOLDER).is_dir() else ()


def _scan_shards(pattern: Path, own: bool) -> _Found:
    """The clips of shards in the order in which a folder would list them."""
    paths = shards.expand(pattern)
    place = paths[0].parent
    samples: dict[str, shards.Sample] = {}
    sources: list[Source] = []
    ignored: list[str] = []
    bare = False
    with progress("Listing shards", len(paths)) as advance:
        for path in paths:
            listing = shards.list_shard(path)
            for sample in listing.samples:
                other = samples.setdefault(sample.member.name, sample)
                if other is not sample:
                    raise EarmarkError(
                        f"{path}: {sample.member.name}: is also in {other.member.shard}: name each "
                        "shard once, and give clips names of their own"
                    )
            if listing.sources is None:
                bare = True
            else:
                sources += parse_sources(listing.sources, path / SOURCES_FILE)
            ignored += listing.ignored
            advance(1)
    if bare or not sources:
        sources += read_sources(place)
    if ignored:
        _LOG.warning("%s: %d members are no recordings: %s", pattern, len(ignored), _some(ignored))
    ordered = sorted(samples.values(), key=lambda sample: PurePosixPath(sample.member.name).parts)
    clips = []
    for sample in ordered:
        if sample.noise:
            continue
        word, *others = sample.words or ("",)
        split = sample.split or ("train" if own else hashed_split(sample.speaker))
        clips.append(
            Clip(
                *(sample.member.path, word, sample.speaker, split, sample.fold, tuple(others)),
                own=own,
                member=sample.member,
            )
        )
    if not clips:
        raise EarmarkError(f"{pattern}: no clips: expected members <word>/<speaker>.wav, or .json")
    noise = [sample.member for sample in ordered if sample.noise]
    return _Found(place, clips, noise, list(dict.fromkeys(sources)))


def _audio_root(table: Path) -> Path:
    """The folder that the files of a table are below: ESC-50 has ``meta/`` beside ``audio/``."""
    here, above = table.parent, table.parent.parent
    return above if not (here / "audio").is_dir() and (above / "audio").is_dir() else here


def _scan_table(table: Path, root: Path, own: bool) -> _Found:
    rows = metadata.read_rows(table)
    clips: list[Clip] = []
    missing: list[str] = []
    for row in rows:
        # Tables may leave the suffix out, and a corpus may be re-encoded to another format.
        stem = str(PurePath(row.file).with_name(audio_stem(PurePath(row.file).name)))
        names = [row.file, *(stem + suffix for suffix in AUDIO_SUFFIXES)]
        places = (folder / name for name in names for folder in (root / "audio", root))
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            missing.append(row.file)
            continue
        speaker = row.origin or f"{root.name}/{stem}"
        word, *others = row.words or ("",)
        split = row.split or ("train" if own else hashed_split(speaker))
        clips.append(Clip(path, word, speaker, split, row.fold, tuple(others), own=own))
    if missing:
        raise EarmarkError(
            f"{table}: {len(missing)} of {len(rows)} clips are neither in {root / 'audio'} nor in "
            f"{root}: {_some(missing)}"
        )
    if not clips:
        raise EarmarkError(f"{table}: has no rows: a table needs one for each clip")
    clips.sort(key=lambda clip: clip.path)
    return _Found(root, clips, _noise_beside(root), read_sources(root))


def _with_fold(clip: Clip, pattern: str) -> Clip:
    found = None if clip.fold else re.match(pattern, clip.path.name)
    if found is None or not (found[1] or "").isdecimal():
        return clip
    return replace(clip, fold=int(found[1]))


def _held_out(clip: Clip, fold: int) -> Clip:
    if not clip.fold:
        raise EarmarkError(
            f"{clip.path}: in no fold: give data.folds a pattern that finds it in the file name, "
            "or a table a column fold"
        )
    return replace(clip, split="validation" if clip.fold == fold else "train")


def _read_list(path: Path) -> list[str] | None:
    """Clips named in a list as ``word/stem``: a corpus may be re-encoded to another format."""
    if not path.is_file():
        return None
    lines = read_text(path).splitlines()
    entries = [PurePosixPath(line.strip().replace("\\", "/")) for line in lines if line.strip()]
    return [str(entry.with_name(audio_stem(entry.name))) for entry in entries if entry.name]


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


def _some(names: Iterable[str], limit: int = 5) -> str:
    ordered = sorted(names)
    return one_line(", ".join(ordered[:limit]) + (", ..." if len(ordered) > limit else ""))


def _raise(error: OSError) -> None:
    raise error
