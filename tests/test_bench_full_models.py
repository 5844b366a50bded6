"""Whole models at the job of a spotter, of random weights and of few."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_toys import FAST
from earmark.benchmarks.latency import bench, full_models
from earmark.benchmarks.latency.full_models import Settings, variants
from earmark.runtime.cli import main
from earmark.train.teachers import registry


def small(name: str, seconds: float):
    return registry.load("bcresnet")


def test_whole_models_at_the_same_job(
    bench_verbs, bench_models: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "CLIP", 2.0)
    options = ["--full", "beats", "--precision", "float32", "bfloat16", "--mode", "eager", "graph"]
    arguments = [
        "bench",
        bench_models[0],
        *FAST,
        *options,
        "--device",
        "cpu",
        "--batch",
        "2",
        "--json",
    ]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    rows = [row for row in report["rows"] if row["kind"] == "full"]
    assert [(row["precision"], row["job"], row["batch"]) for row in rows] == [
        (precision, job, batch)
        for precision in ("float32", "bfloat16")
        for job, batch in (
            ("1 s window each 80 ms", 1),
            ("1 s window each 80 ms", 2),
            ("2 s clip", 1),
        )
    ]
    assert [row["step_ms"] for row in rows[:3]] == [80, 160, 2000]
    for row in rows:
        assert row["weights"] == "random weights" and row["accuracy"] is None
        assert row["decision_ratio"]["median"] > 0 and row["parameters"] > 0
    # There is no GPU to record a graph on.
    assert len(report["skipped"]) >= 4
    assert report["machine"]["torch"]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("beats", 90.3),
        ("ast", 85.4),
        ("whisper-tiny", 8.2),
        ("whisper-base", 20.6),
        ("whisper-small", 88.2),
        ("wavlm-base", 94.4),
    ],
)
def test_whole_models_have_the_published_sizes(name: str, millions: float) -> None:
    import torch

    pytest.importorskip("transformers")
    # Shapes alone, without memory for the numbers.
    with torch.device("meta"):
        backbone = full_models._random(name, 1.0)
    found = sum(parameter.numel() for parameter in backbone.parameters())
    assert found / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_decision_is_that_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(full_models, "_random", small)
    (group,) = variants("ast", Settings(("cpu",), batch=3), lambda name, reason: None)
    window, batch, _ = group
    network = full_models._Decide(full_models._source("ast", 1.0).teacher, torch.float32)
    audio = torch.from_numpy(np.resize(full_models.speech_like(16000), 16000))
    assert window.work.step(0) == network(audio[None]).numpy()
    assert np.shape(batch.work.step(0)) == (3,)


def fitting(most: int):
    """What makes runners where so many at once fit in memory, and no more."""

    def runner(network, device, mode, batch, samples):
        if batch > most:
            raise torch.cuda.OutOfMemoryError("too much")
        return lambda number: None

    return runner


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "_runner", fitting(8))
    (group,) = variants("beats", Settings(("cpu",), batch=30), lambda name, reason: None)
    assert [full.batch for full in group] == [1, 7, 1]


@pytest.mark.parametrize("batch", [2, 3, 7, 8])
def test_one_window_is_no_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "_runner", fitting(1))
    told = {}
    (group,) = variants("beats", Settings(("cpu",), batch=batch), told.__setitem__)
    assert [full.batch for full in group] == [1, 1]
    assert told == {"beats, 1 s, cpu, float32, eager, several at once": "does not fit in memory"}


def test_a_model_that_does_not_fit_by_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def move(network, device):
        raise torch.cuda.OutOfMemoryError("too much")

    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(torch.nn.Module, "to", move)
    told = {}
    assert list(variants("beats", Settings(("cpu",)), told.__setitem__)) == [[]]
    assert set(told.values()) == {"does not fit in memory"} and len(told) == 2


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def runner(*arguments):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "_runner", runner)
    told = {}
    assert list(variants("beats", Settings(("cpu",)), told.__setitem__)) == [[]]
    assert set(told.values()) == {"no kernel"} and len(told) == 2


def test_whole_models_that_cannot_be_run_are_refused_before_anything_is_measured(
    bench_verbs, bench_models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it was measured"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    empty = tmp_path / "empty"
    empty.mkdir()
    for options, reason in (
        (["beats", "--device", "cpu", "cuda"], "--device cuda: torch finds no GPU"),
        ([str(empty)], "empty: not a run directory"),
    ):
        assert main(["bench", bench_models[0], *FAST, "--full", *options]) == 1
        assert reason in " ".join(capsys.readouterr().err.split())
