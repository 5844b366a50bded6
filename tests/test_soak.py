"""A soak of minutes with the toy model, by both ways."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_model
from earmark.benchmarks.reliability import soak, soak_paths
from earmark.benchmarks.reliability.soak_audio import Audio, loop
from earmark.benchmarks.reliability.soak_outcome import Outcome, slope
from earmark.benchmarks.reliability.soak_paths import one_pass
from earmark.benchmarks.scene import write_wav
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.events import Event, HeartbeatEvent
from earmark.runtime.spotter import spot
from earmark.runtime.stream import Detection
from earmark.train import progress as progress_module
from earmark.train.progress import progress


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The toy and a recording of its words."""
    folder = tmp_path_factory.mktemp("soak")
    model = toy_model.save(folder / "toy.onnx")
    write_wav(folder / "scene.wav", toy_model.scene())
    return str(model), str(folder / "scene.wav")


def test_minutes_by_both_ways(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, scene = files
    assert main(["soak", model, "--hours", "0.1", "--audio", scene, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["paths"]) == ["detect", "wyoming"]
    for outcome in report["paths"].values():
        # Three words in each 6.5 s, of which the last turn is cut.
        assert outcome["detections"] == 3 * (360 // 6.5) + 1
        assert (outcome["different"], outcome["drift_ms"]) == (0, 0)
        assert outcome["audio_seconds"] == 360
        assert len(outcome["resident"]) in (0, 6)


def test_a_difference_is_found(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scene = files

    def other(*arguments: object) -> list[Detection]:
        found = one_pass(*arguments)  # type: ignore[arg-type]
        return [found[0]._replace(score=found[0].score - 1e-3), *found[1:], found[-1]]

    monkeypatch.setattr(soak, "one_pass", other)
    options = ("--hours", "0.02", "--audio", scene, "--path", "detect", "--json")
    assert main(["soak", model, *options]) == 1
    assert json.loads(capsys.readouterr().out)["paths"]["detect"]["different"] == 2


def test_goes_on_with_the_path_that_was_interrupted(
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    model, scene = files
    state = tmp_path / "state"
    command = ["soak", model, "--hours", "0.02", "--audio", scene, "--state", str(state), "--json"]

    async def terminated(*arguments: object) -> Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
        raise AssertionError

    def again(*arguments: object) -> Outcome:
        raise AssertionError("was finished before")

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(soak, "wyoming", terminated)
        assert main(command) == 130
    assert signal.getsignal(signal.SIGTERM) == before
    assert {path.stem for path in state.iterdir()} == {"settings", "one-pass", "detect"}
    monkeypatch.setattr(soak, "one_pass", again)
    monkeypatch.setattr(soak, "detect", again)
    capsys.readouterr()
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)["paths"]
    assert [first[path]["different"] for path in ("detect", "wyoming")] == [0, 0]
    monkeypatch.setattr(soak, "wyoming", again)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["paths"] == first


def test_state_is_of_one_soak(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, scene = files
    options = ["--audio", scene, "--path", "detect", "--state", str(tmp_path / "state")]
    assert main(["soak", model, "--hours", "0.01", *options]) == 0
    assert main(["soak", model, "--hours", "0.02", *options]) == 1
    assert "holds a soak with another seconds: name another folder" in capsys.readouterr().err
    for name, text, place in (
        ("detect", "{", "as a whole"),
        ("detect", "{}", "audio_seconds"),
        ("one-pass", '[["low", 1.0]]', "0.2"),
        ("settings", "[]", "as a whole"),
    ):
        file = tmp_path / "state" / f"{name}.json"
        kept = file.read_text()
        file.write_text(text)
        assert main(["soak", model, "--hours", "0.01", *options]) == 1
        assert f"{name}.json: is damaged ({place}" in " ".join(capsys.readouterr().err.split())
        file.write_text(kept)


def test_progress_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress("Soaking", 3) as advance:
        advance(1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    with progress("Soaking", 3000) as advance:
        advance(1000)
        advance(2000)
    assert capsys.readouterr().err == "Soaking: 1,000 of 3,000\nSoaking: 3,000 of 3,000\n"


def test_audio_is_the_same_each_time_and_never_repeats(files: tuple[str, str]) -> None:
    model, scene = files
    audio = Audio(loop(Engine(model), [scene]), 16000, 14)
    blocks, again = list(audio), list(audio)
    assert np.array_equal(blocks, again)
    assert not np.array_equal(blocks[0], blocks[13])  # two turns of the loop later
    assert np.abs(blocks[0].astype(int) - blocks[13]).max() < 400


def test_slope() -> None:
    assert slope([9_000_000, *(1000 * minute for minute in range(1, 10))]) == pytest.approx(60)
    assert slope([5]) is None


def test_wrong_hours(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["soak", "--hours", "nan"]) == 1
    assert "--hours nan: give more than 0" in capsys.readouterr().err


def test_time_that_drifts_and_memory_that_grows_are_told(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scene = files
    minutes = iter(range(1, 10))

    def leaky(*arguments: Any, **options: Any) -> Iterator[Event]:
        for event in spot(*arguments, **options):
            if isinstance(event, HeartbeatEvent):
                size = 10_000_000 + 1_000_000 * next(minutes)
                event = replace(event, time=event.time + 0.002, resident_bytes=size)
            yield event

    monkeypatch.setattr(soak_paths, "spot", leaky)
    options = ("--hours", "0.05", "--audio", scene, "--path", "detect", "--json")
    assert main(["soak", model, *options]) == 1
    outcome = json.loads(capsys.readouterr().out)["paths"]["detect"]
    assert outcome["different"] == 0 and outcome["drift_ms"] == pytest.approx(2)
    assert outcome["resident_mb"] == 13
    assert outcome["slope_kb_per_hour"] == pytest.approx(60_000)


@pytest.mark.parametrize(
    ("hours", "growth", "sound"),
    [(24, 100, True), (24, 200, False), (1, 4000, True), (1, 5000, False), (0.9, 50_000, True)],
)
def test_memory_that_grows_is_a_failure(hours: float, growth: float, sound: bool) -> None:
    """kB an hour; but for a run too short to tell."""
    assert Outcome(3600 * hours, detections=1, slope_kb_per_hour=growth).sound == sound


def test_nothing_detected_is_a_failure(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_wav(tmp_path / "quiet.wav", np.zeros(16000, np.int16))
    options = ("--hours", "0.01", "--audio", str(tmp_path / "quiet.wav"), "--path", "detect")
    assert main(["soak", files[0], *options, "--json"]) == 1
    outcome = json.loads(capsys.readouterr().out)["paths"]["detect"]
    assert (outcome["detections"], outcome["different"], outcome["drift_ms"]) == (0, 0, 0)


def test_a_server_that_detects_otherwise_is_found(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another keyword, and another time."""
    model, scene = files

    def other(*arguments: Any) -> list[Detection]:
        first, second, *rest = one_pass(*arguments)
        later = second._replace(time=second.time + 0.08)
        return [first._replace(keyword="high"), later, *rest]

    monkeypatch.setattr(soak, "one_pass", other)
    monkeypatch.setattr(soak, "detect", lambda *_: Outcome(72.0, detections=1))
    assert main(["soak", model, "--hours", "0.02", "--audio", scene, "--json"]) == 1
    paths = json.loads(capsys.readouterr().out)["paths"]
    assert list(paths) == ["detect", "wyoming"]
    assert (paths["wyoming"]["different"], paths["wyoming"]["drift_ms"]) == (1, 80)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_server_that_dies_is_told_and_what_is_finished_is_reported(
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, scene = files

    def kill(process: int) -> None:
        os.kill(process, signal.SIGKILL)

    # What looks at its memory each minute.
    monkeypatch.setattr(soak_paths, "resident_bytes", kill)
    assert main(["soak", model, "--hours", "0.05", "--audio", scene, "--json"]) == 1
    out, err = capsys.readouterr()
    message = " ".join(err.split())
    assert re.search(
        r"earmark wyoming: left its client after \d+ s of audio \(exit status -9", message
    )
    paths = json.loads(out)["paths"]
    assert list(paths) == ["detect"] and paths["detect"]["different"] == 0
