"""Export and tune replace what they wrote themselves, and nothing else."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import toy_model
from earmark.export import cli_tune, golden
from earmark.export.export import export
from earmark.runtime import cli
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from earmark.train.fit import train
from tiny_corpus import tiny_recipe, write_corpus


def test_an_export_replaces_an_earlier_one(tmp_path: Path) -> None:
    recipe = tiny_recipe(write_corpus(tmp_path / "corpus"), epochs=1)
    run, vectors = train(recipe, tmp_path / "run"), tmp_path / "golden"
    output = tmp_path / "tones.onnx"
    vectors.mkdir()
    first = export(run, output, licence="CC0-1.0")
    card = first.card.read_text()
    for licence in ([], ["--licence", "CC0-1.0"]):
        command = ["export", str(run), "-o", str(output), "--golden", str(vectors)]
        assert main([*command, *licence]) == 0
    assert first.card.read_text().splitlines()[:20] == card.splitlines()[:20]


@pytest.mark.parametrize(
    ("output", "there", "message"),
    [
        ("notes.onnx", "notes.md", "notes.md: exists already and is no card of Earmark's"),
        ("notes.onnx", "notes.float32.onnx", "notes.float32.onnx: exists already and is no model"),
        ("notes.onnx", "notes.onnx", "notes.onnx: exists already and is no model of Earmark's"),
        ("notes", "other", "notes: name a file that ends in .onnx"),
        ("notes.md", "notes.md", "notes.md: name a file that ends in .onnx"),
    ],
)
def test_an_export_leaves_the_files_of_others_alone(
    tmp_path: Path, output: str, there: str, message: str
) -> None:
    """Before anything is done: there is no run here."""
    (tmp_path / there).write_text("---\nlicense: mit\n---\nMy notes. Made with Earmark.")
    with pytest.raises(EarmarkError, match=message) as error:
        export(tmp_path / "run", tmp_path / output)
    assert "\n" not in str(error.value)
    assert (tmp_path / there).read_text().startswith("---\nlicense: mit\n---\nMy notes")


@pytest.mark.parametrize("names", [["README.txt"], ["golden.json", "main.c"], ["a.pcm", "photo"]])
def test_golden_vectors_lie_by_themselves(
    tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
    output = str(tmp_path / "m.onnx")
    assert main(["export", "none", "-o", output, "--golden", str(tmp_path)]) == 1
    assert f"{tmp_path}: holds {names[-1]}, which is no golden vector" in capsys.readouterr().err
    assert main(["golden", "-o", str(tmp_path)]) == 1
    with pytest.raises(EarmarkError, match="is no folder"):
        golden.check_folder(tmp_path / names[0])
    golden.check_folder(tmp_path / "missing")


def test_tuning_replaces_models_of_earmark_alone(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = cli.commands
    monkeypatch.setattr(cli, "commands", lambda name: {**known(name), "tune": cli_tune.tune})
    clips, room, tuned = tmp_path / "clips", tmp_path / "room.wav", tmp_path / "tuned.onnx"
    (clips / "low").mkdir(parents=True)
    soundfile.write(clips / "low" / "a.wav", toy_model.tone(toy_model.LOW_HZ, 0.4), 16000)
    soundfile.write(room, np.zeros(16000, np.int16), 16000)
    command = ["tune", model, "--positive", str(clips), "--background", str(room), "-o"]
    for _ in range(2):
        assert main([*command, str(tuned)]) == 0
    # Another program's model.
    other = toy_model.graph()
    tuned.write_bytes(other.SerializeToString())
    capsys.readouterr()
    assert main([*command, str(tuned)]) == 1
    assert f"{tuned}: exists already and is no model of Earmark's" in capsys.readouterr().err
    assert onnx.load(tuned) == other
