"""Ctrl-C and SIGTERM as a wish to end, for those who look after it."""

import signal
from types import FrameType
from typing import Self


class Stop:
    """Within the block, the first Ctrl-C or SIGTERM sets ``requested``.

    The second is taken for impatience and changes nothing; the third does what signals do by
    default, and ends the process. For the main thread alone.
    """

    requested: bool = False

    def __enter__(self) -> Self:
        self._again = False
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._again:
            for known in self._before:
                signal.signal(known, signal.SIG_DFL)
            signal.raise_signal(number)
        self._again = self.requested
        self.requested = True
