"""The verb ``evaluate``. What it does is imported only when it runs."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.command import Command

if TYPE_CHECKING:
    from rich.console import Console


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument(
        "--data",
        metavar="DIR",
        nargs="+",
        required=True,
        help="corpus folders with one subfolder per word, read as one",
    )
    parser.add_argument(
        "--split",
        choices=("validation", "test", "train", "all"),
        default="validation",
        help="which clips; all for a folder that has no split (default: validation)",
    )
    parser.add_argument(
        "--noise", metavar="DIR", nargs="+", default=[], help="more noise for _silence_ clips"
    )
    parser.add_argument(
        "--speech", metavar="DIR", nargs="+", default=[], help="free speech for _unknown_ clips"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--predictions", metavar="FILE", help="write path,label,score of each clip as CSV"
    )
    parser.add_argument(
        "--confusion", metavar="FILE.png", help="draw the confusion matrix (png, svg or pdf)"
    )
    parser.add_argument("--cache", metavar="DIR", help="folder that keeps the decoded clips")


def _run(arguments: Namespace) -> int:
    from ..runtime.engine import Engine
    from ..runtime.errors import EarmarkError
    from ..train.corpus import scan
    from ..train.dataset import load_split
    from ..train.metrics import measure
    from .drawing import PICTURES
    from .evaluate import clip_seconds, score, write_predictions

    if arguments.confusion and Path(arguments.confusion).suffix.lower() not in PICTURES:
        raise EarmarkError(
            f"--confusion {arguments.confusion}: name a file that ends in {', '.join(PICTURES)}"
        )
    engine = Engine(arguments.model)
    labels = engine.manifest.labels
    multilabel = engine.manifest.activation == "sigmoid"
    if multilabel and arguments.confusion:
        raise EarmarkError("--confusion: labels of a multi-label model are not taken for others")
    corpus = scan(*arguments.data)
    split = load_split(
        corpus,
        labels,
        arguments.split,
        clip_seconds(engine.manifest),
        arguments.cache,
        noise_roots=arguments.noise,
        multilabel=multilabel,
        speech_roots=arguments.speech,
    )
    posteriors = score(engine, split)
    measures = measure(split, posteriors)
    if arguments.predictions:
        write_predictions(Path(arguments.predictions), split, posteriors, corpus.roots)
    if arguments.confusion:
        from .confusion import draw_confusion

        draw_confusion(Path(arguments.confusion), labels, measures["confusion"])
    if arguments.json:
        about = {
            "model": str(engine.path),
            "precision": engine.manifest.precision,
            "data": arguments.data,
            "split": arguments.split,
        }
        print(json.dumps(about | measures))
    else:
        _show(measures)
    return 0


def _show(measures: dict[str, Any]) -> None:
    """Print the measures for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, markup=False, highlight=False)
    labels = list(measures["recall"])
    table = Table("class", box=None, pad_edge=False)
    table.add_column("clips", justify="right")
    table.add_column("recall", justify="right")
    if "map" in measures:
        table.add_column("average precision", justify="right")
        for label in labels:
            recall, precision = measures["recall"][label], measures["average_precision"][label]
            table.add_row(label, f"{measures['support'][label]}", _share(recall), _share(precision))
        console.print(table)
        console.print(
            f"mean average precision {measures['map']:.4f}, macro F1 {measures['macro_f1']:.4f} at "
            f"a threshold of {measures['threshold']:g}, on {measures['clips']} clips"
        )
        _show_skipped(console, measures)
        return
    table.add_column("most often taken for")
    for row, label in enumerate(labels):
        recall = measures["recall"][label]
        wrong = [
            (count, other)
            for other, count in zip(labels, measures["confusion"][row], strict=True)
            if other != label and count
        ]
        wrong.sort(key=lambda pair: -pair[0])
        table.add_row(
            label,
            f"{measures['support'][label]}",
            _share(recall),
            ", ".join(f"{other} {count}" for count, other in wrong[:3]),
        )
    console.print(table)
    low_high = measures["top1_interval"]
    interval = f" (95 % interval {low_high[0]:.2%} to {low_high[1]:.2%})" if low_high else ""
    console.print(
        f"top-1 {measures['top1']:.2%}{interval} on {measures['clips']} clips of "
        f"{measures['speakers']} speakers",
    )
    top5 = f", top-5 {measures['top5']:.2%}" if "top5" in measures else ""
    console.print(f"macro F1 {measures['macro_f1']:.4f}{top5}")
    _show_skipped(console, measures)


def _show_skipped(console: "Console", measures: dict[str, Any]) -> None:
    if measures["skipped"]:
        console.print(f"{measures['skipped']} clips could not be read and were skipped")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


evaluate = Command(
    summary="measure a model on recorded clips through the streaming path",
    configure=_configure,
    run=_run,
    extra="export",
    examples=(
        "earmark evaluate model.onnx --data data/speech-commands --split test",
        "earmark evaluate model.onnx --data clips --split all --json --predictions scores.csv",
    ),
)
