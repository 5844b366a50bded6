"""The one-file contract: what is exported does what was trained."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from earmark.export.export import ExportResult, export
from earmark.export.graph import build
from earmark.export.model_file import graph_sha256, with_manifest
from earmark.export.quantize import calibrate
from earmark.export.verify import Limits, verify
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import METADATA_KEY, Decision, Manifest
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import load_split
from earmark.train.fit import train
from earmark.train.mfcc import MfccSettings
from earmark.train.recipe import recipe_toml
from earmark.train.run import RECIPE, git_revision, load_run
from earmark.train.student import Student, StudentSettings, whole_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession
from tiny_corpus import tiny_recipe, write_corpus
from tiny_student import SHAPES, make


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("export")
    recipe = tiny_recipe(write_corpus(folder / "corpus"), epochs=10, batch=8)
    return [train(dataclasses.replace(recipe, seed=seed), folder / f"run{seed}") for seed in (0, 1)]


@pytest.fixture(scope="module")
def exported(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    target = tmp_path_factory.mktemp("model") / "tones.onnx"
    return export(runs[0], target, seeds=[runs[1]], licence="CC0-1.0")


def stream(model: onnx.ModelProto, pcm: np.ndarray, chunk: int) -> np.ndarray:
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    cache = np.zeros((len(pcm), session.get_inputs()[1].shape[1]), np.float32)
    parts = []
    for start in range(0, pcm.shape[1], chunk):
        feed = {"pcm": pcm[:, start : start + chunk], "cache": cache}
        logits, cache = (np.asarray(x) for x in session.run(["logits", "cache_out"], feed))
        parts.append(logits)
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("shape", [*SHAPES, StudentSettings(width=16)])
@pytest.mark.parametrize("bands", [8, 13, 40])
@pytest.mark.parametrize("chunk_steps", [1, 3])
def test_float_graph_equals_the_student(
    shape: StudentSettings, bands: int, chunk_steps: int
) -> None:
    student = make(shape, MfccSettings(coefficients=bands))
    chunk = chunk_steps * student.step
    pcm = 0.1 * torch.randn(2, 6 * chunk, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = student(pcm)[0].numpy()
    got = stream(build(student, chunk), pcm.numpy(), chunk)
    np.testing.assert_allclose(got, expected, atol=1e-3)


@pytest.mark.parametrize(
    "features",
    [
        MfccSettings(),
        MfccSettings(hop=320),
        MfccSettings(hop=200),
        MfccSettings(window=400, hop=160),
        MfccSettings(window=640, hop=320, mels=64, f_min=60.0, f_max=7000.0),
        # Lengths of other factors, down to twice a prime, and all the frequencies there are.
        MfccSettings(window=450, hop=150, f_min=0.0, f_max=8000.0),
        MfccSettings(window=482, hop=160),
        MfccSettings(window=486, hop=480, f_min=0.0, f_max=8000.0),
    ],
)
def test_the_front_end_in_the_graph_is_that_of_training(features: MfccSettings) -> None:
    student = make(StudentSettings(width=8), features)
    model = build(student, 16_000 // student.step * student.step)
    [log] = [node for node in model.graph.node if node.op_type == "Log"]
    model.graph.output.append(onnx.ValueInfoProto(name=log.output[0]))
    generator = torch.Generator().manual_seed(0)
    samples = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    noise = torch.randn(3, samples, generator=generator) * torch.tensor([[0.3], [1e-2], [1e-4]])
    tone = 0.5 * torch.sin(torch.arange(samples) * 0.4)[None]
    pcm = torch.cat([noise, torch.zeros(1, samples), tone])
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"pcm": pcm.numpy(), "cache": student.empty_cache(len(pcm)).numpy()}
    got = torch.from_numpy(np.asarray(session.run([log.output[0]], feed)[0]))
    got = got.unflatten(0, (len(pcm), -1)) @ student.mfcc.dct
    expected = student.log_mel(pcm) @ student.mfcc.dct
    torch.testing.assert_close(got[:4], expected[:4], atol=1e-4, rtol=0)
    # Bands far from a pure tone hold the rounding errors of 32-bit sums, whatever the algorithm.
    torch.testing.assert_close(got[4], expected[4], atol=5e-3, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bands", [8, 13, 40])
def test_int8_graph_is_near_the_student(shape: StudentSettings, bands: int) -> None:
    student = make(shape, MfccSettings(coefficients=bands))
    pcm = 0.1 * torch.randn(1, 24 * student.step, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = student(pcm)[0].numpy()
    got = stream(
        build(student, 2 * student.step, calibrate(student, [pcm])), pcm.numpy(), 2 * student.step
    )
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.99


@settings(max_examples=20, deadline=None)
@given(
    which=st.integers(0, len(SHAPES) - 1),
    bands=st.sampled_from([5, 8, 13, 40]),
    chunk_steps=st.sampled_from([1, 2, 4, 12]),
)
def test_int8_logits_do_not_depend_on_the_chunk(which: int, bands: int, chunk_steps: int) -> None:
    student = make(SHAPES[which], MfccSettings(coefficients=bands))
    generator = torch.Generator().manual_seed(which)
    pcm = 0.1 * torch.randn(1, 12 * student.step, generator=generator)
    encodings = calibrate(student, [pcm])
    whole = stream(build(student, pcm.shape[1], encodings), pcm.numpy(), pcm.shape[1])
    chunk = chunk_steps * student.step
    got = stream(build(student, chunk, encodings), pcm.numpy(), chunk)
    np.testing.assert_allclose(got, whole, atol=0.05)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_of_a_batch_are_to_the_bit_as_alone(
    shape: StudentSettings, steps: int, quantized: bool
) -> None:
    # A step of some shapes is a single frame.
    student = make(shape, MfccSettings(hop=320))
    chunk = steps * student.step
    pcm = 0.1 * torch.randn(5, 6 * chunk, generator=torch.Generator().manual_seed(0))
    model = build(student, chunk, calibrate(student, [pcm]) if quantized else None)
    together = stream(model, pcm.numpy(), chunk)
    alone = [stream(model, row[None].numpy(), chunk) for row in pcm]
    assert np.array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("milliseconds", [20, 40, 80])
def test_chunk_lengths_of_the_default_student(milliseconds: int) -> None:
    student = Student(10, StudentSettings(), MfccSettings()).eval()
    model = build(student, 16 * milliseconds)
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 16 * milliseconds
    with pytest.raises(EarmarkError, match="multiple of the model's step, 320 samples"):
        build(student, 16 * milliseconds + 1)


@pytest.mark.parametrize("hop", [480, 500])
def test_frames_must_overlap(hop: int) -> None:
    student = Student(10, StudentSettings(), MfccSettings(hop=hop)).eval()
    with pytest.raises(EarmarkError, match=r"features\.window"):
        build(student, student.step)


def test_the_file_holds_the_whole_contract(exported: ExportResult) -> None:
    model = onnx.load(exported.model)
    assert [i.name for i in model.graph.input] == ["pcm", "cache"]
    assert [o.name for o in model.graph.output] == ["logits", "cache_out"]
    assert {o.domain for o in model.opset_import} == {""}
    assert "Softmax" not in {n.op_type for n in model.graph.node}
    assert [p.key for p in model.metadata_props] == [METADATA_KEY]
    manifest = Manifest.from_json(model.metadata_props[0].value)
    assert manifest.labels == ("low", "high", "_unknown_", "_silence_")
    assert manifest.precision == "int8" and manifest.licence == "CC0-1.0"
    assert manifest.sources and manifest.checkpoint_sha256
    assert manifest.training["graph_sha256"] == graph_sha256(model)
    assert manifest.quantization["calibration"]
    assert set(manifest.metrics) >= {"torch_whole_clip", "int8_streaming", "float32_streaming"}
    assert set(manifest.metrics["seeds"]["int8_streaming_top1"]) == {"0", "1"}
    twin = Engine(exported.float_model).manifest
    assert twin.precision == "float32" and twin.geometry == manifest.geometry


def test_all_convolutions_run_in_int8(exported: ExportResult) -> None:
    operators = exported.parity["operators"]
    assert operators["float32"] == 0 and operators["int8"] >= 6


def test_calibration_clips_are_training_clips(exported: ExportResult, runs: list[Path]) -> None:
    split = {
        str(clip.path): clip.split for clip in scan(*load_run(runs[0]).recipe.data.roots).clips
    }
    clips = [c for c in Engine(exported.model).manifest.quantization["calibration"] if "#" not in c]
    assert clips and {split[c] for c in clips} == {"train"}


def test_the_exported_model_tells_the_tones(exported: ExportResult) -> None:
    m = exported.metrics
    assert m["int8_streaming"]["top1"] > 0.8
    assert abs(m["int8_streaming"]["top1"] - m["float32_streaming"]["top1"]) <= 0.05
    assert m["torch_whole_clip"]["top1"] == pytest.approx(m["float32_streaming"]["top1"], abs=0.03)


def test_the_card_has_front_matter_figures_and_licences(exported: ExportResult) -> None:
    card = exported.card.read_text()
    assert card.startswith("---\nlicense: cc0-1.0\n")
    for text in ("library_name: onnx", "## Accuracy", "## Licences", "int8, streaming", "± "):
        assert text in card
    top1 = f"{100 * exported.metrics['int8_streaming']['top1']:.2f} %"
    assert top1 in card


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(float_logits=0.0), "float32 against torch"),
        (Limits(int8_streaming=-1.0), "int8 streamed against whole"),
        (Limits(int8_labels=-1.0), "int8 against float32, share of labels"),
    ],
)
def test_failed_parity_is_refused_and_writes_nothing(
    runs: list[Path], tmp_path: Path, limits: Limits, what: str
) -> None:
    with pytest.raises(EarmarkError, match=f"not exported, parity fails: {what}"):
        export(runs[0], tmp_path / "m.onnx", limits=limits)
    assert not list(tmp_path.iterdir())


Change = Callable[[onnx.GraphProto], None]


def lose_the_cache(graph: onnx.GraphProto) -> None:
    """Every chunk is heard as if it were the first."""
    [last] = [node for node in graph.node if "cache_out" in node.output]
    last.output[:] = ["kept"]
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    graph.node.append(helper.make_node("Mul", ["kept", "nothing"], ["cache_out"]))


def turn_the_logits_over(graph: onnx.GraphProto) -> None:
    """What was the largest is the least."""
    [last] = [node for node in graph.node if "logits" in node.output]
    [average] = [weights for weights in graph.initializer if weights.name == last.input[0]]
    turned = -numpy_helper.to_array(average)
    average.CopyFrom(numpy_helper.from_array(turned, average.name))


@pytest.fixture
def parity(runs: list[Path], exported: ExportResult, tmp_path: Path) -> Callable[..., Any]:
    """Compares the forms of a trained student, the graphs of some changed."""
    run, files = load_run(runs[0]), {"float32": exported.float_model, "int8": exported.model}
    manifests = {name: Engine(file).manifest for name, file in files.items()}
    corpus = scan(*run.recipe.data.roots)
    clips = load_split(corpus, run.info.labels, "validation").pcm[::3]
    pcm = torch.from_numpy(clips).float() / 32768
    chunk = manifests["int8"].geometry.chunk

    def compare(activation: str, *changed: str, change: Change = lose_the_cache) -> dict[str, Any]:
        encodings = calibrate(run.student, [pcm])
        graphs = {
            "float32": build(run.student, chunk),
            "int8": build(run.student, chunk, encodings),
            "whole": build(run.student, whole_steps(pcm, run.student.step).shape[1], encodings),
        }
        for name in changed:
            change(graphs[name].graph)
        engines = {}
        for name, manifest in manifests.items():
            file = tmp_path / f"{name}.onnx"
            told = dataclasses.replace(manifest, activation=activation)
            file.write_bytes(with_manifest(graphs[name], told))
            engines[name] = Engine(file)
        return verify(
            run.student, engines["float32"], engines["int8"], graphs["whole"], clips, Limits()
        )

    return compare


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("change", "changed", "what"),
    [
        (lose_the_cache, ["float32"], "float32 against torch, logits"),
        (lose_the_cache, ["int8"], "int8 streamed against whole, logits"),
        (turn_the_logits_over, ["int8", "whole"], "int8 against float32, share of labels"),
    ],
)
def test_forms_that_do_something_else_are_refused(
    parity: Callable[..., Any], activation: str, change: Change, changed: list[str], what: str
) -> None:
    with pytest.raises(EarmarkError, match=f"not exported, parity fails: {what} differ by"):
        parity(activation, *changed, change=change)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_forms_that_do_the_same_are_accepted(parity: Callable[..., Any], activation: str) -> None:
    report = parity(activation)
    assert 0 < report["float32_against_torch"] < 2e-3
    assert 0.01 < report["int8_against_float32_logits"] < 1


def test_the_spread_is_of_each_seeds_own_file(
    runs: list[Path], exported: ExportResult, tmp_path: Path
) -> None:
    figures = exported.metrics["seeds"]["int8_streaming_top1"]
    other = export(runs[1], tmp_path / "other.onnx").metrics["int8_streaming"]["top1"]
    assert figures == {"0": exported.metrics["int8_streaming"]["top1"], "1": other}
    assert exported.metrics["seeds"]["mean"] == pytest.approx(sum(figures.values()) / 2, abs=1e-4)


@pytest.fixture
def moved(runs: list[Path], tmp_path: Path) -> Path:
    """The first run with a corpus of its own, which may be changed."""
    recipe = load_run(runs[0]).recipe
    corpus = shutil.copytree(recipe.data.roots[0], tmp_path / Path(recipe.data.roots[0]).name)
    run = shutil.copytree(runs[0], tmp_path / "run")
    data = dataclasses.replace(recipe.data, roots=(str(corpus),))
    (run / RECIPE).write_text(recipe_toml(dataclasses.replace(recipe, data=data)))
    return run


def test_other_recordings_than_those_of_the_run_are_refused(moved: Path, tmp_path: Path) -> None:
    clip = next((tmp_path / "corpus" / "low").iterdir())
    clip.write_bytes(clip.read_bytes() + b"more")
    with pytest.raises(EarmarkError, match=r"not the recordings that .*run was trained on"):
        export(moved, tmp_path / "m.onnx")


def test_a_seed_of_another_recipe_is_refused(runs: list[Path], moved: Path, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="a run of another recipe than"):
        export(runs[1], tmp_path / "m.onnx", seeds=[moved])


def test_decision_settings_can_be_given_at_export(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"only decision\.\* can be set at export"):
        export(runs[0], tmp_path / "m.onnx", overrides=["train.epochs=3"])
    with pytest.raises(EarmarkError, match=r"field decision\.threshold"):
        export(runs[0], tmp_path / "m.onnx", overrides=["decision.threshold=7"])
    given = {"threshold": 0.6, "smoothing": 0.3, "release": 0.4, "refractory": 1.5}
    overrides = [f"decision.{name}={value}" for name, value in given.items()]
    result = export(runs[0], tmp_path / "m.onnx", overrides=overrides)
    expected = Decision({"low": 0.6, "high": 0.6}, smoothing=0.3, release=0.4, refractory=1.5)
    assert Engine(result.model).manifest.decision == expected


def test_wrong_runs_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="not a run directory"):
        export(tmp_path, tmp_path / "m.onnx")
    with pytest.raises(EarmarkError, match="given twice"):
        export(runs[0], tmp_path / "m.onnx", seeds=[runs[0]])
    with pytest.raises(EarmarkError, match="multiple of the model's step"):
        export(runs[0], tmp_path / "m.onnx", chunk_seconds=0.03)
    for chunk in (float("nan"), 1e6, -1.0):
        with pytest.raises(EarmarkError, match="expected at most"):
            export(runs[0], tmp_path / "m.onnx", chunk_seconds=chunk)
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(EarmarkError, match=r"m\.onnx: is no regular file"):
        export(runs[0], tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_manifest_survives_the_file(exported: ExportResult) -> None:
    manifest = Engine(exported.model).manifest
    assert Manifest.from_json(manifest.to_json()).to_json() == manifest.to_json()
    assert json.loads(manifest.to_json())["schema"] == 1


def test_golden_vectors_come_with_an_export(runs: list[Path], tmp_path: Path) -> None:
    model, golden = tmp_path / "tones.onnx", tmp_path / "golden"
    assert main(["export", str(runs[0]), "-o", str(model), "--golden", str(golden)]) == 0
    index = json.loads((golden / "golden.json").read_text())
    assert index["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()


def test_a_revision_says_whether_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr("earmark.train.run.__file__", str(tmp_path / "train" / "run.py"))
    assert git_revision() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    revision = git_revision()
    assert revision is not None and re.fullmatch("[0-9a-f]{40}", revision)
    (tmp_path / "pyproject.toml").write_text("changed")
    assert git_revision() == f"{revision}-dirty"
