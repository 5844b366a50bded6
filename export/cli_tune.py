"""The verb ``tune``. What it does is imported only when it runs."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.command import Command
from ..runtime.errors import EarmarkError
from ..runtime.options import add_device_options, chosen_channel, chosen_device
from ..runtime.sinks.sink import tell

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.sources import Piece, Source
    from ..train.data.clip import Clip
    from .heard import Heard
    from .tune import Tuning

MICROPHONE = "mic"


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument(
        "--positive",
        type=Path,
        required=True,
        metavar="DIR",
        help="recordings of the keywords, one subfolder each",
    )
    parser.add_argument(
        "--keyword", metavar="WORD", help="the one keyword in DIR, which then has no subfolders"
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test", "all"),
        default="all",
        help="which of the recordings; a folder of one keyword has no split (default: %(default)s)",
    )
    parser.add_argument(
        "--background",
        required=True,
        metavar="DIR|FILE|mic",
        help="audio in which nobody says a keyword: files, or what the microphone hears now",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="how long the microphone listens; Ctrl-C ends it earlier (default: 30)",
    )
    add_device_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="TUNED.onnx",
        help="the model with the points in it",
    )
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="NAME=RATE",
        help="a point of RATE false accepts per hour, beside or in place of quiet=0.2, balanced=1 "
        "and sensitive=5; may be repeated",
    )
    parser.add_argument(
        "--default", metavar="NAME", help="make this point the model's default settings"
    )
    parser.add_argument(
        "--smoothing",
        metavar="S,...",
        help="moving averages to try beside the model's own, seconds (default: 0.1 to 0.5)",
    )
    parser.add_argument(
        "--context",
        choices=("background", "silence"),
        default="background",
        help="what surrounds each clip (default: %(default)s)",
    )
    parser.add_argument(
        "--holdout",
        action="store_true",
        help="choose on one half of speakers and recordings, measure on the other",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of all that is drawn at random (default: 0)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="png, svg or pdf (default: TUNED.det.png)"
    )


def _run(arguments: Namespace) -> int:
    import onnx

    from ..runtime.engine import Engine
    from ..runtime.files import atomic_path
    from .det_plot import det_figure
    from .drawing import PICTURES, picture
    from .heard import keyword_clips
    from .model_file import check_output, with_manifest
    from .tune import TuneSettings, cautions, choose, parse_points, tuned_manifest

    check_output(arguments.output)
    plot = arguments.plot or arguments.output.with_suffix(".det.png")
    if plot.suffix.lower() not in PICTURES:
        raise EarmarkError(f"--plot {plot}: name a file that ends in {', '.join(PICTURES)}")
    if arguments.seed < 0:
        raise EarmarkError("--seed: give a number from 0")
    points = parse_points(arguments.point)
    if arguments.default is not None and arguments.default not in points:
        raise EarmarkError(f"--default {arguments.default}: the points are {', '.join(points)}")
    settings = TuneSettings(
        points=points,
        holdout=arguments.holdout,
        seed=arguments.seed,
        **_smoothings(arguments.smoothing),
    )
    engine = Engine(arguments.model)
    if arguments.output.resolve() == engine.path.resolve():
        raise EarmarkError(f"{arguments.output}: is the model itself: name another file")
    clips = keyword_clips(engine.manifest, arguments.positive, arguments.keyword, arguments.split)
    silent = sorted(set(engine.manifest.keywords) - {clip.word for clip in clips})
    if silent and arguments.smoothing is not None:
        raise EarmarkError(
            f"--smoothing: all keywords share the moving average, and no clips of "
            f"{', '.join(silent)} are there to choose it by: leave it out, or record some"
        )
    # Both or none, and what cannot be written is known before half an hour was heard.
    with atomic_path(arguments.output) as model_file, atomic_path(plot) as plot_file:
        graph = onnx.load_model_from_string(engine.read())
        heard = _hear(arguments, engine, clips)
        for line in heard.skipped:
            tell(f"{line}: left out")
        tuning = choose(engine.manifest, heard, settings)
        about = {
            "positive": arguments.positive.resolve().name,
            "split": arguments.split,
            "background": Path(arguments.background).resolve().name,
            "recordings": tuning.recordings,
            "speakers": tuning.speakers,
            "context": arguments.context,
            "smoothings": [*tuning.smoothings],
            "seed": settings.seed,
        }
        manifest = tuned_manifest(engine.manifest, tuning, arguments.default, about)
        title = f"{engine.manifest.name}: {tuning.hours:.3g} h of background"
        model_file.write_bytes(with_manifest(graph, manifest))
        plot_file.write_bytes(picture(det_figure(tuning, title), plot.suffix[1:].lower()))
    report = {
        "type": "tune",
        "model": str(engine.path),
        "output": str(arguments.output),
        "plot": str(plot),
        "default": arguments.default,
        "smoothing": tuning.smoothing,
        "skipped": len(heard.skipped),
        **manifest.metrics["operating_points"],
        "curves": _curves(tuning),
    }
    print(json.dumps(report))
    _show(tuning)
    for line in cautions(tuning):
        tell(line)
    untuned = set(manifest.keywords) - {curve.keyword for curve in tuning.positives}
    if untuned:
        tell(
            f"no clips of {', '.join(sorted(untuned))}: their thresholds stay, and so does the "
            "moving average of all; their false accepts are not in these figures"
        )
    tell(f"{arguments.output} and {plot} written")
    if arguments.default is None:
        tell(
            "without being told the model still decides as before: give listen and detect "
            f"--operating-point NAME ({', '.join(points)}), or tune again with --default NAME"
        )
    return 0


def _hear(arguments: Namespace, engine: "Engine", clips: "list[Clip]") -> "Heard":
    """The clips and the background, scored."""
    from .heard import hear

    how = {"seed": arguments.seed, "silence": arguments.context == "silence"}
    rate = engine.manifest.geometry.sample_rate
    if arguments.background == MICROPHONE:
        minutes = 30.0 if arguments.minutes is None else arguments.minutes
        if not 0 < minutes < float("inf"):
            raise EarmarkError(f"--minutes {minutes:g}: give a number above 0")
        source = _microphone(arguments, rate, minutes)
        return hear(engine, clips, source, seconds=60 * minutes, **how)
    if arguments.minutes is not None or arguments.device is not None or arguments.channel != "0":
        raise EarmarkError(
            "--minutes, --device and --channel go with --background mic: leave them out"
        )
    files = _files(Path(arguments.background), rate)
    return hear(engine, clips, files, recordings=len(files), **how)


def _smoothings(text: str | None) -> dict[str, tuple[float, ...]]:
    if text is None:
        return {}
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (-1.0,)
    if not all(0 <= value <= 60 for value in values):
        raise EarmarkError(f"--smoothing {text}: give seconds from 0 to 60, as in 0.1,0.3")
    return {"smoothings": values}


def _files(path: Path, rate: int) -> list[tuple[str, "Source"]]:
    from ..runtime.sources import FileSource
    from ..train.data.audio_files import find_audio

    found = find_audio(path) if path.is_dir() else (path,)
    if not found:
        raise EarmarkError(f"{path}: no audio files: record some background first")
    return [(str(file), FileSource(file, rate)) for file in found]


def _microphone(arguments: Namespace, rate: int, minutes: float) -> Iterator[tuple[str, "Source"]]:
    """One recording of the given length, which Ctrl-C ends."""
    import signal

    from ..runtime.microphone.microphone import Microphone

    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, before)  # a second one interrupts

    device, channel = chosen_device(arguments.device), chosen_channel(arguments.channel)
    before = signal.signal(signal.SIGINT, stop)
    try:
        with Microphone(device, channel, rate) as microphone:
            tell(
                f"listening on {microphone.name} for {minutes:g} minutes; say none of "
                "the keywords; Ctrl-C ends it"
            )
            yield (
                MICROPHONE,
                _limited(microphone, round(60 * minutes * rate), lambda: stopped),
            )
    finally:
        signal.signal(signal.SIGINT, before)


def _limited(source: "Source", samples: int, stopped: Callable[[], bool]) -> Iterator["Piece"]:
    """A source up to a number of samples, until ``stopped()`` or until it fails."""
    import numpy as np

    from ..runtime.handover import POLL_SECONDS, pieces_in_time

    left = samples
    try:
        for piece in pieces_in_time(source, POLL_SECONDS):
            if isinstance(piece, np.ndarray):
                piece = piece[:left]
                left -= len(piece)
            if piece is not None:
                yield piece
            if left <= 0 or stopped():
                return
    except EarmarkError as error:
        if left == samples:
            raise
        tell(f"{error}; what was heard so far is used")


def _curves(tuning: "Tuning") -> dict[str, Any]:
    """For whoever draws their own: counts at each threshold."""
    return {
        positive.keyword: {
            "thresholds": positive.thresholds.tolist(),
            "misses": positive.misses.tolist(),
            "clips": positive.said,
            "false_accepts": background.false_accepts.tolist(),
            "hours": round(background.seconds / 3600, 4),
        }
        for positive, background in zip(tuning.positives, tuning.background, strict=True)
    }


def _show(tuning: "Tuning") -> None:
    """Print the points for people."""
    from rich.table import Table

    from ..train.terminal import stderr_console

    console = stderr_console()
    figures = Table("operating point", box=None, pad_edge=False)
    thresholds = Table("threshold (missed)", box=None, pad_edge=False)
    measured = [point.measured for point in tuning.points.values()]
    for name in tuning.points:
        figures.add_column(name, justify="right")
        thresholds.add_column(name, justify="right")

    def row(head: str, cell: Callable[[dict[str, Any]], str]) -> None:
        figures.add_row(head, *map(cell, measured))

    row("false accepts/h, wanted", lambda m: f"{m['target_false_accepts_per_hour']:g}")
    row("  measured", lambda m: f"{m['false_accepts_per_hour']:.2f}")
    row("  95 %", lambda m: _span(m["false_accepts_per_hour_interval"], "{:.2f}"))
    if tuning.in_sample:
        row("  elsewhere, up to about", lambda m: f"{m['false_accepts_per_hour_elsewhere']:.2f}")
    row("missed", lambda m: f"{m['false_reject_rate']:.1%}")
    row("  95 %", lambda m: _span(m["false_reject_rate_interval"], "{:.1%}"))
    row("delay p50 / p95", _delays)
    row("other detections", lambda m: str(m["extra_detections"]))
    for curve in tuning.positives:
        cells = [point["keywords"][curve.keyword] for point in measured]
        thresholds.add_row(
            f"{curve.keyword}, {curve.said} clips",
            *(f"{cell['threshold']:g} ({cell['misses']})" for cell in cells),
        )
    console.print(figures)
    console.print()
    console.print(thresholds)
    where = "the same recordings" if tuning.in_sample else "recordings held out"
    console.print(
        f"\nmoving average of {tuning.smoothing:g} s; {tuning.hours:.2f} h of background; "
        f"measured on {where}",
        style="dim",
    )


def _span(limits: list[float], form: str) -> str:
    low, high = (form.format(limit) for limit in limits)
    return f"{low} to {high}".replace(" ", "\N{NO-BREAK SPACE}")


def _delays(measured: dict[str, Any]) -> str:
    if measured["delay_p50"] is None:
        return "-"
    return f"{measured['delay_p50']:.2f} / {measured['delay_p95']:.2f} s"


tune = Command(
    summary="measure misses against false accepts per hour on your recordings, and set thresholds",
    configure=_configure,
    run=_run,
    extra="tune",
    examples=(
        "earmark tune model.onnx --positive clips --background living-room.wav -o tuned.onnx",
        "earmark tune model.onnx --positive clips/jarvis --keyword jarvis --background mic "
        "--minutes 60 --point night=0.05 --default night -o tuned.onnx",
    ),
)
