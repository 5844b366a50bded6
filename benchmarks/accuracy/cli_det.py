"""The verb ``det``."""

import hashlib
import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .composed import Composed

SNRS = ("clean", "20", "10")
TARGETS = (1.0, 0.5, 0.2)
"""What is taken where nothing else is asked for."""


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="+", type=Path, help="model files")
    parser.add_argument(
        "--data", metavar="DIR", nargs="+", required=True, help="corpus folders, read as one"
    )
    parser.add_argument(
        "--split", choices=("validation", "test"), default="validation", help="whose clips are said"
    )
    parser.add_argument(
        "--noise", metavar="DIR", nargs="+", default=[], help="more noise beside the corpus' own"
    )
    parser.add_argument(
        "--speech",
        metavar="DIR",
        nargs="+",
        default=[],
        help="free speech, of which the share is heard that training leaves out (the folder named "
        "as there), less the keywords that its transcripts tell of",
    )
    parser.add_argument(
        "--other",
        metavar="DIR",
        nargs="+",
        default=[],
        help="more free speech, of which no model has heard anything: all of it",
    )
    parser.add_argument(
        "--snr",
        metavar="DB",
        nargs="+",
        default=[*SNRS],
        help="conditions: clean, or decibels of the speech over the noise "
        f"(default: {' '.join(SNRS)})",
    )
    parser.add_argument(
        "--target",
        metavar="RATE",
        type=float,
        nargs="+",
        default=[*TARGETS],
        help="false accepts per hour of the operating points "
        f"(default: {' '.join(f'{rate:g}' for rate in TARGETS)})",
    )
    parser.add_argument(
        "--smoothing",
        metavar="SECONDS",
        type=float,
        help="judge the models at this moving average, not at that of their files",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of all that is drawn at random (default: 0)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the curves (png, svg or pdf)"
    )
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help="keep the streams as WAV with label tracks"
    )
    parser.add_argument("--cache", metavar="DIR", help="folder that keeps the decoded clips")


def _run(arguments: Namespace) -> int:
    from ...export.drawing import PICTURES, picture
    from ...export.evaluate import clip_seconds
    from ...export.held_out import Trained, check_folders, measured_corpus
    from ...export.noisy import parse_snrs
    from ...runtime.engine import Engine
    from ...runtime.errors import EarmarkError
    from ...runtime.files import write_bytes
    from ...train.data.dataset import load_split
    from ...train.data.stretches import noise_pool, speech_recordings
    from ...train.data.transcripts import transcript_files
    from ...train.progress import progress
    from .composed import Materials, compose_all, plan, write_streams
    from .det import cautions, det_figure, listen, measure, smoothed

    snrs = parse_snrs(arguments.snr)
    if arguments.seed < 0:
        raise EarmarkError("--seed: give a number from 0")
    if not all(0 < rate < float("inf") for rate in arguments.target):
        raise EarmarkError("--target: give false accepts per hour, above 0")
    if arguments.plot and arguments.plot.suffix.lower() not in PICTURES:
        raise EarmarkError(f"--plot {arguments.plot}: name a file of {', '.join(PICTURES)}")
    if arguments.smoothing is not None and not 0 <= arguments.smoothing <= 60:
        raise EarmarkError("--smoothing: give seconds, 0 to 60")
    engines = [Engine(path) for path in arguments.models]
    manifest = engines[0].manifest
    for engine in engines[1:]:
        if engine.manifest.labels != manifest.labels:
            raise EarmarkError(f"{engine.path}: has other labels than {engines[0].path}")
    trained = [Trained.of_file(str(engine.path), engine.manifest) for engine in engines]
    for folder in arguments.other:
        for model in trained:
            for name in sorted(model.knows(folder)):
                raise EarmarkError(
                    f"--other {folder}: {model.model} was trained on {name}: name it in --speech"
                )
    check_folders(trained, "--noise", arguments.noise)
    check_folders(trained, "--speech", arguments.speech)
    corpus = measured_corpus(arguments.data, trained)
    words = load_split(
        corpus, manifest.labels, arguments.split, clip_seconds(manifest), arguments.cache
    )
    # Neither share is trained on; validation clips of it may have guided the choice of a recipe.
    shares = [
        *((arguments.speech, split) for split in ("validation", "test") if arguments.speech),
        *([(arguments.other, "all")] if arguments.other else []),
    ]
    speech = [
        item
        for roots, split in shares
        for item in speech_recordings(roots, split, manifest.keywords, arguments.cache)
    ]
    folders = (*arguments.speech, *arguments.other)
    untold = [folder for folder in folders if not transcript_files(Path(folder))]
    noise = noise_pool(corpus, arguments.split, arguments.noise, arguments.cache)
    materials = Materials(words, tuple(noise), tuple(speech))
    streams = compose_all(materials, snrs, arguments.seed)
    if arguments.write:
        streams = write_streams(streams, arguments.write)
    total = len(snrs) * len(plan(materials, arguments.seed))
    digest = hashlib.sha256()
    with progress("Hearing streams", total) as advance:

        def counted() -> "Iterator[Composed]":
            for stream in streams:
                digest.update(stream.content)
                yield stream
                advance(1)

        takes = listen(engines, counted())
    reports: list[dict[str, Any]] = []
    for engine, heard in zip(engines, takes, strict=True):
        judged = smoothed(engine.manifest, arguments.smoothing)
        about = {
            "type": "det",
            "model": str(engine.path),
            "title": engine.path.stem,
            "precision": engine.manifest.precision,
            "parameters": engine.manifest.parameters,
            "data": arguments.data,
            "split": arguments.split,
            "noise": arguments.noise,
            "speech": arguments.speech,
            "other": arguments.other,
            "seed": arguments.seed,
            "smoothing": arguments.smoothing,
            "untold": untold,
            "recordings_sha256": digest.hexdigest(),
        }
        report = about | measure(judged, heard, arguments.target)
        print(json.dumps(report), flush=True)
        reports.append(report)
    if arguments.plot:
        figure = det_figure(reports)
        write_bytes(arguments.plot, picture(figure, arguments.plot.suffix[1:].lower()))
    _show(reports)
    for line in cautions(reports):
        print(f"earmark: {line}", file=sys.stderr)
    return 0


def _show(reports: list[dict[str, Any]]) -> None:
    from ..tables import show_table
    from .det_rows import (
        POINT_HEADS,
        curve_cells,
        curve_heads,
        kind_cells,
        kind_heads,
        point_cells,
    )

    rows = [cells for report in reports for cells in point_cells(report)]
    first = reports[0]
    show_table(
        POINT_HEADS,
        rows,
        f"{first['clips']} keywords, {first['distinct_hours']:.2f} h of distinct speech without, "
        f"each {', '.join(first['conditions'])}; intervals of 95 %",
    )
    show_table(
        curve_heads(first),
        [curve_cells(report) for report in reports],
        "From the curve of all speakers, no threshold held out: missed at so many false accepts/h "
        "over all conditions, and the fewest at any",
    )
    show_table(
        kind_heads(first),
        [cells for report in reports for cells in kind_cells(report)],
        "False accepts/h in each kind of speech without keywords",
    )


det = Command(
    summary="measure misses against false accepts per hour on streams composed of a corpus",
    configure=_configure,
    run=_run,
    extra="export",
    examples=(
        "earmark det model.onnx --data data/speech-commands --noise data/esc-10 "
        "--speech data/libri-negatives --plot det.png",
        "earmark det small.onnx large.onnx --data data/speech-commands --snr clean --write streams",
    ),
)
