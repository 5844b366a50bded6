"""The verbs of the runtime. What they do is imported only when they run."""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from .command import Command
from .options import add_gate_option, add_model_options


def _configure_detect(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="audio files; - for raw 16-bit little-endian mono audio at 16 kHz on standard input",
    )
    add_model_options(parser)
    add_gate_option(parser)


def _detect(arguments: Namespace) -> int:
    from .detect import run

    return run(arguments)


def _configure_listen(parser: ArgumentParser) -> None:
    add_model_options(parser)
    add_gate_option(parser)
    parser.add_argument(
        "--device", metavar="NAME|INDEX", help="input device (default: the system's)"
    )
    parser.add_argument(
        "--channel", metavar="N|mix", default="0", help="channel to hear, from 0 (default: 0)"
    )
    parser.add_argument("--no-view", action="store_true", help="JSON lines only, no live view")
    parser.add_argument(
        "--seconds", type=_positive, metavar="N", help="stop after N seconds of audio"
    )


def _listen(arguments: Namespace) -> int:
    from .listen import run

    return run(arguments)


def _configure_devices(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object per device")


def _devices(arguments: Namespace) -> int:
    from dataclasses import asdict

    from .errors import EarmarkError
    from .microphone import devices

    found = devices()
    if not found:
        raise EarmarkError(
            "there is no microphone: connect one, or check that the sound server runs"
        )
    for device in found:
        if arguments.json:
            print(json.dumps(asdict(device)))
        else:
            mark = "*" if device.default else " "
            print(
                f"{mark}{device.index:3} {device.name} ({device.host}), "
                f"{device.channels} channels, {device.rate:g} Hz"
            )
    return 0


def _configure_info(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model file (default: the one that is shipped)"
    )
    parser.add_argument("--json", action="store_true", help="the manifest as one JSON object")


def _info(arguments: Namespace) -> int:
    from .info import run

    return run(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError("a number above 0 is needed")
    return value


detect = Command(
    summary="find keywords in audio files or a raw stream and print them as JSON lines",
    configure=_configure_detect,
    run=_detect,
    examples=(
        "earmark detect recording.wav",
        "arecord -q -t raw -f S16_LE -r 16000 -c 1 | earmark detect -",
        "earmark detect --threshold yes=0.9 *.flac",
    ),
)
listen = Command(
    summary="find keywords in what the microphone hears, with a live view",
    configure=_configure_listen,
    run=_listen,
    extra="mic",
    examples=("earmark listen", "earmark listen --device USB --channel mix --no-view"),
)
devices = Command(
    summary="list the microphones",
    configure=_configure_devices,
    run=_devices,
    extra="mic",
)
info = Command(
    summary="show what a model file says of itself",
    configure=_configure_info,
    run=_info,
    examples=("earmark info", "earmark info model.onnx --json"),
)
