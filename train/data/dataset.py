"""One split of a corpus as arrays, row by row the same clip in every one."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ...runtime.layout import LISTS, SPLITS, folder_name
from ...runtime.manifest import SILENCE, UNKNOWN
from .clip import Clip
from .corpus import Corpus, wanted_name
from .decoded import SAMPLE_RATE, cached, decode_all, fit
from .share import WHOLE, Share
from .stretches import (
    noise_stretches,
    recording_origin,
    silence_excerpts,
    speech_pieces,
    speech_stretches,
)

_LOG = logging.getLogger(__name__)

SILENCE_SHARE = 0.1
"""Noise excerpts per keyword clip of a split: the proportion of the Speech Commands tests."""
SPEECH = "_speech_"
"""What :attr:`Split.word` says of a piece of free speech."""


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
    """str [N]. For an excerpt or a piece, what its recording shares with others: their speaker or
    source, as far as their names tell it (see ``stretches.recording_origin``)."""
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
    recordings that belongs to the split (see :func:`earmark.train.data.stretches.noise_pool`),
    their gain uniform from -30 to 0 dB, and one in ten is digital silence; all follow from the
    split and the names of the recordings. None are added to ``split="all"`` of a corpus that has
    ``_silence_`` clips.

    Pieces of free speech are as many as keyword clips, at places uniform over the recordings of the
    split (see :func:`earmark.train.data.stretches.speech_pool`), less the stretches in which a
    keyword is said.

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
        EarmarkError: an unknown split, a split without a readable clip, an unwritable cache, a
            clip of several classes where ``multilabel`` is false, or free speech where ``labels``
            has no ``_unknown_``.
    """
    if split not in (*SPLITS, "all"):
        raise EarmarkError(f"split {split!r}: expected {', '.join(SPLITS)} or all")
    samples = round(clip_seconds * SAMPLE_RATE)
    if not 1 <= samples <= 60 * SAMPLE_RATE:
        raise EarmarkError(f"clip length {clip_seconds} s: expected at most 60 seconds")
    index = {folder_name(label): i for i, label in enumerate(labels)}
    speech = list(speech_roots)
    if speech and UNKNOWN not in index:
        raise EarmarkError(
            f"{speech[0]}: free speech is {UNKNOWN}, and that is no class here: leave it out "
            "(--speech, data.speech)"
        )
    clips = [clip for clip in corpus.clips if split in ("all", clip.split)]
    if not multilabel:
        clips = _of_one_class(clips, index)
    listed = clips
    mine = _held(listed, split, share)
    clips = [listed[i] for i in mine]
    pcm, good = _decode_clips(clips, samples, cache_dir)
    if not len(good):
        roots = ", ".join(str(root) for root in corpus.roots)
        if any(split in ("all", clip.split) for clip in corpus.clips):
            raise EarmarkError(f"{roots}: no readable clip of the classes in the {split} split")
        raise EarmarkError(
            f"{roots}: no clip in the {split} split: neither a list nor the hash of a speaker's "
            f"name puts one there: record some (earmark record --split {split}), list them in "
            f"{LISTS.get(split, 'neither list')}, or take all (--split all)"
        )
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
    if speech:
        stretches, _ = speech_stretches(speech, split, labels, cache_dir)
        count = keyword_clips if stretches else 0
        cuts.append(
            (UNKNOWN, SPEECH, count, *speech_pieces(stretches, split, count, samples, share))
        )
    count = round(SILENCE_SHARE * keyword_clips) if SILENCE in index and not multilabel else 0
    if split == "all" and SILENCE in all_names:
        count = 0
    if count:
        stretches = noise_stretches(corpus, split, noise_roots, cache_dir)
        cuts.append(
            (SILENCE, SILENCE, count, *silence_excerpts(stretches, split, count, samples, share))
        )
    total = len(listed)
    for name, kind, count, rows, origins in cuts:
        pcm = np.concatenate([pcm, rows])
        number.append(total + share.dealt(count))
        total += count
        label += [index[name]] * len(rows)
        word += [kind] * len(rows)
        speaker += [f"{kind}/{recording_origin(recording)}" for recording, _ in origins]
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
            # A process does not know what others could read.
            _counts(kept if share == WHOLE else listed, index, multilabel, extra),
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
        _LOG.warning("clips of classes that have no label, left out: %d", len(clips) - len(kept))
    return kept


def _decode_clips(
    clips: list[Clip], samples: int, cache_dir: str | os.PathLike[str] | None
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Rows of the readable clips, int16 [M, samples], and which clips those are, int64 [M]."""
    recordings = [clip.recording for clip in clips]

    def rows() -> Iterator[NDArray[np.int16] | str]:
        for decoded in decode_all(recordings, "Decoding clips"):
            yield decoded if isinstance(decoded, str) else fit(decoded, samples)

    pcm, lengths = cached(recordings, f"clips-{samples}", rows(), cache_dir)
    return pcm.reshape(-1, samples), np.flatnonzero(lengths)
