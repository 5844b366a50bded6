"""The microphone against a PortAudio that the test plays: losses, unplugging, channels, rates."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from earmark.runtime import EarmarkError
from earmark.runtime.microphone import microphone
from earmark.runtime.microphone.microphone import Microphone
from earmark.runtime.microphone.ring import Ring
from earmark.runtime.sources import Counters, DeviceBack, DeviceLost, Gap
from fake_sounddevice import FakePortAudioError, FakeSoundDevice, FakeStream, device
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def take(source: Iterator[Any], samples: int) -> np.ndarray:
    """Audio of at least so many samples; a notice is an error."""
    found = [np.zeros(0, np.float32)]
    while sum(map(len, found)) < samples:
        piece = next(source)
        assert isinstance(piece, np.ndarray), piece
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
    portaudio.plugged[0] = device("Array", 4, 16000.0)
    portaudio._list()
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
        assert mic.counters.overflows == 1


def test_a_reader_held_up_loses_the_oldest_audio(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        stream = portaudio.opened[0]
        for second in range(7):
            stream.deliver(np.full((16000, 1), second))
        source = iter(mic)
        assert next(source) == Gap(2 * 16000)
        assert take(source, 5 * 16000) == pytest.approx(np.repeat(np.arange(2, 7), 16000) / 32768)
        assert mic.counters == Counters(overflows=1, dropped=2.0, queued=0.0)


def test_overflows_of_both_kinds_are_counted(portaudio: FakeSoundDevice) -> None:
    with Microphone(0) as mic:
        stream = portaudio.opened[0]
        stream.deliver(np.zeros((48000, 1)), overflow=True)
        for _ in range(6):
            stream.deliver(np.zeros((48000, 1)))
        assert mic.counters == Counters(overflows=0, dropped=0.0, queued=5.0)
        source = iter(mic)
        assert next(source) == Gap(2 * 16000)
        next(source)
        assert mic.counters == Counters(overflows=1, dropped=2.0, queued=0.0)


def test_a_loss_costs_no_more_audio_than_was_lost(portaudio: FakeSoundDevice) -> None:
    """What the resampler holds back belongs to the audio before it."""
    second = np.zeros((48000, 1))
    with Microphone(0) as mic:
        stream, source = portaudio.opened[0], iter(mic)
        stream.deliver(second)
        taken = len(next(source))
        assert taken < 16000
        for lost in range(1, 4):
            stream.deliver(second, overflow=True)
            taken += sum(map(len, audio(source)))
            assert taken == 16000 * lost
            taken += len(next(source))


def audio(source: Iterator[Any]) -> Iterator[np.ndarray]:
    """Pieces up to a notice, which is taken too."""
    return itertools.takewhile(lambda piece: isinstance(piece, np.ndarray), source)


def notice(source: Iterator[Any]) -> Any:
    """What comes next, behind no more audio than a resampler holds back."""
    skipped = 0
    while isinstance(piece := next(source), np.ndarray):
        skipped += len(piece)
    assert skipped < 800
    return piece


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Waits too short to notice, and a clock that goes on by a second whenever it is read."""
    for name in ("POLL_SECONDS", "FIRST_PAUSE", "LONGEST_PAUSE"):
        patch.setattr(microphone, name, 0.001)
    patch.setattr(microphone, "LOST_SECONDS", 0.003)
    patch.setattr(microphone, "START_SECONDS", 0.005)
    patch.setattr(microphone, "monotonic", map(float, itertools.count()).__next__)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def plays(value: int, frames: int = 400, overflow: bool = False) -> Callable[[FakeStream], None]:
    """A stream that delivers audio as soon as it is started."""
    return lambda stream: stream.deliver(
        np.full((frames, stream.settings["channels"]), value), overflow
    )


def expect_back(source: Iterator[Any], name: str, queued: float = 0.025) -> None:
    """The notices between the last audio before a loss and the first after it.

    The clock is read at the last audio and at the return, a second each.
    """
    back, gap = next(source), next(source)
    assert back == DeviceBack(name, pytest.approx(1 - queued))
    assert gap == Gap(round(back.seconds * 16000))


@pytest.mark.usefixtures("patient")
def test_a_device_that_delivers_nothing_is_opened_again(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        source = iter(mic)
        for turn in range(3):
            stream = portaudio.opened[-1]
            stream.deliver(np.full((10, 1), turn))
            take(source, 10)
            assert next(source) == DeviceLost("Plain", "no audio for 0.003 s")
            portaudio.on_start.append(plays(turn))
            expect_back(source, "Plain")
            assert take(source, 400) == pytest.approx(np.full(400, turn) / 32768)
            assert stream.closed
        assert portaudio.starts == 3
    assert all(stream.closed for stream in portaudio.opened)


@pytest.mark.usefixtures("patient")
def test_a_device_that_never_delivers_is_lost_after_the_time_to_start(
    portaudio: FakeSoundDevice,
) -> None:
    with Microphone("plain") as mic:
        assert next(iter(mic)) == DeviceLost("Plain", "no audio for 0.005 s")


@pytest.mark.usefixtures("patient")
def test_zeros_are_audio(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        source = iter(mic)
        for _ in range(20):
            portaudio.opened[0].deliver(np.zeros((10, 1)))
            assert not next(source).any()


@pytest.mark.usefixtures("patient")
def test_what_came_before_the_end_of_a_stream_is_given_out(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        portaudio.opened[0].deliver(np.ones((10, 1)))
        portaudio.opened[0].end()
        source = iter(mic)
        take(source, 10)
        assert next(source) == DeviceLost("Plain", "the sound system ended it")


@pytest.mark.usefixtures("patient")
def test_a_failed_callback_is_told_and_mended(
    portaudio: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Microphone("plain") as mic:
        stream = portaudio.opened[0]
        with monkeypatch.context() as patch:
            patch.setattr(Ring, "write", lambda *_: 1 / 0)
            stream.deliver(np.zeros((10, 1)))
        source = iter(mic)
        lost = next(source)
        assert lost.device == "Plain"
        assert "callback failed (ZeroDivisionError" in lost.reason
        portaudio.on_start.append(plays(5))
        expect_back(source, "Plain")


@pytest.mark.usefixtures("patient")
def test_a_device_is_found_by_its_name_when_indices_move(portaudio: FakeSoundDevice) -> None:
    portaudio.plugged[3] = device("Plain: USB (hw:2,0)", 1, 16000.0)
    portaudio._list()
    with Microphone(3) as mic:
        source = iter(mic)
        portaudio.opened[0].end()
        assert next(source) == DeviceLost("Plain: USB (hw:2,0)", "the sound system ended it")
        portaudio.plugged[3:4] = [
            device("Other", 1, 16000.0),
            device("Plain: USB (hw:2,0)", 1, 16000.0, host=1),
            device("Plain: USB (hw:5,0)", 1, 16000.0),
        ]
        portaudio.on_start.append(plays(5))
        expect_back(source, "Plain: USB (hw:5,0)")
        assert portaudio.opened[-1].settings["device"] == 5


@pytest.mark.usefixtures("patient")
def test_a_device_comes_back_at_another_rate(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        source = iter(mic)
        portaudio.opened[0].end()
        next(source)
        portaudio.plugged[3] = device("Plain", 2, 48000.0)
        portaudio.on_start.append(plays(1000, frames=9600))
        expect_back(source, "Plain", queued=0.2)
        stream = portaudio.opened[-1]
        assert stream.settings["samplerate"] == mic.device_rate == 48000
        stream.deliver(np.full((9600, 1), 1000))
        found = take(source, 5000)
        assert 6400 - 800 < len(found) <= 6400
        assert found[-2000:] == pytest.approx(1000 / 32768, rel=1e-3)
        for _ in range(7):
            stream.deliver(np.zeros((48000, 1)))
        assert mic.counters.queued == 5.0


@pytest.mark.usefixtures("patient")
def test_attempts_go_on_until_one_gives_audio(portaudio: FakeSoundDevice) -> None:
    with Microphone("plain") as mic:
        source = iter(mic)
        portaudio.opened[0].deliver(np.zeros((10, 1)))
        take(source, 10)
        portaudio.opened[0].end()
        assert isinstance(next(source), DeviceLost)
        plain = portaudio.plugged.pop(3)
        # Away, away, there but refused, there but without audio, ending at once, well.
        portaudio.refused.append(FakePortAudioError("Device unavailable", -9985))
        portaudio.on_start.extend([lambda stream: None, FakeStream.end, plays(7)])
        start = portaudio._initialize

        def initialize() -> None:
            if portaudio.starts == 2:
                portaudio.plugged.insert(3, plain)
            start()

        portaudio._initialize = initialize
        expect_back(source, "Plain")
        assert take(source, 400) == pytest.approx(np.full(400, 7) / 32768)
        assert portaudio.starts == 6
    assert all(stream.closed for stream in portaudio.opened[-3:])


@pytest.mark.usefixtures("patient")
def test_portaudio_is_not_started_anew_while_another_stream_is_open(
    portaudio: FakeSoundDevice,
) -> None:
    with Microphone("server") as other, Microphone("plain") as mic:
        portaudio.opened[1].end()
        source = iter(mic)
        next(source)
        portaudio.on_start.append(plays(7))
        expect_back(source, "Plain")
        assert portaudio.starts == 0
        other_stream = portaudio.opened[0]
        other_stream.deliver(np.zeros((10, 1)))
        take(iter(other), 10)


@pytest.mark.usefixtures("patient")
def test_the_default_is_followed(portaudio: FakeSoundDevice) -> None:
    with Microphone() as mic:
        assert mic.name == "Array"
        source = iter(mic)
        portaudio.opened[0].end()
        next(source)
        portaudio.default.device[0] = 3
        portaudio.on_start.append(plays(7))
        expect_back(source, "Plain")
        assert mic.name == "Plain"


@pytest.mark.usefixtures("patient")
def test_an_error_of_ours_while_opening_again_is_raised(
    portaudio: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Microphone("plain") as mic:
        source = iter(mic)
        portaudio.opened[0].end()
        next(source)
        monkeypatch.setattr(microphone, "refresh", lambda: {}["missing"])
        with pytest.raises(KeyError, match="missing"):
            next(source)


LOSSES = ("ends", "falls silent", "callback fails", "changes its rate", "moves", "is refused")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["delivers", "overflows", "is held up", *LOSSES]), max_size=12))
def test_faults_in_any_order_are_told_and_survived(steps: list[str]) -> None:
    """After every fault comes its notice, then audio that begins after the fault."""
    system, overflows, dropped = FakeSoundDevice(), 0, 0.0
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        patch.setitem(sys.modules, "sounddevice", system)
        with Microphone("plain") as mic:
            source = iter(mic)
            for value, step in enumerate(steps, start=1):
                stream, level = system.opened[-1], 1000 * value
                block = np.full((round(mic.device_rate / 2), 1), level)
                if step in LOSSES:
                    if step == "callback fails":
                        with pytest.MonkeyPatch.context() as broken:
                            broken.setattr(Ring, "write", lambda *_: 1 / 0)
                            stream.deliver(block)
                    elif step != "falls silent":
                        stream.end()
                    here = next(i for i, d in enumerate(system.plugged) if d["name"] == "Plain")
                    if step == "moves":
                        system.plugged.insert(0, system.plugged.pop(here))
                    if step == "changes its rate":
                        rate = 48000.0 if mic.device_rate != 48000 else 16000.0
                        system.plugged[here] = device("Plain", 1, rate)
                    if step == "is refused":
                        system.refused.append(FakePortAudioError("Device unavailable", -9985))
                    system.on_start.append(
                        lambda new, level=level: new.deliver(
                            np.full((round(new.settings["samplerate"] / 2), 1), level)
                        )
                    )
                    assert isinstance(notice(source), DeviceLost)
                    expect_back(source, "Plain", queued=0.5)
                elif step == "is held up":
                    for _ in range(12):
                        stream.deliver(block)
                    assert notice(source) == Gap(16000)
                    overflows, dropped = overflows + 1, dropped + 1
                else:
                    stream.deliver(block, overflow=step == "overflows")
                    if step == "overflows":
                        assert notice(source) == Gap(0)
                        overflows += 1
                assert next(source)[-1] == pytest.approx(level / 32768, rel=0.01)
            assert mic.counters == Counters(overflows, dropped, queued=0.0)
    assert all(stream.closed for stream in system.opened)


def test_close_ends_an_iteration_in_another_thread(portaudio: FakeSoundDevice) -> None:
    seen: list[Any] = []
    for lost in (False, True):
        mic = Microphone("plain")
        if lost:
            portaudio.plugged.pop(3)
            portaudio.opened[-1].end()
        begun = threading.Event()

        def listen(mic: Microphone = mic, begun: threading.Event = begun) -> None:
            begun.set()
            seen.extend(mic)

        reader = threading.Thread(target=listen)
        reader.start()
        begun.wait()
        while lost and not seen:
            pass
        mic.close()
        reader.join(30)
        assert not reader.is_alive()
    assert seen == [DeviceLost("Plain", "the sound system ended it")]


@pytest.mark.usefixtures("patient")
def test_a_sound_server_that_hangs_holds_nobody_up(
    portaudio: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Any] = []
    monkeypatch.setattr(microphone, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(microphone.atexit, "unregister", left.append)
    portaudio.answers.clear()
    with Microphone("plain") as mic:
        source = iter(mic)
        assert isinstance(next(source), DeviceLost)
        threading.Timer(0.02, mic.close).start()
        assert list(source) == []
    assert left[0] == portaudio._exit_handler
    portaudio.answers.set()
    for thread in threading.enumerate():
        if thread.name.startswith("earmark-"):
            thread.join(30)
    assert portaudio.opened[0].closed


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_signal_before_the_device_is_opened_again(
    portaudio: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "earmark-reopen":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Microphone("plain") as mic:
        portaudio.opened[0].end()
        list(mic)
    assert portaudio.opened[0].closed


@pytest.mark.parametrize(
    ("wanted", "channel", "reason"),
    [
        ("nosuch", 0, r"'nosuch'.*--device from: 0 Array, 2 Busy"),
        (9, 0, "no single microphone 9"),
        (1, 0, "no single microphone 1"),
        ("plain", 1, "Plain: has channels 0 to 0"),
        ("plain", -1, "Plain: has channels 0 to 0"),
        ("busy", 0, "Busy: cannot be opened .Device unavailable"),
    ],
)
def test_devices_that_cannot_be_opened(
    portaudio: FakeSoundDevice, wanted: str | int, channel: int, reason: str
) -> None:
    portaudio.refused.append(FakePortAudioError("Device unavailable", -9985))
    with pytest.raises(EarmarkError, match=reason):
        Microphone(wanted, channel)
