"""Export: a complete run directory in, one verified model file, its float32 twin and card out."""

import dataclasses
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..runtime.files import atomic_path, write_bytes
from ..runtime.manifest import Decision, Manifest
from ..train.data.corpus import data_fingerprint
from ..train.data.dataset import Split, load_split
from ..train.data.material import recipe_corpus
from ..train.data.share import WHOLE, Share
from ..train.metrics import headline, measure, spread
from ..train.recipe import load_recipe
from ..train.run import RECIPE, Run, git_revision, load_run, package_versions
from ..train.score import clip_posteriors
from .card import check_card, model_card
from .evaluate import evaluate
from .graph import build
from .model_file import check_output, graph_sha256, with_manifest
from .network import Affine
from .quantize import PERCENTILE, calibrate
from .verify import Limits, verify

PARITY_CLIPS = 200
MAX_CHUNK_SECONDS = 10.0
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class ExportResult:
    """What :func:`export` wrote and measured."""

    model: Path
    """The int8 file."""
    float_model: Path
    card: Path
    parity: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class _Candidate:
    """One run's int8 and float32 graphs with their manifests, metrics not yet in them."""

    run: Run
    encodings: list[Affine]
    graphs: dict[str, onnx.ModelProto]
    manifests: dict[str, Manifest]


def export(
    run_dir: Path,
    output: Path,
    chunk_seconds: float = 0.08,
    *,
    seeds: Sequence[Path] = (),
    licence: str = "",
    overrides: Sequence[str] = (),
    command: str = "",
    limits: Limits = DEFAULT_LIMITS,
) -> ExportResult:
    """Write a run's student as one file that runs anywhere.

    Args:
        run_dir: a complete run.
        output: the int8 file, ``<stem>.onnx``; ``<stem>.float32.onnx`` and the card ``<stem>.md``
            go beside it. They replace what an earlier export wrote, and nothing else.
        chunk_seconds: audio per call, a multiple of the model's step.
        seeds: runs of the same recipe with other seeds, whose accuracy is reported as spread.
        licence: of the model, as an SPDX identifier.
        overrides: ``decision.field=value`` settings in place of the recipe's, which training did
            not use.
        command: the command line, kept for the record.
        limits: parity that is asked for.

    Returns:
        The files and the figures.

    Raises:
        EarmarkError: a run is incomplete or of another recipe, its data are gone, parity fails,
            ``output`` has another ending, or a file cannot be written or is no earlier export's.
    """
    output = Path(output)
    float_model, card = output.with_suffix(".float32.onnx"), output.with_suffix(".md")
    for model in (output, float_model):
        check_output(model)
    check_card(card)
    if not 0 < chunk_seconds <= MAX_CHUNK_SECONDS:
        raise EarmarkError(
            f"chunk of {1000 * chunk_seconds:g} ms: expected at most {1000 * MAX_CHUNK_SECONDS:g}"
        )
    run = _overridden(load_run(run_dir), overrides)
    train, held_out = (_load(run, name) for name in ("train", "validation"))
    candidate = _prepare(run, train, chunk_seconds, licence)
    with tempfile.TemporaryDirectory() as folder:
        engines = _engines(candidate, Path(folder))
        count = min(PARITY_CLIPS, len(held_out))
        clips = held_out.pcm[np.linspace(0, len(held_out) - 1, count).round().astype(int)]
        samples = clips.shape[1] // run.student.step * run.student.step
        whole = build(run.student, samples, candidate.encodings)
        parity = verify(run.student, engines["float32"], engines["int8"], whole, clips, limits)
        whole_clip = measure(held_out, clip_posteriors(run.student, held_out))
        name = headline(whole_clip)
        metrics = {
            "split": "validation",
            "protocol": "last step within the clip, streamed from a zero cache",
            "torch_whole_clip": {name: round(whole_clip[name], 4)},
        }
        measured = {form: evaluate(engine, held_out) for form, engine in engines.items()}
        for form, figures in measured.items():
            metrics[f"{form}_streaming"] = _brief(figures)
        if seeds:
            first = measured["int8"][name]
            metrics["seeds"] = _brief(_spread(run, name, first, seeds, held_out, chunk_seconds))

    report = _quantization(candidate, parity)
    files: dict[str, bytes] = {}
    manifests: dict[str, Manifest] = {}
    for name, graph in candidate.graphs.items():
        manifests[name] = dataclasses.replace(
            candidate.manifests[name],
            training=candidate.manifests[name].training
            | {"export_command": command, "graph_sha256": graph_sha256(graph)},
            metrics=metrics,
            quantization=report if name == "int8" else {},
        )
        files[name] = with_manifest(graph, manifests[name])
    text = model_card(manifests["int8"], output.name, {k: len(v) for k, v in files.items()})
    # All three or, on a full disk, none.
    contents = {float_model: files["float32"], card: text.encode(), output: files["int8"]}
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(atomic_path(path)).write_bytes(content)
    return ExportResult(output, float_model, card, parity, metrics)


def _overridden(run: Run, overrides: Sequence[str]) -> Run:
    for override in overrides:
        if not override.startswith("decision."):
            raise EarmarkError(
                f"setting {override!r}: only decision.* can be set at export, train for the others"
            )
    recipe = load_recipe(run.path / RECIPE, overrides)
    return dataclasses.replace(run, recipe=recipe)


def _load(run: Run, split: str) -> Split:
    data = run.recipe.data
    corpus = recipe_corpus(run.recipe)
    if data_fingerprint(corpus, *data.noise, *data.speech) != run.info.fingerprint:
        folders = (*data.roots, *data.own, *data.noise, *data.speech)
        raise EarmarkError(
            f"{', '.join(folders)}: not the recordings that {run.path} was trained on: put them "
            "back, or train again"
        )
    cache = Path(data.cache) if data.cache else run.path.parent / "cache"
    processes = run.recipe.train.devices * run.recipe.train.nodes
    return load_split(
        corpus,
        run.info.labels,
        split,
        data.clip,
        cache,
        noise_roots=data.noise,
        multilabel=run.recipe.multilabel,
        speech_roots=data.speech,
        # The calibration clips are those of the first process.
        share=Share(0, processes) if corpus.sharded and split == "train" else WHOLE,
    )


def _prepare(run: Run, train: Split, chunk_seconds: float, licence: str) -> _Candidate:
    student, recipe = run.student, run.recipe
    chunk = round(chunk_seconds * recipe.features.sample_rate)
    place = {path: row for row, path in enumerate(train.path.tolist())}
    missing = [path for path in run.info.calibration if path not in place]
    if missing:
        raise EarmarkError(f"{missing[0]}: calibration clip is gone: put it back, or train again")
    rows = [place[path] for path in run.info.calibration]
    pcm = torch.from_numpy(np.array(train.pcm[rows])).float() / 32768
    encodings = calibrate(student, pcm.split(64))
    graphs = {"int8": build(student, chunk, encodings), "float32": build(student, chunk)}
    decision = recipe.decision
    manifest = Manifest(
        name=recipe.name,
        labels=run.info.labels,
        geometry=student.geometry(chunk),
        decision=Decision(
            thresholds={k: decision.threshold for k in run.info.labels if not k.startswith("_")},
            smoothing=decision.smoothing,
            release=decision.release,
            refractory=decision.refractory,
        ),
        precision="float32",
        features=dataclasses.asdict(recipe.features) | {"kind": "mfcc"},
        parameters=student.parameters_trained,
        activation="sigmoid" if recipe.multilabel else "softmax",
        licence=licence,
        sources=run.info.sources,
        teacher=run.info.teacher,
        training={
            "command": run.info.command,
            "recipe": dataclasses.asdict(recipe),
            "clip": recipe.data.clip,
            "seed": recipe.seed,
            "clips": run.info.clips,
            "baselines": run.info.baselines,
            "fingerprint": run.info.fingerprint,
            "init_sha256": run.info.init_sha256,
            "learned_folders": run.info.learned_folders,
            "git_revision": run.info.git_revision,
            "versions": run.info.versions,
        },
        versions=package_versions(),
        git_revision=git_revision(),
        checkpoint_sha256=run.weights_sha256,
    )
    return _Candidate(
        run,
        encodings,
        graphs,
        {"int8": dataclasses.replace(manifest, precision="int8"), "float32": manifest},
    )


def _engines(candidate: _Candidate, folder: Path) -> dict[str, Engine]:
    """Load both graphs from files, as a user will."""
    engines = {}
    for name, graph in candidate.graphs.items():
        file = folder / f"{name}.onnx"
        write_bytes(file, with_manifest(graph, candidate.manifests[name]))
        engines[name] = Engine(file)
    return engines


def _spread(
    run: Run,
    name: str,
    first: float,
    seeds: Sequence[Path],
    held_out: Split,
    chunk_seconds: float,
) -> dict[str, Any]:
    """The measure ``name``, int8 and streaming, over runs that differ in their seed alone."""
    figures = {run.recipe.seed: first}
    for path in seeds:
        other = load_run(path)
        same = dataclasses.replace(other.recipe, seed=run.recipe.seed, decision=run.recipe.decision)
        if same != run.recipe:
            raise EarmarkError(f"{path}: a run of another recipe than {run.path}, not only seed")
        if other.recipe.seed in figures:
            raise EarmarkError(f"{path}: seed {other.recipe.seed} is given twice")
        with tempfile.TemporaryDirectory() as folder:
            candidate = _prepare(other, _load(other, "train"), chunk_seconds, "")
            engine = _engines(candidate, Path(folder))["int8"]
            figures[other.recipe.seed] = evaluate(engine, held_out)[name]
    return {
        f"int8_streaming_{name}": {str(seed): value for seed, value in figures.items()},
        **spread(list(figures.values())),
    }


def _brief(measured: dict[str, Any]) -> dict[str, Any]:
    """The measures without the confusion matrix, rounded to what the clips can tell."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [rounded(item) for item in value]
        return value

    return rounded({key: value for key, value in measured.items() if key != "confusion"})


def _quantization(candidate: _Candidate, parity: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": "static; uint8 activations, int8 weights per output channel in a 7-bit range",
        "range": f"{PERCENTILE} percentile of the activations",
        "calibration": list(candidate.run.info.calibration),
        "parity": parity,
    }
