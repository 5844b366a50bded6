"""The verb ``plan``."""

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from ..runtime.command import Command
from ..runtime.errors import EarmarkError


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "data", nargs="+", metavar="DATA", help="folder of class folders, or CSV table of clips"
    )
    parser.add_argument(
        "--device",
        choices=("edge", "server", "gpu"),
        default="edge",
        help="where the model will run: a large network where there is room for one "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--keywords",
        metavar="WORDS",
        help="spot these among all other words (commas between; default: tell all classes apart)",
    )
    parser.add_argument(
        "--noise", nargs="+", default=[], metavar="DIR", help="folders of background noise"
    )
    parser.add_argument(
        "--speech",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of free speech, which is other words beside --keywords",
    )
    parser.add_argument("--name", default="", help="of the recipe (default: the folder's)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("recipe.toml"),
        help="the recipe to write (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.add_argument("--json", action="store_true", help="what was found, as JSON on stdout")


def _run(arguments: Namespace) -> int:
    from ..runtime.files import write_text
    from .data.survey import survey
    from .plan import find_folds, plan
    from .recipe import load_recipe

    words = [word.strip() for word in (arguments.keywords or "").split(",") if word.strip()]
    if arguments.keywords is not None and not words:
        raise EarmarkError("--keywords: names no word: name some, or leave it out")
    output: Path = arguments.output
    if output.exists() and not arguments.force:
        raise EarmarkError(f"{output}: exists already: name another with -o, or give --force")
    corpus, folds = find_folds(arguments.data)
    found = survey(corpus)
    text = plan(
        arguments.data,
        corpus,
        found,
        folds=folds,
        device=arguments.device,
        keywords=words,
        noise=arguments.noise,
        speech=arguments.speech,
        name=arguments.name,
    )
    write_text(output, text)
    if arguments.json:
        report = {"type": "plan", "data": arguments.data, "recipe": str(output)}
        print(json.dumps(report | asdict(found), ensure_ascii=False))
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        print(line[2:], file=sys.stderr)
    if found.unreadable:
        print(f"clips that cannot be read, left out: {found.unreadable}", file=sys.stderr)
    verb = "train" if load_recipe(output).teacher is None else "teach"
    print(f"written: {output}\nnext: earmark {verb} {output}", file=sys.stderr)
    return 0


plan = Command(
    summary="look at a data set and write a starter recipe, with the reason of each choice",
    configure=_configure,
    run=_run,
    extra="train",
    examples=(
        "earmark plan data/esc-50/meta/esc50.csv -o esc-50.toml",
        "earmark plan data/speech-commands --keywords yes,no,stop --device edge -o commands.toml",
        'earmark plan data/mine --keywords "hey robot" --noise data/noise --speech data/libri',
    ),
)
