"""Timing of work of known cost with clocks that the tests wind, and what figures say of it."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from earmark.benchmarks.latency import watch
from earmark.benchmarks.latency.timing import (
    WARM_UP_STEPS,
    Timing,
    Work,
    count_turns,
    measure,
)
from earmark.benchmarks.latency.watch import Reading, judge
from earmark.benchmarks.machine import machine, machine_line
from earmark.benchmarks.spread import paired_ratio, percentile_spread, ratio, spread
from earmark.runtime.errors import EarmarkError
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000


class World:
    """Time passes in sleep and in work alone."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0
        self.done: list[tuple[str, int]] = []
        self.naps: list[float] = []

    def work(self, name: str, cost, audio: float = 0.08, live: bool = True) -> Work:
        def step(number: int) -> None:
            self.done.append((name, number))
            spent = cost(number)
            self.wall += spent
            self.cpu += spent

        return Work(name, audio, step, live)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.wall += round(1e9 * seconds)

    def measure(self, *works: Work, **options):
        return measure(
            works,
            clock=lambda: self.wall,
            cpu_clock=lambda: self.cpu,
            sleep=self.sleep,
            **options,
        )


def test_figures_are_those_of_the_clock() -> None:
    world = World()
    # One step in ten takes 10 ms, the others 1 ms: 1.9 ms on average.
    work = world.work("a", lambda number: 10 * MS if number % 10 == 9 else MS)
    (times,) = world.measure(work, rounds=3, turn=0.1, paced=0)
    hot = times.hot
    assert times.paced is None and hot.steps == 300
    assert hot.p50_us.median == 1000 and hot.p99_us is not None and hot.p99_us.median == 10_000
    assert hot.max_us == 10_000 and hot.percentiles_us[0] == 1000
    assert len(hot.percentiles_us) == 101 and hot.percentiles_us[100] == 10_000
    # 12.5 chunks are a second.
    assert hot.cpu_ms_per_second.median == pytest.approx(12.5 * 1.9)
    assert hot.real_time_factor.median == pytest.approx(12.5 * 1.9e-3)
    assert hot.cpu_ms_per_second.low == hot.cpu_ms_per_second.high
    assert len(hot.cpu_ms_per_second.rounds) == 3


def test_rounds_are_interleaved_and_begin_in_turn() -> None:
    world = World()
    works = [world.work(name, lambda number: MS) for name in "ab"]
    turns: list[int] = []
    world.measure(*works, rounds=3, turn=0.004, paced=0, advance=turns.append)
    # Warm-up ends after the time of a turn.
    assert [name for name, _ in world.done[8::4]] == ["a", "b", "b", "a", "a", "b"]
    assert sum(turns) == count_turns(works, 3, 0) == 6
    # Audio goes on from turn to turn.
    assert [number for name, number in world.done if name == "a"] == list(range(4 + 12))


def test_warm_up_is_left_out_and_sets_the_length_of_turns() -> None:
    world = World()
    # Cold at first.
    work = world.work("a", lambda number: 50 * MS if number < 2 else MS // 10)
    (times,) = world.measure(work, rounds=2, turn=0.2, paced=0)
    assert times.hot.max_us == 100 and times.hot.steps == 2 * 2000
    assert len(world.done) == WARM_UP_STEPS + 4000


def test_slow_work_takes_one_step_and_tells_no_tail() -> None:
    world = World()
    slow, fast = (
        world.work("slow", lambda number: 3000 * MS, 10.0, live=False),
        world.work("fast", lambda number: MS),
    )
    first, second = world.measure(slow, fast, rounds=5, turn=0.2, paced=1.6)
    assert first.hot.steps == 5 and first.paced is None
    assert first.hot.p95_us is None and first.hot.p99_us is None
    assert first.hot.p50_us.median == 3e6 and first.hot.cpu_ms_per_second.median == 300
    assert second.hot.p99_us is not None and second.paced is not None
    assert second.paced.steps == 5 * 20 and second.paced.p99_us is not None


def test_paced_steps_wait_for_their_audio() -> None:
    world = World()
    (times,) = world.measure(world.work("a", lambda number: 5 * MS), rounds=2, turn=0.05, paced=0.8)
    assert times.paced is not None
    # The first chunk is there after 80 ms, each other 80 ms after the one before.
    assert world.naps == pytest.approx(2 * [0.08, *[0.075] * 9])
    assert times.paced.p50_us.median == 5000 and times.paced.p95_us is not None
    # Too few for a percentile of a hundred.
    assert times.paced.p99_us is None


def test_work_that_cannot_keep_up_does_not_wait() -> None:
    world = World()
    (times,) = world.measure(
        world.work("a", lambda number: 100 * MS), rounds=1, turn=0.1, paced=0.8
    )
    assert len(world.naps) == 1 and times.paced is not None
    assert times.paced.real_time_factor.median == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rounds": 0}, "--rounds 0: expected"),
        ({"turn": 0.0}, "--turn 0: expected"),
        ({"turn": math.nan}, "--turn nan: expected"),
        ({"paced": -1.0}, "--paced -1: expected"),
    ],
)
def test_settings_out_of_range_are_refused(options, reason: str) -> None:
    with pytest.raises(EarmarkError, match=reason):
        measure([], **options)


positive = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20)


@given(positive)
def test_an_interval_holds_its_median_and_lies_within_the_range(values: list[float]) -> None:
    found = spread(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.rounds == tuple(values)


@given(positive, st.floats(0.1, 10))
def test_ratios_of_what_differs_by_a_factor_are_that_factor(values: list[float], factor) -> None:
    scaled = [factor * value for value in values]
    paired = paired_ratio(scaled, values)
    assert paired is not None and paired.low == pytest.approx(paired.high) == pytest.approx(factor)
    apart = ratio(scaled, values)
    assert apart is not None and apart.median == pytest.approx(factor)
    assert apart.low <= apart.median <= apart.high


def test_pairs_take_out_what_slows_a_whole_round() -> None:
    rounds = [1.0, 5.0, 1.2, 0.9, 3.0, 1.1, 1.0]
    other = [2 * value for value in rounds]
    paired, apart = paired_ratio(other, rounds), ratio(other, rounds)
    assert paired is not None and apart is not None
    assert paired.high - paired.low < 1e-9 < apart.high - apart.low


def test_no_ratio_to_nothing() -> None:
    assert paired_ratio([1.0], [0.0]) is None
    assert ratio([], [1.0]) is None and ratio([1.0], [0.0]) is None


def test_more_rounds_tell_more() -> None:
    generator = np.random.default_rng(3)
    few, many = (spread(generator.normal(10, 1, count)) for count in (8, 200))
    assert many.high - many.low < few.high - few.low


def test_percentiles_join_rounds_that_are_too_short() -> None:
    rounds = [np.full(40, value) for value in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)]
    found = percentile_spread(rounds, 100, 100)
    # 1 to 3, and 4 to 7: what is left over belongs to the last.
    assert found is not None and found.rounds == (3.0, 7.0)
    assert percentile_spread(rounds[:2], 99, 100) is None


def timing(*p50: float) -> Timing:
    one = spread([1.0])
    return Timing(1, one, one, spread(p50), None, None, 1.0, ())


STILL = Reading(wall=0, own=0, switches=0, busy=100, stolen=0)
QUIET = Reading(wall=100, own=60, switches=300, busy=162, stolen=0)


def test_a_quiet_machine_disturbs_nothing() -> None:
    found = judge(STILL, QUIET, 0.3, 2, {"a": timing(1, 1.1, 1, 1.05)})
    assert found.reasons == ()
    assert found.foreign_cores == pytest.approx(0.02)
    assert found.switches_per_cpu_second == pytest.approx(5)
    assert found.drift["a"] == pytest.approx(1.025 / 1.05)


@pytest.mark.parametrize(
    ("changes", "load", "rounds", "reason"),
    [
        ({"busy": 190.0}, 0.0, (1,), "other processes kept 0.30 cores busy"),
        ({"stolen": 6.0}, 0.0, (1,), "the hypervisor took 3.0 %"),
        ({"switches": 9000}, 0.0, (1,), "taken away 150 times per second"),
        ({}, 1.5, (1,), "load average of 1.50 before"),
        ({}, 0.0, (1, 1, 1.4, 1.4), "1 of 1 rows changed .* row by a factor of 1.40"),
        ({}, 0.0, (2, 2, 1, 1), "row by a factor of 0.50"),
    ],
)
def test_a_disturbed_run_says_so(changes, load: float, rounds, reason: str) -> None:
    after = Reading(**(QUIET.__dict__ | changes))
    found = judge(STILL, after, load, 2, {"row": timing(*rounds)})
    assert len(found.reasons) == 1 and re.search(reason, found.reasons[0])


def test_what_a_system_does_not_tell_is_not_held_against_it() -> None:
    before, after = (Reading(t, t, None, None, None) for t in (0.0, 10.0))
    found = judge(before, after, None, 4, {})
    assert found.reasons == () and found.foreign_cores is None


def test_readings_are_of_this_machine(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  200 100 300 9000 50 10 20 70 5 0\ncpu0 1 2\n")
    found = watch.read(stat)
    per_second = 630 / (found.busy or 1)
    assert found.stolen == pytest.approx(70 / per_second)
    assert watch.read(tmp_path / "none").busy is None
    assert found.own > 0


CPUINFO = {
    "model name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name : other\n": (
        "Some CPU @ 3 GHz",
        ["AVX2", "AVX-512 VNNI"],
    ),
    "processor\t: 0\nFeatures\t: fp asimd asimddp\n": (None, ["NEON", "NEON dot product"]),
}


@pytest.mark.parametrize("text", CPUINFO)
def test_machine_reads_the_processor(tmp_path: Path, text: str) -> None:
    file, governor = tmp_path / "cpuinfo", tmp_path / "governor"
    file.write_text(text)
    assert machine(file, governor)["governor"] is None
    governor.write_text("powersave\n")
    found = machine(file, governor)
    name, features = CPUINFO[text]
    assert found["features"] == features and found["governor"] == "powersave"
    assert name is None or found["cpu"] == name
    line = machine_line(found)
    assert "\n" not in line and ", ".join(features) in line and "governor powersave" in line
    assert found["versions"].keys() == {"python", "earmark", "numpy", "onnxruntime"}
