"""What ``earmark tune`` writes down and says of what it did."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.export import cli_tune
from earmark.runtime import cli
from earmark.runtime.cli import main

RATE = 16000


@pytest.fixture
def tuned(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Tunes the toy on words of four speakers and two quiet rooms: its report, and what it says."""
    known = cli.commands
    monkeypatch.setattr(cli, "commands", lambda name: {**known(name), "tune": cli_tune.tune})
    for word, hertz in (("low", toy_model.LOW_HZ), ("high", toy_model.HIGH_HZ)):
        (tmp_path / "clips" / word).mkdir(parents=True)
        for speaker in "abcd":
            name = tmp_path / "clips" / word / f"{speaker}_nohash_0.wav"
            soundfile.write(name, toy_model.tone(hertz, 0.4, 0.2), RATE)
    (tmp_path / "rooms").mkdir()
    for room in "xy":
        soundfile.write(tmp_path / "rooms" / f"{room}.wav", np.zeros(5 * RATE, np.int16), RATE)
    output = str(tmp_path / "tuned.onnx")

    def run(*options: str) -> tuple[dict, str]:
        command = ["tune", model, "--background", str(tmp_path / "rooms"), "-o", output, *options]
        if "--positive" not in options:
            command += ["--positive", str(tmp_path / "clips")]
        assert main(command) == 0
        out, err = capsys.readouterr()
        return json.loads(out), err

    return run


def test_the_moving_averages_that_were_tried_are_written_down(tuned, tmp_path: Path) -> None:
    report, _ = tuned("--smoothing", "0.5,0.3")
    own = toy_model.manifest().decision.smoothing
    assert report["smoothings"] == sorted({0.3, 0.5, own})
    one = ("--positive", str(tmp_path / "clips" / "high"), "--keyword", "high")
    report, _ = tuned(*one)
    # A keyword without clips holds the moving average at the model's.
    assert report["smoothings"] == [own]


def test_speakers_and_recordings_are_those_of_the_figures(tuned) -> None:
    report, _ = tuned()
    assert (report["speakers"], report["recordings"]) == (4, 2)
    report, _ = tuned("--holdout")
    assert (report["speakers"], report["recordings"]) == (2, 1)
    assert report["points"]["quiet"]["clips"] == 4


def test_it_says_how_the_points_come_into_use(tuned) -> None:
    _, err = tuned("--point", "night=0.1")
    last = err.splitlines()[-1]
    assert "decides as before" in last and "--default NAME" in last
    assert "--operating-point NAME (quiet, balanced, sensitive, night)" in last
    _, err = tuned("--default", "quiet")
    assert err.splitlines()[-1].endswith("written")
