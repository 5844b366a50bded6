"""A sounddevice that the test plays: it plugs devices in and out and delivers the audio."""

import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class FakePortAudioError(Exception):
    """Arguments as those of ``sounddevice.PortAudioError``."""


class FakeAbortError(Exception):
    """What a callback raises to end its stream."""


class FakeStream:
    """A ``RawInputStream``: :meth:`deliver` is PortAudio calling back."""

    def __init__(self, system: "FakeSoundDevice", **settings: Any) -> None:
        self._system = system
        self.settings = settings
        self.closed = False

    def start(self) -> None:
        if self._system.refused:
            raise self._system.refused.popleft()
        if self._system.on_start:
            self._system.on_start.popleft()(self)

    def abort(self) -> None:
        self._system.answers.wait()
        self.settings["finished_callback"]()

    def close(self) -> None:
        self.closed = True

    def deliver(self, frames: np.ndarray, overflow: bool = False) -> None:
        """What PortAudio does when audio has come in: int16 [frames, channels]."""
        assert frames.shape[1] == self.settings["channels"]
        status = SimpleNamespace(input_overflow=overflow)
        data = frames.astype(np.int16).tobytes()
        try:
            self.settings["callback"](memoryview(data), len(frames), None, status)
        except FakeAbortError:
            self.end()

    def end(self) -> None:
        """The sound system ends the stream by itself."""
        self.settings["finished_callback"]()


class FakeSoundDevice:
    """Stands in ``sys.modules`` for sounddevice.

    PortAudio sees what is plugged in when it starts: change ``plugged``, and ``devices`` follows
    at the next start.
    """

    PortAudioError = FakePortAudioError
    CallbackAbort = FakeAbortError

    def __init__(self) -> None:
        self.default = SimpleNamespace(device=[0, 1])
        self.opened: list[FakeStream] = []
        self.starts = 0
        self.refused: deque[Exception] = deque()
        """Errors of the next streams' starts."""
        self.on_start: deque[Callable[[FakeStream], None]] = deque()
        """What the next streams do once they have started."""
        self.answers = threading.Event()
        """Cleared, the sound server hangs."""
        self.answers.set()
        self.plugged = [
            device("Array", 4, 48000.0),
            device("Speakers", 0, 48000.0),
            device("Busy", 2, 16000.0),
            device("Plain", 1, 16000.0),
            device("Server", 32, 16000.0),
        ]
        self._list()

    def _list(self) -> None:
        self.devices = [info | {"index": i} for i, info in enumerate(self.plugged)]

    def _terminate(self) -> None:
        pass

    def _initialize(self) -> None:
        self.starts += 1
        self._list()

    def _exit_handler(self) -> None:
        pass

    def RawInputStream(self, **settings: Any) -> FakeStream:  # noqa: N802
        self.opened.append(FakeStream(self, **settings))
        return self.opened[-1]

    def query_hostapis(self) -> list[dict[str, str]]:
        return [{"name": "Fake"}, {"name": "Other"}]

    def query_devices(self, device: str | int | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if device is None:
            if not self.devices:
                raise FakePortAudioError("Error querying device -1")
            return self.devices[self.default.device[0]]
        if isinstance(device, int) and device.bit_length() > 31:
            raise OverflowError(f"integer {device} does not fit 'int'")
        for info in self.devices:
            named = isinstance(device, str) and device.lower() in info["name"].lower()
            if (named or info["index"] == device) and info["max_input_channels"]:
                return info
        raise ValueError(f"No input device matching {device!r}")


def device(name: str, channels: int, rate: float, host: int = 0) -> dict[str, Any]:
    """An entry of PortAudio's list."""
    return {
        "name": name,
        "hostapi": host,
        "max_input_channels": channels,
        "default_samplerate": rate,
    }
