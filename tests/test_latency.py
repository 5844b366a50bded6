"""Timing with clocks that the tests wind, and the verb ``bench``."""

import json
from pathlib import Path

import numpy as np
import pytest
import toy_model
from earmark.benchmarks.cli import bench
from earmark.benchmarks.latency import WARM_UP_CHUNKS, measure
from earmark.benchmarks.machine import machine, machine_line
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine, Stream
from earmark.runtime.errors import EarmarkError


class Work:
    """Clocks that stand still but for what a push is said to cost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost) -> None:
        self.wall = self.cpu = 0
        self.pushed: list[str] = []
        self.sizes: set[int] = set()
        push = Stream.push

        def costly(stream: Stream, pcm: np.ndarray):
            precision = self.names[id(stream._scorer._session)]
            number = len(self.pushed)
            self.pushed.append(precision)
            self.sizes.add(len(pcm))
            assert pcm.dtype == np.int16
            wall, cpu = cost(precision, number)
            self.wall += wall
            self.cpu += cpu
            return push(stream, pcm)

        self.names: dict[int, str] = {}
        monkeypatch.setattr(Stream, "push", costly)

    def measure(self, engines: list[Engine], **arguments):
        self.names = {id(engine._session): engine.manifest.precision for engine in engines}
        return measure(engines, clock=lambda: self.wall, cpu_clock=lambda: self.cpu, **arguments)


@pytest.fixture
def engines(tmp_path: Path) -> list[Engine]:
    return [
        Engine(toy_model.save(tmp_path / f"{precision}.onnx", precision=precision))
        for precision in ("float32", "int8")
    ]


def test_percentiles_and_cpu_are_those_of_the_clock(engines, monkeypatch) -> None:
    def cost(precision: str, number: int) -> tuple[int, int]:
        # One push in ten is slow, CPU time is even.
        scale = 2 if precision == "float32" else 1
        return scale * (900_000 if number % 10 == 0 else 100_000), scale * 50_000

    work = Work(monkeypatch, cost)
    slow, fast = work.measure(engines, seconds=8.0, rounds=3)
    assert work.sizes == {1280}
    assert (slow.precision, fast.precision) == ("float32", "int8")
    assert fast.p50_us.median == 100 and slow.p50_us.median == 200
    assert fast.p95_us.median == 900 and fast.p99_us.high == 900
    # 12.5 chunks of 80 ms are a second of audio.
    assert fast.cpu_ms_per_second.median == pytest.approx(12.5 * 0.05)
    assert slow.cpu_ms_per_second.low == slow.cpu_ms_per_second.high == pytest.approx(1.25)
    assert fast.chunk_ms == 80 and fast.size == Path(fast.model).stat().st_size


def test_rounds_are_interleaved_and_begin_in_turn(engines, monkeypatch) -> None:
    work = Work(monkeypatch, lambda precision, number: (1, 1))
    work.measure(engines, seconds=0.8, rounds=3)
    warm = 2 * WARM_UP_CHUNKS
    order = work.pushed[warm::10]
    assert len(work.pushed) == warm + 2 * 3 * 10
    assert order == ["float32", "int8", "int8", "float32", "float32", "int8"]


def test_spread_is_over_rounds(engines, monkeypatch) -> None:
    def cost(precision: str, number: int) -> tuple[int, int]:
        turn = max(0, number - WARM_UP_CHUNKS) // 10
        return 1000 * (turn + 1), 1000 * (turn + 1)

    work = Work(monkeypatch, cost)
    (timing,) = work.measure(engines[:1], seconds=0.8, rounds=5)
    assert (timing.p50_us.low, timing.p50_us.median, timing.p50_us.high) == (1, 3, 5)
    assert timing.cpu_ms_per_second.high == pytest.approx(5 * 0.0125)


def test_given_audio_is_pushed_round_and_round(engines, monkeypatch) -> None:
    heard = []
    push = Stream.push
    monkeypatch.setattr(Stream, "push", lambda s, pcm: heard.append(pcm.copy()) or push(s, pcm))
    pcm = np.arange(3 * 1280, dtype=np.int16)
    measure(engines[:1], seconds=0.56, rounds=1, pcm=pcm)
    taken = np.concatenate(heard[-7:])
    assert np.array_equal(taken, np.resize(pcm, 7 * 1280))


@pytest.mark.parametrize(
    "arguments", [{"seconds": 0.0}, {"seconds": float("nan")}, {"seconds": 1e9}, {"rounds": 0}]
)
def test_numbers_out_of_range_are_refused(engines, arguments) -> None:
    with pytest.raises(EarmarkError, match="expected 1 to"):
        measure(engines, **arguments)


CPUINFO = {
    "model name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name : other\n": (
        "Some CPU @ 3 GHz",
        ["AVX2", "AVX-512 VNNI"],
    ),
    "processor\t: 0\nFeatures\t: fp asimd asimddp\n": (None, ["NEON", "NEON dot product"]),
}


@pytest.mark.parametrize("text", CPUINFO)
def test_machine_reads_the_processor(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    found = machine(file)
    name, features = CPUINFO[text]
    assert found["features"] == features
    assert name is None or found["cpu"] == name
    assert "\n" not in machine_line(found) and ", ".join(features) in machine_line(found)
    assert found["versions"].keys() == {"python", "earmark", "numpy", "onnxruntime"}


def test_bench_prints_one_object(tmp_path: Path, engines, monkeypatch, capsys) -> None:
    monkeypatch.setattr("earmark.runtime.cli._commands", lambda wanted: {"bench": bench})
    files = [str(engine.path) for engine in engines]
    assert main(["bench", *files, "--seconds", "0.8", "--rounds", "2", "--json"]) == 0
    out, _ = capsys.readouterr()
    found = json.loads(out)
    assert [model["precision"] for model in found["models"]] == ["float32", "int8"]
    assert found["settings"]["rounds"] == 2 and found["settings"]["threads"] == 1
    for model in found["models"]:
        for figure in ("p50_us", "p95_us", "p99_us", "cpu_ms_per_second"):
            assert 0 <= model[figure]["low"] <= model[figure]["median"] <= model[figure]["high"]
    assert main(["bench", *files, "--seconds", "0.8", "--rounds", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "float32" in err and "int8" in err
    assert main(["bench", "none.onnx"]) == 1
