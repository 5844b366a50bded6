"""The verb ``few-shot``."""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from ...runtime.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("word", metavar="WORD", help="the wake word")
    parser.add_argument(
        "recordings", metavar="DIR", help="recordings that each hold it once, of many speakers"
    )
    parser.add_argument(
        "--speech", required=True, metavar="DIR", help="free speech without it, many recordings"
    )
    parser.add_argument("--noise", required=True, metavar="DIR", help="noise to train with")
    parser.add_argument("--other", default="", metavar="DIR", help="more audio, measured only")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder for all that is made (default: few-shot-WORD)"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[0, 5, 20, 100],
        metavar="N",
        help="recordings to train with (default: 0 5 20 100)",
    )
    parser.add_argument("--seeds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--recipe", metavar="FILE", help="(default: the shipped wake-word.toml)")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], help="override the recipe"
    )


def _run(arguments: Namespace) -> int:
    from ...runtime.errors import EarmarkError
    from .few_shot import FewShotSettings, run

    if min(arguments.sizes) < 0 or arguments.seeds < 1:
        raise EarmarkError("--sizes and --seeds: expected numbers of recordings, and of models")
    settings = FewShotSettings(
        word=arguments.word,
        recordings=arguments.recordings,
        speech=arguments.speech,
        noise=arguments.noise,
        other=arguments.other,
        sizes=tuple(sorted(set(arguments.sizes))),
        seeds=arguments.seeds,
        overrides=tuple(arguments.set),
    )
    if arguments.recipe:
        settings = replace(settings, recipe=arguments.recipe)
    target = run(Path(arguments.output or f"few-shot-{arguments.word}"), settings)
    print(target.read_text(encoding="utf-8"), file=sys.stderr)
    return 0


few_shot = Command(
    summary="measure how many recordings a wake word takes: misses against false accepts",
    configure=_configure,
    run=_run,
    extra="bench",
    examples=(
        "earmark few-shot computer data/wake-words/computer --speech data/libri --noise data/noise",
    ),
)
