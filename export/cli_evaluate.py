"""The verb ``evaluate``. What it does is imported only when it runs."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.command import Command

if TYPE_CHECKING:
    from rich.console import Console

    from ..train.data.dataset import Split


FEW_CLIPS = 30
"""Fewer clips of a split than these are more likely an accident of their names than meant."""


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="model files; also run directories, which hear whole clips in torch; A+B is an "
        "ensemble, the mean of both",
    )
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
        help="which clips; all for a folder that has no split (default: validation)",
    )
    parser.add_argument(
        "--noise", metavar="DIR", nargs="+", default=[], help="more noise for _silence_ clips"
    )
    parser.add_argument(
        "--speech",
        metavar="DIR",
        nargs="+",
        default=[],
        help="free speech for _unknown_ clips, in folders named as in training: their split "
        "follows from it",
    )
    parser.add_argument(
        "--snr",
        metavar="DB",
        nargs="+",
        default=["clean"],
        help="also in the split's noise, as in --snr clean 20 10 5 0 -5: decibels of a clip's "
        "speech level over the noise, the same noise for every model and ratio",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="which noise each clip gets (default: 0)"
    )
    parser.add_argument(
        "--neighbours",
        action="store_true",
        help="also nearest neighbours among the training clips of --data, the baseline",
    )
    parser.add_argument(
        "--json", action="store_true", help="a JSON line for each model and ratio on stdout"
    )
    parser.add_argument(
        "--predictions", metavar="FILE", help="write path,label,score of each clip as CSV"
    )
    parser.add_argument(
        "--confusion", metavar="FILE.png", help="draw the confusion matrix (png, svg or pdf)"
    )
    parser.add_argument("--cache", metavar="DIR", help="folder that keeps the decoded clips")


def _run(arguments: Namespace) -> int:
    from ..runtime.errors import EarmarkError
    from ..runtime.manifest import SILENCE
    from ..runtime.sinks.sink import tell
    from ..train.data.dataset import load_split
    from ..train.data.stretches import noise_pool
    from ..train.metrics import measure
    from .drawing import PICTURES
    from .evaluate import recordings_sha256, write_predictions
    from .held_out import check_folders, measured_corpus
    from .judge import check_alike, neighbours, open_judge
    from .noisy import in_noise, parse_snrs

    if arguments.confusion and Path(arguments.confusion).suffix.lower() not in PICTURES:
        raise EarmarkError(
            f"--confusion {arguments.confusion}: name a file that ends in {', '.join(PICTURES)}"
        )
    which = arguments.split or "validation"
    snrs = parse_snrs(arguments.snr)
    if arguments.seed is not None and snrs == (None,):
        raise EarmarkError("--seed: goes with noise, as in --snr 10: give both, or leave it out")
    seed = 0 if arguments.seed is None else arguments.seed
    judges = [open_judge(name) for name in arguments.models]
    first = judges[0]
    for other in judges[1:]:
        check_alike(first, other)
    alone = len(judges) == len(snrs) == 1 and not arguments.neighbours
    if (arguments.predictions or arguments.confusion) and not alone:
        raise EarmarkError("--predictions and --confusion are of one model at one --snr")
    if first.multilabel and arguments.confusion:
        raise EarmarkError("--confusion: labels of a multi-label model are not taken for others")
    if arguments.noise and snrs == (None,) and (first.multilabel or SILENCE not in first.labels):
        raise EarmarkError(
            f"--noise: goes with --snr where a model has no clips of {SILENCE}: give both, or "
            "leave it out"
        )
    trained = [one for judge in judges for one in judge.trained]
    check_folders(trained, "--noise", arguments.noise)
    check_folders(trained, "--speech", arguments.speech)
    corpus = measured_corpus(arguments.data, trained)

    def load(name: str) -> "Split":
        return load_split(
            corpus,
            first.labels,
            name,
            first.clip,
            arguments.cache,
            noise_roots=arguments.noise,
            multilabel=first.multilabel,
            speech_roots=arguments.speech,
        )

    clips = load(which)
    held = sum(clip.split == which for clip in corpus.clips)
    if arguments.split is None and held < min(FEW_CLIPS, len(corpus.clips)):
        tell(
            f"{held} of {len(corpus.clips)} clips are judged, those of the {which} split: --split "
            "all judges the others too, for data that the model was not trained on"
        )
    if arguments.neighbours:
        if which in ("train", "all"):
            raise EarmarkError("--neighbours: know the training clips: name another --split")
        judges += neighbours(load("train"), first.clip)
    noise = []
    if snrs != (None,):
        noise = noise_pool(corpus, which, arguments.noise, arguments.cache)
    rows: list[tuple[float | None, list[dict[str, Any]]]] = []
    for snr in snrs:
        split = clips if snr is None else in_noise(clips, noise, snr, seed)
        found = []
        heard = recordings_sha256(split) if arguments.json else None
        for judge in judges:
            posteriors = judge.posteriors(split)
            measures = measure(split, posteriors)
            found.append(measures)
            if arguments.json:
                about = {
                    **judge.about,
                    "data": arguments.data,
                    "speech": arguments.speech,
                    "split": which,
                    "noise": arguments.noise,
                    "snr": snr,
                    "noise_seed": None if snr is None else seed,
                    "recordings_sha256": heard,
                }
                print(json.dumps(about | measures), flush=True)
            if arguments.predictions:
                write_predictions(Path(arguments.predictions), split, posteriors, corpus.roots)
        rows.append((snr, found))
    measures = rows[0][1][0]
    if arguments.confusion:
        from .confusion import draw_confusion

        draw_confusion(Path(arguments.confusion), first.labels, measures["confusion"])
    if arguments.json:
        return 0
    if alone:
        _show(measures)
    else:
        _compare([judge.about for judge in judges], rows)
    return 0


def _compare(
    about: list[dict[str, Any]], rows: list[tuple[float | None, list[dict[str, Any]]]]
) -> None:
    """Print the headline figures side by side, a row for each ratio."""
    from rich.table import Table

    from ..train.metrics import HEADLINES, headline
    from ..train.terminal import stderr_console
    from .judge import ENSEMBLE
    from .noisy import snr_name

    console = stderr_console()
    figure = headline(rows[0][1][0])
    table = Table("noise", box=None, pad_edge=False)
    for one in about:
        names = one["model"].split("+") if one["kind"] == ENSEMBLE else [one["model"]]
        short = "+".join(Path(name).name for name in names)
        table.add_column(f"{short}\n{one['judged']}", justify="right")
    for snr, found in rows:
        cells = []
        for measures in found:
            interval = measures.get(f"{figure}_interval")
            limits = f" ({interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
            cells.append(f"{measures[figure]:.2%}{limits}")
        table.add_row(snr_name(snr), *cells)
    console.print(table)
    first = rows[0][1][0]
    console.print(
        f"{HEADLINES[figure]} on {first['clips']} clips of {first['speakers']} speakers; intervals "
        "of 95 % over speakers",
        style="dim",
    )
    _show_skipped(console, first)


def _show(measures: dict[str, Any]) -> None:
    """Print the measures for people."""
    from rich.table import Table

    from ..train.terminal import stderr_console

    console = stderr_console()
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
        "earmark evaluate small.onnx large.onnx runs/teacher --neighbours "
        "--data data/speech-commands --noise data/esc-10 --snr clean 20 10 5 0 -5",
    ),
)
