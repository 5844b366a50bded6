"""A soak of minutes with the toy model, by both ways."""

import json
from pathlib import Path

import numpy as np
import pytest
import toy_model
from earmark.benchmarks import soak
from earmark.benchmarks.demo import write_wav
from earmark.benchmarks.soak import Audio, loop, one_pass, slope
from earmark.runtime.cli import main
from earmark.runtime.engine import Detection, Engine


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
