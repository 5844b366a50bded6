"""What views of clips look like to a student, each made once: making one takes as long as learning
from it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LIMIT = 2 << 30
"""Most bytes that a process keeps; of more views, each is made anew in every use."""
_BLOCK = 64
"""Views that are made together, always the same: sums of other batches may round another way."""


class SeenViews:
    """Log mel energies, in half precision, and labels of the views that training has met."""

    def __init__(
        self,
        clips: int,
        empty: int,
        views: int,
        shape: Sequence[int],
        make: Callable[[NDArray[np.int64], int], tuple[Tensor, Tensor]],
    ) -> None:
        """
        Args:
            clips: how many there are, from 0.
            empty: how many empty ones there are, from -1 down.
            views: of each.
            shape: of one clip's log mel energies.
            make: log mel energies [clips, frames, mels] and labels [clips, ...] of a view of some
                clips.
        """
        self._numbers = np.concatenate([np.arange(clips), -empty + np.arange(empty)])
        self._known = torch.zeros(-(-len(self._numbers) // _BLOCK), views, dtype=torch.bool)
        self._log_mel = torch.empty(len(self._numbers), views, *shape, dtype=torch.half)
        self._label: Tensor | None = None
        self._make = make

    def __call__(self, clip: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Log mel energies, float32 [batch, frames, mels], and labels [batch, ...].

        Args:
            clip: int64 [batch], negative for empty clips.
            view: int64 [batch].
        """
        row = clip.cpu() % len(self._numbers)
        shown = view.cpu()
        block = row // _BLOCK
        new = ~self._known[block, shown]
        for number, one in torch.stack([block[new], shown[new]], 1).unique(dim=0).tolist():
            rows = slice(number * _BLOCK, (number + 1) * _BLOCK)
            log_mel, label = self._make(self._numbers[rows], one)
            if self._label is None:
                shape = self._log_mel.shape[:2]
                self._label = torch.empty(*shape, *label.shape[1:], dtype=label.dtype)
            self._log_mel[rows, one], self._label[rows, one] = log_mel.half().cpu(), label.cpu()
            self._known[number, one] = True
        assert self._label is not None
        found = self._log_mel[row, shown], self._label[row, shown]
        return found[0].to(clip.device).float(), found[1].to(clip.device)
