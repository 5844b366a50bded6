"""A microphone that goes away for real: its sound server is ended, or hangs, and comes back."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_model
from virtual_microphone import VirtualMicrophone, missing, virtual_microphone

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"a virtual microphone needs programs not found here: {missing()}"
)


@pytest.fixture
def microphone(tmp_path: Path) -> Iterator[VirtualMicrophone]:
    with virtual_microphone(tmp_path) as running:
        yield running


@pytest.fixture
def listener(microphone: VirtualMicrophone, model: str) -> Iterator[subprocess.Popen[str]]:
    """A program that hears audio already."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("unplugged.py"), model],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # ALSA and PortAudio write there of their own accord
        env=microphone.environment,
        text=True,
    ) as process:
        until(process, "Audio")
        yield process
        process.kill()


def until(process: subprocess.Popen[str], kind: str) -> Any:
    """Read on to the next line of that kind and return its value; the end is a failure."""
    assert process.stdout
    for line in process.stdout:
        found, value = json.loads(line)
        if found == kind:
            return value
    pytest.fail(f"ended without {kind}")


@contextmanager
def repeated(play: Callable[[], None]) -> Iterator[None]:
    """Play again and again meanwhile."""
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            play()

    player = threading.Thread(target=repeat)
    player.start()
    try:
        yield
    finally:
        done.set()
        player.join()


def test_a_restarted_sound_server(
    microphone: VirtualMicrophone, listener: subprocess.Popen[str]
) -> None:
    word = np.concatenate([toy_model.tone(toy_model.HIGH_HZ, 0.5), np.zeros(8000, np.int16)])
    with repeated(lambda: microphone.play(word)):
        assert until(listener, "Detection") == "high"
    microphone.stop()
    name, reason = until(listener, "DeviceLost")
    assert (name, reason) == ("default", "the sound system ended it")
    microphone.start()
    name, away = until(listener, "DeviceBack")
    assert name == "default"
    assert until(listener, "Gap") == round(away * 16000)
    word = np.concatenate([toy_model.tone(toy_model.LOW_HZ, 0.5), np.zeros(8000, np.int16)])
    with repeated(lambda: microphone.play(word)):
        assert until(listener, "Detection") == "low"
    listener.send_signal(signal.SIGTERM)
    assert until(listener, "End") > away


def test_a_sound_server_that_hangs(
    microphone: VirtualMicrophone, listener: subprocess.Popen[str]
) -> None:
    with microphone.hung():
        assert until(listener, "DeviceLost")[1] == "no audio for 1 s"
        # Closing the stream waits for the server; the program must end all the same.
        listener.send_signal(signal.SIGTERM)
        until(listener, "End")
        assert listener.wait(60) == 0
