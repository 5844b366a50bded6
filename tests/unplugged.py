"""Listens with the toy model through the default microphone and prints what happens, line by line.

A program of its own, since the sound server of the tests is found through the environment.
"""

import json
import signal
import sys

import numpy as np
from earmark.runtime import Engine
from earmark.runtime.microphone.microphone import Microphone
from earmark.runtime.sources import Gap


def tell(kind: str, value: object = None) -> None:
    print(json.dumps([kind, value]), flush=True)


def main(model: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stream = Engine(model).stream()
    heard = 0
    try:
        with Microphone() as microphone:
            for piece in microphone:
                if isinstance(piece, np.ndarray):
                    if not heard:
                        tell("Audio")
                    heard += len(piece)
                    for detection in stream.push(piece):
                        tell("Detection", detection.keyword)
                elif isinstance(piece, Gap):
                    stream.gap(piece.samples)
                    tell("Gap", piece.samples)
                else:
                    tell(type(piece).__name__, piece)
    except KeyboardInterrupt:
        tell("End", stream.seconds)


main(sys.argv[1])
