"""WebDataset shards: tar files that hold the clips of a corpus, read in place.

Consecutive members whose names are equal up to the first dot are one clip: its audio (``.wav``,
``.flac``, ``.ogg``, ...) and what is known of it. ``.json`` is an object with the columns of a
table (:mod:`earmark.train.data.metadata`): ``word`` or ``labels``, ``speaker``, ``split``,
``fold``. ``.cls`` or ``.txt`` is its class alone. Without any of these the folder in its name is
its class, so that the tar of a corpus folder is a shard. Recordings in ``_background_noise_/`` are
noise.
``sources.json``, by itself or in a folder of ``__names__`` that other readers skip, says origin and
licence.

Only headers and short texts are read to list a shard, and a clip is read where it lies: nothing is
unpacked. The ``webdataset`` package reads such files as an endless stream for its own loaders; the
draws here are of single clips by number, and what a file may do to the reader is bounded.
"""

import glob
import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...runtime.audio import read_audio, read_blocks
from ...runtime.errors import EarmarkError
from ...runtime.layout import NOISE_FOLDER, SOURCES_FILE, marked_speaker
from ...runtime.manifest import SILENCE, UNKNOWN
from . import metadata
from .audio_files import audio_stem, is_audio

SUFFIX = ".tar"
MAX_SHARDS = 100_000
MAX_MEMBERS = 2_000_000
"""Most members of a shard."""
MAX_AUDIO_BYTES = 256 << 20
MAX_TEXT_BYTES = 1 << 16
MAX_SECONDS = 3600
"""Longest recording: a compressed one may be far longer than its bytes."""
_MAX_HEADER = 1 << 13
"""Longest extended header (a name); patterns over longer ones are slow."""
# As the format has it: up to the first dot of the last part. Hidden files are none.
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
# Folders that other readers of the format skip.
_META = re.compile(r"__[^/]*__/")
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}|\{([^{}]*,[^{}]*)\}")


@dataclass(frozen=True)
class Member:
    """A recording inside of a shard."""

    shard: Path
    name: str
    offset: int
    """Of its first byte in the shard."""
    size: int

    @property
    def path(self) -> Path:
        """What stands for it where recordings are named."""
        return self.shard / self.name


Recording = Path | Member


@dataclass(frozen=True)
class Sample:
    """What a shard says of one recording."""

    member: Member
    words: tuple[str, ...]
    """Its classes; none for noise."""
    speaker: str
    split: str
    """Empty where the shard does not say."""
    fold: int
    """0 where the shard does not say."""
    noise: bool


@dataclass(frozen=True)
class Listing:
    """What is in a shard."""

    samples: tuple[Sample, ...]
    sources: str | None
    """Text of its ``sources.json``."""
    ignored: tuple[str, ...]
    """Names of members that belong to no recording."""


def read_recording(recording: Recording, rate: int) -> np.ndarray:
    """A recording, float32 [samples], mono at ``rate`` Hz, from a file or from a shard.

    Raises:
        EarmarkError: as :func:`earmark.runtime.audio.read_audio`; the shard has changed, or the
            recording is longer than an hour.
    """
    if isinstance(recording, Path):
        return read_audio(recording, rate)
    blocks: list[np.ndarray] = []
    samples = 0
    for block in read_blocks(recording.path, rate, content=recording_bytes(recording)):
        blocks.append(block)
        samples += len(block)
        if samples > MAX_SECONDS * rate:
            raise EarmarkError(f"{recording.path}: is longer than {MAX_SECONDS} s: cut it")
    return np.concatenate(blocks)


def recording_bytes(recording: Recording) -> bytes:
    """The bytes of a recording as they are stored.

    Raises:
        EarmarkError: the file cannot be read, or the shard has become shorter.
    """
    path = recording if isinstance(recording, Path) else recording.path
    try:
        if isinstance(recording, Path):
            return recording.read_bytes()
        with recording.shard.open("rb") as file:
            file.seek(recording.offset)
            data = file.read(recording.size)
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) < recording.size:
        raise EarmarkError(f"{path}: the shard has changed since it was listed: begin again")
    return data


def expand(pattern: str | os.PathLike[str]) -> list[Path]:
    """The shards that a pattern names: ``words-{000..063}.tar``, ``{a,b}.tar``, ``words-*.tar``.

    Raises:
        EarmarkError: there is none, or one that is named is missing.
    """
    paths: list[Path] = []
    for name in _braces(str(pattern)):
        if glob.has_magic(name) and not Path(name).exists():
            found = sorted(glob.glob(name))  # noqa: PTH207 (an absolute pattern)
        else:
            found = [name]
        paths += map(Path, found)
        if len(paths) > MAX_SHARDS:
            raise EarmarkError(f"{pattern}: more than {MAX_SHARDS} shards: make them larger")
    if not paths:
        raise EarmarkError(f"{pattern}: no such shards: name tar files")
    return paths


def list_shard(shard: Path) -> Listing:
    """List the recordings of a shard, in the order in which they are stored.

    Raises:
        EarmarkError: it cannot be read, is compressed, damaged or cut off; a member is a link, a
            device or sparse, has a name outside of the shard, or is too large; what is said of a
            clip is malformed; a clip has two recordings or no class.
    """
    samples: list[Sample] = []
    ignored: list[str] = []
    sources: str | None = None
    key = ""
    parts: dict[str, Member | str] = {}
    try:
        with shard.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise EarmarkError(f"{shard}: is no regular file: name tar files")
            for member, ending in _members(shard, file):
                name = PurePosixPath(member.name)
                if name.name == SOURCES_FILE and (len(name.parts) == 1 or _META.match(member.name)):
                    sources = _text(member, file)
                    continue
                if ending is None or _META.match(member.name):
                    ignored.append(member.name)
                    continue
                this = member.name[: -len(ending) - 1]
                if this != key:
                    samples += _sample(key, parts, ignored)
                    key, parts = this, {}
                kind = "audio" if is_audio(name.name) else ending.lower()
                if kind in parts:
                    raise EarmarkError(
                        f"{shard}: {member.name}: a second {kind} of one clip: names up to "
                        "the first dot tell clips apart"
                    )
                text = kind in ("json", "cls", "txt")
                parts[kind] = _text(member, file) if text else member
            samples += _sample(key, parts, ignored)
    except OSError as error:
        raise EarmarkError(f"{shard}: cannot be read ({error.strerror or error})") from error
    return Listing(tuple(samples), sources, tuple(ignored))


class _Bounded:
    """A file of which headers are read: long ones are refused before they are."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _members(shard: Path, file: io.BufferedReader) -> Iterator[tuple[Member, str | None]]:
    """The files in a shard, each with what follows the first dot of its name."""
    length = os.fstat(file.fileno()).st_size
    head = file.read(6)
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head == b"\xfd7zXZ\0":
        raise EarmarkError(f"{shard}: is compressed: unpack it to a plain tar, audio is compressed")
    file.seek(0)
    count = 0
    name = ""

    def refuse(reason: str) -> EarmarkError:
        return EarmarkError(f"{shard}: {name or 'first member'}: {reason}")

    try:
        with tarfile.TarFile(fileobj=_Bounded(file), tarinfo=tarfile.TarInfo) as tar:  # pyright: ignore[reportArgumentType]
            while (entry := tar.next()) is not None:
                # It keeps them all.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                count += 1
                name = entry.name
                if count > MAX_MEMBERS:
                    raise refuse(f"more than {MAX_MEMBERS} members: make smaller shards")
                if entry.size < 0 or entry.issparse() or not (entry.isreg() or entry.isdir()):
                    raise refuse("is neither file nor folder, or sparse: leave it out")
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or not name.isprintable():
                    raise refuse("has a name outside of the shard, or no name")
                if entry.isdir():
                    continue
                if entry.offset_data + entry.size > length:
                    raise refuse("the shard is cut off here: copy it again")
                if entry.size > MAX_AUDIO_BYTES:
                    raise refuse(f"has {entry.size} bytes, more than {MAX_AUDIO_BYTES}: cut it")
                named = _KEY.fullmatch(str(path))
                member = Member(shard, str(path), entry.offset_data, entry.size)
                yield member, named[2] if named else None
            # A damaged header ends a tar as its end mark does.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise refuse("what follows is damaged or cut off: copy the shard again")
    except (EarmarkError, OSError):
        raise
    except Exception as error:  # tarfile raises many types for what is no tar
        reason = str(error) or type(error).__name__
        raise refuse(f"what follows is no tar ({reason}): make the shard again") from error


def _text(member: Member, file: io.BufferedReader) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise EarmarkError(
            f"{member.shard}: {member.name}: {member.size} bytes of text, more than "
            f"{MAX_TEXT_BYTES}"
        )
    file.seek(member.offset)
    try:
        return str(file.read(member.size), "utf-8")
    except UnicodeDecodeError as error:
        raise EarmarkError(f"{member.shard}: {member.name}: no UTF-8 text") from error


def _sample(key: str, parts: dict[str, Member | str], ignored: list[str]) -> Iterator[Sample]:
    """The recording that members of one name are; none where there is no audio among them."""
    member = parts.get("audio")
    if not isinstance(member, Member):
        ignored += [f"{key}.{kind}" for kind in parts]
        return

    def refuse(field: str, expected: str) -> EarmarkError:
        return EarmarkError(f"{member.shard}: {key}: {field}: expected {expected}")

    about: dict[str, Any] = {}
    if "json" in parts:
        try:
            about = json.loads(str(parts["json"]))
        except (ValueError, RecursionError) as error:
            raise refuse("json", "a JSON object") from error
        if not isinstance(about, dict):
            raise refuse("json", "a JSON object")
    name = PurePosixPath(member.name)
    folder = name.parts[0] if len(name.parts) > 1 else ""
    noise = folder == NOISE_FOLDER
    words = () if noise else _words(about, parts, folder, refuse)
    if words is None:
        ignored.append(member.name)
        return
    fold, split, speaker = metadata.membership(about, refuse)
    if not speaker:
        stem = audio_stem(name.name)
        # As in a folder with lists: nothing tells that two clips are of one speaker.
        speaker = marked_speaker(stem) or (key if split else stem)
    yield Sample(member, words, speaker, split, fold, noise)


def _words(
    about: dict[str, Any], parts: dict[str, Member | str], folder: str, refuse: Any
) -> tuple[str, ...] | None:
    """The classes of a clip; None for what lies in a folder that is no class."""
    words: list[Any]
    column = next((name for name in metadata.CLASSES if name in about), "")
    if column:
        value = about[column]
        words = value if isinstance(value, list) and column == "labels" else [value]
    else:
        column = next((name for name in ("cls", "txt") if name in parts), "")
        words = [str(parts[column]).strip()] if column else [folder]
        if not column and folder.startswith("_") and folder not in (UNKNOWN, SILENCE):
            return None
    for word in words:
        if not (isinstance(word, str) and word and word.isprintable()) or (
            word.startswith("_") and word not in (UNKNOWN, SILENCE)
        ):
            raise refuse(
                column or "class",
                "the name of a class in .json, .cls or .txt, or of the folder it is in",
            )
    return tuple(dict.fromkeys(words))


def _braces(pattern: str) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    if found[3] is not None:
        names = found[3].split(",")
    else:
        first, last = int(found[1]), int(found[2])
        if last < first:
            raise EarmarkError(f"{pattern}: {found[0]}: expected the lower number first")
        if last >= first + MAX_SHARDS:
            raise EarmarkError(f"{pattern}: {found[0]}: more than {MAX_SHARDS:,} shards")
        names = [f"{i:0{len(found[1])}d}" for i in range(first, last + 1)]
    for name in names:
        yield from _braces(pattern[: found.start()] + name + pattern[found.end() :])
