"""What is cut from longer recordings: excerpts of noise for ``_silence_``, whose time is divided
among the splits so that no stretch of a recording is in two of them, and pieces of free speech for
``_unknown_``, whose recordings are each in one split, less what their transcripts say is a keyword.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ...runtime.layout import SPLITS, hashed_split, marked_speaker, root_name
from .audio_files import find_audio
from .corpus import Corpus
from .decoded import SAMPLE_RATE, cached, decode_all, fit
from .shards import Member, Recording
from .share import BLOCK, WHOLE, Share
from .transcripts import read_transcripts, recording_name, without_keywords

_LOG = logging.getLogger(__name__)

_SHORT_NOISE_SECONDS = 10.0
# The names of ESC-50 (K. J. Piczak, 2015): fold, source recording, take, class.
_ESC_NAME = re.compile(r"(\d-\d+)-[A-Z](-\d+)?")
_LIBRISPEECH = re.compile(r"(?:.*/)?(\d+)/(\d+)/\1-\2-\d+\.\w+")


@dataclass(frozen=True)
class Stretch:
    """A part of a recording: of noise that which belongs to one split, of free speech one without
    keywords."""

    path: Path
    name: str
    start: int
    pcm: NDArray[np.int16]


def noise_pool(
    corpus: Corpus,
    split: str,
    noise_roots: Iterable[str | os.PathLike[str]] = (),
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[NDArray[np.int16]]:
    """The noise that belongs to a split: one int16 array per recording, at 16 kHz, any length.

    Of each recording the first 80 % are for training, the next 10 % for validation and the last
    10 % for testing. A recording shorter than 10 s goes whole to the split that its name hashes to,
    or that of the recording that it is a take of.
    ``split="all"`` gives whole recordings.

    Raises:
        EarmarkError: an unknown split, or a folder of ``noise_roots`` is missing or has no audio.
    """
    if split not in (*SPLITS, "all"):
        raise EarmarkError(f"split {split!r}: expected {', '.join(SPLITS)} or all")
    return [s.pcm for s in noise_stretches(corpus, split, noise_roots, cache_dir)]


def speech_pool(
    roots: Iterable[str | os.PathLike[str]],
    split: str,
    keywords: Iterable[str] = (),
    cache_dir: str | os.PathLike[str] | None = None,
) -> NDArray[np.int16]:
    """The free speech that belongs to a split, one recording after the other, int16 at 16 kHz.

    A recording goes whole to the split that its speaker or, where its name tells none, its name
    hashes to, so that no recording that is measured was trained on. With a cache it is a memory
    map: hours of speech take no memory until they are drawn.

    Args:
        roots: folders of any layout.
        split: ``train``, ``validation``, ``test`` or ``all``.
        keywords: stretches in which one is said are left out, as far as the folders' transcripts
            tell (see :mod:`earmark.train.data.transcripts`).
        cache_dir: as for :func:`earmark.train.data.dataset.load_split`.

    Raises:
        EarmarkError: an unknown split, a folder is missing or has no audio, or its transcripts
            cannot be read.
    """
    if split not in (*SPLITS, "all"):
        raise EarmarkError(f"split {split!r}: expected {', '.join(SPLITS)} or all")
    return speech_stretches(roots, split, keywords, cache_dir)[1]


def speech_recordings(
    roots: Iterable[str | os.PathLike[str]],
    split: str,
    keywords: Iterable[str] = (),
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[tuple[str, NDArray[np.int16]]]:
    """As :func:`speech_pool`, stretch by stretch, each with the name of its recording."""
    return [(s.name, s.pcm) for s in speech_stretches(roots, split, keywords, cache_dir)[0]]


def noise_stretches(
    corpus: Corpus,
    split: str,
    noise_roots: Iterable[str | os.PathLike[str]],
    cache_dir: str | os.PathLike[str] | None,
) -> list[Stretch]:
    # A recording goes by its path below the folder it was found in, wherever that folder lies, and
    # in a shard by its name there.
    named: list[tuple[Recording, str]] = [
        (path, path.relative_to(corpus.root_of(path)).as_posix())
        for path in corpus.noise
        if isinstance(path, Path)
    ]
    named += [(sound, sound.name) for sound in corpus.noise if isinstance(sound, Member)]
    named += _named(noise_roots, "noise recordings")
    recordings = _decode_noise([recording for recording, _ in named], cache_dir)
    stretches = []
    for (recording, name), pcm in zip(named, recordings, strict=True):
        start, stop = _share_of_time(name, len(pcm), split)
        if stop > start:
            place = recording.path if isinstance(recording, Member) else recording
            stretches.append(Stretch(place, name, start, pcm[start:stop]))
    return stretches


def speech_stretches(
    roots: Iterable[str | os.PathLike[str]],
    split: str,
    keywords: Iterable[str],
    cache_dir: str | os.PathLike[str] | None,
) -> tuple[list[Stretch], NDArray[np.int16]]:
    """The stretches without keywords of the recordings of a split, and all of them in one array."""
    keywords = [keyword for keyword in keywords if not keyword.startswith("_")]
    cuts: list[tuple[Path, str, float, float]] = []
    for root in map(Path, roots):
        named, transcripts = _named([root], "free speech"), read_transcripts(root)
        told = sum(recording_name(path, root) in transcripts for path, _ in named)
        if transcripts and told < len(named):
            _LOG.warning(
                "%s: %d of %d recordings have no transcript, %d transcripts no recording: "
                "keywords said there are taken for other words",
                *(root, len(named) - told, len(named), len(transcripts) - told),
            )
        for path, name in named:
            if split in ("all", hashed_split(recording_origin(name))):
                said = transcripts.get(recording_name(path, root))
                cuts += [(path, name, *times) for times in without_keywords(said, keywords)]
    paths = [path for path, *_ in cuts]
    times = [(start, end) for *_, start, end in cuts]
    # Stretches are kept, not recordings: hours of them stay a memory map.
    kind = "speech"
    if any(start or end < float("inf") for start, end in times):
        kind += "-" + hashlib.sha256(repr(times).encode()).hexdigest()[:16]
    flat, lengths = cached(paths, kind, _decoded_cuts(paths, times), cache_dir)
    parts = np.split(flat, np.cumsum(lengths)[:-1]) if paths else []
    stretches = [
        Stretch(path, name, round(start * SAMPLE_RATE), pcm)
        for (path, name, start, _), pcm in zip(cuts, parts, strict=True)
        if len(pcm)
    ]
    return stretches, flat


def silence_excerpts(
    stretches: list[Stretch], split: str, count: int, samples: int, share: Share
) -> tuple[NDArray[np.int16], list[tuple[str, str]]]:
    """Of ``count`` excerpts those of a process, int16 [held, samples], and for each the name of its
    recording and its place."""
    rng, ends = _generator("silence", split, stretches), _ends(stretches)
    if not stretches:
        _LOG.warning("no noise recordings for the %s split: _silence_ is digital silence", split)
    mine = {int(number): row for row, number in enumerate(share.dealt(count))}
    rows = np.zeros((len(mine), samples), np.int16)
    origins: list[tuple[str, str]] = []
    for number in range(count):
        row = mine.get(number)
        if number % 10 == 9 or not stretches:
            if row is not None:
                origins.append(("digital", "digital silence"))
            continue
        # Drawn for all, so that an excerpt is the same whoever holds it.
        part, origin = _part(stretches, ends, samples, rng)
        gain = 10 ** (rng.uniform(-30, 0) / 20)
        if row is not None:
            rows[row] = np.round(fit(part, samples) * gain)
            origins.append(origin)
    return rows, origins


def speech_pieces(
    stretches: list[Stretch], split: str, count: int, samples: int, share: Share
) -> tuple[NDArray[np.int16], list[tuple[str, str]]]:
    """Of ``count`` pieces those of a process, int16 [held, samples], and for each the name of its
    recording and its place."""
    rng, ends = _generator("speech", split, stretches), _ends(stretches)
    if not stretches:
        _LOG.warning(
            "no recordings of free speech without keywords fall into the %s split: add some", split
        )
    mine = {int(number): row for row, number in enumerate(share.dealt(count))}
    rows = np.zeros((len(mine), samples), np.int16)
    origins: list[tuple[str, str]] = []
    for number in range(count):
        part, origin = _part(stretches, ends, samples, rng)
        if number in mine:
            rows[mine[number]] = fit(part, samples)
            origins.append(origin)
    return rows, origins


def _generator(kind: str, split: str, stretches: list[Stretch]) -> np.random.Generator:
    """What is drawn follows from the names of the recordings alone."""
    seed = "\n".join([kind, split, *(s.name for s in stretches)])
    name = seed.encode(errors="surrogatepass")
    return np.random.default_rng(list(hashlib.sha256(name).digest()))


def _ends(stretches: list[Stretch]) -> NDArray[np.float64]:
    """Where each stretch ends when all of them are laid one after the other on [0, 1]."""
    lengths = np.array([len(s.pcm) for s in stretches], np.float64)
    ends = (lengths / lengths.sum()).cumsum()
    return ends / ends[-1:]


def _part(
    stretches: list[Stretch], ends: NDArray[np.float64], samples: int, rng: np.random.Generator
) -> tuple[NDArray[np.int16], tuple[str, str]]:
    """As many samples of a stretch, or all where it is shorter, the longer ones more often; and the
    name of its recording and the place."""
    stretch = stretches[ends.searchsorted(rng.random(), side="right")]
    start = int(rng.integers(max(1, len(stretch.pcm) - samples + 1)))
    seconds = (stretch.start + start) / SAMPLE_RATE
    origin = (stretch.name, f"{stretch.path}#t={seconds:.3f}")
    return stretch.pcm[start : start + samples], origin


def pieces(
    folders: Iterable[str | os.PathLike[str]],
    clip_seconds: float,
    cache_dir: str | os.PathLike[str] | None = None,
    share: Share = WHOLE,
) -> NDArray[np.int16]:
    """Recordings of any length cut into clips one after the other, int16 [N, samples] at 16 kHz.

    What is left at a recording's end is a clip, padded, if it is at least half as long as one.

    Args:
        folders: any layout.
        clip_seconds: length of every row.
        cache_dir: as for :func:`earmark.train.data.dataset.load_split`.
        share: the process whose clips are wanted: they are dealt out in blocks.

    Raises:
        EarmarkError: a folder is missing, or has no audio that can be read, or there are fewer
            blocks than processes.
    """
    samples = round(clip_seconds * SAMPLE_RATE)
    recordings: list[NDArray[np.int16]] = []
    counts: list[int] = []
    for root in map(Path, folders):
        found = _decode_noise(list(find_audio(root)), cache_dir)
        cut = [(2 * len(pcm) + samples) // (2 * samples) for pcm in found]
        if not any(cut):
            raise EarmarkError(f"{root}: no audio of half a clip's length: name a folder of some")
        recordings += found
        counts += cut
    # A process that got none would leave out its share of them.
    if 0 < sum(counts) <= (share.ranks - 1) * BLOCK:
        raise EarmarkError(
            f"recipe field distill.unlabelled: {sum(counts)} pieces, dealt out by {BLOCK}, for "
            f"{share.ranks} processes: name more recordings, or use fewer processes (train.devices "
            "and train.nodes)"
        )
    mine, ends = share.dealt(sum(counts), BLOCK), np.cumsum(counts, dtype=np.int64)
    held = np.empty((len(mine), samples), np.int16)
    # What others hold stays where it is, which is on disk where there is a cache.
    for row, number, at in zip(held, mine, ends.searchsorted(mine, side="right"), strict=True):
        start = int(number - (ends[at] - counts[at])) * samples
        row[:] = fit(recordings[at][start : start + samples], samples)
    return held


def recording_origin(name: str) -> str:
    """What a recording shares with others that must not be in another split.

    Takes of one source (the naming of ESC-50) go together, and so do recordings of one speaker
    (``<speaker>_nohash_<n>``, and the folders of LibriSpeech,
    ``<speaker>/<chapter>/<speaker>-<chapter>-<n>``); any other recording is its own origin.
    """
    reader = _LIBRISPEECH.fullmatch(name)
    if reader:
        return reader[1]
    stem = PurePosixPath(name).stem
    take = _ESC_NAME.fullmatch(stem)
    if take:
        return take[1]
    return marked_speaker(stem) or name


def _decoded_cuts(
    paths: Sequence[Path], times: Sequence[tuple[float, float]]
) -> Iterator[NDArray[np.int16] | str]:
    """The stretches of recordings between these times, in seconds; those of one recording follow
    one another, and it is decoded once."""
    whole = decode_all([path for path, _ in groupby(paths)], "Decoding speech")
    last, pcm = None, np.zeros(0, np.int16)
    for path, (start, end) in zip(paths, times, strict=True):
        if path != last:
            last, decoded = path, next(whole)
            if isinstance(decoded, str):
                yield decoded
                pcm = np.zeros(0, np.int16)
                continue
            pcm = decoded
        stop = len(pcm) if end == float("inf") else round(end * SAMPLE_RATE)
        yield pcm[round(start * SAMPLE_RATE) : stop]


def _decode_noise(
    recordings: Sequence[Recording], cache_dir: str | os.PathLike[str] | None
) -> list[NDArray[np.int16]]:
    """The noise recordings, empty ones in the place of those that cannot be read."""
    if not recordings:
        return []
    decoded = decode_all(recordings, "Decoding noise")
    pcm, lengths = cached(recordings, "noise", decoded, cache_dir)
    return np.split(pcm, np.cumsum(lengths)[:-1])


def _named(roots: Iterable[str | os.PathLike[str]], what: str) -> list[tuple[Path, str]]:
    """The audio files of folders, each with a name that does not tell where its folder lies.

    The folder's own name is part of it, and so of the split: under another name recordings that a
    model was trained on may be among those that measure it.
    """
    named = []
    for root in map(Path, roots):
        found = find_audio(root)
        if not found:
            raise EarmarkError(f"{root}: no audio files: name a folder of {what}")
        named += [
            (path, f"{root_name(root)}/{path.relative_to(root).as_posix()}") for path in found
        ]
    return named


def _share_of_time(name: str, length: int, split: str) -> tuple[int, int]:
    """First and last + 1 sample of a noise recording that belong to a split."""
    if split == "all":
        return 0, length
    if length < _SHORT_NOISE_SECONDS * SAMPLE_RATE:
        return (0, length) if hashed_split(recording_origin(name)) == split else (0, 0)
    first, last = [(0, 8), (8, 9), (9, 10)][SPLITS.index(split)]
    return length * first // 10, length * last // 10
