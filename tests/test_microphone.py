"""The microphone against a PortAudio that the test plays: ring, losses, channels, rates."""

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from earmark.runtime import EarmarkError, microphone
from earmark.runtime.microphone import Microphone, Ring
from earmark.runtime.sources import Gap
from hypothesis import given
from hypothesis import strategies as st


class FakeStream:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.closed = False

    def start(self) -> None:
        if self.settings["device"] == 2:
            raise FakePortAudioError("Device unavailable", -9985)

    def abort(self) -> None:
        self.settings["finished_callback"]()

    def close(self) -> None:
        self.closed = True

    def deliver(self, frames: np.ndarray, overflow: bool = False) -> None:
        """What PortAudio does when audio has come in: int16 [frames, channels]."""
        assert frames.shape[1] == self.settings["channels"]
        status = SimpleNamespace(input_overflow=overflow)
        data = frames.astype(np.int16).tobytes()
        self.settings["callback"](memoryview(data), len(frames), None, status)


class FakePortAudioError(Exception):
    pass


class FakeSoundDevice:
    PortAudioError = FakePortAudioError

    def __init__(self) -> None:
        self.default = SimpleNamespace(device=[0, 1])
        self.opened: list[FakeStream] = []
        self.devices = [
            self._device(0, "Array", 4, 48000.0),
            self._device(1, "Speakers", 0, 48000.0),
            self._device(2, "Busy", 2, 16000.0),
            self._device(3, "Plain", 1, 16000.0),
            self._device(4, "Server", 32, 16000.0),
        ]

    def _device(self, index: int, name: str, channels: int, rate: float) -> dict[str, Any]:
        return {
            "index": index,
            "name": name,
            "hostapi": 0,
            "max_input_channels": channels,
            "default_samplerate": rate,
        }

    def RawInputStream(self, **settings: Any) -> FakeStream:  # noqa: N802
        self.opened.append(FakeStream(**settings))
        return self.opened[-1]

    def query_hostapis(self) -> list[dict[str, str]]:
        return [{"name": "Fake"}]

    def query_devices(self, device: str | int | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if device is None and self.devices:
            return self.devices[self.default.device[0]]
        for info in self.devices:
            named = isinstance(device, str) and device.lower() in info["name"].lower()
            if (named or info["index"] == device) and info["max_input_channels"]:
                return info
        raise ValueError(f"No input device matching {device!r}")


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def take(source: Iterator[Any], samples: int) -> np.ndarray:
    """Audio of at least so many samples; a gap is an error."""
    found = [np.zeros(0, np.float32)]
    while sum(map(len, found)) < samples:
        piece = next(source)
        assert not isinstance(piece, Gap)
        found.append(piece)
    return np.concatenate(found)


def test_plain_device(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        (stream,) = portaudio.opened
        assert stream.settings["channels"] == 1
        assert stream.settings["samplerate"] == 16000
        stream.deliver(np.arange(-200, 200)[:, None])
        found = take(iter(mic), 400)
        assert found.dtype == np.float32
        assert found == pytest.approx(np.arange(-200, 200) / 32768)
        assert not stream.closed
    assert stream.closed
    assert list(mic) == []


@pytest.mark.parametrize(("channel", "expected"), [(0, 0), (2, 200), ("mix", 150)])
def test_channels_of_an_array(
    portaudio: FakeSoundDevice, channel: int | str, expected: float
) -> None:
    portaudio.devices[0]["default_samplerate"] = 16000.0
    with Microphone(None, channel) as mic:
        stream = portaudio.opened[0]
        frames = np.tile([0, 100, 200, 300], (50, 1))[:, : stream.settings["channels"]]
        stream.deliver(frames)
        assert take(iter(mic), 50) == pytest.approx(expected / 32768)


def test_a_server_with_pretended_channels_is_mixed_from_two(portaudio: FakeSoundDevice) -> None:
    with Microphone("server", "mix"):
        assert portaudio.opened[0].settings["channels"] == 2


def test_the_native_rate_is_converted_without_aliasing(portaudio: FakeSoundDevice) -> None:
    t = np.arange(48000) / 48000
    for hertz, loudness in ((1000, 0.5 / 2**0.5), (12000, 0.0)):
        with Microphone(0) as mic:
            stream = portaudio.opened[-1]
            source = iter(mic)
            pcm = np.round(16384 * np.sin(2 * np.pi * hertz * t))
            signal = []
            for start in range(0, 48000, 6000):
                stream.deliver(pcm[start : start + 6000, None])
                signal.append(next(source))
            signal = np.concatenate(signal)
        # The resampler holds back less than 50 ms.
        assert 16000 - 800 < len(signal) <= 16000
        assert np.sqrt(np.mean(signal[500:-500] ** 2)) == pytest.approx(loudness, abs=1e-3)


def test_an_overflow_is_counted_and_marked_where_it_happened(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        stream = portaudio.opened[0]
        stream.deliver(np.full((10, 1), 1))
        stream.deliver(np.full((10, 1), 2), overflow=True)
        stream.deliver(np.full((10, 1), 3))
        source = iter(mic)
        assert next(source) == pytest.approx(np.full(10, 1) / 32768)
        assert next(source) == Gap(0)
        assert take(source, 20) == pytest.approx(np.repeat([2, 3], 10) / 32768)
        assert mic.overflows == 1


def test_a_reader_held_up_loses_the_oldest_audio(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        stream = portaudio.opened[0]
        for second in range(7):
            stream.deliver(np.full((16000, 1), second))
        source = iter(mic)
        assert next(source) == Gap(2 * 16000)
        assert take(source, 5 * 16000) == pytest.approx(np.repeat(np.arange(2, 7), 16000) / 32768)
        assert (mic.overflows, mic.lost) == (1, 2.0)


def test_a_device_that_falls_silent_ends_with_an_error(
    portaudio: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(microphone, "TIMEOUT", 0.003)
    monkeypatch.setattr(microphone, "FIRST_TIMEOUT", 0.005)
    with Microphone("plain") as mic:
        portaudio.opened[0].deliver(np.zeros((10, 1)))
        source = iter(mic)
        next(source)
        with pytest.raises(EarmarkError, match="Plain: delivers no audio"):
            next(source)


@pytest.mark.parametrize(
    ("device", "channel", "reason"),
    [
        ("nosuch", 0, r"'nosuch'.*--device from: 0 Array, 2 Busy"),
        (9, 0, "no single microphone 9"),
        (1, 0, "no single microphone 1"),
        ("plain", 1, "Plain: has channels 0 to 0"),
        ("busy", 0, "Busy: cannot be opened .Device unavailable"),
    ],
)
def test_devices_that_cannot_be_opened(
    portaudio: FakeSoundDevice, device: str | int, channel: int, reason: str
) -> None:
    with pytest.raises(EarmarkError, match=reason):
        Microphone(device, channel)


def test_no_microphone_at_all(portaudio: FakeSoundDevice) -> None:
    portaudio.devices.clear()
    with pytest.raises(EarmarkError, match="there is no microphone"):
        Microphone()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(EarmarkError, match=r'pip install "earmark\[mic\]"'):
        Microphone()

    class NoLibrary:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(EarmarkError, match="apt install libportaudio2"):
        Microphone()


def test_devices_lists_inputs(portaudio: FakeSoundDevice) -> None:
    found = microphone.devices()
    assert [(d.index, d.default) for d in found] == [(0, True), (2, False), (3, False), (4, False)]


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=30),
)
def test_ring_gives_back_what_was_written_or_marks_the_loss(
    frames: int, steps: list[tuple[int, bool, bool]]
) -> None:
    """Every frame is numbered: what is read goes up by one, but at a gap of the size it tells."""
    ring, number, expected, marked = Ring(frames, 2), 0, 0, False
    for count, overflow, reads in [*steps, (0, False, True)]:
        data = np.arange(number, number + count, dtype="<u2").tobytes()
        if count:
            ring.write(data, overflow)
            marked = marked or overflow
        number += count
        while reads:
            got, gap = ring.read(timeout=0)
            if gap is not None:
                assert gap.samples or marked
                expected += gap.samples
            values = np.frombuffer(got, "<u2")
            assert np.array_equal(values, np.arange(expected, expected + len(values)))
            expected += len(values)
            reads = len(got) > 0
    assert expected == number


def test_ring_between_threads() -> None:
    ring, total = Ring(1000, 2), 200_000

    def write() -> None:
        for start in range(0, total, 100):
            ring.write(np.arange(start, start + 100, dtype="<u4").astype("<u2").tobytes())

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while seen < total:
        data, gap = ring.read(timeout=5)
        seen += gap.samples if gap else 0
        values = np.frombuffer(data, "<u2")
        assert np.array_equal(values, np.arange(seen, seen + len(values)) % 65536)
        seen += len(values)
    writer.join()
    assert seen == total
