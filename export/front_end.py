"""The front end as products of matrices: :class:`earmark.train.mfcc.Mfcc` up to its logarithm."""

import numpy as np

from ..train.student import Student
from .fold import Array
from .nodes import FIRST, Graph, cut, tail
from .state import State


def log_mel(g: Graph, student: Student, state: State, chunk: int) -> str:
    """Log mel energies [batch * frames, mels] of the chunk.

    A frame's window is symmetric about its middle, so that the cosine of a bin needs only the sums
    of samples at equal distances from it, and the sine only their differences: two products of
    half the size in place of one. Window and transform are one matrix, and so are the mel filters.
    """
    s = student.mfcc.settings
    half, overlap = s.window // 2, s.window - s.hop
    # Frame i ends with row i of the chunk's hops.
    ends = g.node("Reshape", "pcm", g.array([-1, s.hop]))
    if half < s.hop:
        shifted, last = g.split("pcm", [chunk - overlap, overlap])
        shifted = g.node("Concat", state.tail, shifted, axis=1)
        starts = g.node("Reshape", shifted, g.array([-1, s.hop]))
        before = cut(g, starts, 1, half + 1)
        after = _reversed(g, ends, s.hop - 1, half)
        state.tail = last
    else:
        audio = g.node("Concat", state.tail, "pcm", axis=1)
        pieces = [ends]
        for start in range(overlap - s.hop, 0, -s.hop):
            pieces.insert(0, _hops(g, audio, start, chunk, s.hop))
        first = _hops(g, audio, 0, chunk, s.hop)
        pieces.insert(0, first if overlap % s.hop == 0 else cut(g, first, 0, overlap % s.hop))
        frames = g.node("Concat", *pieces, axis=1)
        before = cut(g, frames, 1, half + 1)
        after = _reversed(g, frames, s.window - 1, half)
        state.tail = tail(g, audio, overlap)
    cosines, sines, filters = _mfcc_matrices(g, student)
    real = g.node("MatMul", g.node("Add", before, after), cosines)
    imaginary = g.node("MatMul", g.node("Sub", before, after), sines)
    power = g.node("Add", g.node("Mul", real, real), g.node("Mul", imaginary, imaginary))
    floor = g.array(np.full(s.mels, s.floor, np.float32))
    return g.node("Log", g.node("Gemm", power, filters, floor))


def _hops(g: Graph, audio: str, start: int, length: int, hop: int) -> str:
    """Rows [batch * frames, hop] of a part of the audio."""
    return g.node("Reshape", cut(g, audio, start, start + length), g.array([-1, hop]))


def _reversed(g: Graph, rows: str, start: int, length: int) -> str:
    """``length`` columns from ``start`` on, backwards."""
    end = start - length if start >= length else FIRST
    return g.node("Slice", rows, g.array([start]), g.array([end]), g.array([1]), g.array([-1]))


def _mfcc_matrices(g: Graph, student: Student) -> tuple[str, str, str]:
    """The windowed DFT, cosines and sines [window / 2, bins], and the mel filters [bins, mels], as
    expressions.

    Row n - 1 is for the samples n before and n before the end of the frame; the last is the middle,
    which is its own counterpart and counts once. The bins are those that any filter weighs.
    Stored whole they would take 0.5 MB, four times the network. A runtime computes them when it
    loads the file (constant folding).
    """
    s = student.mfcc.settings
    used = student.mfcc.used_bins().numpy()
    n = np.arange(1, s.window // 2 + 1)
    # exp(2 pi i n k / N) repeats in n k modulo N, so that a table of N values is exact.
    product = g.node("Mul", g.array(n[:, None]), g.array(used[None]))
    turns = g.node("Mod", product, g.array([s.window]))
    angle = 2 * np.pi * np.arange(s.window) / s.window
    weights = student.mfcc.window.double().numpy()[n] * np.where(n == n[-1], 0.5, 1)
    window = g.array(_float32(weights[:, None]))
    cosines, sines = (
        g.node("Mul", g.node("Gather", g.array(_float32(wave(angle))), turns), window)
        for wave in (np.cos, np.sin)
    )

    # A mel filter is the lesser of its rising and its falling line, where that is positive.
    edges = student.mfcc.edges().numpy()
    width = np.diff(edges)
    frequency = g.array(_float32(used * s.sample_rate / s.window)[:, None])
    above = g.node("Sub", frequency, g.array(_float32(edges[:-2])))
    below = g.node("Sub", g.array(_float32(edges[2:])), frequency)
    rising = g.node("Div", above, g.array(_float32(width[:-1])))
    falling = g.node("Div", below, g.array(_float32(width[1:])))
    return cosines, sines, g.node("Relu", g.node("Min", rising, falling))


def _float32(values: np.ndarray) -> Array:
    return values.astype(np.float32)
