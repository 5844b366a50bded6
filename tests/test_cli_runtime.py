"""The command line as a user meets it: ``detect``, ``info``, ``devices`` and their options."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.runtime import listen
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.events import Event
from earmark.runtime.manifest import Decision
from earmark.runtime.sinks import http as http_sink
from earmark.runtime.sinks import mqtt as mqtt_sink
from earmark.runtime.sinks.sink import Sink
from earmark.runtime.sources import Piece
from fake_microphone import FakeMicrophone
from heard import EXPECTED, events


def test_detect_prints_json_lines(
    model: str, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", "--model", model, str(scene)]) == 0
    out, err = capsys.readouterr()
    assert events(out) == EXPECTED
    assert all(json.loads(line)["source"] == str(scene) for line in out.splitlines())
    assert err == ""


def test_a_word_at_the_end_of_a_file_is_detected_within_the_file(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "word.wav"
    soundfile.write(path, toy_model.tone(440, 0.155), 16000)
    assert main(["detect", "--model", model, str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["time"] == 0.155


def test_a_bad_file_among_others_is_told_skipped_and_counted(
    model: str, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = tmp_path / "nan.wav"
    signal_ = toy_model.scene().astype(np.float32) / 32768
    signal_[-1] = np.nan
    soundfile.write(nan, signal_, 16000, subtype="FLOAT")
    files = [str(nan), str(tmp_path / "nosuch.wav"), str(tmp_path), str(scene)]
    assert main(["detect", "--model", model, *files]) == 1
    out, err = capsys.readouterr()
    # What was heard before the bad sample was told already; the next file starts afresh.
    assert events("\n".join(line for line in out.splitlines() if "scene.wav" in line)) == EXPECTED
    assert [line.split(": ")[1] for line in err.splitlines()[:3]] == files[:3]
    assert err.splitlines()[3] == "earmark: 3 of 4 files could not be read"


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        (["--threshold", "low=1"], ["high"]),
        (["--threshold", "1"], []),
        (["--threshold", "1", "--threshold", "low=0.5"], ["low", "low"]),
        (["--threshold", "low=0.5", "--threshold", "1"], ["low", "low"]),
    ],
)
def test_thresholds(
    model: str,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    keywords: list[str],
) -> None:
    assert main(["detect", "--model", model, *options, str(scene)]) == 0
    assert [keyword for keyword, _ in events(capsys.readouterr().out)] == keywords


def test_the_gate_reaches_the_stream(
    model: str, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates, real = [], Engine.stream

    def stream(engine: Engine, decision: Decision | None = None, gate: float | None = None):
        gates.append(gate)
        return real(engine, decision, gate)

    monkeypatch.setattr(Engine, "stream", stream)
    for options in ([], ["--gate", "-42.5"]):
        assert main(["detect", "--model", model, *options, str(scene)]) == 0
    assert gates == [None, -42.5]


@pytest.mark.parametrize(
    ("options", "keywords"),
    [([], ["low"]), (["--gate", "-40"], ["low"]), (["--gate", "-20"], [])],
)
def test_listening_with_a_gate_passes_over_what_is_softer(
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    keywords: list[str],
) -> None:
    class Soft(FakeMicrophone):
        def __iter__(self) -> Iterator[Piece]:
            """A tone of -27 dB, long after the start."""
            yield np.zeros(2 * 16000, np.float32)
            yield toy_model.tone(toy_model.LOW_HZ, 1.0, 0.06).astype(np.float32) / 32768

    monkeypatch.setattr(listen, "Microphone", Soft)
    assert main(["listen", "--model", model, "--seconds", "3", *options]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["keyword"] for event in found if event["type"] == "detection"] == keywords
    assert found[-1]["type"] == "ended" and found[-1]["audio_seconds"] == 3


def test_options_reach_the_sinks(
    model: str, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password, authority = tmp_path / "password", tmp_path / "ca.pem"
    password.write_text("secret\n")
    given: dict[str, object] = {}

    class Told(Sink):
        exposure = None
        url = "http://here"

        def send(self, event: Event) -> None:
            pass

    def mqtt(broker: mqtt_sink.Broker, tell: object, **options: object) -> Told:
        given.update(options, broker=broker)
        return Told()

    def server(*address: object) -> Told:
        given["http"] = address
        return Told()

    monkeypatch.setattr(mqtt_sink, "Mqtt", mqtt)
    monkeypatch.setattr(http_sink, "EventServer", server)
    options = ["--mqtt", "mqtts://me@broker", "--mqtt-password-file", str(password)]
    options += [
        "--mqtt-ca",
        str(authority),
        "--mqtt-topic",
        "t/{keyword}",
        "--mqtt-payload",
        "{at}",
    ]
    options += ["--mqtt-site", "attic", "--mqtt-availability", "up", "--mqtt-qos", "2"]
    options += ["--http", "0", "--http-origin", "http://tablet", "--http-origin", "http://phone"]
    assert main(["detect", "--model", model, str(scene), *options]) == 0
    assert given == {
        "broker": mqtt_sink.Broker("broker", 8883, True, "me", "secret", str(authority)),
        **{"topic": "t/{keyword}", "payload": "{at}", "site": "attic", "availability": "up"},
        **{"qos": 2, "model": "toy"},
        "http": ("127.0.0.1", 0, ("http://tablet", "http://phone")),
    }


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy with two operating points."""
    points = {
        "deaf": Decision({"low": 1.0, "high": 1.0}, smoothing=0.1),
        "low only": Decision({"low": 0.7, "high": 1.0}),
    }
    path = tmp_path_factory.mktemp("tuned") / "tuned.onnx"
    return str(toy_model.save(path, operating_points=points))


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ([], ["low", "high", "low"]),
        (["--operating-point", "deaf"], []),
        (["--operating-point", "low only"], ["low", "low"]),
        (["--threshold", "high=0.7", "--operating-point", "deaf"], ["high"]),
    ],
)
def test_operating_points(
    tuned: str,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    keywords: list[str],
) -> None:
    assert main(["detect", "--model", tuned, *options, str(scene)]) == 0
    assert [keyword for keyword, _ in events(capsys.readouterr().out)] == keywords


def test_operating_points_from_python(tuned: str) -> None:
    engine = Engine(tuned)
    stream = engine.stream(engine.manifest.operating_points["low only"])
    assert [d.keyword for d in stream.push(toy_model.scene())] == ["low", "low"]


def test_info_shows_operating_points(tuned: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", tuned]) == 0
    assert "operating point  deaf: mean over 0.1 s; low 1, high 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["loud", "", "Deaf"])
def test_an_unknown_operating_point_lists_those_there_are(
    model: str, tuned: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for file, known in ((tuned, "the model has deaf, low only"), (model, "the model has none")):
        assert main(["detect", "--model", file, "--operating-point", name, "x.wav"]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"earmark: --operating-point {name}: {known}")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["detect", "--threshold", "2", "x.wav"], "--threshold 2: give a number"),
        (["detect", "--threshold", "low=nan", "x.wav"], "--threshold low=nan: give a number"),
        (["detect", "--threshold", "yes=0.5", "x.wav"], "keywords are low, high"),
        (["detect", "--model", "nosuch.onnx", "x.wav"], "nosuch.onnx: no such model"),
        (["info", "nosuch.onnx"], "nosuch.onnx: no such model"),
        (["listen", "--channel", "left"], "--channel left: give a number from 0, or mix"),
    ],
)
def test_wrong_input_gets_one_line(
    model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    if arguments[0] != "info" and "--model" not in arguments:
        arguments = [*arguments, "--model", model]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert err.startswith("earmark: ")
    assert err.count("\n") == 1


def test_info(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", model]) == 0
    text = capsys.readouterr().out
    assert "low, threshold 0.7" in text
    assert "chunks of 80 ms, a decision every 20 ms" in text
    assert main(["info", model, "--json"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert raw["labels"] == list(toy_model.LABELS)
    assert raw["bytes"] == Path(model).stat().st_size


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--mqtt-topic", "x"], "--mqtt-topic: goes with --mqtt"),
        (["--mqtt-site", "kitchen"], "--mqtt-site: goes with --mqtt"),
        (["--mqtt-qos", "0"], "--mqtt-qos: goes with --mqtt"),
        (["--http-origin", "http://x"], "--http-origin: goes with --http"),
        (["--http", "9" * 5000], "give PORT or HOST:PORT"),
        (["--mqtt", "a@b", "--mqtt-password-file", "/dev/zero"], "larger than"),
        (["--mqtt", "a@b", "--mqtt-password-file", "nofile"], "nofile: cannot be read (No such"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    model: str, scene: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    assert main(["detect", "--model", model, str(scene), *options]) == 1
    out, err = capsys.readouterr()
    assert out == "" and reason in err and err.count("\n") == 1


def test_the_command_starts_without_heavy_imports() -> None:
    code = (
        "import sys, earmark.runtime, earmark.runtime.verbs\n"
        "heavy = {'numpy', 'onnxruntime', 'rich', 'sounddevice', 'torch'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
