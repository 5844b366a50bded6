"""``earmark tune``: from recordings to a model file whose operating points mean something."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from command import launch
from earmark.export.cli_tune import tune as verb
from earmark.export.det import Trace
from earmark.export.heard import Heard, hear, keyword_clips
from earmark.export.matching import Word
from earmark.export.tune import TuneSettings, Tuning, choose, first_half, parse_points
from earmark.runtime import cli
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Decision
from earmark.runtime.sources import FileSource
from virtual_microphone import VirtualMicrophone, missing, virtual_microphone

RATE = 16000


def beep(hertz: float, amplitude: float) -> np.ndarray:
    pcm = np.zeros(RATE, np.int16)
    pcm[4800:11200] = toy_model.tone(hertz, 0.4, amplitude)
    return pcm


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones from loud to hardly heard, by six speakers; and a word that is no keyword."""
    root = tmp_path_factory.mktemp("corpus")
    for word, hertz in (("low", toy_model.LOW_HZ), ("high", toy_model.HIGH_HZ), ("hum", 1200)):
        (root / word).mkdir()
        for number, amplitude in enumerate(np.geomspace(0.012, 0.3, 12)):
            name = f"speaker{number % 6}_nohash_{number}.wav"
            soundfile.write(root / word / name, beep(hertz, amplitude), RATE)
    return root


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of faint noise in four files, with eight tones that nobody meant."""
    root = tmp_path_factory.mktemp("background")
    rng = np.random.default_rng(0)
    amplitudes = iter(np.geomspace(0.014, 0.06, 8))
    for number in range(4):
        pcm = rng.integers(-3, 4, 30 * RATE).astype(np.int16)
        for start in (8, 20):
            sound = beep(toy_model.LOW_HZ, next(amplitudes))
            pcm[start * RATE : start * RATE + len(sound)] += sound
        soundfile.write(root / f"room{number}.wav", pcm, RATE)
    return root


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line with this verb beside those that are installed."""
    known = cli.commands
    monkeypatch.setattr(cli, "commands", lambda wanted: {**known(wanted), "tune": verb})


def run(model: str, corpus: Path, background: Path | str, output: Path, *options: str) -> int:
    return main(
        [
            *("tune", model, "--positive", str(corpus), "--background", str(background)),
            *("-o", str(output), *options),
        ]
    )


@pytest.mark.usefixtures("verbs")
def test_from_recordings_to_a_tuned_model(
    model: str, corpus: Path, background: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tmp_path / "tuned.onnx"
    options = ("--point", "chatty=150", "--point", "balanced=90", "--default", "chatty")
    assert run(model, corpus, background, tuned, *options) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert out.count("\n") == 1
    assert list(report["points"]) == ["quiet", "balanced", "sensitive", "chatty"]
    assert (tmp_path / "tuned.det.png").read_bytes().startswith(b"\x89PNG")

    # In two minutes 90 an hour are three, 150 are five.
    counts = {name: point["false_accepts"] for name, point in report["points"].items()}
    misses = {name: point["misses"] for name, point in report["points"].items()}
    assert counts["quiet"] == 0 and counts["balanced"] <= 3 and counts["chatty"] <= 5
    assert misses["quiet"] > misses["balanced"] > misses["chatty"]
    for point in report["points"].values():
        assert point["clips"] == 24 and point["in_sample"]
        low, high = point["false_accepts_per_hour_interval"]
        assert low <= point["false_accepts_per_hour"] <= high
        more = point["false_accepts_per_hour_elsewhere"] - point["false_accepts_per_hour"]
        assert more == pytest.approx(2 / (120 / 3600))
        assert point["misses"] == sum(k["misses"] for k in point["keywords"].values())
        assert -0.4 < point["delay_p50"] < 0.75

    for text in ("quiet: 0.03 h of background are too short", "the same recordings", "tuned.onnx"):
        assert text in err
    assert "sensitive: the same thresholds as quiet" in err

    # The file is the model with another manifest, and what was measured holds for `detect`.
    before, after = Engine(model), Engine(tuned)
    assert after.manifest.schema == 2
    assert after.manifest.decision == after.manifest.operating_points["chatty"]
    pcm = toy_model.scene()
    assert np.array_equal(before.scorer().feed(pcm), after.scorer().feed(pcm))
    files = sorted(str(file) for file in background.iterdir())
    for name, count in counts.items():
        assert main(["detect", "--model", str(tuned), "--operating-point", name, *files]) == 0
        assert len(capsys.readouterr().out.splitlines()) == count
    assert main(["info", str(tuned)]) == 0
    text = capsys.readouterr().out
    assert "operating point  chatty, the default: mean over" in text
    assert f"{misses['chatty']} of 24 clips missed" in text


@pytest.mark.usefixtures("verbs")
def test_held_out_recordings_are_not_chosen_on(
    model: str, corpus: Path, background: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--holdout", "--plot", str(tmp_path / "curve.svg"), "--smoothing", "0.1")
    assert run(model, corpus, background, tmp_path / "tuned.onnx", *options) == 0
    out, err = capsys.readouterr()
    for point in json.loads(out)["points"].values():
        assert point["clips"] == 12 and not point["in_sample"]
        assert point["false_accepts_per_hour_elsewhere"] is None
        assert point["hours"] == pytest.approx(60 / 3600, abs=1e-4)
    assert "recordings held out" in err
    assert "elsewhere" not in err
    assert b"<svg" in (tmp_path / "curve.svg").read_bytes()
    summary = Engine(tmp_path / "tuned.onnx").manifest.metrics["operating_points"]
    assert summary["points"]["quiet"]["summary"].endswith("on recordings held out")


def heard(engine: Engine, corpus: Path, files: list[Path], settings: TuneSettings):
    sources = [(file.name, FileSource(file, RATE)) for file in files]
    return hear(
        engine,
        keyword_clips(engine.manifest, corpus),
        sources,
        seed=settings.seed,
        recordings=len(sources),
    )


def test_halves_share_no_speaker_and_one_recording_is_cut_in_time(
    model: str, corpus: Path, background: Path
) -> None:
    engine = Engine(model)
    settings = TuneSettings(holdout=True, smoothings=())
    one = sorted(background.iterdir())[:1]
    found = heard(engine, corpus, one, settings)
    tuning = choose(engine.manifest, found, settings)
    assert tuning.hours == pytest.approx(15 / 3600, abs=1e-4)
    assert sum(curve.said for curve in tuning.positives) == 12
    assert choose(engine.manifest, found, settings).points["quiet"].measured == (
        tuning.points["quiet"].measured
    )


@pytest.mark.usefixtures("verbs")
def test_a_flat_folder_tunes_one_keyword_and_leaves_the_others(
    model: str,
    corpus: Path,
    background: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuned = tmp_path / "tuned.onnx"
    options = ("--keyword", "high", "--context", "silence")
    asked: list[dict] = []
    monkeypatch.setattr(
        "earmark.export.heard.hear", lambda *args, **how: asked.append(how) or hear(*args, **how)
    )
    assert run(model, corpus / "high", background, tuned, *options) == 0
    assert asked[0]["silence"]
    out, err = capsys.readouterr()
    point = json.loads(out)["points"]["quiet"]
    assert list(point["keywords"]) == ["high"] and point["clips"] == 12
    assert "no clips of low: their thresholds stay, and so does the moving average" in err
    decision = Engine(tuned).manifest.operating_points["quiet"]
    assert decision.thresholds["low"] == 0.7 and decision.thresholds["high"] != 0.7
    assert decision.smoothing == Engine(model).manifest.decision.smoothing
    assert Engine(tuned).manifest.metrics["operating_points"]["split"] == "all"
    # Averages that would not be tried are not asked for, which is told before anything is heard.
    asked.clear()
    options = (*options, "--smoothing", "0.1")
    assert run(model, corpus / "high", background, tmp_path / "again.onnx", *options) == 1
    assert "--smoothing: all keywords share the moving average, and no clips of low are" in (
        capsys.readouterr().err
    )
    assert not asked


@pytest.mark.usefixtures("verbs")
def test_what_cannot_be_read_is_left_out_and_told(
    model: str, corpus: Path, background: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room, clips = tmp_path / "room", tmp_path / "clips"
    for source, target in ((background, room), (corpus / "low", clips / "low")):
        target.mkdir(parents=True)
        for file in source.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    (room / "bad.wav").write_bytes(b"RIFF")
    (clips / "low" / "bad.wav").write_bytes(b"")
    assert run(model, clips, room, tmp_path / "tuned.onnx") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["skipped"] == 2 and err.count(": left out\n") == 2
    only = tmp_path / "only"
    only.mkdir()
    (only / "bad.wav").write_bytes(b"")
    assert run(model, clips, only, tmp_path / "none.onnx") == 1
    assert "bad.wav: is empty" in capsys.readouterr().err
    assert not (tmp_path / "none.onnx").exists()


@pytest.mark.usefixtures("verbs")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--seed", "-1"], "--seed: give a number from 0"),
        (["--point", "loud"], "--point loud: give NAME=RATE"),
        (["--point", "loud=0"], "--point loud=0: give NAME=RATE"),
        (["--point", "=1"], "--point =1: give NAME=RATE"),
        (["--point", "loud=inf"], "--point loud=inf: give NAME=RATE"),
        (["--default", "loud"], "--default loud: the points are quiet, balanced, sensitive"),
        (["--smoothing", "0.1,x"], "--smoothing 0.1,x: give seconds"),
        (["--plot", "curve.gif"], "--plot curve.gif: name a file that ends in .png"),
        (["--keyword", "yes"], "--keyword yes: the model's keywords are low, high"),
        (["--keyword", "low", "--split", "test"], "--split test: a folder of one keyword"),
        (["--minutes", "5"], "--minutes, --device and --channel go with --background mic"),
        (["--channel", "1"], "--minutes, --device and --channel go with --background mic"),
        (["-o", "{empty}"], "empty: name a file that ends in .onnx"),
        (["--plot", "{empty}/a/../../empty/x.png", "-o", "/dev/null"], "/dev/null: name a file"),
        (["--split", "test"], "in the test split: neither a list nor the hash"),
        (["-o", "{model}"], "is the model itself"),
        (["--background", "nosuch"], "nosuch: no such file"),
        (["--background", "{empty}"], "no audio files: record some background first"),
        (["--background", "mic", "--minutes", "0"], "--minutes 0: give a number above 0"),
    ],
)
def test_wrong_use_gets_one_line(
    model: str,
    corpus: Path,
    background: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    reason: str,
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [o.format(model=model, empty=tmp_path / "empty") for o in options]
    if options[0] == "--split":
        (tmp_path / "lists").mkdir()
        corpus = Path(str(tmp_path / "lists"))
        (corpus / "low").mkdir()
        (corpus / "low" / "a_nohash_0.wav").write_bytes(b"")
        (corpus / "validation_list.txt").write_text("low/a_nohash_0.wav\n")
    assert run(model, corpus, background, tmp_path / "tuned.onnx", *filled) == 1
    out, err = capsys.readouterr()
    assert out == "" and reason in err and err.count("\n") == 1
    assert not (tmp_path / "tuned.onnx").exists()


def test_points_replace_and_add() -> None:
    assert parse_points(["quiet=0.1", "a=b=2"]) == {
        **{"quiet": 0.1, "balanced": 1.0, "sensitive": 5.0},
        "a=b": 2.0,
    }
    with pytest.raises(EarmarkError, match="33 points, at most 32"):
        parse_points([f"p{i}=1" for i in range(30)])


def test_no_torch_is_needed(model: str, corpus: Path, background: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from earmark.export.cli_tune import tune\n"
        "from earmark.runtime import cli\n"
        "cli.commands = lambda wanted: {'tune': tune}\n"
        "status = cli.main(sys.argv[1:])\n"
        "heavy = {'torch', 'lightning', 'sklearn', 'scipy', 'pydantic'} & set(sys.modules)\n"
        "print(heavy or '', file=sys.stderr)\n"
        "sys.exit(status or bool(heavy))"
    )
    arguments = ["tune", model, "--positive", str(corpus), "--background", str(background)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "-o", str(tmp_path / "tuned.onnx")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMicrophone]:
    with virtual_microphone(tmp_path_factory.mktemp("sound")) as running:
        yield running


@pytest.mark.skipif(bool(missing()), reason=f"programs not found here: {missing()}")
@pytest.mark.parametrize("ended", ["by time", "by Ctrl-C"])
def test_background_from_the_microphone(
    microphone: VirtualMicrophone, model: str, corpus: Path, tmp_path: Path, ended: str
) -> None:
    minutes = "0.05" if ended == "by time" else "5"
    process = launch(
        *("tune", model, "--positive", corpus, "--background", "mic"),
        *("--minutes", minutes, "-o", tmp_path / "tuned.onnx"),
        env=microphone.environment,
        text=True,
    )
    assert process.stderr
    assert "listening on" in process.stderr.readline()
    player = threading.Thread(target=microphone.play, args=(toy_model.scene(),))
    player.start()
    if ended == "by Ctrl-C":
        player.join()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    player.join()
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["background"] == "mic"
    seconds = 3600 * report["points"]["quiet"]["hours"]
    if ended == "by time":
        assert seconds == pytest.approx(3.0, abs=0.2)
    else:
        assert 1 < seconds < 290


def test_the_shipped_model_on_recorded_speech(shared: Path) -> None:
    engine = Engine()
    manifest = engine.manifest
    clips = keyword_clips(manifest, shared / "data" / "speech-commands", split="validation")[::25]
    files = sorted((shared / "data" / "libri-negatives").glob("*.opus"))[::10]
    settings = TuneSettings(points={"some": 60.0}, smoothings=())
    sources = [(f.name, FileSource(f, RATE)) for f in files]
    found = hear(engine, clips, sources, seed=0, silence=True)
    assert not found.skipped
    tuning = choose(manifest, found, settings)
    measured = tuning.points["some"].measured
    assert measured["false_accepts_per_hour"] <= 60
    assert measured["false_reject_rate"] < 0.35
    assert 0 < measured["delay_p50"] < 0.6
    # What was counted is what a stream detects.
    stream = engine.stream(tuning.points["some"].decision)
    count = 0
    for file in files:
        for block in FileSource(file, RATE):
            assert isinstance(block, np.ndarray)
            count += len(stream.push(block))
        count += len(stream.flush(0.5))
    assert count == measured["false_accepts"]


def scored(group: str, peaks: dict[str, float], word: str = "", steps: int = 20) -> Trace:
    """Two seconds in which each keyword's posterior stands at its peak for some steps, from 0.8 s
    on; ``word`` is said then."""
    posteriors = {}
    for keyword in ("low", "high"):
        posteriors[keyword] = np.zeros(100, np.float32)
        posteriors[keyword][40 : 40 + steps] = peaks.get(keyword, 0.0)
    said = (Word(word, 0.8, 0.8 + 0.02 * steps),) if word else ()
    return Trace(2.0, said, group, posteriors)


def joined(first: Trace, last: Trace) -> Trace:
    """One recording of both."""
    return Trace(
        first.seconds + last.seconds,
        (),
        first.group,
        {k: np.concatenate([first.posteriors[k], last.posteriors[k]]) for k in first.posteriors},
    )


@pytest.mark.parametrize("rooms", [1, 6])
def test_thresholds_do_not_follow_from_the_half_that_is_measured(rooms: int) -> None:
    """Rooms of which each is in one half, or one that is cut in the middle."""
    names = [f"{number}" for number in range(6)]
    chosen_on = first_half(names, 0)

    def tuned(word: float, noise: float) -> tuple[dict[str, float], int, int]:
        """Thresholds, misses and false accepts by what the measured half scores."""

        def of(name: str, here: float, there: float) -> dict[str, float]:
            return dict.fromkeys(("low", "high"), here if name in chosen_on else there)

        positives = [
            scored(name, of(name, 0.9, word), k) for name in names for k in ("low", "high")
        ]
        if rooms == 1:
            both = (scored("room", dict.fromkeys(("low", "high"), x)) for x in (0.5, noise))
            background = [joined(*both)]
        else:
            background = [scored(name, of(name, 0.5, noise)) for name in names]
        settings = TuneSettings(points={"quiet": 0.2}, smoothings=(), holdout=True)
        found = Heard(tuple(positives), tuple(background), ())
        point = choose(toy_model.manifest(), found, settings).points["quiet"]
        return point.decision.thresholds, point.measured["misses"], point.measured["false_accepts"]

    thresholds, *counts = tuned(0.9, 0.5)
    assert 0.5 < thresholds["low"] < 0.9 and counts == [0, 0]
    assert tuned(0.6, 0.5) == (thresholds, 6, 0)
    assert tuned(0.9, 0.8) == (thresholds, 0, 2 if rooms == 1 else 6)


@pytest.mark.parametrize("own", [0.02, 0.1, 0.5])
def test_the_moving_average_that_misses_the_fewest_is_chosen(own: float) -> None:
    """Words of a tenth of a second: a click beats them unsmoothed, and what is fainter and longer
    does over half a second."""
    both = ("low", "high")
    positives = [scored("who", {k: 0.9}, k, steps=5) for k in both]
    click = scored("room", dict.fromkeys(both, 0.95), steps=1)
    drone = scored("room", dict.fromkeys(both, 0.5), steps=30)
    manifest = toy_model.manifest(decision=Decision({"low": 0.7, "high": 0.7}, smoothing=own))
    found = Heard(tuple(positives), (click, drone), ())

    def tuned(*smoothings: float) -> Tuning:
        return choose(manifest, found, TuneSettings(smoothings=smoothings))

    tuning = tuned(0.02, 0.1, 0.5)
    assert tuning.smoothing == 0.1
    for point in tuning.points.values():
        assert point.decision.smoothing == 0.1
        assert (point.measured["misses"], point.measured["false_accepts"]) == (0, 0)
    # Either other one misses all of them.
    alone = tuned()
    assert alone.smoothing == own
    assert alone.points["quiet"].measured["misses"] == (0 if own == 0.1 else 2)
