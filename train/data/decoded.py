"""Recordings decoded in parallel, and kept in a cache on disk."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import to_int16
from ...runtime.errors import EarmarkError
from ...runtime.files import atomic_path, write_text
from ..progress import progress
from .roots import some_names
from .shards import Member, Recording, read_recording

_LOG = logging.getLogger(__name__)

SAMPLE_RATE = 16000
_CLIPPED_SHARE = 0.01
_REPORTS = 20
_BLOCK = 256
_CACHE_VERSION = 1
_UNREADABLE = -1
"""In place of a length in the index of a cache."""


def cached(
    recordings: Sequence[Recording],
    kind: str,
    decoded: Iterator[NDArray[np.int16] | str],
    cache_dir: str | os.PathLike[str] | None,
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """All decoded recordings in one flat array, and the length of each, 0 for an unreadable one.

    The cache is made anew when one that could not be read can be.
    """
    if cache_dir is None:
        found = [np.zeros(0, np.int16), *map(_audio, _reported(decoded, recordings))]
        return np.concatenate(found), np.array([len(pcm) for pcm in found[1:]], np.int64)
    target = Path(cache_dir) / f"{kind}-{_cache_key(recordings, kind)}.s16"
    index = target.with_suffix(".json")
    if not (target.is_file() and index.is_file() and _still_unreadable(index, recordings)):
        lengths = []
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            for pcm in _reported(decoded, recordings):
                lengths.append(_UNREADABLE if isinstance(pcm, str) else len(pcm))
                file.write(_audio(pcm).tobytes())
        write_text(index, json.dumps(lengths))
    try:
        counts = np.array(json.loads(index.read_text(encoding="utf-8")), np.int64)
        counts = np.maximum(counts, 0)
        # An empty file cannot be mapped.
        empty = target.stat().st_size == 0
        flat = np.zeros(0, np.int16) if empty else np.memmap(target, np.int16, "r")
    except (OSError, ValueError) as error:
        raise EarmarkError(f"{target}: damaged cache ({error}): remove it") from error
    if len(counts) != len(recordings) or counts.sum() != len(flat):
        raise EarmarkError(f"{target}: damaged cache: remove it")
    return flat, counts


def decode_all(recordings: Sequence[Recording], text: str) -> Iterator[NDArray[np.int16] | str]:
    """Decode in the order given. Threads do, as libsndfile works without the interpreter lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(text, len(recordings)) as advance:
        for start in range(0, len(recordings), _BLOCK):
            for decoded in pool.map(_decode, recordings[start : start + _BLOCK]):
                advance(1)
                yield decoded


def unreadable(recordings: Sequence[Recording]) -> int:
    """How many recordings cannot be read, with a word about those and the clipped ones. None of
    them is kept."""
    decoded = decode_all(recordings, "Decoding clips")
    return sum(isinstance(pcm, str) for pcm in _reported(decoded, recordings))


def fit(pcm: NDArray[np.int16], samples: int) -> NDArray[np.int16]:
    """A clip of exactly ``samples``: padded on both sides, or its loudest window.

    Args:
        pcm: int16 [any length].

    Returns:
        int16 [samples].
    """
    missing = samples - len(pcm)
    if missing >= 0:
        return np.pad(pcm, (missing // 2, missing - missing // 2))
    energy = np.concatenate([[0.0], np.cumsum(np.square(pcm, dtype=np.float64))])
    starts = np.append(np.arange(0, -missing, SAMPLE_RATE // 100), -missing)
    window = energy[starts + samples] - energy[starts]
    loud = starts[window >= 0.99 * window.max()]
    start = int(loud[len(loud) // 2])
    return pcm[start : start + samples]


def _decode(recording: Recording) -> NDArray[np.int16] | str:
    """A recording as int16 at 16 kHz, or why there is none."""
    try:
        audio = read_recording(recording, SAMPLE_RATE)
    except EarmarkError as error:
        return str(error)
    return to_int16(audio)


def _cache_key(recordings: Sequence[Recording], kind: str) -> str:
    """A name for the decoded form of these very files: place, size and time of each."""
    digest = hashlib.sha256(f"{_CACHE_VERSION}\0{kind}\0{SAMPLE_RATE}\n".encode())
    stamps: dict[Path, str] = {}
    for recording in recordings:
        if isinstance(recording, Member):
            file, within = recording.shard, f"\0{recording.offset}\0{recording.size}"
        else:
            file, within = recording, ""
        if file not in stamps:
            stamps[file] = _stamp(file)
        digest.update(os.fsencode(file.absolute()) + f"\0{stamps[file]}{within}\n".encode())
    return digest.hexdigest()[:24]


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size}\0{status.st_mtime_ns}"


def _still_unreadable(index: Path, recordings: Sequence[Recording]) -> bool:
    """Whether what could not be read still cannot be, about which a word is said again."""
    try:
        lengths = json.loads(index.read_text(encoding="utf-8"))
        again = [r for r, n in zip(recordings, lengths, strict=True) if n == _UNREADABLE]
    except (OSError, ValueError, TypeError):
        return True  # the caller tells what is wrong with it
    tried = [_decode(recording) for recording in again]
    if not all(isinstance(one, str) for one in tried):
        return False
    for _ in _reported(tried, again):
        pass
    return True


def _audio(decoded: NDArray[np.int16] | str) -> NDArray[np.int16]:
    return np.zeros(0, np.int16) if isinstance(decoded, str) else decoded


def _reported(
    decoded: Iterable[NDArray[np.int16] | str], recordings: Sequence[Recording]
) -> Iterator[NDArray[np.int16] | str]:
    """The recordings as they are, with a word about those that cannot be read or are clipped."""
    bad = 0
    clipped: set[str] = set()  # of one recording there may be several stretches
    for pcm, recording in zip(decoded, recordings, strict=True):
        if isinstance(pcm, str):
            bad += 1
            if bad <= _REPORTS:
                _LOG.warning("skipped %s", pcm)
            yield pcm
            continue
        # The mean of a mask is slow on 13,000 clips, and few of them ever reach full scale.
        peaks = len(pcm) and (pcm.max() == 32767 or pcm.min() == -32768)
        if peaks and np.mean((pcm == 32767) | (pcm == -32768)) > _CLIPPED_SHARE:
            clipped.add(str(recording.path if isinstance(recording, Member) else recording))
        yield pcm
    if bad:
        _LOG.warning("files that could not be read, skipped: %d", bad)
    if clipped:
        _LOG.warning(
            "clipped, used all the same (%d; record your own at a lower level): %s",
            *(len(clipped), some_names(clipped)),
        )
