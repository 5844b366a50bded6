"""The table of faults, made with the toy model, and the page that shows it."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import toy_model
from earmark.benchmarks.machine import machine
from earmark.benchmarks.reliability.faults import Bench, Row, measure
from earmark.benchmarks.reliability.faulty_source import Fault, FaultySource
from earmark.benchmarks.reliability.page import page
from earmark.benchmarks.scene import write_wav
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError


@pytest.fixture(scope="module")
def rows(model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    scene = tmp_path_factory.mktemp("faults") / "scene.wav"
    write_wav(scene, toy_model.scene())
    return {row.fault: row for row in measure(Bench.open(model, [str(scene)]))}


def test_faults_of_the_source(rows: dict[str, Row]) -> None:
    gap, nan = rows["overflow, half a second"], rows["buffers of NaN, half a second"]
    assert (gap.sees, gap.lost_ms) == (nan.sees, nan.lost_ms) == (("gap",), 500)
    lost = rows["unplugged and back after 2 s"]
    assert (lost.sees, lost.lost_ms) == (("device_lost", "device_back", "gap"), 2000)
    assert rows["back after 1 s at 44.1 kHz"].lost_ms == 1000
    empty = rows["buffer without samples"]
    assert (empty.sees, empty.lost_ms, empty.lost_detections) == ((), 0, 0)


def test_a_word_that_a_fault_touches_is_lost(model: str, tmp_path: Path) -> None:
    write_wav(tmp_path / "scene.wav", toy_model.scene())
    bench = Bench.open(model, [str(tmp_path / "scene.wav")])
    word = round(16000 * bench.expected[3].time)
    fault = Fault(word - 12000, "overflow", 16000)
    row = bench.row("over a word", bench.hear(FaultySource(bench.audio, [fault])))
    assert (row.lost_detections, row.new_detections) == (1, 0)


def test_a_detection_that_a_fault_makes_is_not_set_off_against_a_lost_one(
    model: str, tmp_path: Path
) -> None:
    write_wav(tmp_path / "scene.wav", toy_model.scene())
    bench = Bench.open(model, [str(tmp_path / "scene.wav")])
    without = [(detection.keyword, detection.time) for detection in bench.expected]
    keyword, time = without[0]
    assert bench.differ(without) == (0, 0)
    assert bench.differ([("new", time), *without[1:]]) == (1, 1)
    assert bench.differ([(keyword, time - 0.5), *without[1:], (keyword, 1000.0)]) == (0, 1)
    assert bench.differ([without[0], *without]) == (0, 1)


def test_faults_around_it_cost_no_detection(rows: dict[str, Row]) -> None:
    clock = rows["clock set back while listening"]
    assert clock.sees == ("`at` jumps; audio time does not",)
    broker = rows["MQTT broker down"]
    assert broker.undelivered > 10
    (seen,) = broker.sees
    assert seen.startswith("MQTT broker 127.0.0.1:PORT: cannot be reached (")
    gone = rows["Wyoming client gone within a message"]
    assert gone.sees[0] == "the next client is served"
    around = [clock, broker, gone]
    if Path("/dev/full").exists():
        full = rows["disk of the log full"]
        assert full.undelivered == broker.undelivered + 1  # the summary too
        around.append(full)
    if sys.platform != "win32":
        ended = rows["SIGTERM to `detect -`"]
        assert ended.sees == ("ended", "1 line for people", "exit status 0")
        around.append(ended)
    assert [(row.lost_detections, row.new_detections) for row in around] == [(0, 0)] * len(around)


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    copy = Path(toy_model.save(tmp_path / "copy.onnx"))
    write_wav(tmp_path / "scene.wav", toy_model.scene())
    bench = Bench.open(str(copy), [str(tmp_path / "scene.wav")])
    copy.unlink()
    with pytest.raises(EarmarkError, match=r"wyoming: did not start \(exit status 1: .*copy.onnx"):
        measure(bench)


def test_the_page_shows_what_there_is(rows: dict[str, Row]) -> None:
    faults = [dataclasses.asdict(row) for row in rows.values()]
    report = {"machine": machine(), "model": "toy.onnx", "backend": "numpy", "faults": faults}
    text = page({"faults": [report]})
    assert "toy.onnx by numpy:" in text
    assert "| overflow, half a second | gap | 500 ms |" in text
    assert text.count("Not measured.") == 3
    assert text.count("Measured on: ") == 1


def test_the_page_of_what_commands_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fuzz", "--cases", "5", "--target", "manifest", "--target", "wyoming"]) == 0
    fuzz = tmp_path / "fuzz.json"
    fuzz.write_text(capsys.readouterr().out)
    target = tmp_path / "page.md"
    assert main(["reliability", "--fuzz", str(fuzz), "-o", str(target)]) == 0
    assert "10 cases from seed 0" in target.read_text()
    assert main(["reliability", "--soak", str(fuzz), "-o", str(target)]) == 1
    assert "--soak: is not what `earmark soak" in capsys.readouterr().err
    fuzz.write_text("no")
    assert main(["reliability", "--fuzz", str(fuzz), "-o", str(target)]) == 1
    assert "no JSON" in capsys.readouterr().err
    fuzz.write_text("")
    target.unlink()
    assert main(["reliability", "--fuzz", str(fuzz), "-o", str(target)]) == 1
    assert "fuzz.json: holds no report" in capsys.readouterr().err and not target.exists()


def test_the_verb_prints_json(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "scene.wav", toy_model.scene())
    options = ("--model", model, "--audio", str(tmp_path / "scene.wav"), "--json")
    assert main(["faults", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["faults"]) >= 9
    assert report["model"] == "toy.onnx" and report["backend"] == Engine(model).backend
