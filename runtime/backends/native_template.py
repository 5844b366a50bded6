"""A program that was made once, over the memory of each stream."""

from collections.abc import Sequence

import numpy as np

from .native_program import NativeProgram, address
from .program import ALIGNMENT, SLACK, aligned


class Template:
    """A program whose addresses are moved: to make it takes milliseconds, to move it microseconds.

    The program's own memory stays as it was made, and is never computed in.
    """

    def __init__(self, program: NativeProgram, arrays: Sequence[np.ndarray]) -> None:
        """
        Args:
            program: a whole one.
            arrays: what it reads and writes beside its memory and its constants.
        """
        self._program = program
        self._words = np.array(program.words, np.int64)
        blocks = program.memory.blocks
        steps = [-(-(len(block) + SLACK) // ALIGNMENT) * ALIGNMENT for block in blocks]
        self._ends = np.cumsum([0, *steps]).tolist()
        # Which array or block each address lies in, and where; constants lie in none.
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

    def memory(self) -> np.ndarray:
        """Memory that one run at a time may compute in, uint8."""
        memory = aligned(self._ends[-1])
        for block, start in zip(self._program.memory.blocks, self._ends, strict=False):
            memory[start : start + len(block)] = block
        return memory

    def over(self, arrays: Sequence[np.ndarray], memory: np.ndarray) -> np.ndarray:
        """The list, int64, over other arrays, in C order, and over memory of :meth:`memory`."""
        first = address(memory)
        starts = [*map(address, arrays), *(first + start for start in self._ends)]
        words = self._words.copy()
        words[self._places] = np.array(starts, np.int64)[self._regions] + self._offsets
        return words
