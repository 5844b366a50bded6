"""The demo end to end on a corpus that is as small as can be."""

import dataclasses
import functools
import json
import wave
from pathlib import Path

import pytest
from earmark.benchmarks.demo import demo
from earmark.benchmarks.demo.cli import demo as verb
from earmark.benchmarks.demo.demo import DemoSettings
from earmark.export.verify import Limits
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError

TINY = DemoSettings(("yes", "open door"), clips=20, epochs=1, bench_turn=0.01, bench_rounds=1)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch makes a model that is never sure, so that int8 may well change its mind."""
    limits = Limits(int8_labels=1.0)
    monkeypatch.setattr(demo, "export", functools.partial(demo.export, limits=limits))


def test_an_interrupted_demo_goes_on_and_a_complete_one_is_reused(
    tmp_path: Path, lenient: None, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    folder = tmp_path / "demo"
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(demo, "export", interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo.run(folder, TINY)
    trained = (folder / "run" / "student.pt").stat()
    spoken = {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*.wav")}
    assert not (folder / demo.REPORT_FILE).exists()

    capfd.readouterr()
    report = demo.run(folder, TINY)
    assert report == folder / "report.html"
    assert (folder / "run" / "student.pt").stat() == trained
    assert {p: p.stat().st_mtime_ns for p in (folder / "data").rglob("*.wav")} == spoken
    out, err = capfd.readouterr()
    assert out == ""
    for text in ("[1/6]", "[6/6]", "float32", "int8", "p99", "CPU ms per second", "Try next"):
        assert text in err
    exported = (folder / "model.onnx").stat()
    text = report.read_text(encoding="utf-8")
    assert "open door" in text and "<img" in text and "<script" not in text

    assert (folder / "timeline.png").read_bytes().startswith(b"\x89PNG")
    engine = Engine(folder / "model.onnx")
    assert engine.manifest.keywords == TINY.keywords and engine.manifest.precision == "int8"
    with wave.open(str(folder / "scene.wav")) as scene:
        assert scene.getframerate() == 16000 and scene.getnchannels() == 1
        assert scene.getnframes() == round(2.2 * (3 * 2 + 6) * 16000)

    demo.run(folder, TINY)
    assert (folder / "model.onnx").stat() == exported

    # The settings are those of the folder.
    with pytest.raises(EarmarkError, match="was made with"):
        demo.run(folder, dataclasses.replace(TINY, seed=1))
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("earmark.runtime.cli.commands", lambda wanted: {"demo": verb})
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["demo", "-o", str(tmp_path)]) == 1
    assert main(["demo", "-o", str(tmp_path / "letter.txt")]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"earmark: {tmp_path}: holds other files: name another folder",
        f"earmark: {tmp_path / 'letter.txt'}: not a folder that can be used (Not a directory)",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_settings_of_the_command_line() -> None:
    assert DemoSettings.choose(None, False) == DemoSettings()
    quick = DemoSettings.choose(["open door", "yes"], True)
    assert quick.keywords == ("open door", "yes")
    assert quick.epochs < DemoSettings().epochs and quick.clips < DemoSettings().clips
    assert json.loads(json.dumps(dataclasses.asdict(quick)))["keywords"] == ["open door", "yes"]
    with pytest.raises(EarmarkError, match="reserved"):
        DemoSettings.choose(["_unknown_"], False)
    with pytest.raises(EarmarkError, match="same class folder"):
        DemoSettings.choose(["Open door", "open_door"], False)
