"""The microphone as a source: PortAudio's callback fills a ring, the caller's thread empties it.

The device runs at its own rate and the conversion is done here, since many devices refuse other
rates and some accept them and deliver another one. The callback only copies.
"""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from .audio import make_resampler
from .errors import EarmarkError
from .sources import Gap

RING_SECONDS = 5.0
"""Audio kept for a worker that is held up; more than that is dropped, oldest first."""
LATENCY_SECONDS = 0.1
FIRST_TIMEOUT = 8.0
"""Sound servers have been seen to take 2 s to the first callback."""
TIMEOUT = 3.0
POLL_SECONDS = 0.25
MAX_MIX_CHANNELS = 16
"""Virtual devices offer more channels than there are; `mix` then takes two."""
INSTALL = "apt install libportaudio2 / dnf install portaudio / brew install portaudio"


@dataclass(frozen=True)
class Device:
    """An input device of PortAudio."""

    index: int
    name: str
    host: str
    channels: int
    rate: float
    default: bool


class Ring:
    """A bounded queue of bytes between one writer that must never wait and one reader.

    What does not fit displaces the oldest bytes. Losses are marked where they happened.
    """

    def __init__(self, frames: int, frame_bytes: int) -> None:
        self._frame = frame_bytes
        self._buffer = bytearray(frames * frame_bytes)
        self._view = memoryview(self._buffer)
        self._written = 0  # Positions count bytes since the start and are taken modulo the size.
        self._read = 0
        self._dropped = 0
        # Positions of losses that the driver reported, bounded like the ring itself.
        self._marks: deque[int] = deque(maxlen=256)
        self._changed = threading.Condition()

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

    def read(self, timeout: float) -> tuple[bytes, Gap | None]:
        """Wait for data and take all of it up to the next loss.

        Returns:
            The bytes, empty after ``timeout`` seconds without any, and the loss before them.
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


class Microphone:
    """An open input device: iterate over it for float32 [samples] at ``rate``, or :class:`Gap`.

    A context manager; leaving it closes the device.
    """

    overflows: int
    """Losses so far, by the driver or because the reader was held up."""
    lost: float
    """Seconds that this process dropped because the reader was held up."""

    def __init__(
        self, device: str | int | None = None, channel: int | str = 0, rate: int = 16000
    ) -> None:
        """Open the device; audio flows from now on.

        Args:
            device: index, or part of a name that fits one device; None for the system's default.
            channel: number of the channel from 0, or ``mix`` for the mean of all.
            rate: sample rate of what is given out, Hz.

        Raises:
            EarmarkError: PortAudio is not installed, there is no such device or channel, or the
                device cannot be opened.
        """
        sounddevice = _sounddevice()
        info = _choose(sounddevice, device)
        self.name = str(info["name"])
        self.device_rate = float(info["default_samplerate"])
        available = int(info["max_input_channels"])
        if channel == "mix":
            self._channels = available if available <= MAX_MIX_CHANNELS else 2
            self._channel = None
        else:
            self._channel = int(channel)
            if not 0 <= self._channel < available:
                raise EarmarkError(
                    f"microphone {self.name}: has channels 0 to {available - 1}: "
                    f"choose another than {channel}"
                )
            self._channels = self._channel + 1
        self._rate = rate
        self._resampler: Any = None
        self._restart()
        self._ring = Ring(round(RING_SECONDS * self.device_rate), 2 * self._channels)
        self._finished = False
        self._stop = False
        self.overflows = 0
        self.lost = 0.0
        try:
            self._stream = sounddevice.RawInputStream(
                samplerate=self.device_rate,
                blocksize=0,
                device=info["index"],
                channels=self._channels,
                dtype="int16",
                latency=LATENCY_SECONDS,
                callback=self._callback,
                finished_callback=self._on_finished,
            )
            try:
                self._stream.start()
            except sounddevice.PortAudioError:
                self._stream.close()
                raise
        except sounddevice.PortAudioError as error:
            raise EarmarkError(
                f"microphone {self.name}: cannot be opened ({_reason(error)}): "
                "close other programs that use it, or choose another of `earmark devices`"
            ) from error

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
        """Close the device; an iteration under way ends."""
        self._stop = True
        self._stream.abort()
        self._stream.close()

    def __iter__(self) -> Iterator[np.ndarray | Gap]:
        """Yield audio as it arrives.

        Raises:
            EarmarkError: the device delivers nothing any more.
        """
        silent, patience = 0.0, FIRST_TIMEOUT
        while not self._stop:
            data, gap = self._ring.read(POLL_SECONDS)
            if gap is not None:
                self.overflows += 1
                lost = gap.samples / self.device_rate
                self.lost += lost
                self._restart()
                yield Gap(round(lost * self._rate))
            if data:
                silent, patience = 0.0, TIMEOUT
                piece = self._convert(data)
                if len(piece):
                    yield piece
                continue
            silent += POLL_SECONDS
            if not self._stop and (self._finished or silent >= patience):
                raise EarmarkError(
                    f"microphone {self.name}: delivers no audio any more: "
                    "is it plugged in? (see `earmark devices`)"
                )

    def _callback(self, data: Any, frames: int, time: Any, status: Any) -> None:
        self._ring.write(memoryview(data).cast("B"), bool(status.input_overflow))

    def _on_finished(self) -> None:
        self._finished = True

    def _restart(self) -> None:
        """A fresh resampler: the one before holds audio from before a loss."""
        if self.device_rate != self._rate:
            try:
                self._resampler = make_resampler(self.device_rate, self._rate)
            except EarmarkError as error:
                raise EarmarkError(f"microphone {self.name}: {error}") from error.__cause__

    def _convert(self, data: bytes) -> np.ndarray:
        """Bytes of whole frames to float32 [samples] at the rate given out."""
        frames = np.frombuffer(data, np.int16).reshape(-1, self._channels)
        if self._channel is None:
            mono = frames.mean(axis=1, dtype=np.float32)
        else:
            mono = frames[:, self._channel].astype(np.float32)
        mono *= np.float32(1 / 32768)
        return mono if self._resampler is None else self._resampler.resample_chunk(mono)


def devices() -> list[Device]:
    """The input devices, in PortAudio's order.

    Raises:
        EarmarkError: PortAudio is not installed.
    """
    sounddevice = _sounddevice()
    try:
        hosts = sounddevice.query_hostapis()
        default = sounddevice.default.device[0]
        found = list(sounddevice.query_devices())
    except sounddevice.PortAudioError as error:
        raise EarmarkError(f"the sound system cannot be asked ({_reason(error)})") from error
    return [
        Device(
            index=info["index"],
            name=info["name"],
            host=hosts[info["hostapi"]]["name"],
            channels=info["max_input_channels"],
            rate=info["default_samplerate"],
            default=info["index"] == default,
        )
        for info in found
        if info["max_input_channels"] > 0
    ]


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise EarmarkError(
            'the microphone needs sounddevice: pip install "earmark[mic]"'
        ) from error
    except OSError as error:  # what sounddevice raises where the library behind it is missing
        raise EarmarkError(f"PortAudio is not installed: {INSTALL}") from error
    return sounddevice


def _choose(sounddevice: Any, device: str | int | None) -> dict[str, Any]:
    try:
        return sounddevice.query_devices(device, "input")
    except (ValueError, sounddevice.PortAudioError) as error:
        inputs = devices()
        if not inputs:
            raise EarmarkError(
                "there is no microphone: connect one, or check that the sound server runs"
            ) from error
        wanted = "no default microphone" if device is None else f"no single microphone {device!r}"
        names = ", ".join(f"{d.index} {d.name}" for d in inputs[:8])
        raise EarmarkError(f"{wanted}: choose with --device from: {names}") from error


def _reason(error: Exception) -> str:
    """The text of a PortAudio error without its code."""
    return str(error.args[0]) if error.args else type(error).__name__
