"""Students of other sizes, and what of their cost is the network's."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_toys import FAST
from earmark.benchmarks.latency import bench, students
from earmark.benchmarks.latency.capacity import capacity
from earmark.benchmarks.latency.network import front_end
from earmark.benchmarks.latency.streams import Load
from earmark.benchmarks.latency.students import Shape, shapes, write_students
from earmark.benchmarks.latency.timing import measure
from earmark.benchmarks.spread import spread
from earmark.runtime.backends.onnxruntime_backend import open_session
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.train.mfcc import Mfcc
from earmark.train.recipe import load_recipe


def test_students_differ_in_one_thing(tmp_path: Path) -> None:
    usual, *others = shapes()
    for shape in others:
        fields = dataclasses.asdict(usual).items() - dataclasses.asdict(shape).items()
        assert len(fields) == 1
    int8, float32 = (Engine(file) for file in write_students(Shape(8, 0.04, 3), tmp_path))
    assert (float32.manifest.precision, int8.manifest.precision) == ("float32", "int8")
    for engine in (float32, int8):
        assert engine.manifest.geometry.chunk == 640 and len(engine.manifest.keywords) == 3


def test_the_network_is_told_from_its_front_end(
    bench_verbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def run(works, **_):
        # Graphs take 50 and 70 microseconds, their front ends 20.
        taken = {"front": 20.0, "int8": 50.0, "float32": 70.0}
        [*timed] = measure(works, rounds=2, turn=0.002, paced=0)
        for work, times in zip(works, timed, strict=True):
            steady = next((us for word, us in taken.items() if word in work.name[-9:]), 60.0)
            hot = dataclasses.replace(times.hot, p50_us=spread([steady, steady + 1]))
            yield dataclasses.replace(times, hot=hot)

    monkeypatch.setattr(bench, "measure", lambda works, **more: list(run(works, **more)))
    files = [str(file) for file in write_students(Shape(8), tmp_path)]
    assert main(["bench", *files, *FAST, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    int8, float32 = report["networks"]
    assert (int8["precision"], float32["precision"]) == ("int8", "float32")
    assert int8["network_us"]["rounds"] == [30, 30] and float32["front_end_us"]["median"] == 20.5
    assert int8["ratio"] is None and float32["ratio"]["rounds"] == pytest.approx([5 / 3, 5 / 3])


def test_the_front_end_is_that_of_training(tmp_path: Path, bench_models: list[str]) -> None:
    assert front_end(Path(bench_models[0])) is None  # the toy's own features
    int8, _ = write_students(Shape(8), tmp_path)
    cut = front_end(int8)
    assert cut is not None and not any("Conv" in node.op_type for node in cut.graph.node)
    geometry = Engine(int8).manifest.geometry
    random = np.random.default_rng(0)
    pcm = random.uniform(-0.5, 0.5, (1, geometry.chunk)).astype(np.float32)
    session = open_session(cut.SerializeToString())
    cache = np.zeros((1, geometry.cache), np.float32)
    energies = np.asarray(session.run(None, {"pcm": pcm, "cache": cache})[0])
    mfcc = Mfcc(load_recipe(students.RECIPE).features)
    history = torch.nn.functional.pad(
        torch.from_numpy(pcm), (mfcc.settings.window - mfcc.settings.hop, 0)
    )
    np.testing.assert_allclose(energies, mfcc.log_mel(history).flatten(1).numpy(), atol=1e-4)


def test_scaling_rows(
    bench_verbs, bench_models: list[str], low_tones: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(students, "shapes", lambda: [Shape(8), Shape(8, keywords=2)])
    tried = []

    def measure_ways(engine, number, ways, seconds, rounds):
        tried.append(number)
        return [Load(number, ways[0], spread([1.0]), spread([1.0]), spread([number / 10]))]

    monkeypatch.setattr(capacity, "__defaults__", (measure_ways,))
    arguments = ["bench", bench_models[0], *FAST, "--scaling", "--audio", str(low_tones), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    rows = [row for row in report["rows"] if row["kind"] == "scaling"]
    assert [(row["keywords"], row["precision"]) for row in rows] == [
        *((8, "int8"), (8, "float32"), (2, "int8"), (2, "float32"))
    ]
    assert {row["weights"] for row in rows} == {"random weights"}
    # Up to 800 streams stay within the chunk of 80 ms.
    for each in report["capacities"]:
        assert each["streams"] <= 800 < each["refused"] <= 1.1 * each["streams"]
    assert {each["batch"] for each in report["capacities"]} == {None, 32}
