"""``earmark listen`` through a virtual microphone: sound server, PortAudio, ring, stream."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_model
from command import EARMARK, launch
from spoken_words import WORDS, spoken_scene
from virtual_microphone import VirtualMicrophone, missing, virtual_microphone

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"a virtual microphone needs programs not found here: {missing()}"
)


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMicrophone]:
    with virtual_microphone(tmp_path_factory.mktemp("sound")) as running:
        yield running


def toy_scene(tmp_path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    return (
        ["--model", str(toy_model.save(tmp_path / "toy.onnx"))],
        toy_model.scene(),
        [*("low", "high", "low")],
    )


def command_scene(tmp_path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    return [], spoken_scene(tmp_path / "words"), list(WORDS)


# What is played to which model: a function from a folder for its files to the options of `listen`,
# the audio (int16, 16 kHz) and the keywords in it.
Scene = Callable[[Path], tuple[list[str], np.ndarray, list[str]]]
SCENES: dict[str, Scene] = {"toy": toy_scene, "shipped model, spoken words": command_scene}


def listen(
    microphone: VirtualMicrophone, *options: str, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    return launch("listen", *options, stderr=stderr, env=microphone.environment, text=True)


def play_until(process: subprocess.Popen[str], play: Callable[[], None], count: int) -> list[dict]:
    """Play again and again until ``count`` detections were printed, and return them.

    Nothing tells when the sound server has connected the stream, so a single playing could be
    missed in part.
    """
    assert process.stdout
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set() and process.poll() is None:
            play()

    player = threading.Thread(target=repeat)
    player.start()
    try:
        return [json.loads(process.stdout.readline()) for _ in range(count)]
    finally:
        done.set()
        player.join()


@pytest.mark.parametrize("scene", SCENES)
def test_played_keywords_are_detected(
    microphone: VirtualMicrophone, tmp_path: Path, scene: str
) -> None:
    options, pcm, keywords = SCENES[scene](tmp_path)
    process = listen(microphone, *options)
    count = len(keywords)
    found = play_until(process, lambda: microphone.play(pcm), 2 * count)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    heard = [event["keyword"] for event in found if event["type"] == "detection"]
    # The playing that was under way when the stream began may lack its first keywords.
    turns = [keywords[i:] + keywords[:i] for i in range(count)]
    assert heard[-count:] in turns
    times = [event["time"] for event in found]
    assert times == sorted(times)
    assert process.returncode == 0
    ended = json.loads(out.splitlines()[-1])
    assert ended["type"] == "ended"
    assert ended["detections"] >= len(heard)
    assert "detections" in err.splitlines()[-1]
    assert "overflows" in err.splitlines()[-1]


def test_ends_by_itself_after_the_seconds_asked_for(
    microphone: VirtualMicrophone, model: str
) -> None:
    process = listen(microphone, "--model", model, "--seconds", "0.5", "--channel", "mix")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["ended"]
    assert "0 detections" in err


def test_live_view_on_a_terminal_beside_json_lines(
    microphone: VirtualMicrophone, model: str
) -> None:
    outer, inner = os.openpty()
    process = listen(microphone, "--model", model, stderr=inner)
    os.close(inner)
    drawn = bytearray()

    def read() -> None:
        try:
            while data := os.read(outer, 4096):
                drawn.extend(data)
        except OSError:  # how Linux tells that the other end was closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    found = play_until(process, lambda: microphone.play(toy_model.scene()), 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    reader.join(30)
    os.close(outer)
    text = drawn.decode()
    assert process.returncode == 0
    assert {event["type"] for event in found} == {"detection"}
    assert "\x1b[?1049h" in text  # the alternate screen, entered and left
    assert "\x1b[?1049l" in text
    assert all(word in text for word in ("low", "high", "level", "CPU"))
    assert "listened for" in text.rpartition("\x1b[?1049l")[2]


def test_devices_and_unknown_ones(microphone: VirtualMicrophone, model: str) -> None:
    done = subprocess.run(
        [*EARMARK, "devices", "--json"],
        env=microphone.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [device["name"] for device in found if device["default"]] == ["default"]
    process = listen(microphone, "--model", model, "--device", "nosuch")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "choose with --device from" in err
    assert err.count("\n") == 1
