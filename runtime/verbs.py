"""The verbs of the runtime. What they do is imported only when they run."""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from .command import Command
from .errors import one_line
from .layout import SPLITS
from .options import (
    add_device_options,
    add_event_options,
    add_gate_option,
    add_model_options,
    positive,
)


def _configure_detect(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="audio files; - for raw 16-bit little-endian mono audio at 16 kHz on standard input",
    )
    add_model_options(parser)
    add_event_options(parser)
    add_gate_option(parser)


def _detect(arguments: Namespace) -> int:
    from .detect import run

    return run(arguments)


def _configure_listen(parser: ArgumentParser) -> None:
    add_model_options(parser)
    add_gate_option(parser)
    add_device_options(parser)
    parser.add_argument("--no-view", action="store_true", help="JSON lines only, no live view")
    parser.add_argument(
        "--seconds", type=positive, metavar="N", help="stop after N seconds of audio"
    )
    add_event_options(parser)


def _listen(arguments: Namespace) -> int:
    from .listen import run

    return run(arguments)


def _configure_record(parser: ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", metavar="WORD", help="what to say; quote a phrase")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="corpus folder"
    )
    parser.add_argument("--count", type=int, metavar="N", help="clips to record (default: 20)")
    parser.add_argument(
        "--noise",
        type=positive,
        metavar="SECONDS",
        help="first record so much of the room without speech",
    )
    add_device_options(parser)
    speakers = parser.add_argument_group(
        "speakers",
        "A clip is WORD/SPEAKER_nohash_N.wav, and all clips of a speaker go to one split: what\n"
        "--split says, or a hash of the name in a folder that has clips but no lists. If yours\n"
        "is the only voice, record twice, best on two days: to train, and with --split\n"
        "validation, which counts as a speaker of its own. Figures then hold for your voice only.",
    )
    speakers.add_argument(
        "--speaker", default="me", metavar="NAME", help="who speaks (default: %(default)s)"
    )
    speakers.add_argument("--split", choices=SPLITS, help="what the clips are for (default: train)")


def _record(arguments: Namespace) -> int:
    from .record import run

    return run(arguments)


def _configure_devices(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object per device")


def _devices(arguments: Namespace) -> int:
    from dataclasses import asdict

    from .microphone.portaudio import devices, no_microphone

    found = devices()
    if not found:
        raise no_microphone()
    for device in found:
        if arguments.json:
            print(json.dumps(asdict(device)))
        else:
            mark = "*" if device.default else " "
            print(
                one_line(
                    f"{mark}{device.index:3} {device.name} ({device.host}), "
                    f"{device.channels} channels, {device.rate:g} Hz"
                )
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


def _configure_completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="what the script is for")


def _completion(arguments: Namespace) -> int:
    from .completion import script

    print(script(arguments.shell))
    return 0


def _configure_wyoming(parser: ArgumentParser) -> None:
    add_model_options(parser, several=True)
    parser.add_argument(
        "--uri",
        default="tcp://127.0.0.1:10400",
        metavar="URI",
        help="tcp://HOST:PORT (0.0.0.0 for all networks), unix:///PATH or stdio:// "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--clients",
        type=_count,
        default=32,
        metavar="N",
        help="most clients at once (default: %(default)s)",
    )
    parser.add_argument(
        "--idle",
        type=positive,
        default=600.0,
        metavar="SECONDS",
        help="end a connection that sends nothing for so long (default: %(default)g)",
    )


def _wyoming(arguments: Namespace) -> int:
    from .wyoming.server import run

    return run(arguments)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= 10_000):
        raise ArgumentTypeError("a number from 1 to 10000 is needed")
    return int(text)


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
    examples=(
        "earmark listen",
        "earmark listen --device USB --channel mix --no-view --heartbeat 60",
        "earmark listen --mqtt mqtts://me@broker.lan --http 8080",
        "earmark listen --exec 'notify-send heard'",
    ),
)
record = Command(
    summary="record your own samples of a word into a corpus folder",
    configure=_configure_record,
    run=_record,
    extra="mic",
    examples=(
        'earmark record "hey robot" -o data/mine --noise 60',
        'earmark record "hey robot" -o data/mine --split validation --count 8',
        "earmark record _unknown_ -o data/mine --speaker ann",
    ),
)
devices = Command(
    summary="list the microphones",
    configure=_configure_devices,
    run=_devices,
    extra="mic",
    examples=("earmark devices", "earmark devices --json"),
)
info = Command(
    summary="show what a model file says of itself",
    configure=_configure_info,
    run=_info,
    examples=("earmark info", "earmark info model.onnx --json"),
)
wyoming = Command(
    summary="serve models as wake words for Home Assistant, by the Wyoming protocol",
    configure=_configure_wyoming,
    run=_wyoming,
    extra="wyoming",
    examples=(
        "earmark wyoming --model mine.onnx",
        "earmark wyoming --uri tcp://0.0.0.0:10400    # for other machines",
        "earmark wyoming --uri stdio://",
    ),
)
completion = Command(
    summary="print a script with which a shell completes earmark's commands",
    configure=_configure_completion,
    run=_completion,
    extra="completion",
    examples=(
        "earmark completion bash >> ~/.bash_completion",
        "earmark completion zsh > ~/.zfunc/_earmark    # a folder of $fpath",
        "earmark completion fish > ~/.config/fish/completions/earmark.fish",
    ),
)
