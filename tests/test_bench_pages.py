"""A record read back, and the pages, tables and plots that are made of it."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from bench_toys import report_of, row_of
from earmark.benchmarks.latency.bound import GPUS, least_us
from earmark.benchmarks.latency.cells import tables
from earmark.benchmarks.latency.html_page import page
from earmark.benchmarks.latency.page import page as markdown
from earmark.benchmarks.latency.plots import plots
from earmark.benchmarks.latency.results import load
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from test_report import Page


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 99}, "field schema is 99, this Earmark reads 1"),
        ({"type": "other"}, "no report of earmark bench"),
        ({"rows": [{"kind": "edge"}]}, r"field rows\.0\.\w+: Field required"),
        ({"seconds": "long"}, "field seconds"),
        ({"machine": {}}, r"field machine\.cpu: Field required"),
        ({"settings": {}}, r"field settings\.rounds: Field required"),
        ({"seconds": math.nan}, "NaN is no finite number"),
        ({"seconds": -math.inf}, "-Infinity is no finite number"),
    ],
)
def test_a_record_is_checked(bench_models: list[str], tmp_path: Path, change, reason: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(json.loads(report_of(row_of(bench_models)).to_json()) | change))
    with pytest.raises(EarmarkError, match=reason):
        load(file)
    file.write_text('{"seconds": 1e999}')
    with pytest.raises(EarmarkError, match="1e999 is no finite number"):
        load(file)
    file.write_text("[]")
    with pytest.raises(EarmarkError, match="no report"):
        load(file)
    file.write_text("{")
    with pytest.raises(EarmarkError, match="no JSON"):
        load(file)


def test_the_page_of_the_documentation(
    bench_verbs, bench_models: list[str], tmp_path: Path, capsys
) -> None:
    row = row_of(bench_models)
    assert row.accuracy is not None
    worse = dataclasses.replace(row.accuracy, value=row.accuracy.value / 2)
    full = dataclasses.replace(row, kind="full")
    reports = [report_of(row), report_of(full, dataclasses.replace(full, accuracy=worse))]
    gpu = {"name": "Some GPU", "memory": "80 GB", "capability": "9.0", "cuda": "13"}
    reports[1].machine["accelerator"] = gpu
    files = []
    for number, report in enumerate(reports):
        files.append(str(tmp_path / f"{number}.json"))
        Path(files[-1]).write_text(report.to_json())
    target = tmp_path / "docs" / "costs.md"
    assert main(["latency", *files, "-o", str(target)]) == 0
    text = target.read_text()
    assert "and Some GPU: whole models\n" in text and "Some GPU, 80 GB" in text
    assert ": the model, by " in text and "latency-log" not in text
    assert "| toy | 2 keywords |" in text
    named = {part.partition(")")[0] for part in text.split("](")[1:]}
    assert named == {file.name for file in target.parent.glob("*.png")}
    assert "costs-distributions.png" in named and "costs-accuracy-2.png" in named
    (target.parent / "latency-log.md").touch()
    assert main(["latency", *files, "-o", str(target)]) == 0
    assert "(latency-log.md)" in target.read_text()
    assert capsys.readouterr().out == ""
    pictures: dict[str, bytes] = {}
    assert markdown(reports, "costs", pictures).startswith("# Latency")
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())


def test_what_a_gpu_cannot_be_faster_than(bench_models: list[str]) -> None:
    """Weights over bandwidth, less what the cache holds: 90 million in bfloat16 are 180 MB."""
    big = dataclasses.replace(
        row_of(bench_models), kind="full", name="big", precision="bfloat16", parameters=90_000_000
    )
    small = dataclasses.replace(big, name="small", parameters=8_000_000)
    many = dataclasses.replace(big, name="many", batch=256)
    found = tables(report_of(row_of(bench_models), big, small, many))
    (table,) = [each for each in found if each.title == "The least that a GPU takes"]
    least = [(180e6 - gpu.cache_bytes) / gpu.bytes_per_second * 1e6 for gpu in GPUS]
    assert table.rows == [["big", "bfloat16", "180", *(f"{us:.0f}" for us in least)]]
    assert least_us(45_000_000, "float32", GPUS[0]) == pytest.approx(least[0])
    assert "Computed, not measured" in table.note
    assert table.heads[3:] == tuple(f"{gpu.name} µs" for gpu in GPUS)


def test_the_plot_of_sizes_shows_its_dearest(bench_models: list[str]) -> None:
    """Its panels share an axis, of which the first has not the largest cost."""
    rows = [
        dataclasses.replace(row_of(bench_models, factor), kind="scaling", width=width, keywords=8)
        for factor, width in ((1.0, 32), (9.0, 128))
    ]
    _, figure = plots(report_of(*rows))["scaling"]
    dearest = max(row.hot.cpu_ms_per_second.median for row in rows)
    for axes in figure.axes:
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > dearest


def test_the_report_names_what_disturbed_it(bench_models: list[str]) -> None:
    report = report_of(row_of(bench_models))
    disturbed = dataclasses.replace(report.disturbance, reasons=("a <storm>",))
    shown = Page(page(dataclasses.replace(report, disturbance=disturbed)))
    assert "disturbed: a <storm>" in shown.text
