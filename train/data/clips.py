"""Clips as a step of training gets them: fetched a batch at a time, by number."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ...runtime.manifest import UNKNOWN
from .dataset import SPEECH, Split
from .share import BLOCK, WHOLE
from .speech import cut_word, surround

UNLABELLED = -1
_NO_CLIPS = np.zeros((0, 0), np.int16)
_NO_SPEECH = np.zeros(0, np.int16)
_AROUND_DB = (-10.0, 5.0)
"""Level of the free speech around a word against the word."""
_SPAN = 1 << 40
"""Numbers that the empty clips of a process have to themselves, and pieces of free speech."""


class Batch(NamedTuple):
    """Clips as they are drawn for a step, row by row the same clip in every tensor."""

    pcm: Tensor
    """int16 [batch, samples]."""
    label: Tensor
    """int64 [batch], that of other words for a keyword that was cut, -1 for a clip without a label;
    in a multi-label task [batch, labels], 1 for each that the clip has, and -1 throughout where
    that is not known."""
    clip: Tensor
    """int64 [batch]: the row in the split; from its end on, that of the clips without labels; from
    their end on, the sample of the free speech at which a piece begins; negative for an empty clip,
    to be filled with background."""
    draw: Tensor
    """int64 [batch], a random number of this one use of the clip."""
    view: Tensor
    """int64 [batch]: which of its views the clip is shown in."""
    number: Tensor
    """int64 [batch]: which clip it is, whichever process has it. Equal to ``clip`` where a process
    holds all of them."""


class Clips(Dataset[Any]):
    """Clips fetched a batch at a time, each by its number (see :class:`Batch`) and the draw's."""

    def __init__(
        self,
        split: Split,
        silence: int | None,
        unlabelled: NDArray[np.int16] = _NO_CLIPS,
        speech: NDArray[np.int16] = _NO_SPEECH,
        around: float = 0.0,
        cut: float = 0.0,
        seed: int = 0,
        views: int = 0,
    ) -> None:
        """
        Args:
            split: the clips.
            silence: the class of an empty clip.
            unlabelled: clips without a label, int16 [clips, samples].
            speech: free speech, int16 [samples].
            around: share of the words to put between pieces of free speech.
            cut: share of the keywords to cut short, which makes them other words.
            seed: which words and pieces these are follows from it, the clip and its view.
            views: how many views each clip has, 0 for another one in every use.
        """
        self.split, self.silence, self.unlabelled = split, silence, unlabelled
        self.speech, self.around, self.seed, self.views = speech, around, seed, views
        self.unknown = split.labels.index(UNKNOWN) if UNKNOWN in split.labels else None
        self.cut = 0.0 if self.unknown is None else cut
        self.places = max(0, len(speech) - split.pcm.shape[1])
        """Samples of free speech at which a piece can begin."""
        self.share = split.part.share if split.part else WHOLE
        """The process that holds these clips."""
        self.named_only = False
        """Whether batches are of numbers alone, their audio and labels left empty: for whoever
        keeps what the views look like."""

    def __len__(self) -> int:
        return len(self.split) + len(self.unlabelled)

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """The clips in groups that every number of processes finds again, int64 [clips] each: those
        of a shard, those of none, and those without labels in blocks."""
        part = self.split.part
        if part is None:
            yield np.arange(len(self))
            return
        order = np.argsort(part.number)
        for shard in np.unique(part.shard):
            yield order[part.shard[order] == shard]
        rows = np.arange(len(self.split), len(self))
        yield from (rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK))

    def content(self, clips: NDArray[np.int64]) -> Iterator[bytes]:
        """What stands for clips in a hash: their numbers, samples and labels, as recorded."""
        pcm, label = self._as_recorded(clips)
        yield self._number(clips).astype("<i8").tobytes()
        yield pcm.tobytes()
        yield label.tobytes()

    def __getitems__(self, samples: list[tuple[int, int]]) -> Batch:
        if not self.named_only:
            return self.fetch(samples)
        clip, draw = np.array(samples, np.int64).reshape(-1, 2).T
        nothing = np.zeros((len(clip), 0), np.int64)
        number = self._number(clip)
        return _batch(nothing.astype(np.int16), nothing, clip, draw, self._view(draw), number)

    def fetch(self, samples: list[tuple[int, int]]) -> Batch:
        """Clips with their audio, by their numbers and the draws'."""
        clip, draw = np.array(samples, np.int64).reshape(-1, 2).T
        pcm, label = self._as_recorded(clip)
        number, view = self._number(clip), self._view(draw)
        if self.split.several is None and (self.cut or (self.places and self.around)):
            stored = (clip >= 0) & (clip < len(self.split))
            spoken = self.split.word[np.where(stored, clip, 0)] == SPEECH
            for place in np.flatnonzero(stored & (label != self.silence) & ~spoken):
                use = (self.seed, int(number[place]), int(view[place]))
                pcm[place], label[place] = self._varied(
                    pcm[place], int(label[place]), np.random.default_rng(use)
                )
        return _batch(pcm, label, clip, draw, view, number)

    def _as_recorded(self, clip: NDArray[np.int64]) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        """Samples and labels of clips, the former zeros where a clip is empty."""
        empty, piece = clip < 0, clip >= len(self)
        stored = ~empty & (clip < len(self.split))
        foreign = ~(empty | piece | stored)
        row = np.where(stored, clip, 0)
        pcm = np.asarray(self.split.pcm[row])
        pcm[empty] = 0
        if foreign.any():
            pcm[foreign] = self.unlabelled[clip[foreign] - len(self.split)]
        for place in np.flatnonzero(piece):
            pcm[place] = self._piece(int(clip[place]) - len(self))
        if self.split.several is not None:
            label = self.split.several[row].astype(np.int64)
            label[foreign] = UNLABELLED
            return pcm, label
        label = np.where(stored, self.split.label[row], UNLABELLED)
        label[empty] = UNLABELLED if self.silence is None else self.silence
        label[piece] = UNLABELLED if self.unknown is None else self.unknown
        return pcm, label

    def _view(self, draw: NDArray[np.int64]) -> NDArray[np.int64]:
        return draw % self.views if self.views else draw

    def _number(self, clip: NDArray[np.int64]) -> NDArray[np.int64]:
        part = self.split.part
        if part is None:
            return clip
        stored = (clip >= 0) & (clip < len(self.split))
        unlabelled = part.total + self.share.place(clip - len(self.split), BLOCK)
        return np.select(
            [stored, clip < 0, clip < len(self)],
            [
                part.number[np.where(stored, clip, 0)],
                clip - self.share.rank * _SPAN,
                unlabelled,
            ],
            # Pieces of free speech: behind all clips, of which a process among several knows only
            # its own.
            clip if self.share.ranks == 1 else _SPAN + clip - len(self),
        )

    def _varied(
        self, pcm: NDArray[np.int16], label: int, random: np.random.Generator
    ) -> tuple[NDArray[np.int16], int]:
        """A word and its label, cut short and put between pieces of free speech as often as is
        asked for. Cut first, so that no whole word is left of one that was cut."""
        if self.unknown is not None and label < self.unknown and random.random() < self.cut:
            pcm, label = cut_word(pcm, random), self.unknown
        if self.places and random.random() < self.around:
            piece = self._piece(int(random.integers(self.places)))
            pcm = surround(pcm, piece, random.uniform(*_AROUND_DB))
        return pcm, label

    def _piece(self, start: int) -> np.ndarray:
        return self.speech[start : start + self.split.pcm.shape[1]]


def _batch(*parts: NDArray[Any]) -> Batch:
    # Copies: a transposed array is not whole in memory.
    return Batch(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def as_it_is(batch: Any) -> Any:
    """What collates batches that are fetched whole."""
    return batch
