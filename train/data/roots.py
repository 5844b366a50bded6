"""What one root of a corpus holds: a folder of word folders, a table of clips, or shards."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from ...runtime.errors import EarmarkError, one_line
from ...runtime.files import read_text
from ...runtime.layout import (
    LISTS,
    NOISE_FOLDER,
    SOURCES_FILE,
    SPEAKER_MARK,
    hashed_split,
    marked_speaker,
    root_name,
)
from ...runtime.manifest import SILENCE, UNKNOWN, Source
from ..progress import progress
from . import metadata, shards
from .audio_files import AUDIO_SUFFIXES, audio_stem, find_audio, is_audio
from .clip import Clip
from .shards import Member, Recording
from .sources import parse_sources, read_sources

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What one root holds."""

    place: Path
    clips: list[Clip]
    noise: Sequence[Recording]
    sources: list[Source]

    def facts(self, classes: bool, content: bool) -> Iterator[tuple[str, int, str]]:
        """Relative name, size and split of each recording, and its classes where they are not in
        its path.

        ``content``: what its file holds too. Reading all of a large corpus would take long; one's
        own few recordings are recorded anew under the same names, of equal length.
        """

        def held(recording: Recording, *texts: str) -> tuple[str, int, str]:
            digest = (_digest(recording),) if content else ()
            return *self._name_and_size(recording), "\0".join((*texts, *digest))

        for clip in self.clips:
            yield held(clip.recording, clip.split, *(clip.words if classes else ()))
        for sound in self.noise:
            yield held(sound, "noise")

    def _name_and_size(self, recording: Recording) -> tuple[str, int]:
        if isinstance(recording, Member):
            return recording.name, recording.size
        return recording.relative_to(self.place).as_posix(), file_size(recording)


def scan_folder(root: Path, own: bool) -> Found:
    """A folder of one folder for each word, in the order of paths.

    Args:
        root: the folder.
        own: whether, without lists, all clips are for training.
    """
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
            alone = f"{root_name(root)}/{word}/{stem}" if has_lists else stem
            speaker = marked_speaker(stem) or alone
            listed_split = split_of.get(f"{word}/{stem}", "train")
            split = listed_split if has_lists or own else hashed_split(speaker)
            clips.append(Clip(folder / name, word, speaker, split, own=own))
    if not clips:
        raise EarmarkError(
            f"{root}: no class folders with audio: expected <word>/<speaker>{SPEAKER_MARK}<n>.wav"
        )
    if ignored:
        _LOG.warning("%s: not audio, left out (%d): %s", root, len(ignored), some_names(ignored))
    missing = split_of.keys() - {f"{clip.word}/{audio_stem(clip.path.name)}" for clip in clips}
    if missing:
        _LOG.warning("%s: listed, but not there (%d): %s", root, len(missing), some_names(missing))
    return Found(root, clips, _noise_beside(root), read_sources(root))


def _audio_root(table: Path) -> Path:
    """The folder that the files of a table are below: ESC-50 has ``meta/`` beside ``audio/``."""
    here, above = table.parent, table.parent.parent
    return above if not (here / "audio").is_dir() and (above / "audio").is_dir() else here


def scan_table(table: Path, own: bool) -> Found:
    """The clips that a CSV file lists, in the order of paths. Arguments as of
    :func:`scan_folder`."""
    root = _audio_root(table)
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
        speaker = row.origin or marked_speaker(PurePath(stem).name) or f"{root_name(root)}/{stem}"
        word, *others = row.words or ("",)
        split = row.split or ("train" if own else hashed_split(speaker))
        clips.append(Clip(path, word, speaker, split, row.fold, tuple(others), own=own))
    if missing:
        raise EarmarkError(
            f"{table}: {len(missing)} of {len(rows)} clips are neither in {root / 'audio'} nor in "
            f"{root}: {some_names(missing)}"
        )
    if not clips:
        raise EarmarkError(f"{table}: has no rows: a table needs one for each clip")
    clips.sort(key=lambda clip: clip.path)
    return Found(root, clips, _noise_beside(root), read_sources(root))


def scan_shards(pattern: Path, own: bool) -> Found:
    """The clips of shards in the order in which a folder would list them. Arguments as of
    :func:`scan_folder`, but for ``pattern``: see :func:`earmark.train.data.shards.expand`."""
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
        _LOG.warning(
            "%s: %d members are no recordings: %s", pattern, len(ignored), some_names(ignored)
        )
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
    return Found(place, clips, noise, list(dict.fromkeys(sources)))


def _noise_beside(root: Path) -> tuple[Path, ...]:
    return find_audio(root / NOISE_FOLDER) if (root / NOISE_FOLDER).is_dir() else ()


def _read_list(path: Path) -> list[str] | None:
    """Clips named in a list as ``word/stem``: a corpus may be re-encoded to another format."""
    if not path.is_file():
        return None
    lines = read_text(path).splitlines()
    entries = [PurePosixPath(line.strip().replace("\\", "/")) for line in lines if line.strip()]
    return [str(entry.with_name(audio_stem(entry.name))) for entry in entries if entry.name]


def _folders(root: Path) -> list[Path]:
    return [root / n for n in _listing(root) if not n.startswith(".") and (root / n).is_dir()]


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise EarmarkError(f"{folder}: cannot be listed ({error.strerror})") from error


def _digest(recording: Recording) -> str:
    """SHA-256 of what is stored, empty where it cannot be read: decoding reports that by name."""
    try:
        return hashlib.sha256(shards.recording_bytes(recording)).hexdigest()
    except EarmarkError:
        return ""


def file_size(path: Path) -> int:
    """Bytes of a file; -1 where it cannot be told."""
    try:
        return path.stat().st_size
    except OSError:  # A dangling link: decoding reports it by name.
        return -1


def some_names(names: Iterable[str], limit: int = 5) -> str:
    """The first names of many, for a message."""
    ordered = sorted(names)
    return one_line(", ".join(ordered[:limit]) + (", ..." if len(ordered) > limit else ""))
