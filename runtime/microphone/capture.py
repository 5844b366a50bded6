"""One opening of an input device: PortAudio's callback fills a ring, the caller empties it."""

import threading
from typing import Any

import numpy as np

from ..audio import FULL_SCALE
from ..errors import EarmarkError
from ..sources import Gap
from .portaudio import Device, close_stream, load, open_stream
from .ring import Ring

RING_SECONDS = 5.0
"""Audio kept for a worker that is held up; more than that is dropped, oldest first."""
LATENCY_SECONDS = 0.1
MAX_MIX_CHANNELS = 16
"""Virtual devices offer more channels than there are; `mix` then takes two."""


class Capture:
    """An open device at its own rate, which many others refuse or accept and do not deliver."""

    device: Device
    ring: Ring

    def __init__(self, device: Device, channel: int | str) -> None:
        """Open the device; audio flows from now on.

        Args:
            device: as PortAudio lists it now.
            channel: number of the channel from 0, or ``mix`` for the mean of all.

        Raises:
            EarmarkError: there is no such channel, or the device cannot be opened.
        """
        if channel == "mix":
            self._channel = None
            self._channels = device.channels if device.channels <= MAX_MIX_CHANNELS else 2
        else:
            self._channel = int(channel)
            self._channels = self._channel + 1
            if not 0 <= self._channel < device.channels:
                raise EarmarkError(
                    f"microphone {device.name}: has channels 0 to {device.channels - 1}: "
                    f"choose another than {channel}"
                )
        self.device = device
        self.ring = Ring(round(RING_SECONDS * device.rate), 2 * self._channels)
        self._abort = load().CallbackAbort
        self._failure: Exception | None = None
        self._finished = False
        self._closing = threading.Lock()
        self._stream: Any = open_stream(
            device,
            samplerate=device.rate,
            blocksize=0,
            channels=self._channels,
            dtype="int16",
            latency=LATENCY_SECONDS,
            callback=self._callback,
            finished_callback=self._on_finished,
        )

    @property
    def ended(self) -> str:
        """Why no more audio will come, empty while it may."""
        if self._failure is not None:
            return f"its callback failed ({type(self._failure).__name__}: {self._failure})"
        return "the sound system ended it" if self._finished else ""

    def read(self, timeout: float) -> tuple[np.ndarray, Gap | None]:
        """Wait at most so many seconds and take what is there, up to the next loss.

        Returns:
            float32 [samples] at the device's rate, empty where none came, and the loss before them,
            counted in samples at that rate.
        """
        data, gap = self.ring.read(timeout)
        frames = np.frombuffer(data, np.int16).reshape(-1, self._channels)
        if self._channel is None:
            mono = frames.mean(axis=1, dtype=np.float32)
        else:
            mono = frames[:, self._channel].astype(np.float32)
        mono *= np.float32(1 / FULL_SCALE)
        return mono, gap

    def close(self) -> None:
        """Close the device. Takes as long as a sound server that does not answer."""
        with self._closing:
            stream, self._stream = self._stream, None
            if stream is not None:
                close_stream(stream)

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        try:
            self.ring.write(memoryview(data).cast("B"), status.input_overflow)
        except Exception as error:
            # Left to itself, PortAudio would never call again and nobody would be told.
            self._failure = error
            raise self._abort from error

    def _on_finished(self) -> None:
        self._finished = True
        self.ring.wake()
