"""The search for how many streams a core carries."""

import json
from pathlib import Path

import pytest
from bench_toys import FAST
from earmark.benchmarks.latency import bench, students
from earmark.benchmarks.latency.capacity import capacity
from earmark.benchmarks.latency.streams import Load
from earmark.benchmarks.spread import spread
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine


def test_what_carries_no_stream_is_said(
    bench_verbs, bench_models: list[str], low_tones: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(students, "shapes", list)
    monkeypatch.setattr(bench, "capacity", lambda *_: None)
    arguments = ["bench", bench_models[0], *FAST, "--scaling", "--audio", str(low_tones), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["capacities"] == []
    assert report["skipped"] == {
        f"streams per core, {way}": "not even one is carried"
        for way in ("one by one", "up to 32 in one call")
    }


@pytest.mark.parametrize("limit", [0, 1, 2, 37, 5000])
def test_the_search_ends_beside_the_limit(bench_models: list[str], limit: int) -> None:
    def measure_ways(engine, number, ways, seconds, rounds):
        # A p99 takes a hundred chunks in a round.
        assert round(seconds / 0.08) * number >= 100
        late = 79.0 if number <= limit else 81.0
        return [Load(number, ways[0], spread([0.01]), spread([1.0]), spread([late]))]

    found = capacity(Engine(bench_models[0]), "toy", None, 1.0, measure_ways)
    if limit == 0:
        assert found is None
    else:
        assert found is not None and found.refused is not None
        assert found.streams <= limit < found.refused
        assert found.refused <= max(1.1 * found.streams, found.streams + 1)


def test_what_takes_more_than_a_core_is_not_carried(bench_models: list[str]) -> None:
    def measure_ways(engine, number, ways, seconds, rounds):
        return [Load(number, ways[0], spread([2.0]), spread([1.0]), spread([1.0]))]

    found = capacity(Engine(bench_models[0]), "toy", None, 1.0, measure_ways)
    assert found is not None and found.streams < 500 <= (found.refused or 0)


def test_one_late_round_is_not_carried(bench_models: list[str]) -> None:
    def measure_ways(engine, number, ways, seconds, rounds):
        late = [1.0, 1.0, 81.0 if number > 40 else 1.0]
        return [Load(number, ways[0], spread([1.0]), spread([1.0]), spread(late))]

    found = capacity(Engine(bench_models[0]), "toy", None, 1.0, measure_ways)
    assert found is not None and found.streams <= 40
