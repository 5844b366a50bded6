"""A bounded queue of bytes between PortAudio's thread and ours."""

import threading
from collections import deque

from ..sources import Gap

MAX_MARKS = 256
"""Reported losses that are remembered, bounded like the ring itself."""


class Ring:
    """A queue between one writer that must never wait and one reader.

    What does not fit displaces the oldest bytes. Losses are marked where they happened.
    """

    def __init__(self, frames: int, frame_bytes: int) -> None:
        self._frame = frame_bytes
        self._buffer = bytearray(frames * frame_bytes)
        self._view = memoryview(self._buffer)
        self._written = 0  # Positions count bytes since the start and are taken modulo the size.
        self._read = 0
        self._dropped = 0
        self._marks: deque[int] = deque(maxlen=MAX_MARKS)
        self._changed = threading.Condition()

    @property
    def queued(self) -> int:
        """Frames that wait to be read."""
        return (self._written - self._read) // self._frame

    def write(self, data: memoryview | bytes, lost_before: bool = False) -> None:
        """Append whole frames. ``lost_before``: the driver lost audio before them."""
        size = len(self._buffer)
        count = len(data)
        with self._changed:
            if lost_before:
                self._marks.append(self._written)
            if count > size:
                self._written += count - size
                data = data[count - size :]
                count = size
            start = self._written % size
            first = min(count, size - start)
            self._view[start : start + first] = data[:first]
            self._view[: count - first] = data[first:]
            self._written += count
            excess = self._written - size - self._read
            if excess > 0:
                self._read += excess
                self._dropped += excess
            self._changed.notify()

    def wait(self, timeout: float) -> bool:
        """Wait for data, :meth:`wake` or ``timeout`` seconds, and tell whether there is data."""
        with self._changed:
            if self._written == self._read:
                self._changed.wait(timeout)
            return self._written != self._read

    def wake(self) -> None:
        """End a wait that is under way."""
        with self._changed:
            self._changed.notify_all()

    def read(self, timeout: float) -> tuple[bytes, Gap | None]:
        """Wait as :meth:`wait` and take all data up to the next loss.

        Returns:
            The bytes, empty where none came, and the loss before them.
        """
        size = len(self._buffer)
        with self._changed:
            if self._written == self._read:
                self._changed.wait(timeout)
            gap = Gap(self._dropped // self._frame) if self._dropped else None
            self._dropped = 0
            while self._marks and self._marks[0] <= self._read:
                self._marks.popleft()
                gap = gap or Gap(0)
            end = self._marks[0] if self._marks else self._written
            start, count = self._read % size, end - self._read
            first = min(count, size - start)
            data = bytes(self._view[start : start + first]) + self._view[: count - first]
            self._read = end
            return data, gap
