"""Rows and reports of ``earmark bench`` without the minutes that measuring takes."""

import dataclasses

import numpy as np
from earmark.benchmarks.latency import bench
from earmark.benchmarks.latency.results import Report, Row
from earmark.benchmarks.latency.timing import measure
from earmark.benchmarks.spread import spread
from earmark.runtime.engine import Engine

FAST = ["--rounds", "2", "--turn", "0.002", "--paced", "0.08"]


def row_of(models: list[str], factor: float = 1.0, seed: int = 0, rounds: int = 15) -> Row:
    """A row whose figures are drawn with a deviation of one in a hundred."""
    engine = Engine(models[0])
    (times,) = measure([bench.edge_work(engine, "toy")], rounds=1, turn=0.001, paced=0)
    drawn = factor * np.random.default_rng(seed).normal(2, 0.02, rounds)
    hot = dataclasses.replace(
        times.hot, cpu_ms_per_second=spread(drawn), p50_us=spread(100 * drawn), p99_us=None
    )
    return bench.edge_row(engine, "toy", dataclasses.replace(times, hot=hot))


def report_of(*rows: Row, **changes) -> Report:
    fields = {
        "command": "earmark bench",
        "machine": bench.machine() | {"date": "2026-01-01"},
        "settings": bench._settings(bench.Plan()),
        "reference": rows[0].key,
        "rows": list(rows),
        "disturbance": bench.watch.judge(
            bench.watch.Reading(0, 0, 0, 0, 0), bench.watch.Reading(1, 1, 0, 1, 0), 0, 1, {}
        ),
    }
    return Report(**(fields | changes))
