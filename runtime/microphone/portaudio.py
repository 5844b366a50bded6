"""PortAudio: its library, the inputs that it knows, and what a person can do where it fails."""

import os
import re
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EarmarkError

LIBRARY = {
    "linux": "apt install libportaudio2 (Debian, Ubuntu), dnf install portaudio (Fedora) or "
    "pacman -S portaudio (Arch)",
    "darwin": "pip install --force-reinstall sounddevice, or brew install portaudio",
    "win32": "pip install --force-reinstall sounddevice",
}
ALLOWED = {
    "linux": 'sudo usermod -aG audio "$USER", then log in again',
    "darwin": "allow your terminal in System Settings, Privacy & Security, Microphone, then start "
    "it again",
    "win32": 'switch on "Let desktop apps access your microphone" in Settings, Privacy & security, '
    "Microphone",
}
CONNECTED = {
    "linux": "connect one, or check that the sound server runs "
    "(systemctl --user status pipewire pulseaudio)",
    "darwin": "connect one, or choose it in System Settings, Sound, Input",
    "win32": "connect one, or enable it in Settings, System, Sound, Input",
}
BUSY = "close other programs that use it, or choose another of `earmark devices`"
SOUND_NODES = Path("/dev/snd")
INTERNAL_ERROR, HOST_ERROR = -9986, -9999  # codes of PortAudio
# Errors of the host below PortAudio: negative errno of ALSA.
DENIED_BY_ALSA = (-1, -13)
NO_SERVER_FOR_ALSA = (-2, -5, -111)
_CARD = re.compile(r"\s*\(hw:[^)]*\)")
_LOCK = threading.Lock()
_open_streams = 0


@dataclass(frozen=True)
class Device:
    """An input device of PortAudio."""

    index: int
    """Not kept between starts of PortAudio, and another one after something was plugged in."""
    name: str
    host: str
    """The sound system that PortAudio reaches it by."""
    channels: int
    rate: float
    """The device's own, Hz."""
    default: bool


def load() -> Any:
    """The module sounddevice.

    Raises:
        EarmarkError: it or PortAudio is not installed, or PortAudio does not start.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise EarmarkError(
            'the microphone needs sounddevice: pip install "earmark[mic]"'
        ) from error
    except OSError as error:  # what sounddevice raises where the library behind it is missing
        raise EarmarkError(f"PortAudio is not installed: {_for_platform(LIBRARY)}") from error
    except Exception as error:  # sounddevice.PortAudioError: the module starts PortAudio
        raise EarmarkError(
            f"PortAudio does not start ({reason(error)}): {_for_platform(CONNECTED)}"
        ) from error
    return sounddevice


def devices() -> list[Device]:
    """The input devices, in PortAudio's order.

    Raises:
        EarmarkError: PortAudio is not installed or cannot ask the system.
    """
    sounddevice = load()
    try:
        hosts = sounddevice.query_hostapis()
        default = sounddevice.default.device[0]
        found = list(sounddevice.query_devices())
    except sounddevice.PortAudioError as error:
        raise EarmarkError(
            f"the sound system cannot be asked ({reason(error)}): {_for_platform(CONNECTED)}"
        ) from error
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


def choose(wanted: str | int | None) -> Device:
    """The input of that index, of that name or part of a name, or the system's default for None.

    Raises:
        EarmarkError: there is none, or the name fits several and is not the whole of one.
    """
    sounddevice = load()
    inputs = devices()
    try:
        index = sounddevice.query_devices(wanted, "input")["index"]
        return next(device for device in inputs if device.index == index)
    except (ValueError, OverflowError, StopIteration, sounddevice.PortAudioError) as error:
        if not inputs:
            raise no_microphone() from error
        missing = "no default microphone" if wanted is None else f"no single microphone {wanted!r}"
        names = ", ".join(f"{d.index} {d.name}" for d in inputs[:8])
        raise EarmarkError(f"{missing}: choose with --device from: {names}") from error


def choose_again(known: Device) -> Device | None:
    """The device that was ``known`` before PortAudio was started anew, None if it is away.

    The name decides, since indices move. ALSA's number of the card moves as well, and is left out
    where the whole name fits none.
    """
    inputs = [device for device in devices() if device.host == known.host]
    same = [device for device in inputs if device.name == known.name]
    card = _CARD.sub("", known.name)
    same = same or [device for device in inputs if _CARD.sub("", device.name) == card]
    return min(same, key=lambda device: device.index != known.index, default=None)


def refresh() -> None:
    """Let PortAudio look for devices, which it does only when it starts.

    Starting it anew ends every stream of the process, so nothing is done while one of ours is open.
    """
    sounddevice = load()
    with _LOCK:
        if _open_streams:
            return
        with suppress(sounddevice.PortAudioError):  # not running: the last start failed
            sounddevice._terminate()
        try:
            sounddevice._initialize()
        except sounddevice.PortAudioError as error:
            raise EarmarkError(
                f"PortAudio does not start ({reason(error)}): {_for_platform(CONNECTED)}"
            ) from error


def open_stream(device: Device, **settings: Any) -> Any:
    """A started ``RawInputStream`` of a device, to be given to :func:`close_stream`.

    Raises:
        EarmarkError: it cannot be opened.
    """
    global _open_streams
    sounddevice = load()
    with _LOCK:
        try:
            stream = sounddevice.RawInputStream(device=device.index, **settings)
            try:
                stream.start()
            except sounddevice.PortAudioError:
                stream.close()
                raise
        except (ValueError, sounddevice.PortAudioError) as error:
            raise EarmarkError(
                f"microphone {device.name}: cannot be opened ({reason(error)}): {_remedy(error)}"
            ) from error
        _open_streams += 1
    return stream


def close_stream(stream: Any) -> None:
    """End a stream at once. Takes as long as a sound server that does not answer."""
    global _open_streams
    stream.abort()
    stream.close()
    with _LOCK:
        _open_streams -= 1


def no_microphone() -> EarmarkError:
    """What to say where there is no input device."""
    denied = (
        sys.platform == "linux"
        and SOUND_NODES.is_dir()
        and not all(os.access(node, os.R_OK) for node in SOUND_NODES.glob("control*"))
    )
    if denied:
        return EarmarkError(f"no permission to use the sound card: {ALLOWED['linux']}")
    return EarmarkError(f"there is no microphone: {_for_platform(CONNECTED)}")


def reason(error: Exception) -> str:
    """The text of a PortAudio error, with that of the sound system below it, without codes."""
    text, *codes = error.args or (type(error).__name__,)
    below = codes[1][2] if len(codes) > 1 else ""
    return f"{text}: {below}" if below else str(text)


def _remedy(error: Exception) -> str:
    """What may help where a device that is there cannot be opened."""
    code = error.args[1] if len(error.args) > 1 else 0
    below = error.args[2][1] if len(error.args) > 2 else 0
    if sys.platform == "linux":
        if below in DENIED_BY_ALSA:
            return ALLOWED["linux"]
        return CONNECTED["linux"] if below in NO_SERVER_FOR_ALSA else BUSY
    # Both systems refuse without a code of its own.
    if code in (INTERNAL_ERROR, HOST_ERROR) and sys.platform in ALLOWED:
        return f"{ALLOWED[sys.platform]}; if it is allowed, {BUSY}"
    return BUSY


def _for_platform(texts: dict[str, str]) -> str:
    return texts.get(sys.platform, texts["linux"])
