"""A program that was made once, over the memory of each stream."""

from collections.abc import Sequence

import numpy as np

from .native_program import NativeProgram, address
from .program import ALIGNMENT, SLACK, aligned


class Template:
    """A program whose addresses are moved: to make it takes milliseconds, to move it microseconds.

    The program's own memory, a block for each tensor, stays as it was made and is never computed
    in. In that of a stream, blocks that are not needed at the same time share a place: a chunk
    touches a quarter as much, which the nearest cache holds.
    """

    def __init__(self, program: NativeProgram, arrays: Sequence[np.ndarray]) -> None:
        """
        Args:
            program: a whole one.
            arrays: what it reads and writes beside its memory and its constants.
        """
        self._program = program
        self._words = np.array(program.words, np.int64)
        # Which array or block each address lies in, and where; constants lie in none.
        blocks = program.memory.blocks
        regions = [*arrays, *blocks]
        full = np.array([place for place, x in enumerate(regions) if x.nbytes], np.intp)
        starts = np.array([address(regions[place]) for place in full], np.int64)
        order = np.argsort(starts)
        full, starts = full[order], starts[order]
        ends = starts + [regions[place].nbytes for place in full]
        places = np.array(program.addresses, np.intp)
        found = self._words[places]
        nearest = np.searchsorted(starts, found, "right") - 1
        moved = (nearest >= 0) & (found < ends[nearest])
        self._places, nearest = places[moved], nearest[moved]
        self._regions, self._offsets = full[nearest], found[moved] - starts[nearest]

        # The first and the last instruction that each block is needed by; what is kept, by all.
        times = np.searchsorted(program.starts, self._places, "right") - 1
        first = np.full(len(regions), len(program.starts))
        last = np.full(len(regions), -1)
        np.minimum.at(first, self._regions, times)
        np.maximum.at(last, self._regions, times)
        first, last = first[len(arrays) :], last[len(arrays) :]
        kept = {address(x) for x in program.kept}
        self._kept = [place for place, x in enumerate(blocks) if address(x) in kept]
        first[self._kept], last[self._kept] = 0, len(program.starts)
        sizes = [-(-(x.nbytes + SLACK) // ALIGNMENT) * ALIGNMENT for x in blocks]
        self._starts, self._size = packed(sizes, first.tolist(), last.tolist())

    def memory(self) -> np.ndarray:
        """Memory that one run at a time may compute in, uint8."""
        memory = aligned(self._size)
        for place in self._kept:
            block, start = self._program.memory.blocks[place], self._starts[place]
            memory[start : start + len(block)] = block
        return memory

    def over(self, arrays: Sequence[np.ndarray], memory: np.ndarray) -> np.ndarray:
        """The list, int64, over other arrays, in C order, and over memory of :meth:`memory`."""
        origin = address(memory)
        starts = [*map(address, arrays), *(origin + start for start in self._starts)]
        words = self._words.copy()
        words[self._places] = np.array(starts, np.int64)[self._regions] + self._offsets
        return words


def packed(
    sizes: Sequence[int], first: Sequence[int], last: Sequence[int]
) -> tuple[list[int], int]:
    """Where blocks lie in one memory if those that are needed at the same time lie apart.

    The largest first, each as far down as it can ("greedy by size", Pisarchyk and Lee 2020,
    "Efficient memory management for deep neural net inference").

    Args:
        sizes: bytes of each block.
        first: when each is first needed.
        last: when it is last needed; before ``first`` if never.

    Returns:
        Where each block begins, and the size of the memory.
    """
    starts = [0] * len(sizes)
    placed: list[int] = []
    for one in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        start = 0
        for other in sorted(placed, key=starts.__getitem__):
            together = first[one] <= last[other] and first[other] <= last[one]
            if together and start + sizes[one] > starts[other]:
                start = max(start, starts[other] + sizes[other])
        starts[one] = start
        placed.append(one)
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    return starts, max(ends, default=0)
