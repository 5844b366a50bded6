"""Two reports beside each other: what is slower, and what cannot be told."""

import dataclasses
import json
from pathlib import Path

import pytest
from bench_toys import report_of, row_of
from earmark.benchmarks.latency import compare
from earmark.benchmarks.latency.results import load
from earmark.benchmarks.latency.show import show_comparison
from earmark.benchmarks.spread import Spread, spread
from earmark.runtime.cli import main


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "same"), (1.02, "same"), (1.2, "slower"), (0.8, "faster")]
)
def test_a_regression_is_told_from_noise(
    bench_verbs, bench_models: list[str], tmp_path: Path, factor: float, verdict: str, capsys
) -> None:
    files = []
    for seed, scale in enumerate((1.0, factor)):
        files.append(str(tmp_path / f"{seed}.json"))
        Path(files[-1]).write_text(report_of(row_of(bench_models, scale, seed)).to_json())
    assert main(["bench", "--compare", *files, "--json"]) == (verdict == "slower")
    found = json.loads(capsys.readouterr().out)
    assert {change["verdict"] for change in found["changes"]} == {verdict}
    assert [change["figure"] for change in found["changes"]] == ["CPU ms per s of audio", "hot p50"]
    assert found["changes"][0]["ratio"]["median"] == pytest.approx(factor, rel=0.02)
    assert found["regressed"] == (verdict == "slower") and found["cautions"] == []
    main(["bench", "--compare", *files])
    out, err = capsys.readouterr()
    assert out == "" and verdict in err


def test_a_comparison_of_nothing_is_no_success(
    bench_verbs, bench_models: list[str], tmp_path: Path, capsys
) -> None:
    row = row_of(bench_models)
    files = []
    for name in ("before", "after"):
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(report_of(dataclasses.replace(row, name=name)).to_json())
    assert main(["bench", "--compare", *files]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "no row is in both: measure under one file name" in " ".join(err.split())


@pytest.mark.parametrize(
    "option",
    [
        *(["model.onnx"], ["--peers"], ["--full", "beats"], ["--scaling"], ["--audio", "tones"]),
        *(["--rounds", "3"], ["--turn", "1"], ["--paced", "0"], ["--precision", "float32"]),
        *(["--mode", "eager"], ["--device", "cpu"], ["--batch", "2"], ["--html", "page.html"]),
    ],
)
def test_what_does_nothing_beside_a_comparison_is_refused(bench_verbs, option, capsys) -> None:
    assert main(["bench", *option, "--compare", "before.json", "after.json"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"{option[0]}: " in said and "leave it out" in said


def test_noise_that_hides_a_change_is_unclear() -> None:
    assert compare.judge(Spread(1.1, 0.9, 1.3), 0.05, 15) == "unclear"
    assert compare.judge(Spread(1.04, 1.01, 1.07), 0.05, 15) == "unclear"
    assert compare.judge(Spread(1.0, 0.97, 1.03), 0.05, 15) == "same"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed goes to no terminal of a known width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(1, 15, "unclear"), (15, 2, "unclear"), (1, 1, "unclear"), (3, 3, "slower")],
)
def test_few_rounds_tell_nothing(
    bench_models: list[str],
    before: int,
    after: int,
    verdict: str,
    capsys,
) -> None:
    first = report_of(row_of(bench_models, rounds=before))
    found = compare.compare(first, report_of(row_of(bench_models, 1.5, 1, after)))
    assert {change.verdict for change in found.changes} == {verdict}
    assert found.regressed == (verdict == "slower")
    show_comparison(found)
    err = capsys.readouterr().err
    # An interval is not told of one value.
    assert (" to " in err) == (before + after > 2)


def test_a_record_without_its_rounds_is_compared_by_its_medians(
    bench_models: list[str], tmp_path: Path
) -> None:
    raw = json.loads(report_of(row_of(bench_models)).to_json())
    del raw["rows"][0]["hot"]["p50_us"]["rounds"]
    file = tmp_path / "old.json"
    file.write_text(json.dumps(raw))
    found = compare.compare(load(file), report_of(row_of(bench_models, 1.5)))
    assert [change.verdict for change in found.changes] == ["slower", "unclear"]
    assert found.changes[1].ratio.median == pytest.approx(1.5, rel=0.02)


def test_what_makes_a_comparison_doubtful_is_said(bench_models: list[str]) -> None:
    row = row_of(bench_models)
    first = report_of(row)
    other = dataclasses.replace(row, name="other")
    second = report_of(row, other, machine=first.machine | {"cpu": "another"})
    disturbed = dataclasses.replace(first.disturbance, reasons=("a storm",))
    found = compare.compare(dataclasses.replace(first, disturbance=disturbed), second)
    assert found.missing == [other.key] and not found.regressed
    assert found.cautions[0] == "the first was disturbed: a storm"
    assert "cpu differs" in found.cautions[1] and "then another" in found.cautions[1]


def test_nothing_is_compared_with_nothing(
    bench_verbs, bench_models: list[str], tmp_path: Path, capsys
) -> None:
    """CPU time that a coarse clock counts to 0 in some rounds has no ratio that ends."""
    row = row_of(bench_models)
    files = []
    for name, rounds in (("before", [0.0] * 7 + [1.0] * 8), ("after", [100.0] * 15)):
        hot = dataclasses.replace(row.hot, cpu_ms_per_second=spread(rounds))
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(report_of(dataclasses.replace(row, hot=hot)).to_json())
    assert main(["bench", "--compare", *files, "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=lambda text: pytest.fail(text))
    assert [change["figure"] for change in found["changes"]] == ["hot p50"]
    assert found["cautions"] == [
        f"not compared, as it is 0 in the first: {row.key}: CPU ms per s of audio"
    ]


def test_a_figure_that_only_one_report_has_is_named(bench_models: list[str], capsys) -> None:
    row = row_of(bench_models)
    paced = dataclasses.replace(row, paced=row.hot)
    for before, after in ((row, paced), (paced, row)):
        found = compare.compare(report_of(before), report_of(after))
        assert found.missing == [f"{row.key}: paced p50"]
        assert [change.figure for change in found.changes] == ["CPU ms per s of audio", "hot p50"]
        show_comparison(found)
        assert f"only in one of them: {row.key}: paced p50" in capsys.readouterr().err
