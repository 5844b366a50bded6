"""A graph as a list of numpy calls over memory that is taken beforehand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .program import Memory, Operation

GEMM_ONE_THREAD = 4 * 65536
"""Multiplications up to which OpenBLAS, which numpy's wheels contain, forms a product of matrices
on the calling thread, whatever its number of threads (its GEMM_MULTITHREAD_THRESHOLD is 4)."""
GEMV_ONE_THREAD = 4 * 2304 - 1
"""The same of a matrix and a vector."""


class NumpyProgram:
    """Calls in their order. See :class:`~earmark.runtime.backends.program.Program`."""

    def __init__(self, rows: int = 1, memory: Memory | None = None) -> None:
        """``rows``: chunks in a run."""
        self.rows = rows
        self._memory = memory or Memory(rows)
        self.calls: list[Callable[[], Any]] = []

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Add a call."""
        self.calls.append(partial(function, *arguments, **named))

    def take(self, place: tuple[str, int], size: int, kept: bool = False) -> np.ndarray:
        """See :class:`~earmark.runtime.backends.program.Program`. Everything is kept."""
        return self._memory.take(place, size, self.rows)

    def copy(self, out: np.ndarray, x: np.ndarray) -> None:
        """See :class:`~earmark.runtime.backends.program.Program`."""
        self.do(np.copyto, out, x, "unsafe")

    def multiply(self, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """Add the calls of ``left @ right``, in parts small enough for one thread.

        For a chunk that takes a fraction of a millisecond, a BLAS that wakes other threads takes
        many times as long where the processor has other work, and burns it while they wait.
        """
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        most = GEMV_ONE_THREAD if 1 in (rows, columns) else GEMM_ONE_THREAD
        bands = _even(rows, most // max(1, inner))
        height = max((band.stop - band.start for band in bands), default=0)
        for band in bands:
            some = np.s_[..., band, :]
            for part in _even(columns, most // max(1, inner * height)):
                self.do(np.matmul, left[some], right[..., part], out[some][..., part])

    def run(self) -> None:
        """Make the calls."""
        with np.errstate(all="ignore"):  # infinities are the business of who reads the result
            for call in self.calls:
                call()


def _even(count: int, most: int) -> list[slice]:
    """As few parts of ``count`` as can be of at most ``most``, but at least 1, each.

    They differ by one at most: a last part of a single column would be a vector.
    """
    parts = -(-count // max(1, min(count, most)))
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


NumpyOperation = Operation[NumpyProgram]
