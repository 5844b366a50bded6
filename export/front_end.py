"""The front end as products of matrices: :class:`earmark.train.mfcc.Mfcc` up to its logarithm."""

import numpy as np
from numpy.typing import NDArray

from ..train.mfcc import MfccSettings
from ..train.student import Student
from .fold import Array
from .nodes import Graph, cut, tail
from .state import State


def log_mel(g: Graph, student: Student, state: State, chunk: int) -> str:
    """Log mel energies [batch * frames, mels] of the chunk.

    The transform of a frame is split in two (Cooley and Tukey, "An algorithm for the machine
    calculation of complex Fourier series", 1965). With the frame as rows of ``width`` samples, the
    first product transforms its columns. It gives pairs of rows, the real and the imaginary part of
    what some bins are made of (:func:`_bins`), and the second product, a matrix for each pair,
    gives those. Both multiply and read a quarter of what one product would.
    """
    s = student.mfcc.settings
    width = _width(s.window)
    bins = _bins(s.window, width)
    pairs = len(bins)
    tables = _tables(g, s.window)
    windowed = g.node("Mul", _frames(g, s, state, chunk), g.array(student.mfcc.window.numpy()))
    samples = g.node("Reshape", windowed, g.array([-1, s.window // width, width]))
    columns = g.node("MatMul", _first(g, tables, s.window, width), samples)
    # A chunk of a single frame is multiplied by itself: one row is not to the bit what it is among
    # rows of other streams' chunks in onnxruntime, and several are.
    alone = chunk == s.hop
    columns = g.node("Reshape", columns, g.array([-1, pairs, *[1] * alone, 2 * width]))
    if not alone:
        columns = g.node("Transpose", columns, perm=[1, 0, 2])
    spectrum = g.node("MatMul", columns, _second(g, tables, s.window, bins))
    squares, axis = g.node("Mul", spectrum, spectrum), 2 + alone
    real, imaginary = (cut(g, squares, start, start + width, axis) for start in (0, width))
    power = g.node("Add", real, imaginary)
    if not alone:
        power = g.node("Transpose", power, perm=[1, 0, 2])
    power = g.node("Reshape", power, g.array([-1, pairs * width]))
    floor = g.array(np.full(s.mels, s.floor, np.float32))
    return g.node("Log", g.node("Gemm", power, _filters(g, student, bins), floor))


def _frames(g: Graph, s: MfccSettings, state: State, chunk: int) -> str:
    """[batch * frames, window]. Frame i ends with row i of the chunk's hops."""
    overlap = s.window - s.hop
    audio = g.node("Concat", state.tail, "pcm", axis=1)
    state.tail = tail(g, audio, overlap)

    def hops(start: int) -> str:
        part = cut(g, audio, start, start + chunk)
        return g.node("Reshape", part, g.array([-1, s.hop]))

    rest = overlap % s.hop
    pieces = [cut(g, hops(0), 0, rest)] if rest else []
    return g.node("Concat", *pieces, *map(hops, range(rest, overlap + 1, s.hop)), axis=1)


def _width(window: int) -> int:
    """Samples in a row: the fewest multiplications, ``window * (window / width + 2 * width)``, and
    of two such widths the greater one."""
    widths = [width for width in range(1, window + 1) if window % width == 0]
    return min(widths, key=lambda width: (window // width + 2 * width, -width))


def _bins(window: int, width: int) -> NDArray[np.int64]:
    """The bins, int64 [pairs, width], that the second product gives.

    Pair j > 0 gives those of the form j + rows * m, of which one beyond the middle is the conjugate
    of its counterpart before it. Pair 0 gives what is left: multiples of half as many as there are
    rows or, of an odd number, of all. Bin 0, which no mel filter weighs, fills it up.
    """
    rows = window // width
    bins = np.arange((rows + 1) // 2, dtype=np.int64)[:, None] + rows * np.arange(width)
    step = rows if rows % 2 else rows // 2
    bins[0] = step * np.arange(1, width + 1)
    bins[0, bins[0] > window // 2] = 0
    return bins


def _tables(g: Graph, window: int) -> tuple[str, str]:
    """Cosines and sines of so many parts of a turn.

    exp(2 pi i n k / N) repeats in n k modulo N, so that tables of N values are exact. The matrices
    are expressions of them: stored whole they would take 60 kB, half of the network. A runtime
    computes them when it loads the file (constant folding).
    """
    angle = 2 * np.pi * np.arange(window) / window
    return g.array(_float32(np.cos(angle))), g.array(_float32(np.sin(angle)))


def _waves(
    g: Graph, tables: tuple[str, str], window: int, n: NDArray[np.int64], k: NDArray[np.int64]
) -> list[str]:
    """Cosines and sines of ``n * k`` parts of a turn."""
    turns = g.node("Mod", g.node("Mul", g.array(n), g.array(k)), g.array([window]))
    return [g.node("Gather", table, turns) for table in tables]


def _first(g: Graph, tables: tuple[str, str], window: int, width: int) -> str:
    """The first product [2 * pairs, rows]: cosines and sines of pair j, and in the place of those
    of pair 0, which would be ones and zeros, sums of every other row."""
    row = np.arange(window // width)
    parts = [g.array(_float32(np.stack([row % 2 == 0, row % 2 == 1])))]
    pair = np.arange(1, (len(row) + 1) // 2)[:, None, None]
    if len(pair):
        waves = g.node("Concat", *_waves(g, tables, window, width * pair, row), axis=1)
        parts.append(g.node("Reshape", waves, g.array([-1, len(row)])))
    return g.node("Concat", *parts, axis=0)


def _second(g: Graph, tables: tuple[str, str], window: int, bins: NDArray[np.int64]) -> str:
    """The second product [pairs, 2 * width, 2 * width], real parts before imaginary ones."""
    column = np.arange(2 * bins.shape[1])[:, None]
    # Pair 0 holds a real signal of twice the width; each other one a complex signal.
    parts = [g.node("Concat", *_waves(g, tables, window, column, bins[:1, None]), axis=2)]
    if len(bins) > 1:
        cosines, sines = _waves(g, tables, window, column[: len(column) // 2], bins[1:, None])
        negative = g.node("Mul", sines, g.array(np.array(-1, np.float32)))
        real = g.node("Concat", cosines, negative, axis=1)
        imaginary = g.node("Concat", sines, cosines, axis=1)
        parts.append(g.node("Concat", real, imaginary, axis=2))
    return g.node("Concat", *parts, axis=0)


def _filters(g: Graph, student: Student, bins: NDArray[np.int64]) -> str:
    """The mel filters [pairs * width, mels], an expression as well.

    A filter is the lesser of its rising and its falling line, where that is positive.
    """
    s = student.mfcc.settings
    edges = student.mfcc.edges().numpy()
    span = np.diff(edges)
    hertz = np.minimum(bins, s.window - bins).reshape(-1, 1) * s.sample_rate / s.window
    frequency = g.array(_float32(hertz))
    above = g.node("Sub", frequency, g.array(_float32(edges[:-2])))
    below = g.node("Sub", g.array(_float32(edges[2:])), frequency)
    rising = g.node("Div", above, g.array(_float32(span[:-1])))
    falling = g.node("Div", below, g.array(_float32(span[1:])))
    return g.node("Relu", g.node("Min", rising, falling))


def _float32(values: NDArray) -> Array:
    return values.astype(np.float32)
