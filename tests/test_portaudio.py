"""What is said where PortAudio, its library or the permission is missing, on each platform."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
from earmark.runtime import EarmarkError
from earmark.runtime.cli import main
from earmark.runtime.microphone import portaudio
from earmark.runtime.microphone.microphone import Microphone
from earmark.runtime.microphone.portaudio import (
    Device,
    choose_again,
    devices,
    no_microphone,
    refresh,
)
from fake_sounddevice import FakePortAudioError, FakeSoundDevice, device


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def failing_import(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let ``import sounddevice`` raise ``error``, as its module body would."""
    real = builtins.__import__

    def fails(name: str, *rest: Any) -> Any:
        if name == "sounddevice":
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fails)


def one_line(error: pytest.ExceptionInfo[EarmarkError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_devices_lists_inputs(fake: FakeSoundDevice) -> None:
    found = devices()
    assert [(d.index, d.default) for d in found] == [(0, True), (2, False), (3, False), (4, False)]
    assert found[2] == Device(3, "Plain", "Fake", 1, 16000.0, False)


def test_a_list_of_devices_holds_nothing_that_a_terminal_obeys(
    fake: FakeSoundDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.plugged = [device("Mic\x1b[2J\nno 2", 1, 16000.0)]
    refresh()
    assert main(["devices"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "*  0 Mic\\x1b[2J\\nno 2 (Fake), 1 channels, 16000 Hz"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(EarmarkError, match=r'pip install "earmark\[mic\]"'):
        Microphone()


@pytest.mark.parametrize(
    ("platform", "fix"),
    [
        ("linux", "apt install libportaudio2"),
        ("darwin", "brew install portaudio"),
        ("win32", "pip install"),
        ("freebsd14", "apt"),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, platform: str, fix: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    failing_import(monkeypatch, OSError("PortAudio library not found"))
    with pytest.raises(EarmarkError, match="PortAudio is not installed") as error:
        Microphone()
    assert fix in one_line(error)


def test_portaudio_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    failing_import(monkeypatch, FakePortAudioError("Error initializing PortAudio", -9999))
    with pytest.raises(EarmarkError, match=r"does not start .Error init.*sound server"):
        Microphone()


@pytest.mark.parametrize(
    ("platform", "below", "fixes"),
    [
        ("linux", (0, -13, "Permission denied"), ["Permission denied", "usermod -aG audio"]),
        ("linux", (0, -1, "Operation not permitted"), ["usermod -aG audio"]),
        ("linux", (0, -111, "Connection refused"), ["sound server runs"]),
        ("linux", (0, -16, "Device or resource busy"), ["close other programs"]),
        ("darwin", (0, -66748, ""), ["Privacy & Security", "close other programs"]),
        ("win32", (2, -2147024891, "Access is denied"), ["desktop apps", "close other programs"]),
        ("freebsd14", (0, 5, ""), ["close other programs"]),
    ],
)
def test_a_refused_device_comes_with_the_fix_of_the_platform(
    fake: FakeSoundDevice,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    below: tuple[int, int, str],
    fixes: list[str],
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    fake.refused.append(FakePortAudioError("Unanticipated host error", -9999, below))
    with pytest.raises(EarmarkError, match="Plain: cannot be opened") as error:
        Microphone("plain")
    text = one_line(error)
    assert all(fix in text for fix in fixes)
    assert [other in text for other in portaudio.ALLOWED.values()].count(True) <= 1
    assert fake.opened[-1].closed


@pytest.mark.parametrize("code", [-9986, -9999, -9985])
def test_other_refusals_on_a_mac(
    fake: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    fake.refused.append(FakePortAudioError("Internal PortAudio error", code))
    with pytest.raises(EarmarkError, match="close other programs") as error:
        Microphone("plain")
    assert ("Privacy" in one_line(error)) == (code != -9985)


@pytest.mark.parametrize(
    ("platform", "fix"),
    [
        ("linux", "sound server"),
        ("darwin", "System Settings"),
        ("win32", "Settings, System"),
        ("freebsd14", "sound server"),
    ],
)
def test_no_microphone_at_all(
    fake: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch, platform: str, fix: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(portaudio, "SOUND_NODES", tmp_path / "snd")
    monkeypatch.setattr(sys, "platform", platform)
    fake.devices.clear()
    with pytest.raises(EarmarkError, match="there is no microphone") as error:
        Microphone()
    assert fix in one_line(error)


def test_a_number_that_no_device_can_have(fake: FakeSoundDevice) -> None:
    with pytest.raises(EarmarkError, match="no single microphone 99999999999"):
        portaudio.choose(99999999999)


def test_a_sound_card_that_may_not_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "controlC0").touch()
    monkeypatch.setattr(portaudio, "SOUND_NODES", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "there is no microphone" in str(no_microphone())
    monkeypatch.setattr(portaudio.os, "access", lambda *_: False)
    assert "usermod -aG audio" in str(no_microphone())


def test_a_sound_system_that_cannot_be_asked(
    fake: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise FakePortAudioError("PortAudio not initialized", -10000)

    monkeypatch.setattr(fake, "query_hostapis", fails)
    with pytest.raises(EarmarkError, match=r"cannot be asked .PortAudio not initialized"):
        devices()
    monkeypatch.setattr(fake, "_initialize", fails)
    monkeypatch.setattr(fake, "_terminate", fails)
    with pytest.raises(EarmarkError, match=r"does not start .PortAudio not initialized"):
        refresh()


@pytest.mark.parametrize(
    ("listed", "index"),
    [
        ([device("Mic (hw:1,0)", 1, 1.0), device("Mic (hw:2,0)", 1, 1.0)], 1),
        ([device("Mic (hw:2,0)", 1, 1.0), device("Mic (hw:2,0)", 1, 1.0)], 1),
        ([device("Mic (hw:2,0)", 1, 1.0), device("Other", 1, 1.0)], 0),
        ([device("Other", 1, 1.0), device("Other", 1, 1.0), device("Mic (hw:3,0)", 1, 1.0)], 2),
        ([device("Mic (hw:2,0)", 1, 1.0, host=1), device("Other", 1, 1.0)], None),
        ([device("Mic (hw:2,0)", 0, 1.0)], None),
        ([device("Mic 2 (hw:2,0)", 1, 1.0)], None),
    ],
)
def test_a_known_device_is_found_again(
    fake: FakeSoundDevice, listed: list[dict[str, Any]], index: int | None
) -> None:
    fake.plugged = listed
    refresh()
    found = choose_again(Device(1, "Mic (hw:2,0)", "Fake", 1, 1.0, False))
    assert (None if found is None else found.index) == index
