"""A corpus written as shards (:mod:`earmark.train.data.shards`), mixed, the same every time."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...runtime.errors import EarmarkError
from ...runtime.files import atomic_path
from ...runtime.layout import SOURCES_FILE, SPLITS
from ..claim import claim
from ..progress import progress
from .audio_files import audio_stem
from .clip import Clip
from .corpus import Corpus
from .shards import MAX_AUDIO_BYTES, SUFFIX, Member, Recording, recording_bytes

SHARD_MB = 256.0
_NOTE = "shards.json"
_FORMAT = 1
_SOURCES = f"__meta__/{SOURCES_FILE}"


@dataclass(frozen=True)
class _Item:
    """A recording and where it goes."""

    recording: Recording
    name: str
    size: int
    about: dict[str, Any] | None
    """What is said of a clip; None for noise."""


def write_shards(corpus: Corpus, folder: Path, shard_mb: float = SHARD_MB) -> dict[str, int]:
    """Write the clips of a corpus to ``<split>-000000.tar`` and on, its noise to ``noise-*.tar``.

    Recordings keep their bytes and their names, in which dots become ``%2E``. Each shard of a split
    is a random part of it, of equal size, and holds the sources of all. A shard that is there
    already is left as it is, so that the same call goes on after an interruption.

    Args:
        corpus: of any kind.
        folder: missing, empty, or an earlier result of the same corpus and size.
        shard_mb: about how many megabytes of audio go into a shard.

    Returns:
        Number of shards of each split that has clips, and of ``noise``.

    Raises:
        EarmarkError: the folder holds other files, a recording cannot be read, is too large for a
            shard, or has the name of another; the disk is full.
    """
    if not shard_mb > 0:
        raise EarmarkError(f"shard size {shard_mb:g} MB: expected more than 0")
    groups = {
        split: [_item(corpus, c.recording, _about(c)) for c in corpus.clips if c.split == split]
        for split in SPLITS
    }
    groups["noise"] = [_item(corpus, sound, None) for sound in corpus.noise]
    _check_names([item for items in groups.values() for item in items])
    sources = json.dumps([asdict(s) for s in corpus.sources], indent=1, ensure_ascii=False)
    # The fingerprint knows nothing of speakers and folds.
    told = [(item.name, item.about) for items in groups.values() for item in items]
    made_of = {
        "format": _FORMAT,
        "fingerprint": corpus.fingerprint,
        "shard_mb": shard_mb,
        # They stand in every shard.
        "sources": hashlib.sha256(sources.encode()).hexdigest(),
        "told": hashlib.sha256(json.dumps(told).encode()).hexdigest(),
    }
    claim(folder, _NOTE, made_of)
    written: dict[str, int] = {}
    total = sum(item.size for items in groups.values() for item in items)
    with progress("Writing shards", total, "bytes") as advance:
        for name, items in groups.items():
            if not items:
                continue
            # Mixed by their names, so that every shard is like the others.
            items.sort(key=lambda item: hashlib.sha256(item.name.encode()).digest())
            count = max(1, round(sum(item.size for item in items) / (shard_mb * 1e6)))
            count = written[name] = min(count, len(items))
            for index in range(count):
                path, part = folder / f"{name}-{index:06d}{SUFFIX}", items[index::count]
                if not path.exists():
                    _write(path, part, sources)
                advance(sum(item.size for item in part))
    return written


def _item(corpus: Corpus, recording: Recording, about: dict[str, Any] | None) -> _Item:
    if isinstance(recording, Member):
        name, size = PurePosixPath(recording.name), recording.size
    else:
        name = PurePosixPath(recording.relative_to(corpus.root_of(recording)).as_posix())
        try:
            size = recording.stat().st_size
        except OSError as error:
            raise EarmarkError(f"{recording}: cannot be read ({error.strerror})") from error
    if len(name.parts) > 1 and name.parts[0].startswith("__"):
        raise EarmarkError(
            f"{recording}: readers of shards pass over folders whose names begin with __: rename it"
        )
    stem = audio_stem(name.name)
    if isinstance(recording, Path):
        # Names up to the first dot tell clips apart.
        stem = stem.replace("%", "%25").replace(".", "%2E")
    return _Item(recording, str(name.with_name(stem + name.suffix.lower())), size, about)


def _about(clip: Clip) -> dict[str, Any]:
    words = {"word": clip.word} if len(clip.words) == 1 else {"labels": list(clip.words)}
    fold = {"fold": clip.fold} if clip.fold else {}
    return {**words, "speaker": clip.speaker, "split": clip.split, **fold}


def _check_names(items: Sequence[_Item]) -> None:
    first: dict[str, _Item] = {}
    for item in items:
        path = item.recording.path if isinstance(item.recording, Member) else item.recording
        if not item.name.isprintable():
            raise EarmarkError(f"{path}: a name that cannot be printed: rename it")
        if item.size > MAX_AUDIO_BYTES:
            raise EarmarkError(f"{path}: {item.size} bytes, more than {MAX_AUDIO_BYTES}: cut it")
        key = item.name.rpartition(".")[0]
        other = first.setdefault(key, item)
        if other is not item:
            raise EarmarkError(
                f"{path}: the same name in shards, {key}, as another recording: rename one, or "
                "write the folders into shards of their own"
            )


def _write(path: Path, items: Sequence[_Item], sources: str) -> None:
    with atomic_path(path) as temporary, tarfile.open(temporary, "w:", encoding="utf-8") as tar:
        _add(tar, _SOURCES, sources.encode())
        for item in items:
            _add(tar, item.name, recording_bytes(item.recording))
            if item.about is not None:
                about = json.dumps(item.about, ensure_ascii=False)
                _add(tar, f"{item.name.rpartition('.')[0]}.json", about.encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # Owner and time are left at 0: the same corpus gives the same bytes.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
