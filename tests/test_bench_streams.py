"""The measurement of many streams, on a clock that the tests wind."""

import json

import numpy as np
import pytest
import toy_model
from earmark.benchmarks.latency import streams
from earmark.benchmarks.latency.streams import count_runs, measure, memory
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.pool import StreamPool
from earmark.runtime.process import resident_bytes
from earmark.runtime.stream import Stream


class World:
    """Time passes in sleep and in work alone: so long for a call, so long for each chunk in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: int, chunk: int) -> None:
        self.wall = self.cpu = 0
        self.sizes: list[int] = []
        push, run = Stream.push, StreamPool.run

        def work(chunks: int) -> None:
            self.sizes.append(chunks)
            self.wall += call + chunks * chunk
            self.cpu += call + chunks * chunk

        def costly_push(stream: Stream, pcm: np.ndarray):
            work(1)
            return push(stream, pcm)

        def costly_run(pool: StreamPool):
            outcome = run(pool)
            if outcome[0]:
                work(len(outcome[0]))
            return outcome

        monkeypatch.setattr(Stream, "push", costly_push)
        monkeypatch.setattr(StreamPool, "run", costly_run)

    def sleep(self, seconds: float) -> None:
        self.wall += max(1, round(1e9 * seconds))

    def measure(self, engine: Engine, *arguments, **options):
        return measure(
            engine,
            *arguments,
            clock=lambda: self.wall,
            cpu_clock=lambda: self.cpu,
            sleep=self.sleep,
            **options,
        )


def test_a_light_load_is_run_as_it_comes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, call=900_000, chunk=100_000)
    done: list[int] = []
    loads = world.measure(engine, (1, 4), (1, 2), 4.0, 2, advance=done.append)
    assert [(load.streams, load.batch) for load in loads] == [
        *((1, None), (1, 1)),
        *((4, None), (4, 1), (4, 2)),
    ]
    assert sum(done) == count_runs((1, 4), (1, 2), 2) == 10
    assert set(world.sizes) == {1}
    for load in loads:
        # A chunk is 80 ms and takes 1 ms; due at the moment when it is due.
        assert load.cpu_ms.median == pytest.approx(12.5)
        assert load.p99_ms is not None
        assert load.p50_ms.median == load.p99_ms.high == pytest.approx(1.0, abs=1e-3)
        assert len(load.p50_ms.rounds) == 2


def test_few_chunks_tell_no_tail(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """37 in a round, as of one stream in 3 s: it takes a hundred, of rounds that follow."""
    world = World(monkeypatch, call=900_000, chunk=100_000)
    [load] = world.measure(engine, (1,), (2,), 37 * 0.08, 2)
    assert load.p99_ms is None and len(load.p50_ms.rounds) == 2
    [load] = world.measure(engine, (1,), (2,), 37 * 0.08, 6)
    assert load.p99_ms is not None and len(load.p99_ms.rounds) == 2


def test_a_heavy_load_fills_batches_and_falls_behind_without_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(monkeypatch, call=900_000, chunk=100_000)
    single, batched = world.measure(engine, (100,), (20,), 1.6, 1)
    # 100 ms of work for 80 ms of audio.
    assert single.cpu_ms.median == pytest.approx(12.5)
    assert single.p99_ms is not None and batched.p99_ms is not None
    assert single.p99_ms.median > 300
    # A chunk waits 8 ms for the nine others that come within them.
    assert batched.cpu_ms.median < 4
    assert 8 < batched.p99_ms.median < 11
    assert 8 <= max(world.sizes) <= 20


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (((0,), (1,), 1.0, 1), "--streams 0: expected 1 to 100000"),
        (((1,), (5000,), 1.0, 1), "--batch 5000"),
        (((1,), (1,), 1.0, 0), "--rounds 0"),
        (((1,), (1,), 0.0, 1), "--seconds 0"),
        (((1,), (1,), float("nan"), 1), "--seconds nan"),
    ],
)
def test_numbers_out_of_range(engine: Engine, arguments, reason: str) -> None:
    with pytest.raises(EarmarkError, match=reason):
        measure(engine, *arguments)


def test_what_is_wrong_is_told_before_anything_is_measured(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(streams, "memory", lambda engine: pytest.fail("it was measured"))
    for options, reason in (
        (["--streams", "2", "1", "--batch", "1", "16"], "--batch 16: no call has more chunks than"),
        (["--streams", "0"], "--streams 0: expected 1 to 100000"),
        (["--rounds", "0"], "--rounds 0: expected 1 to 1000"),
    ):
        assert main(["bench-streams", str(engine.path), *options]) == 1
        assert reason in " ".join(capsys.readouterr().err.split())


def test_the_help_says_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench-streams", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for numbers in (streams.STREAMS, streams.BATCHES, [streams.SECONDS], [streams.ROUNDS]):
        assert f"(default: {' '.join(f'{number:g}' for number in numbers)})" in text


def test_memory_of_a_stream(engine: Engine) -> None:
    found = memory(engine, 150, 22.0)
    if resident_bytes() is None:
        assert found is None
        return
    assert found is not None
    # A stream of its own holds some hundred rows of posteriors, int64.
    assert found["single"] > 0.9 * 8 * len(toy_model.LABELS)
    assert 0 <= found["pool"] < found["single"]


def test_the_verb(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(streams, "memory", lambda engine: {"single": 2.0, "pool": 1.0})
    options = ["--streams", "1", "3", "--batch", "2", "--seconds", "0.2", "--rounds", "1"]
    assert main(["bench-streams", str(engine.path), *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(load["streams"], load["batch"]) for load in report["loads"]] == [
        *((1, None), (3, None), (3, 2)),
    ]
    assert report["chunk_ms"] == 80 and report["machine"]["cores"]
    assert all(load["cpu_ms"]["median"] > 0 for load in report["loads"])
    assert all(load["p99_ms"] is None for load in report["loads"])
    assert main(["bench-streams", str(engine.path), *options]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "up to 2" in err and "Memory of a stream" in err
