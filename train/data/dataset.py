"""One split of a corpus as arrays: decoded once, in parallel, and kept in a cache on disk.

Also what is cut from longer recordings: excerpts of noise for ``_silence_``, whose time is divided
among the splits so that no stretch of a recording is in two of them, and pieces of free speech for
``_unknown_``, whose recordings are each in one split, less what their transcripts say is a keyword.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import to_int16
from ...runtime.errors import EarmarkError
from ...runtime.files import atomic_path, write_text
from ...runtime.layout import SPEAKER_MARK, SPLITS, folder_name, hashed_split
from ...runtime.manifest import SILENCE, UNKNOWN
from ..progress import progress
from .corpus import Clip, Corpus, find_audio, wanted_name
from .shards import Member, Recording, read_recording
from .share import WHOLE, Share
from .transcripts import read_transcripts, recording_name, without_keywords

_LOG = logging.getLogger(__name__)

SAMPLE_RATE = 16000
SILENCE_SHARE = 0.1
"""Noise excerpts per keyword clip of a split: the proportion of the Speech Commands tests."""
SPEECH = "_speech_"
"""What :attr:`Split.word` says of a piece of free speech."""
_SHORT_NOISE_SECONDS = 10.0
# The names of ESC-50 (K. J. Piczak, 2015): fold, source recording, take, class.
_ESC_NAME = re.compile(r"(\d-\d+)-[A-Z](-\d+)?")
_LIBRISPEECH = re.compile(r"(?:.*/)?(\d+)/(\d+)/\1-\2-\d+\.\w+")
_CLIPPED_SHARE = 0.01
_REPORTS = 20
_BLOCK = 256
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Part:
    """What the rows of a split are of all its clips, where those lie in shards."""

    share: Share
    """The process that holds them."""
    number: NDArray[np.int64]
    """int64 [N]: which of all clips of the split a row is, whoever holds them."""
    shard: NDArray[np.int64]
    """int64 [N]: which shard it lies in, -1 for none."""
    total: int
    """Clips of the split, those of all processes."""
    counts: NDArray[np.int64]
    """int64 [labels]: those of each label."""


@dataclass(frozen=True)
class Split:
    """The clips of one split, row by row the same clip in every array."""

    labels: tuple[str, ...]
    pcm: NDArray[np.int16]
    """int16 [N, samples] at 16 kHz. May be a read-only memory map."""
    label: NDArray[np.int64]
    """int64 [N], indices into ``labels``."""
    word: NDArray[np.str_]
    """str [N], the class folder of a clip, ``_silence_`` for an excerpt of noise, ``_speech_`` for
    a piece of free speech."""
    speaker: NDArray[np.str_]
    """str [N]. For an excerpt or a piece, the recording that it is from."""
    path: NDArray[np.str_]
    """str [N]. For an excerpt or a piece, the recording and the second it starts at:
    ``x.wav#t=12.500``."""
    skipped: int
    """Clips left out because they could not be read; each was reported."""
    several: NDArray[np.bool_] | None = None
    """bool [N, labels]: the classes of each clip of a multi-label task, of which ``label`` is the
    first, -1 for a clip of none. None where each clip has one class."""
    own: NDArray[np.bool_] | None = None
    """bool [N], the clips from folders of few speakers (see ``corpus.scan``); None: none."""
    part: Part | None = None
    """Which part of the clips these are; None: all, and none is in a shard."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def target(self) -> NDArray[np.bool_]:
        """bool [N, labels]: which classes each clip has, whatever the task."""
        if self.several is not None:
            return self.several
        return self.label[:, None] == np.arange(len(self.labels))

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [labels]: clips of each label, those that other processes hold among them."""
        return self.target.sum(axis=0) if self.part is None else self.part.counts


@dataclass(frozen=True)
class _Stretch:
    """A part of a recording: of noise that which belongs to one split, of free speech one without
    keywords."""

    path: Path
    name: str
    start: int
    pcm: NDArray[np.int16]


def label_set(
    keywords: Sequence[str], reserved: Sequence[str] = (UNKNOWN, SILENCE)
) -> tuple[str, ...]:
    """The classes of a model: the keywords in the order given, then ``reserved``.

    Raises:
        EarmarkError: no keyword, an empty or reserved one, or two that share a class folder.
    """
    if not keywords:
        raise EarmarkError("no keywords given: name at least one")
    folders: dict[str, str] = {}
    for keyword in keywords:
        name = folder_name(keyword)
        if not any(c.isalnum() for c in name):
            raise EarmarkError(f"keyword {keyword!r}: has no letter or digit")
        if keyword.startswith("_"):
            raise EarmarkError(f"keyword {keyword!r}: names that begin with _ are reserved")
        if name in folders:
            raise EarmarkError(f"keyword {keyword!r}: the same class folder as {folders[name]!r}")
        folders[name] = keyword
    return (*keywords, *reserved)


def load_split(
    corpus: Corpus,
    labels: Sequence[str],
    split: str,
    clip_seconds: float = 1.0,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    noise_roots: Iterable[str | os.PathLike[str]] = (),
    multilabel: bool = False,
    speech_roots: Iterable[str | os.PathLike[str]] = (),
    share: Share = WHOLE,
) -> Split:
    """Decode the clips of one split, add excerpts of noise for ``_silence_`` and pieces of free
    speech for ``_unknown_``.

    A shorter clip is padded with zeros on both sides. Of a longer one the loudest window is taken
    (the middle one of those within 1 % of its energy, so that a word that fits is centred). Words
    that are not in ``labels`` are ``_unknown_``; all of them are returned. Where ``labels`` has no
    ``_unknown_``, they are reported and left out; in a multi-label task such a clip is one of no
    class and stays.

    Excerpts number 10 % of the keyword clips. Their place is uniform over the part of the noise
    recordings that belongs to the split (see :func:`noise_pool`), their gain uniform from -30 to
    0 dB, and one in ten is digital silence; all follow from the split and the names of the
    recordings. None are added to ``split="all"`` of a corpus that has ``_silence_`` clips.

    Pieces of free speech are as many as keyword clips, at places uniform over the recordings of the
    split (see :func:`speech_pool`), less the stretches in which a keyword is said.

    Clips that cannot be read, or hold no audio, are reported, counted and left out.

    Args:
        corpus: what ``scan`` found.
        labels: as of :func:`label_set`.
        split: ``train``, ``validation``, ``test`` or ``all``.
        clip_seconds: length of every row.
        cache_dir: folder for decoded clips, so that a second run starts at once; None for none.
        noise_roots: more folders of noise recordings, any layout.
        multilabel: whether a clip may have any number of classes.
        speech_roots: folders of free speech, any layout, without keywords or with transcripts (see
            :mod:`earmark.train.data.transcripts`).
        share: the process whose clips are wanted (see :func:`owners`), and whose excerpts and
            pieces: those are dealt out one by one.

    Raises:
        EarmarkError: an unknown split, a split without a readable clip, an unwritable cache, or a
            clip of several classes where ``multilabel`` is false.
    """
    if split not in (*SPLITS, "all"):
        raise EarmarkError(f"split {split!r}: expected {', '.join(SPLITS)} or all")
    samples = round(clip_seconds * SAMPLE_RATE)
    if not 1 <= samples <= 60 * SAMPLE_RATE:
        raise EarmarkError(f"clip length {clip_seconds} s: expected at most 60 seconds")
    index = {folder_name(label): i for i, label in enumerate(labels)}
    clips = [clip for clip in corpus.clips if split in ("all", clip.split)]
    if not multilabel:
        clips = _of_one_class(clips, index)
    listed = clips
    mine = _held(listed, split, share)
    clips = [listed[i] for i in mine]
    pcm, good = _decode_clips(clips, samples, cache_dir)
    if not len(good):
        roots = ", ".join(str(root) for root in corpus.roots)
        raise EarmarkError(f"{roots}: no readable clip in the {split} split")
    kept = [clips[i] for i in good]
    number = [mine[good]]
    names = [wanted_name(clip.word, index) for clip in kept]
    label = [index.get(name, -1) for name in names]
    several = _several(kept, index) if multilabel else None
    if several is not None:
        label = np.where(several.any(axis=1), several.argmax(axis=1), -1).tolist()
    word = [clip.word for clip in kept]
    speaker = [clip.speaker for clip in kept]
    path = [str(clip.path) for clip in kept]

    own = [clip.own for clip in kept]
    cuts: list[tuple[str, str, int, NDArray[np.int16], list[tuple[str, str]]]] = []
    # What cannot be read is known of one's own clips only.
    all_names = names if share == WHOLE else [wanted_name(clip.word, index) for clip in listed]
    keyword_clips = sum(name not in (UNKNOWN, SILENCE) for name in all_names)
    speech = list(speech_roots)
    if speech:
        stretches, _ = _speech(speech, split, labels, cache_dir)
        count = keyword_clips if stretches else 0
        cuts.append((UNKNOWN, SPEECH, count, *_pieces(stretches, split, count, samples, share)))
    count = round(SILENCE_SHARE * keyword_clips) if SILENCE in index and not multilabel else 0
    if split == "all" and SILENCE in all_names:
        count = 0
    if count:
        stretches = _noise_stretches(corpus, split, noise_roots, cache_dir)
        cuts.append((SILENCE, SILENCE, count, *_silence(stretches, split, count, samples, share)))
    total = len(listed)
    for name, kind, count, rows, origins in cuts:
        pcm = np.concatenate([pcm, rows])
        number.append(total + share.dealt(count))
        total += count
        label += [index[name]] * len(rows)
        word += [kind] * len(rows)
        speaker += [f"{kind}/{recording}" for recording, _ in origins]
        path += [place for _, place in origins]
        own += [False] * len(rows)
    part = None
    if corpus.sharded:
        extra = {index[name]: count for name, _, count, _, _ in cuts}
        part = Part(
            share,
            np.concatenate(number),
            np.concatenate([_shard_index(listed)[number[0]], np.full(len(pcm) - len(kept), -1)]),
            total,
            _counts(listed, index, multilabel, extra),
        )
    return Split(
        tuple(labels),
        pcm,
        np.array(label, np.int64),
        np.array(word, np.str_),
        np.array(speaker, np.str_),
        np.array(path, np.str_),
        len(clips) - len(kept),
        several,
        np.array(own, np.bool_),
        part,
    )


def owners(clips: Sequence[Clip], split: str, ranks: int) -> NDArray[np.int64]:
    """Which of so many processes holds each of the clips of a split, int64 [clips].

    Shards that have some of the clips are dealt out to the processes, and so are clips of folders,
    one by one. Clips that are not for training are dealt out one by one all of them: there are
    often fewer shards of them than processes.

    Raises:
        EarmarkError: there are fewer shards, or clips, than processes.
    """
    if len(clips) < ranks:
        raise EarmarkError(
            f"{len(clips)} clips in the {split} split for {ranks} processes: use fewer "
            "(train.devices and train.nodes), or more recordings"
        )
    if split != "train":
        return np.arange(len(clips)) % ranks
    shard = _shard_index(clips)
    if 0 <= shard.max() < ranks - 1:
        raise EarmarkError(
            f"{clips[int(shard.argmax())].path}: {shard.max() + 1} shards with training clips for "
            f"{ranks} processes: write smaller ones (earmark corpus DIR --shards OUT --shard-size "
            "MB), or use fewer processes (train.devices and train.nodes)"
        )
    return np.where(shard < 0, np.cumsum(shard < 0) - 1, shard) % ranks


def _held(clips: Sequence[Clip], split: str, share: Share) -> NDArray[np.int64]:
    """Which of the clips of a split a process holds, int64 [held], in the order in which they are
    stored; in the order given if it is the only process."""
    if share == WHOLE:
        return np.arange(len(clips))
    mine = owners(clips, split, share.ranks) == share.rank
    offset = np.array([clip.member.offset if clip.member else 0 for clip in clips])
    order = np.lexsort((offset, _shard_index(clips)))
    return order[mine[order]]


def _shard_index(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """int64 [clips]: which of the shards that have some of them each lies in, -1 for none."""
    shards = sorted({clip.member.shard for clip in clips if clip.member})
    place = {shard: i for i, shard in enumerate(shards)}
    found = [place[clip.member.shard] if clip.member else -1 for clip in clips]
    return np.array(found, np.int64)


def _several(clips: Sequence[Clip], index: dict[str, int]) -> NDArray[np.bool_]:
    """bool [clips, labels]: which classes each clip of a multi-label task has."""
    found = np.zeros((len(clips), len(index)), np.bool_)
    for row, clip in zip(found, clips, strict=True):
        row[[index[name] for word in clip.words if (name := folder_name(word)) in index]] = True
    return found


def _counts(
    clips: Sequence[Clip], index: dict[str, int], multilabel: bool, extra: dict[int, int]
) -> NDArray[np.int64]:
    """int64 [labels]: clips of each label; ``extra``: so many more."""
    if multilabel:
        found = _several(clips, index).sum(axis=0)
    else:
        names = [index[wanted_name(clip.word, index)] for clip in clips]
        found = np.bincount(np.array(names, np.int64), minlength=len(index))
    for label, count in extra.items():
        found[label] += count
    return found


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
    return [s.pcm for s in _noise_stretches(corpus, split, noise_roots, cache_dir)]


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
        cache_dir: as for :func:`load_split`.

    Raises:
        EarmarkError: an unknown split, a folder is missing or has no audio, or its transcripts
            cannot be read.
    """
    if split not in (*SPLITS, "all"):
        raise EarmarkError(f"split {split!r}: expected {', '.join(SPLITS)} or all")
    return _speech(roots, split, keywords, cache_dir)[1]


def speech_recordings(
    roots: Iterable[str | os.PathLike[str]],
    split: str,
    keywords: Iterable[str] = (),
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[tuple[str, NDArray[np.int16]]]:
    """As :func:`speech_pool`, stretch by stretch, each with the name of its recording."""
    return [(s.name, s.pcm) for s in _speech(roots, split, keywords, cache_dir)[0]]


def pieces(
    folders: Iterable[str | os.PathLike[str]],
    clip_seconds: float,
    cache_dir: str | os.PathLike[str] | None = None,
) -> NDArray[np.int16]:
    """Recordings of any length cut into clips one after the other, int16 [N, samples] at 16 kHz.

    What is left at a recording's end is a clip, padded, if it is at least half as long as one.

    Args:
        folders: any layout.
        clip_seconds: length of every row.
        cache_dir: as for :func:`load_split`.

    Raises:
        EarmarkError: a folder is missing, or has no audio that can be read.
    """
    samples = round(clip_seconds * SAMPLE_RATE)
    rows = []
    for root in map(Path, folders):
        cut = []
        for pcm in _decode_noise(list(find_audio(root)), cache_dir):
            whole = len(pcm) // samples * samples
            cut.append(pcm[:whole].reshape(-1, samples))
            if 2 * (len(pcm) - whole) >= samples:
                cut.append(fit(pcm[whole:], samples)[None])
        if not any(map(len, cut)):
            raise EarmarkError(f"{root}: no audio of half a clip's length: name a folder of some")
        rows += cut
    return np.concatenate(rows) if rows else np.zeros((0, samples), np.int16)


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


def _of_one_class(clips: list[Clip], index: dict[str, int]) -> list[Clip]:
    """The clips whose class is one of ``index``; a word about the others."""
    mixed = next((clip for clip in clips if len(clip.words) > 1), None)
    if mixed:
        raise EarmarkError(
            f"{mixed.path}: has {len(mixed.words)} classes ({', '.join(mixed.words)}): such data "
            'need the recipe field task = "multilabel"'
        )
    kept = [clip for clip in clips if wanted_name(clip.word, index) in index]
    if len(kept) < len(clips):
        _LOG.warning("%d clips of classes that have no label are left out", len(clips) - len(kept))
    return kept


def _silence(
    stretches: list[_Stretch], split: str, count: int, samples: int, share: Share
) -> tuple[NDArray[np.int16], list[tuple[str, str]]]:
    """Of ``count`` excerpts those of a process, int16 [held, samples], and for each the name of its
    recording and its place."""
    seed = "\n".join(["silence", split, *(s.name for s in stretches)])
    rng = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
    if not stretches:
        _LOG.warning("no noise recordings for the %s split: _silence_ is digital silence", split)
    lengths = np.array([len(s.pcm) for s in stretches], np.float64)
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
        stretch = stretches[rng.choice(len(stretches), p=lengths / lengths.sum())]
        start = int(rng.integers(max(1, len(stretch.pcm) - samples + 1)))
        gain = 10 ** (rng.uniform(-30, 0) / 20)
        if row is not None:
            rows[row] = np.round(fit(stretch.pcm[start : start + samples], samples) * gain)
            seconds = (stretch.start + start) / SAMPLE_RATE
            origins.append((stretch.name, f"{stretch.path}#t={seconds:.3f}"))
    return rows, origins


def _pieces(
    stretches: list[_Stretch], split: str, count: int, samples: int, share: Share
) -> tuple[NDArray[np.int16], list[tuple[str, str]]]:
    """Of ``count`` pieces those of a process, int16 [held, samples], and for each the name of its
    recording and its place."""
    seed = "\n".join(["speech", split, *(s.name for s in stretches)])
    rng = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
    if not stretches:
        _LOG.warning(
            "no recordings of free speech without keywords fall into the %s split: add some", split
        )
    lengths = np.array([len(s.pcm) for s in stretches], np.float64)
    mine = {int(number): row for row, number in enumerate(share.dealt(count))}
    rows = np.zeros((len(mine), samples), np.int16)
    origins: list[tuple[str, str]] = []
    for number in range(count):
        stretch = stretches[rng.choice(len(stretches), p=lengths / lengths.sum())]
        start = int(rng.integers(max(1, len(stretch.pcm) - samples + 1)))
        if number in mine:
            rows[mine[number]] = fit(stretch.pcm[start : start + samples], samples)
            seconds = (stretch.start + start) / SAMPLE_RATE
            origins.append((stretch.name, f"{stretch.path}#t={seconds:.3f}"))
    return rows, origins


def _noise_stretches(
    corpus: Corpus,
    split: str,
    noise_roots: Iterable[str | os.PathLike[str]],
    cache_dir: str | os.PathLike[str] | None,
) -> list[_Stretch]:
    # A recording goes by its path below the folder it was found in, wherever that folder lies, and
    # in a shard by its name there.
    named: list[tuple[Recording, str]] = [
        (path, path.relative_to(root).as_posix())
        for root in corpus.roots
        for path in corpus.noise
        if isinstance(path, Path) and path.is_relative_to(root)
    ]
    named += [(sound, sound.name) for sound in corpus.noise if isinstance(sound, Member)]
    named += _named(noise_roots, "noise recordings")
    recordings = _decode_noise([recording for recording, _ in named], cache_dir)
    stretches = []
    for (recording, name), pcm in zip(named, recordings, strict=True):
        start, stop = _share_of_time(name, len(pcm), split)
        if stop > start:
            place = recording.path if isinstance(recording, Member) else recording
            stretches.append(_Stretch(place, name, start, pcm[start:stop]))
    return stretches


def _speech(
    roots: Iterable[str | os.PathLike[str]],
    split: str,
    keywords: Iterable[str],
    cache_dir: str | os.PathLike[str] | None,
) -> tuple[list[_Stretch], NDArray[np.int16]]:
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
    flat, lengths = _cached(paths, kind, _decoded_cuts(paths, times), cache_dir)
    parts = np.split(flat, np.cumsum(lengths)[:-1]) if paths else []
    stretches = [
        _Stretch(path, name, round(start * SAMPLE_RATE), pcm)
        for (path, name, start, _), pcm in zip(cuts, parts, strict=True)
        if len(pcm)
    ]
    return stretches, flat


def _decoded_cuts(
    paths: Sequence[Path], times: Sequence[tuple[float, float]]
) -> Iterator[NDArray[np.int16] | str]:
    """The stretches of recordings between these times, in seconds; those of one recording follow
    one another, and it is decoded once."""
    whole = _parallel([path for path, _ in groupby(paths)], "Decoding speech")
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


def _named(roots: Iterable[str | os.PathLike[str]], what: str) -> list[tuple[Path, str]]:
    """The audio files of folders, each with a name that does not tell where its folder lies."""
    named = []
    for root in map(Path, roots):
        found = find_audio(root)
        if not found:
            raise EarmarkError(f"{root}: no audio files: name a folder of {what}")
        named += [(path, f"{root.name}/{path.relative_to(root).as_posix()}") for path in found]
    return named


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
    speaker, mark, _ = stem.partition(SPEAKER_MARK)
    return speaker if mark else name


def _share_of_time(name: str, length: int, split: str) -> tuple[int, int]:
    """First and last + 1 sample of a noise recording that belong to a split."""
    if split == "all":
        return 0, length
    if length < _SHORT_NOISE_SECONDS * SAMPLE_RATE:
        return (0, length) if hashed_split(recording_origin(name)) == split else (0, 0)
    first, last = [(0, 8), (8, 9), (9, 10)][SPLITS.index(split)]
    return length * first // 10, length * last // 10


def _decode(recording: Recording) -> NDArray[np.int16] | str:
    """A recording as int16 at 16 kHz, or why there is none."""
    try:
        audio = read_recording(recording, SAMPLE_RATE)
    except EarmarkError as error:
        return str(error)
    return to_int16(audio)


def _decode_clips(
    clips: list[Clip], samples: int, cache_dir: str | os.PathLike[str] | None
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Rows of the readable clips, int16 [M, samples], and which clips those are, int64 [M]."""
    recordings = [clip.recording for clip in clips]

    def rows() -> Iterator[NDArray[np.int16] | str]:
        for decoded in _parallel(recordings, "Decoding clips"):
            yield decoded if isinstance(decoded, str) else fit(decoded, samples)

    pcm, lengths = _cached(recordings, f"clips-{samples}", rows(), cache_dir)
    return pcm.reshape(-1, samples), np.flatnonzero(lengths)


def _decode_noise(
    recordings: Sequence[Recording], cache_dir: str | os.PathLike[str] | None
) -> list[NDArray[np.int16]]:
    """The noise recordings, empty ones in the place of those that cannot be read."""
    if not recordings:
        return []
    decoded = _parallel(recordings, "Decoding noise")
    pcm, lengths = _cached(recordings, "noise", decoded, cache_dir)
    return np.split(pcm, np.cumsum(lengths)[:-1])


def _cached(
    recordings: Sequence[Recording],
    kind: str,
    decoded: Iterator[NDArray[np.int16] | str],
    cache_dir: str | os.PathLike[str] | None,
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """All decoded recordings in one flat array, and the length of each, 0 for an unreadable one."""
    if cache_dir is None:
        found = [np.zeros(0, np.int16), *_reported(decoded)]
        return np.concatenate(found), np.array([len(pcm) for pcm in found[1:]], np.int64)
    target = Path(cache_dir) / f"{kind}-{_cache_key(recordings, kind)}.s16"
    index = target.with_suffix(".json")
    if not (target.is_file() and index.is_file()):
        lengths = []
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            for pcm in _reported(decoded):
                lengths.append(len(pcm))
                file.write(pcm.tobytes())
        write_text(index, json.dumps(lengths))
    try:
        counts = np.array(json.loads(index.read_text(encoding="utf-8")), np.int64)
        # An empty file cannot be mapped.
        empty = target.stat().st_size == 0
        flat = np.zeros(0, np.int16) if empty else np.memmap(target, np.int16, "r")
    except (OSError, ValueError) as error:
        raise EarmarkError(f"{target}: damaged cache ({error}): remove it") from error
    if len(counts) != len(recordings) or counts.sum() != len(flat):
        raise EarmarkError(f"{target}: damaged cache: remove it")
    return flat, counts


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


def _reported(decoded: Iterable[NDArray[np.int16] | str]) -> Iterator[NDArray[np.int16]]:
    """The recordings, an empty one for each that cannot be read, with a word about bad ones."""
    clipped = bad = 0
    for pcm in decoded:
        if isinstance(pcm, str):
            bad += 1
            if bad <= _REPORTS:
                _LOG.warning("skipped %s", pcm)
            yield np.zeros(0, np.int16)
            continue
        # The mean of a mask is slow on 13,000 clips, and few of them ever reach full scale.
        peaks = len(pcm) and (pcm.max() == 32767 or pcm.min() == -32768)
        if peaks and np.mean((pcm == 32767) | (pcm == -32768)) > _CLIPPED_SHARE:
            clipped += 1
        yield pcm
    if bad:
        _LOG.warning("%d files could not be read and were skipped", bad)
    if clipped:
        _LOG.warning(
            "%d recordings are clipped (used all the same): record at a lower level", clipped
        )


def _parallel(recordings: Sequence[Recording], text: str) -> Iterator[NDArray[np.int16] | str]:
    """Decode in the order given. Threads do, as libsndfile works without the interpreter lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(text, len(recordings)) as advance:
        for start in range(0, len(recordings), _BLOCK):
            for decoded in pool.map(_decode, recordings[start : start + _BLOCK]):
                advance(1)
                yield decoded
