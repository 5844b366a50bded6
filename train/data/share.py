"""Which part of the recordings a process holds, where several train together.

A corpus of folders is held whole by every process, which all go through the same batches, each
through its share of them. A corpus of shards (:mod:`earmark.train.data.shards`) is divided: a
process holds some shards, and draws its batches from what it holds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 512
"""Clips that are kept, and dealt out, together where they are in no shard."""


@dataclass(frozen=True)
class Share:
    """One process of several: what is in a row is dealt out to them."""

    rank: int = 0
    ranks: int = 1

    def dealt(self, count: int, block: int = 1) -> NDArray[np.int64]:
        """Which of ``count`` things this process gets, dealt out ``block`` by ``block``: int64."""
        every = np.arange(count)
        return every[every // block % self.ranks == self.rank]

    def place(self, index: NDArray[np.int64], block: int = 1) -> NDArray[np.int64]:
        """Where in the whole row the things lie that this process got, by their order here."""
        return (index // block * self.ranks + self.rank) * block + index % block


WHOLE = Share()
