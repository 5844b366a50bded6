"""Recorded words and sounds: which clips there are, who speaks them, and which split has them.

The layout is that of Google Speech Commands: ``<word>/<speaker>_nohash_<n>.<suffix>``, with
``validation_list.txt`` and ``testing_list.txt`` beside the word folders where the corpus fixes its
split, and long noise recordings in ``_background_noise_``. Folders ``_unknown_`` and ``_silence_``
hold clips of those classes. In place of a folder, a CSV file may list clips and their classes
(:mod:`earmark.train.data.metadata`), or tar files may hold them (:mod:`earmark.train.data.shards`).
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.errors import EarmarkError
from ...runtime.layout import SPEAKER_MARK, SPLITS, folder_name
from ...runtime.manifest import SILENCE, UNKNOWN, Source
from . import metadata, shards
from .audio_files import audio_stem, find_audio
from .clip import Clip
from .roots import file_size, scan_folder, scan_shards, scan_table, some_names
from .shards import Recording
from .transcripts import transcript_files


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
    """SHA-256, hexadecimal, over the relative path, size and split of every file, and over what the
    few of ``own`` hold. How clips are divided into shards does not change it."""

    def root_of(self, path: Path) -> Path:
        """The root that a file was found in: of those that lie within one another the inner one."""
        return max((r for r in self.roots if path.is_relative_to(r)), key=lambda r: len(r.parts))

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
                f"(found: {some_names(self.words)}): record it or run earmark synth"
            )
        more = (
            "add recordings by more speakers, or name a folder of few speakers in data.own and one "
            "from earmark synth in data.roots"
        )
        others = (
            "add folders of other words by several speakers (earmark synth makes some), or name "
            "free speech in data.speech and set data.speech_share = 1"
        )
        classes = [(name, keyword, more) for name, keyword in wanted.items()]
        for name, keyword, hint in [*classes, *([(UNKNOWN, "other words", others)] * unknown)]:
            for split in splits:
                if counts[name, split] < at_least:
                    raise EarmarkError(
                        f"{where}: {counts[name, split]} clips of {keyword!r} in the {split} "
                        f"split, at least {at_least} needed: {hint}"
                    )


def scan(
    *roots: str | os.PathLike[str],
    own: Sequence[str | os.PathLike[str]] = (),
    folds: str = "",
    fold: int = 0,
) -> Corpus:
    """List the clips of one corpus folder, table or set of shards, or of several as if one.

    The split of a folder is that of its lists. A clip in neither list, one list or both being
    present, is for training. A folder without lists is split by
    :func:`earmark.runtime.layout.hashed_split`. Files without ``_nohash_`` in their name have no
    known speaker: each counts as its own (in a folder without lists those of equal name count as
    one, so that ``yes/ann.wav`` and ``no/ann.wav`` stay together). A table is split by its column
    ``split``, and by the hash where that is empty, and so are shards.

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
            a speaker has clips in two splits; a recording is found twice; ``sources.json`` is
            malformed; a table is malformed or names a clip that does not exist; a shard is refused
            (see :func:`earmark.train.data.shards.list_shard`); a clip has no fold, or the fold has
            no clip.
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
            found = scan_shards(path, few)
        elif kind == metadata.SUFFIX:
            found = scan_table(path, few)
        else:
            found = scan_folder(path, few)
        if folds:
            found = replace(found, clips=[_with_fold(clip, folds) for clip in found.clips])
        if fold:
            found = replace(found, clips=[_held_out(clip, fold) for clip in found.clips])
        places.append(found.place)
        clips += found.clips
        noise += found.noise
        sources += found.sources
        classes = kind in (shards.SUFFIX, metadata.SUFFIX)
        for name, size, text in found.facts(classes, content=few):
            digest.update(f"{name}\0{size}\0{text}\n".encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
    if fold and not any(clip.fold == fold for clip in clips):
        known = ", ".join(map(str, sorted({clip.fold for clip in clips})))
        raise EarmarkError(f"{paths[0]}: no clip in fold {fold} (there are folds {known})")
    _check_speakers(clips)
    if len(paths) > 1:
        _check_places(clips)
    return Corpus(
        tuple(places),
        tuple(clips),
        # Two tables of one folder have the same noise beside them.
        tuple(dict.fromkeys(noise)),
        tuple(dict.fromkeys(sources)),
        digest.hexdigest(),
    )


def with_folds(corpus: Corpus, pattern: str) -> Corpus:
    """A corpus as ``scan(..., folds=pattern)`` finds it, but for its fingerprint."""
    return replace(corpus, clips=tuple(_with_fold(clip, pattern) for clip in corpus.clips))


def with_fold_held_out(corpus: Corpus, fold: int) -> Corpus:
    """A corpus as ``scan(..., fold=fold)`` finds it, but for its fingerprint.

    Raises:
        EarmarkError: a clip has no fold, or a speaker has clips in two splits then.
    """
    clips = [_held_out(clip, fold) for clip in corpus.clips]
    _check_speakers(clips)
    return replace(corpus, clips=tuple(clips))


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
            digest.update(f"{name}\0{file_size(file)}\n".encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
    return digest.hexdigest()


def _check_places(clips: Iterable[Clip]) -> None:
    """Refuse what is found by way of two roots: it would be two clips, in a split each."""
    seen: set[str] = set()
    for clip in clips:
        if not clip.member:
            place = os.path.abspath(clip.path)  # noqa: PTH100 - asks the system nothing
            if place in seen:
                raise EarmarkError(f"{clip.path}: is in two of the data folders: name one of them")
            seen.add(place)


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


def _check_speakers(clips: list[Clip]) -> None:
    first: dict[str, Clip] = {}
    for clip in clips:
        other = first.setdefault(clip.speaker, clip)
        if other.split != clip.split:
            raise EarmarkError(
                f"{clip.path}: speaker {clip.speaker} is in {clip.split} here and in {other.split} "
                f"with {other.path}: put all clips of a speaker in one split"
            )
