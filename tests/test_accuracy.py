"""The page of accuracy: seeds are one row, pairs are paired, and what is missing is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import toy_model
from earmark.benchmarks.accuracy.cli_page import accuracy as verb
from earmark.benchmarks.accuracy.groups import group
from earmark.benchmarks.accuracy.page import MISSING, page
from earmark.benchmarks.accuracy.page_tables import Costs, costs
from earmark.benchmarks.latency import cold
from earmark.benchmarks.latency.cli import bench
from earmark.benchmarks.latency.cold import cold_starts
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError

BENCH = Path(__file__).parents[1] / "docs" / "records" / "bench.json"


def record(
    seed: int, top1: float, teacher: str | None = None, snr: float | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "model": f"{teacher}-{seed}.onnx",
        "name": "words",
        "kind": "student",
        "judged": "int8 streaming",
        "precision": "int8",
        "parameters": 60_000,
        "bytes": 90_000,
        "seed": seed,
        "teacher": teacher,
        "recipe": f"recipe of {teacher}",
        "base": "base",
        "split": "validation",
        "snr": snr,
        "clips": 100,
        "speakers": 10,
        "top1": top1,
        "macro_f1": top1,
    } | more


RECORDS = [
    record(0, 0.90),
    record(1, 0.92),
    record(0, 0.93, "T"),
    record(1, 0.94, "T"),
    record(7, 0.99, "T"),
    record(0, 0.50, snr=0.0),
    record(0, 0.60, "T", snr=0.0),
    record(0, 0.97, kind="cnn2d", judged="float32 whole clips", model="runs/t", recipe="t"),
]


def rows(text: str, section: str) -> list[list[str]]:
    part = text.split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_seeds_are_one_row_with_their_cost() -> None:
    text, pictures = page(
        group(RECORDS), Costs(("earmark bench",), {(60_000, "int8"): 1.25}), [], []
    )
    first, second, third = rows(text, "Accuracy, size and cost")
    assert first[:6] == ["words", "int8 streaming", "60,000", "90", "1.25", "2"]
    assert first[6] == "91.00 ± 1.41" and second[5] == "3" and second[0] == "words, taught by T"
    # A network that is not exported has no cost on a device.
    assert third[:2] == ["words (cnn2d)", "float32 whole clips"] and third[4] == "-"
    [both] = rows(
        page(group([record(0, 0.9, "T + U + U")]), Costs(), [], [])[0], "Accuracy, size and cost"
    )
    assert both[0] == "words, taught by T + 2 × U"
    assert list(pictures) == ["accuracy-snr.png"] and "(accuracy-snr.png)" in text


def test_distillation_is_told_by_the_same_seeds_of_the_same_recipe() -> None:
    clean, noisy = rows(page(group(RECORDS), Costs(), [], [])[0], "What distillation adds")
    assert clean[2:4] == ["clean", "2"] and clean[6] == "2.50 ± 0.71"
    assert clean[7] == "+3.00, +2.00" and noisy[2:4] == ["0 dB", "1"] and noisy[7] == "+10.00"
    # Where more than distillation differs, there is no pair.
    other = [r | {"base": "other"} if r["teacher"] else r for r in RECORDS]
    assert not rows(page(group(other), Costs(), [], [])[0], "What distillation adds")


def test_other_words_are_told_word_by_word_and_rare_ones_together() -> None:
    def others(bed: float, dog: float, cat: float) -> dict[str, Any]:
        found = {"bed": (30, bed), "cat": (5, cat), "dog": (15, dog)}
        return {word: {"support": n, "recall": recall} for word, (n, recall) in found.items()}

    records = [
        record(0, 0.9, others=others(0.5, 0.8, 0.4), recall={"_silence_": 0.9}),
        record(1, 0.9, others=others(0.7, 0.8, 0.4), recall={"_silence_": None}),
        record(0, 0.9, snr=0.0),
        record(0, 0.8, kind="cnn2d", judged="float32 whole clips", model="runs/t", recipe="t"),
    ]
    text = page(group(records), Costs(), [], [])[0]
    [row] = rows(text, "Other words and background")
    assert row[2] == "60.00 ± 14.14" and row[3] == "70.00 ± 0.00" and row[4] == "90.00"
    assert "bed (30)" in text and "rarer words (20)" in text


def test_what_one_title_would_stand_for_is_told_apart() -> None:
    settings = {"mode": "cached", "weight": 0.9, "temperature": 1.0, "feature_weight": 0.0}
    taught = [
        record(0, 0.9, "T", model=f"{n}.onnx", recipe=str(n), distill=settings | more)
        for n, more in enumerate(({}, {"temperature": 4.0}, {"feature_weight": 0.5}))
    ]
    # Of other sizes or judged otherwise: a column says which.
    others = [
        record(0, 0.9, "T", model="s.onnx", parameters=5, distill=settings),
        record(0, 0.9, "T", model="run", judged="float32 whole clips", distill=settings),
    ]
    small, *same, run = (one.title for one in group([*taught, *others]))
    title = "words, taught by T"
    assert small == run == title
    assert same == [
        f"{title}, temperature 1.0, feature weight 0.0",
        f"{title}, temperature 4.0, feature weight 0.0",
        f"{title}, temperature 1.0, feature weight 0.5",
    ]
    # What differs is not in the distillation, or in a record that does not hold it.
    alike = [record(0, 0.9, "T", model=f"{n}.onnx", recipe=str(n)) for n in range(2)]
    assert [one.title for one in group(alike)] == [f"{title}, 0.onnx", f"{title}, 1.onnx"]


def test_tables_stand_beside_the_commands_that_measured_them() -> None:
    heard: dict[str, Any] = {"data": ["sc"], "noise": ["my noise"]}
    records = [
        record(0, 0.9, **heard),
        record(0, 0.5, snr=-5.0, noise_seed=3, **heard),
    ]
    line = {"run": "x", "top1": 0.9, "macro_f1": 0.9, "parameters": 5, "judged": "whole clips"}
    settings = [{"seed": s, "train.precision": p} for s in (0, 1) for p in ("32", "bf16 mixed")]
    sweep = [line | {"settings": each} for each in settings]
    named = [each | {"recipe": "my.toml"} for each in sweep]
    text, _ = page(group(records), Costs(), [], [("Old", sweep), ("New", named)])
    evaluated = "--data sc --noise 'my noise' --snr clean -5 --seed 3 --json"
    assert f"clips:\n\n```sh\nearmark evaluate MODEL... {evaluated}\n```\n\n## " in text
    grid = """--set seed=0,1 --set 'train.precision="32","bf16 mixed"' -o DIR\n```\n\n| """
    assert f"### Old\n\n```sh\nearmark sweep RECIPE {grid}" in text
    assert f"### New\n\n```sh\nearmark sweep my.toml {grid}" in text


def test_records_of_other_clips_are_not_mixed() -> None:
    for other in ({"split": "test"}, {"data": ["sc"]}):
        with pytest.raises(EarmarkError, match=r"of other clips .*write a page for each"):
            page(group([record(0, 0.9), record(1, 0.5, **other)]), Costs(), [], [])
    # Nor does the later record of the same model take the place of the other.
    with pytest.raises(EarmarkError, match="of other clips"):
        page(group([record(0, 0.9), record(0, 0.5, split="test")]), Costs(), [], [])
    noisy = [record(seed, 0.5, snr=0.0, noise_seed=seed) for seed in (0, 1)]
    with pytest.raises(EarmarkError, match="of other noise"):
        page(group(noisy), Costs(), [], [])


def test_models_that_heard_other_recordings_are_named() -> None:
    def told(*digests: str | None) -> str:
        records = [record(i, 0.9, recordings_sha256=some) for i, some in enumerate(digests)]
        return page(group(records), Costs(), [], [])[0]

    other, silent = "Other recordings than the rest heard", "Which recordings they heard is not"
    for text in (told("a", "a"), told(None, None)):
        assert other not in text and silent not in text
    text = told("a", None, "b", "a")
    assert f"{other} `None-2.onnx`." in text and f"{silent} told of `None-1.onnx`." in text
    # Of each ratio on its own: clips in noise are others than clean ones.
    noisy = [record(0, 0.9, snr=snr, recordings_sha256=str(snr)) for snr in (None, 0.0)]
    text, _ = page(group([*noisy, record(1, 0.9, snr=0.0)]), Costs(), [], [])
    assert other not in text and f"{silent} told of `None-1.onnx`." in text


def test_a_model_that_was_measured_again_counts_once() -> None:
    [one] = group([record(0, 0.1), record(0, 0.9)])
    assert one.at(None) == {0: 0.9}


def test_nothing_measured_is_said_everywhere() -> None:
    text, pictures = page([], Costs(), [], [])
    assert text.count(MISSING) == 5 and not pictures


@pytest.fixture(autouse=True)
def verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"accuracy": verb, "bench": bench}
    monkeypatch.setattr("earmark.runtime.cli.commands", lambda wanted: found)


def test_the_verb_reads_what_commands_wrote(tmp_path: Path, capsys) -> None:
    clips, sweep = tmp_path / "clips.jsonl", tmp_path / "table.jsonl"
    clips.write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    line = {"settings": {"distill.temperature": 2, "seed": 0}, "run": "x", "top1": 0.9}
    line |= {"macro_f1": 0.9, "parameters": 60_000, "judged": "int8 streaming"}
    sweep.write_text(json.dumps(line) + "\n")
    target = tmp_path / "page.md"
    command = ["accuracy", "--clips", str(clips), "-o", str(target)]
    assert main([*command, "--sweep", f"Temperature={sweep}"]) == 0
    text = target.read_text()
    assert "### Temperature" in text and "| 2 | 1 | 90.00 |" in text
    assert (tmp_path / "page-snr.png").stat().st_size > 1000
    assert main([*command, "--sweep", str(sweep)]) != 0
    assert "TITLE=FILE" in capsys.readouterr().err
    sweep.write_text("")
    assert main([*command, "--sweep", f"Temperature={sweep}"]) != 0
    assert "table.jsonl: holds no report" in capsys.readouterr().err
    assert main([*command, "--det", str(clips)]) != 0
    assert "not what its command prints" in capsys.readouterr().err
    clips.write_text(json.dumps({"map": 0.5}))
    assert main(command) != 0
    assert "multi-label models have no table" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--clips", "--det"])
def test_an_empty_file_is_no_page(tmp_path: Path, capsys, option: str) -> None:
    empty, target = tmp_path / "empty.jsonl", tmp_path / "page.md"
    empty.write_text("\n")
    assert main(["accuracy", option, str(empty), "-o", str(target)]) == 1
    assert "empty.jsonl: holds no report: run its command again" in capsys.readouterr().err
    assert not target.exists()


def test_nothing_to_show_is_refused(tmp_path: Path, capsys) -> None:
    target = tmp_path / "page.md"
    for given in ([], ["--bench", "bench.json"]):
        assert main(["accuracy", *given, "-o", str(target)]) != 0
        assert "nothing to show" in capsys.readouterr().err
    assert not target.exists()


def test_the_cost_is_that_of_a_report_of_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(cold, "REPEATS", 1)
    monkeypatch.setattr(cold_starts, "__defaults__", (1,))
    model = toy_model.save(tmp_path / "toy.onnx", precision="int8", parameters=60_000)
    fast = ["--rounds", "2", "--turn", "0.002", "--paced", "0"]
    assert main(["bench", str(model), *fast, "--json"]) == 0
    report = tmp_path / "bench.json"
    report.write_text(capsys.readouterr().out)
    row, *_as_others_run_it = json.loads(report.read_text())["rows"]
    clips, target = tmp_path / "clips.jsonl", tmp_path / "page.md"
    clips.write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    command = ["accuracy", "--clips", str(clips), "-o", str(target)]
    assert main([*command, "--bench", str(report)]) == 0
    spent = row["hot"]["cpu_ms_per_second"]["median"]
    assert rows(target.read_text(), "Accuracy, size and cost")[0][4] == f"{spent:.2f}" != "-"
    assert main([*command, "--bench", str(clips)]) != 0
    assert "clips.jsonl: no" in capsys.readouterr().err


def test_costs_of_several_reports_are_of_one_machine_and_of_different_models(
    tmp_path: Path,
) -> None:
    report = json.loads(BENCH.read_text())
    report["rows"] = [row for row in report["rows"] if row["kind"] == "edge"][:1]
    [row] = report["rows"]
    machine = report["machine"]

    def write(name: str, size: int, **about: Any) -> str:
        changed = {"machine": machine | about, "rows": [row | {"name": name, "parameters": size}]}
        (tmp_path / name).write_text(json.dumps(report | changed))
        return str(tmp_path / name)

    one, two = write("one", 1000), write("two", 2000, load=9.0)
    assert set(costs([one, two]).cpu_ms) == {(1000, "int8"), (2000, "int8")}
    with pytest.raises(EarmarkError, match=r"three: of another machine than .*one \(cpu\): leave"):
        costs([one, write("three", 3000, cpu="other")])
    with pytest.raises(EarmarkError, match=r"one in .* and four in .* 1,000 parameters in int8"):
        costs([one, write("four", 1000)])
