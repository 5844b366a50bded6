"""``earmark listen`` on a microphone that follows a script, as a program of its own.

``python fake_microphone.py SCRIPT ARGUMENT...`` runs ``earmark ARGUMENT...``. Scripts are functions
below; a script that ends is a microphone that gave up.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
import toy_model
from earmark.runtime import EarmarkError, listen
from earmark.runtime.cli import main
from earmark.runtime.sources import Counters, DeviceBack, DeviceLost, Gap, Piece


def endless() -> Iterator[Piece]:
    """The scene again and again, much faster than it would be spoken."""
    pcm = toy_model.scene().astype(np.float32) / 32768
    while True:
        for start in range(0, len(pcm), 4000):
            time.sleep(0.001)
            yield pcm[start : start + 4000]


def replugged() -> Iterator[Piece]:
    """Lost for a while after the first words, then back; the user's terminal is drawn meanwhile."""
    pcm = toy_model.scene().astype(np.float32) / 32768
    yield pcm[:32000]
    yield DeviceLost("fake", "no audio for 1 s")
    time.sleep(0.6)
    yield DeviceBack("fake", 0.6)
    yield Gap(9600)
    yield pcm[32000:]
    time.sleep(0.3)


SCRIPTS = {"endless": endless, "replugged": replugged}


class FakeMicrophone:
    """What ``listen`` needs of a microphone."""

    name = "fake"
    device_rate = 48000.0
    counters = Counters(overflows=2, dropped=0.5, queued=0.0)

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> "FakeMicrophone":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Piece]:
        yield from SCRIPTS[sys.argv[1]]()
        raise EarmarkError("microphone fake: gave up")


if __name__ == "__main__":
    listen.Microphone = FakeMicrophone  # type: ignore[misc]
    sys.exit(main(sys.argv[2:]))
