"""A microphone without hardware: a private PulseAudio server whose null sink is heard back.

What is played into the sink comes out of its monitor, which is the default source that PortAudio
finds through ALSA's pulse plug-in. Nothing of the user's own sound set-up is read or changed.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ALSA = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
SERVER = """
load-module module-native-protocol-unix socket={socket}
load-module module-null-sink sink_name=virtual
set-default-sink virtual
set-default-source virtual.monitor
"""
STARTED_SECONDS = 20.0


@dataclass
class VirtualMicrophone:
    """A running server."""

    folder: Path
    environment: dict[str, str]
    """The environment in which programs find it."""
    server: "subprocess.Popen[bytes] | None" = None

    def play(self, pcm: np.ndarray, rate: int = 16000) -> None:
        """Play int16 [samples] and wait for the end."""
        subprocess.run(
            ["pacat", "--playback", f"--rate={rate}", "--channels=1", "--format=s16le"],
            input=pcm.astype("<i2").tobytes(),
            env=self.environment,
            check=True,
            timeout=60,
        )

    def start(self) -> None:
        """Start the server, as at first or after :meth:`stop`."""
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.server = subprocess.Popen(
                [
                    *("pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
                    *("--disable-shm=yes", "--high-priority=no", "-n"),
                    *("-F", str(self.folder / "server.pa")),
                ],
                stdout=output,
                stderr=output,
                env=self.environment,
            )
        _wait(self.server, self.environment, log)

    def stop(self) -> None:
        """End the server, and with it the microphone of whoever listens."""
        server, self.server = self.server, None
        if server is None:
            return
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """A server that lives and answers nobody."""
        assert self.server
        self.server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.server.send_signal(signal.SIGCONT)


def missing() -> str:
    """What this machine lacks for a virtual microphone, empty where it lacks nothing."""
    lacking = [program for program in ("pulseaudio", "pactl", "pacat") if not shutil.which(program)]
    lacking += [] if find_library("portaudio") else ["libportaudio2"]
    lacking += [] if _pulse_plugin() else ["libasound2-plugins"]
    return ", ".join(lacking)


def _pulse_plugin() -> bool:
    folders = ("/usr/lib", "/usr/lib64")
    name = "libasound_module_pcm_pulse.so"
    return any(path for folder in folders for path in Path(folder).glob(f"**/alsa-lib/{name}"))


@contextmanager
def virtual_microphone(folder: Path) -> Iterator[VirtualMicrophone]:
    """Start a server that keeps all its files in ``folder``, and end it."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    socket = runtime / "native"
    (folder / "alsa.conf").write_text("</usr/share/alsa/alsa.conf>\n" + ALSA)
    (folder / "server.pa").write_text(SERVER.format(socket=socket))
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PULSE_", "ALSA_"))
    } | {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PULSE_RUNTIME_PATH": str(runtime),
        "PULSE_STATE_PATH": str(folder / "state"),
        "PULSE_SERVER": f"unix:{socket}",
        "ALSA_CONFIG_PATH": str(folder / "alsa.conf"),
    }
    microphone = VirtualMicrophone(folder, environment)
    microphone.start()
    try:
        yield microphone
    finally:
        microphone.stop()


def _wait(server: subprocess.Popen[bytes], environment: dict[str, str], log: Path) -> None:
    end = time.monotonic() + STARTED_SECONDS
    while server.poll() is None and time.monotonic() < end:
        asked = subprocess.run(
            ["pactl", "list", "short", "sources"], env=environment, capture_output=True
        )
        if b"virtual.monitor" in asked.stdout:
            return
        time.sleep(0.1)
    raise RuntimeError(f"PulseAudio did not start:\n{log.read_text(errors='replace')}")
