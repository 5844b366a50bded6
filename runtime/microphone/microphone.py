"""The microphone as a source that outlives its device: unplugged, it waits and opens it again."""

import atexit
import logging
import threading
from collections.abc import Iterator
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..audio import make_resampler
from ..errors import EarmarkError
from ..sources import Counters, DeviceBack, DeviceLost, Gap, Piece
from .capture import Capture
from .portaudio import choose, choose_again, load, refresh

START_SECONDS = 8.0
"""Longest wait for the first audio of a stream: sound servers have been seen to take 2 s."""
LOST_SECONDS = 1.0
"""A device that has delivered and then nothing for so long is lost."""
POLL_SECONDS = 0.25
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0
"""Seconds before the first attempt to open a lost device, and between later ones; each pause is
twice the last."""
CLOSE_SECONDS = 2.0
"""A sound server that does not answer in so long is left to itself."""

_LOG = logging.getLogger(__name__)


class Microphone:
    """An open input device: iterate over it for float32 [samples] at ``rate``, and what happens.

    A context manager; leaving it closes the device. A lost device does not end the iteration: it
    gives :class:`DeviceLost`, and once audio flows again :class:`DeviceBack` and a :class:`Gap`.
    Muted devices deliver zeros and are not lost.

    PortAudio finds devices only when it starts, so that a lost device makes it start anew, unless
    another :class:`Microphone` is in use. That ends whatever else the process plays or records
    through sounddevice.
    """

    name: str
    """The device in use; the system's default may be another one after a loss."""
    device_rate: float
    """Its own rate, Hz."""

    def __init__(
        self, device: str | int | None = None, channel: int | str = 0, rate: int = 16000
    ) -> None:
        """Open the device; audio flows from now on.

        Args:
            device: index, or part of a name that fits one device; None for the system's default.
                The name is what is looked for after a loss.
            channel: number of the channel from 0, or ``mix`` for the mean of all.
            rate: sample rate of what is given out, Hz.

        Raises:
            EarmarkError: PortAudio is not installed, there is no such device or channel, or the
                device cannot be opened.
        """
        self._channel = channel
        self._rate = rate
        self._overflows = 0
        self._dropped = 0.0
        self._closed = threading.Event()
        self._worker: threading.Thread | None = None
        chosen = choose(device)
        self._known = None if device is None else chosen
        self._resampler = _resampler(chosen.name, chosen.rate, rate)
        self._use(Capture(chosen, channel))

    @property
    def counters(self) -> Counters:
        """Losses so far, and what waits to be read."""
        queued = self._capture.ring.queued / self.device_rate
        return Counters(self._overflows, self._dropped, queued)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the device; an iteration under way in another thread ends within a moment."""
        self._closed.set()
        self._capture.ring.wake()
        # In a thread of its own, since a sound server that hangs would keep us here.
        closing = threading.Thread(target=self._close, name="earmark-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            # PortAudio's end would wait for the same server, and with it the end of the process.
            atexit.unregister(load()._exit_handler)

    def __iter__(self) -> Iterator[Piece]:
        """Yield audio as it arrives, and notices; ends only when the microphone is closed."""
        silent, patience = 0.0, START_SECONDS
        heard = monotonic()
        while not self._closed.is_set():
            piece, gap = self._capture.read(POLL_SECONDS)
            if gap is not None:
                self._overflows += 1
                lost = gap.samples / self.device_rate
                self._dropped += lost
                yield from self._finish()
                yield Gap(round(lost * self._rate))
            if len(piece):
                silent, patience, heard = 0.0, LOST_SECONDS, monotonic()
                if self._resampler is not None:
                    piece = self._resampler.resample_chunk(piece)
                if len(piece):
                    yield piece
                continue
            # Counted by waits and not by the clock, which goes on while this process is stopped.
            silent += POLL_SECONDS
            reason = self._capture.ended
            if not reason and silent >= patience:
                reason = f"no audio for {patience:g} s"
            if not reason or self._closed.is_set():
                continue
            yield from self._finish()
            yield DeviceLost(self.name, reason)
            if self._recover():
                away = max(0.0, monotonic() - heard - self.counters.queued)
                yield DeviceBack(self.name, away)
                yield Gap(round(away * self._rate))
                silent, patience = 0.0, LOST_SECONDS

    def _finish(self) -> Iterator[np.ndarray]:
        """What the resampler holds back of the audio before a loss; a fresh one begins after it."""
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            self._resampler = _resampler(self.name, self.device_rate, self._rate)
            if len(rest):
                yield rest

    def _recover(self) -> bool:
        """Wait until audio flows from a device that was opened again; false if closed meanwhile."""
        back = threading.Event()
        failures: list[Exception] = []

        def work() -> None:
            try:
                self._reopen()
            except Exception as error:  # what ends this thread must not be lost with it
                failures.append(error)
            back.set()

        # Calls into PortAudio may hang for as long as a sound server does; the iteration must not.
        self._worker = threading.Thread(target=work, name="earmark-reopen", daemon=True)
        self._worker.start()
        while not back.wait(POLL_SECONDS) and not self._closed.is_set():
            pass
        if failures:
            raise failures[0]
        return not self._closed.is_set()

    def _reopen(self) -> None:
        """Close the lost capture and put another in its place, however long that takes."""
        self._capture.close()
        pause = FIRST_PAUSE
        while not self._closed.wait(pause):
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                refresh()
                device = choose(None) if self._known is None else choose_again(self._known)
                if device is None:
                    continue
                resampler = _resampler(device.name, device.rate, self._rate)
                capture = Capture(device, self._channel)
            except EarmarkError as error:
                _LOG.info("%s", error)
                continue
            if self._flows(capture):
                self._resampler = resampler
                self._use(capture)
                return
            capture.close()

    def _flows(self, capture: Capture) -> bool:
        """Whether audio comes within the time that a stream may take to start."""
        waited = 0.0
        while not capture.ring.wait(POLL_SECONDS):
            waited += POLL_SECONDS
            if waited >= START_SECONDS or capture.ended or self._closed.is_set():
                return False
        return True

    def _use(self, capture: Capture) -> None:
        self._capture = capture
        self.name = capture.device.name
        self.device_rate = capture.device.rate

    def _close(self) -> None:
        # One that a signal kept from starting has no number; should it start yet, it finds the
        # microphone closed.
        if self._worker is not None and self._worker.ident is not None:
            self._worker.join()
        self._capture.close()


def _resampler(name: str, source: float, target: int) -> Any:
    """A fresh resampler, None where the rates are the same."""
    if source == target:
        return None
    try:
        return make_resampler(source, target)
    except EarmarkError as error:
        raise EarmarkError(f"microphone {name}: {error}") from error.__cause__
