"""A source with the faults of real ones, at chosen places."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...runtime.audio import make_resampler
from ...runtime.sources import DeviceBack, DeviceLost, Gap, Piece, Source

RATE = 16000


@dataclass(frozen=True)
class Fault:
    """What happens before a sample of the wrapped source; later faults within its extent follow it.

    ``overflow``: ``samples`` of audio are lost and told by a gap. ``unplug``: they are lost while
    the device is away, which is told by its notices; if ``rate`` is not 16 kHz the device delivers
    at that rate from then on, and its audio comes through the conversion. ``empty``: a piece
    without samples. ``nan``: ``samples`` of audio are NaN.
    """

    at: int
    kind: Literal["overflow", "unplug", "empty", "nan"]
    samples: int = 0
    told: int | None = None
    """What the gap says was lost, None for the truth."""
    rate: int = RATE


class FaultySource:
    """Another source at 16 kHz, with faults. Runs the same every time."""

    def __init__(self, source: Source, faults: Sequence[Fault]) -> None:
        self._source = source
        self._faults = sorted(faults, key=lambda fault: fault.at)

    def __iter__(self) -> Iterator[Piece]:
        plan = deque(self._faults)
        convert = _Conversion(RATE)
        place = 0  # in the wrapped source
        fault: Fault | None = None
        end = 0  # of the fault
        for piece in self._source:
            if not isinstance(piece, np.ndarray):
                yield piece
                continue
            while len(piece):
                if fault is not None and place < end:
                    count = min(len(piece), end - place)
                    if fault.kind == "nan":
                        yield np.full(count, np.nan, np.float32)
                elif plan and plan[0].at <= place:
                    fault = plan.popleft()
                    end = place + (fault.samples if fault.kind != "empty" else 0)
                    yield from _notices(fault)
                    if fault.kind == "unplug":
                        convert = _Conversion(fault.rate)
                    continue
                else:
                    count = min(len(piece), plan[0].at - place) if plan else len(piece)
                    yield from convert(piece[:count])
                piece = piece[count:]
                place += count


def _notices(fault: Fault) -> Iterator[Piece]:
    told = fault.samples if fault.told is None else fault.told
    if fault.kind == "unplug":
        yield DeviceLost("faulty", "unplugged")
        yield DeviceBack("faulty", fault.samples / RATE)
    if fault.kind in ("unplug", "overflow"):
        yield Gap(told)
    if fault.kind == "empty":
        yield np.zeros(0, np.float32)


class _Conversion:
    """Audio as a device at another rate delivers it and :class:`Microphone` converts it."""

    def __init__(self, rate: int) -> None:
        ways = [(RATE, rate), (rate, RATE)] if rate != RATE else []
        self._resamplers = [make_resampler(source, target) for source, target in ways]

    def __call__(self, pcm: np.ndarray) -> Iterator[np.ndarray]:
        if not self._resamplers:
            yield pcm
            return
        if pcm.dtype == np.int16:
            pcm = pcm.astype(np.float32) / 32768
        for resampler in self._resamplers:
            pcm = resampler.resample_chunk(pcm)
        if len(pcm):
            yield pcm
