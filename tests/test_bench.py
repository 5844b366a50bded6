"""The verb ``bench`` from end to end with toys, and what it refuses."""

import errno
import io
import sys
from pathlib import Path

import pytest
from bench_toys import FAST, report_of, row_of
from earmark.benchmarks.latency import bench
from earmark.benchmarks.latency.cold import installed_bytes
from earmark.benchmarks.latency.results import Report, load
from earmark.runtime.backends.backend import available
from earmark.runtime.cli import main
from test_report import Page


def test_models_and_peers_beside_each_other(
    fake_peers: Path, bench_verbs, bench_models: list[str], low_tones: Path, capsys, tmp_path: Path
) -> None:
    target = tmp_path / "bench.html"
    options = ["--peers", "--audio", str(low_tones), "--html", str(target), "--json"]
    assert main(["bench", *bench_models, *FAST, *options]) == 0
    out, _ = capsys.readouterr()
    (tmp_path / "report.json").write_text(out)
    report = load(tmp_path / "report.json")
    assert report.to_json() == out.strip()
    *rows, brief, peer = report.rows
    assert (brief.name, brief.kind, brief.cold) == ("brief", "peer", None)
    assert report.skipped["cold start of brief, C"] == "OSError: its library is gone"
    int8, float32, *others = rows
    assert [row.kind for row in rows] == ["edge"] * len(rows) and peer.kind == "peer"
    assert report.reference == int8.key and len({row.key for row in report.rows}) == len(rows) + 2
    # The first model once more by each other backend that is there.
    assert int8.mode == float32.mode and [int8.mode, *(row.mode for row in others)] == available()
    for row in others:
        assert row.name == int8.name and row.delay == int8.delay
    by_onnxruntime, by_numpy = ([int8, *others][available().index(b)] for b in available()[-2:])
    assert by_numpy.cold is not None and by_onnxruntime.cold is not None
    sizes = by_numpy.cold.install_mb, by_onnxruntime.cold.install_mb
    assert sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]
    # Every row was measured in every round.
    for row in (*rows, peer):
        assert len(row.hot.cpu_ms_per_second.rounds) == 2 and row.paced is not None
        assert row.cold is not None and row.cold.first_score_ms.median > row.cold.import_ms.median
        assert (row.cpu_ratio is None) == (row is int8)
    assert int8.accuracy is not None and int8.accuracy.value == 0.9
    assert float32.accuracy is None and peer.accuracy is None
    assert (int8.job, peer.job, peer.step_ms) == ("2 keywords", "loud or not", 10)
    assert float32.cpu_ratio is not None and float32.cpu_ratio.rounds[1] == pytest.approx(
        float32.hot.cpu_ms_per_second.rounds[1] / int8.hot.cpu_ms_per_second.rounds[1]
    )
    # 80 ms of chunk, two steps and a sample of look-back, a fifth of a second of smoothing.
    assert int8.delay is not None
    assert int8.delay.algorithmic_ms == pytest.approx(80 + 1000 * 641 / 16000 + 200)
    assert (int8.delay.found, int8.delay.said) == (3, 3)
    # The tone is heard before it ends.
    assert int8.delay.p50_ms is not None and -500 < int8.delay.p50_ms < 0
    assert peer.cold is not None and peer.cold.install_mb == pytest.approx(
        (installed_bytes("numpy") or 0) / 1e6
    )
    assert (
        "no_such_module" in report.skipped["missing"] and "pip install" in report.skipped["missing"]
    )
    assert "its library is damaged" in report.skipped["damaged"]
    assert "ValueError: no such block" in report.skipped["speechless"]
    assert "no_such_attribute" in report.skipped["nowhere"]
    heard = sys.modules["fake_peer"].heard
    assert set(heard) == {(bytes, 320)}
    shown = Page(target.read_text())
    for name, value in ((n, v) for _, n, v in shown.attributes if n in ("src", "href")):
        assert str(value).startswith("data:image/png;base64,"), name
    assert "skipped: missing" in shown.text and "90.00 %" in shown.text
    # The same again as tables.
    assert main(["bench", bench_models[0], *FAST, "--audio", str(low_tones)]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "CPU ms/s" in err and "interleaved rounds" in err


def run_without_measuring(monkeypatch: pytest.MonkeyPatch, models: list[str]) -> Report:
    report = report_of(row_of(models))
    monkeypatch.setattr(bench, "run", lambda plan, command: report)
    return report


def test_a_report_is_written_though_nobody_reads_what_is_printed(
    bench_verbs, bench_models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    run_without_measuring(monkeypatch, bench_models)
    target = tmp_path / "bench.html"
    with (tmp_path / "pipe").open("w") as pipe:
        closed = Closed()
        closed.fileno = pipe.fileno
        monkeypatch.setattr("sys.stdout", closed)
        assert main(["bench", bench_models[0], "--json", "--html", str(target)]) == 141
    assert "What spotting costs" in target.read_text()


def test_what_was_measured_is_printed_though_no_report_can_be_written(
    bench_verbs, bench_models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    report = run_without_measuring(monkeypatch, bench_models)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    target = tmp_path / "bench.html"
    assert main(["bench", bench_models[0], "--json", "--html", str(target)]) == 1
    out, err = capsys.readouterr()
    assert out == report.to_json() + "\n" and not target.exists()
    assert "bench.html: cannot be written (No space left on device)" in " ".join(err.split())


def test_a_failure_of_the_run_is_not_that_of_its_report(
    bench_verbs, bench_models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(plan, command):
        raise PermissionError(errno.EACCES, "Permission denied", "scratch")

    monkeypatch.setattr(bench, "run", run)
    target = tmp_path / "bench.html"
    target.write_text("before")
    with pytest.raises(PermissionError, match="scratch"):
        main(["bench", bench_models[0], "--html", str(target)])
    assert target.read_text() == "before" and {*tmp_path.iterdir()} == {
        target,
        *map(Path, bench_models),
    }


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--rounds", "0"], "--rounds 0: expected"),
        (["--audio", "/nonexistent"], "--audio /nonexistent: no such folder"),
        (["--html", "/dev/null"], "/dev/null: is no regular file"),
        (["--precision", "float32"], "--precision: does nothing without --full: leave it out"),
        (["--mode", "eager"], "--mode: does nothing without --full"),
        (["--device", "cpu"], "--device: does nothing without --full"),
        (["--batch", "4"], "--batch: does nothing without --full"),
        (["--full", "--batch", "0"], "--batch 0: expected at least 1"),
        (["--full", "--batch", "4", "--mode", "graph"], "--batch 4: several windows at once"),
        (["--paced", "0.05"], "--paced 0.05: expected at least 0.08, a chunk of int8, or 0"),
    ],
)
def test_whats_asked_for_wrongly_is_named(
    fake_peers: Path,
    bench_verbs,
    bench_models: list[str],
    options,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it was measured"))
    status = main(["bench", bench_models[0], *FAST, *options])
    _, err = capsys.readouterr()
    assert status == 1 and reason in " ".join(err.split())


def test_names_are_checked_before_anything_is_measured(
    fake_peers: Path, bench_verbs, bench_models: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it was measured"))
    for option, names in (("--peers", "brief, damaged, fake"), ("--full", "beats, ast")):
        assert main(["bench", bench_models[0], *FAST, option, "nosuch"]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert f"{option} nosuch: choose from {names}" in said
