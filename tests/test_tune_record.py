"""What ``earmark tune`` writes down and says of what it did."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.export import cli_tune, heard
from earmark.export.det import Trace
from earmark.export.heard import hear, keyword_clips
from earmark.runtime import cli
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.sources import FileSource
from earmark.train.data.clip import Clip

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


def test_the_place_of_a_clip_is_its_own(engine: Engine, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 2000, 60 * RATE)
    soundfile.write(tmp_path / "room.wav", noise.astype("i2"), RATE)

    def places(root: Path, *names: str) -> dict[str, float]:
        (root / "low").mkdir(parents=True, exist_ok=True)
        for name in names:
            beep = toy_model.tone(toy_model.LOW_HZ, 0.4, 0.2)
            soundfile.write(root / "low" / f"{name}_nohash_0.wav", beep, RATE)
        room = [("room", FileSource(tmp_path / "room.wav", RATE))]
        found = hear(engine, keyword_clips(engine.manifest, root), room, seed=0)
        return {trace.group: trace.truth[0].start for trace in found.positives}

    few = places(tmp_path / "clips", "b", "c", "d")
    assert len(set(few.values())) == 3
    more = places(tmp_path / "clips", "a")
    assert {name: more[name] for name in few} == few
    assert places(tmp_path / "moved", "c") == {"c": few["c"]}


@pytest.mark.parametrize("seed", [0, 7])
def test_the_first_clip_draws_nothing_that_the_excerpts_drew(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    (tmp_path / "low").mkdir()
    for name in "ab":
        soundfile.write(tmp_path / "low" / f"{name}.wav", toy_model.tone(440, 0.4), RATE)
    soundfile.write(tmp_path / "room.wav", np.zeros(RATE, np.int16), RATE)
    drawn: list[float] = []

    def draw(engine: Engine, clip: Clip, around: object, rng: np.random.Generator) -> Trace:
        drawn.append(rng.random())
        return Trace(1.0, (), clip.speaker, {})

    monkeypatch.setattr(heard, "trial", draw)
    room = [("room", FileSource(tmp_path / "room.wav", RATE))]
    hear(engine, keyword_clips(engine.manifest, tmp_path), room, seed=seed)
    assert len({*drawn, np.random.default_rng(seed).random()}) == 3
