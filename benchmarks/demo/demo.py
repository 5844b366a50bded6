"""The whole way on synthesized words: corpus, training, export, accuracy, cost, a scene, a report.

Every stage keeps what it has made, so that a demo that was interrupted goes on where it was.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...export.confusion import confusion_figure
from ...export.drawing import picture
from ...export.evaluate import evaluate
from ...export.export import export
from ...export.matching import match
from ...runtime.engine import Engine
from ...runtime.files import write_bytes, write_text
from ...train.claim import claim
from ...train.collect.synth import synthesize
from ...train.data.corpus import scan
from ...train.data.dataset import label_set, load_split
from ...train.data.stretches import noise_pool
from ...train.fit import train
from ...train.recipe import Recipe, parse_recipe, recipe_toml
from ...train.run import load_run
from ..latency.edge import edge_work
from ..latency.timing import ROUNDS, TURN, measure
from ..machine import machine, machine_line
from ..page_parts import Picture
from ..scene import Scene, compose, hear, write_wav
from ..tables import show_table
from .report import Report, Result, comparison, page
from .timeline import timeline

KEYWORDS = ("lights on", "lights off", "computer", "stop")
SETTINGS_FILE = "demo.json"
REPORT_FILE = "report.html"
CLIP_SECONDS = 1.2
SNR_DB = 10.0
CAUTION = (
    "These figures are of synthesized voices that were not in training. They show that each stage "
    "works. They do not say how well the model hears people: formant speech is a start for words "
    "that nobody has recorded yet, and recordings of real speakers are what makes a model good."
)


@dataclass(frozen=True)
class DemoSettings:
    """All that a demo depends on."""

    keywords: tuple[str, ...] = KEYWORDS
    clips: int = 400
    """Synthesized clips of each keyword."""
    epochs: int = 40
    bench_turn: float = TURN
    bench_rounds: int = ROUNDS
    seed: int = 0

    @classmethod
    def choose(cls, keywords: Sequence[str] | None, quick: bool) -> "DemoSettings":
        """The settings for the command line's options.

        Raises:
            EarmarkError: unusable keywords.
        """
        chosen = cls(tuple(keywords or KEYWORDS))
        label_set(chosen.keywords)
        if quick:
            return dataclasses.replace(chosen, clips=100, epochs=15)
        return chosen


def run(folder: Path, settings: DemoSettings) -> Path:
    """Make the demo in ``folder`` and return its report.

    Raises:
        EarmarkError: the folder holds something else or a demo of other settings, or a stage fails.
    """
    claim(folder, SETTINGS_FILE, dataclasses.asdict(settings))
    data, run_dir, model = folder / "data", folder / "run", folder / "model.onnx"
    steps = _Steps(6)

    names = ", ".join(repr(keyword) for keyword in settings.keywords)
    steps.next(f"Speak {names} and other words in many synthesized voices")
    written = synthesize(
        settings.keywords,
        data,
        clips=settings.clips,
        seed=settings.seed,
        clip_seconds=CLIP_SECONDS,
    )
    steps.say(f"{written.clips + written.kept} clips in {data}")

    recipe = demo_recipe(folder, settings)
    write_text(folder / "recipe.toml", recipe_toml(recipe))
    steps.next(f"Train for {settings.epochs} epochs")
    train(recipe, run_dir, f"earmark train {folder / 'recipe.toml'}")
    steps.say(f"run directory: {run_dir}")

    steps.next("Export to float32 and int8, and check that both do what was trained")
    engines = _exported(run_dir, model)
    int8 = engines[-1].manifest
    parity = int8.quantization["parity"]
    steps.say(
        f"{int8.parameters:,} parameters; int8 gives another label than float32 to "
        f"{100 * parity['int8_labels_changed']:.1f} % of {parity['clips']} clips"
    )

    steps.next("Measure both on clips of voices that were not in training")
    corpus = scan(data)
    held_out = load_split(corpus, int8.labels, "test", CLIP_SECONDS, folder / "cache")
    accuracies = [evaluate(engine, held_out) for engine in engines]
    steps.say(f"{len(held_out)} clips")

    steps.next(f"Play a scene with noise at {SNR_DB:g} dB to both")
    keywords = len(settings.keywords)
    scene = compose(
        held_out,
        noise_pool(corpus, "test", cache_dir=folder / "cache"),
        seconds=2.2 * (3 * keywords + 6),
        snr_db=SNR_DB,
        seed=settings.seed,
    )
    write_wav(folder / "scene.wav", scene.pcm)
    heard = [hear(engine, scene.pcm) for engine in engines]
    matchings = [match(found.detections, scene.truth) for found in heard]
    steps.say(f"{scene.seconds:.0f} s, {len(scene.truth)} keywords: {folder / 'scene.wav'}")

    steps.next("Time both on this machine")
    host = machine()
    timings = measure(
        [edge_work(engine, engine.manifest.precision, scene.pcm) for engine in engines],
        rounds=settings.bench_rounds,
        turn=settings.bench_turn,
        paced=0,
    )
    results = [
        Result(
            engine.manifest,
            accuracy,
            matching.summary(scene.seconds),
            times.hot,
            engine.size,
        )
        for engine, accuracy, matching, times in zip(
            engines, accuracies, matchings, timings, strict=True
        )
    ]

    drawn = picture(timeline(scene, heard[-1], matchings[-1], int8))
    write_bytes(folder / "timeline.png", drawn)
    confusion = picture(confusion_figure(int8.labels, accuracies[-1]["confusion"]))
    report = Report(
        title=f"Earmark demo: {', '.join(settings.keywords)}",
        lead=_lead(results[-1], scene),
        done=steps.done,
        results=results,
        caution=CAUTION,
        pictures=(
            Picture(
                drawn,
                "A scene, and what the int8 model made of it",
                "Above: the sound with the keywords (in colour) and other words (grey) where they "
                "are said. Middle: the smoothed posterior of each keyword. Below: detections.",
                wide=True,
            ),
            Picture(
                confusion,
                "Confusion matrix, int8",
                "Clips of held-out voices by their true class (rows) and the predicted one.",
            ),
        ),
        settings={
            "demo": dataclasses.asdict(settings),
            "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
        },
        machine=host,
        further=_further(folder),
    )
    target = folder / REPORT_FILE
    write_text(target, page(report))
    heads, rows = comparison(results)
    show_table(heads, rows, f"{CAUTION}\n{machine_line(host)}")
    steps.close(target, report.further)
    return target


def demo_recipe(folder: Path, settings: DemoSettings) -> Recipe:
    """The recipe of the demo in ``folder``."""
    return parse_recipe(
        {
            "name": "demo",
            "keywords": settings.keywords,
            "seed": settings.seed,
            "data": {
                "roots": (str(folder / "data"),),
                "clip": CLIP_SECONDS,
                "cache": str(folder / "cache"),
            },
            # One thread: the same result on any machine, and enough for so small a corpus.
            "train": {"epochs": settings.epochs, "accelerator": "cpu", "batch": 64, "threads": 1},
        },
        "demo",
    )


def _exported(run_dir: Path, model: Path) -> list[Engine]:
    """The float32 and the int8 model of the run, exported unless that has been done."""
    files = (model.with_suffix(".float32.onnx"), model)
    weights = load_run(run_dir).weights_sha256
    if all(file.is_file() for file in files):
        engines = [Engine(file) for file in files]
        if all(engine.manifest.checkpoint_sha256 == weights for engine in engines):
            return engines
    result = export(run_dir, model)
    return [Engine(result.float_model), Engine(result.model)]


def _lead(result: Result, scene: Scene) -> str:
    manifest, found, size = result.manifest, result.scene, result.size
    false = found["false_accepts"]
    return (
        f"A spotter of {len(manifest.keywords)} keywords, trained from text alone: "
        f"{size / 1000:.0f} kB in one file, {result.timing.cpu_ms_per_second.median:.2f} ms of CPU "
        f"time per second of audio. In {scene.seconds:.0f} s of words in noise it found "
        f"{found['hits']} of {found['keywords']} keywords, with {false} false "
        f"detection{'' if false == 1 else 's'}."
    )


def _further(folder: Path) -> list[tuple[str, str]]:
    model, scene = (shlex.quote(str(folder / name)) for name in ("model.onnx", "scene.wav"))
    return [
        ("Hear the scene as the model does:", f"earmark detect --model {model} {scene}"),
        ("Speak to it:", f"earmark listen --model {model}"),
        ("Speak to the model that was trained on recorded people:", "earmark listen"),
        ("Take words of your own:", 'earmark demo -o mine --keywords "open door" "close door"'),
        ("See what the model file says of itself:", f"earmark info {model}"),
    ]


class _Steps:
    """Says on stderr where the demo is, and remembers it for the report."""

    def __init__(self, count: int) -> None:
        self.done: list[str] = []
        self._count = count

    def next(self, text: str) -> None:
        """Begin a step."""
        self.done.append(f"{text}.")
        print(f"\n[{len(self.done)}/{self._count}] {text}", file=sys.stderr)

    def say(self, text: str) -> None:
        """Tell what came of the step."""
        self.done[-1] += f" {text[0].upper()}{text[1:]}."
        print(f"      {text}", file=sys.stderr)

    def close(self, report: Path, further: Sequence[tuple[str, str]]) -> None:
        """Say where the report is and what to try next."""
        print(f"\nReport: {report}\n\nTry next:", file=sys.stderr)
        for text, code in further:
            print(f"  {text}\n    {code}", file=sys.stderr)
