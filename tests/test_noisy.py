"""Clips in noise: the ratio is what it says, and the noise follows from the clip's name alone."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.export.cli_evaluate import evaluate as verb
from earmark.export.noisy import in_noise, parse_snrs, rms
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from earmark.train.data.dataset import Split
from earmark.train.fit import train
from earmark.train.teach import teach
from earmark.train.teachers.settings import TeacherSettings
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import tiny_recipe, write_corpus

RATE = 16000


def clips(amplitudes: list[float], silent: bool = True) -> Split:
    """Half a second of a tone in each clip, and one of ``_silence_`` at the end."""
    pcm = np.zeros((len(amplitudes) + silent, RATE), np.int16)
    for row, amplitude in zip(pcm, amplitudes, strict=False):
        row[4000:12000] = toy_model.tone(440, 0.5, amplitude)
    label = np.array([0] * len(amplitudes) + [3] * silent)
    path = np.array([f"/corpus/low/{i}.wav" for i in range(len(pcm))])
    return Split(toy_model.LABELS, pcm, label, path, path, path, 0)


def white(seed: int, seconds: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1000, round(seconds * RATE)).astype(np.int16)


@given(st.sampled_from([20.0, 5.0, 0.0]), st.floats(0.02, 0.15), st.integers(0, 5))
def test_the_ratio_is_of_the_word_to_the_noise(snr: float, amplitude: float, seed: int) -> None:
    split = clips([amplitude])
    added = in_noise(split, [white(1)], snr, seed).pcm.astype(float) - split.pcm
    speech = rms(split.pcm[0, 4000:12000])
    assert 20 * np.log10(speech / rms(added[0])) == pytest.approx(snr, abs=0.1)
    # Silence gets the noise of a word of the usual level.
    assert rms(added[1]) == pytest.approx(rms(added[0]), rel=0.02)


def test_a_sum_beyond_full_scale_is_turned_down_as_a_whole() -> None:
    split = clips([0.9], silent=False)
    mixed = in_noise(split, [white(1)], -5.0).pcm[0].astype(float)
    assert np.abs(mixed).max() == 32767
    word, before = mixed[4000:12000], mixed[:4000]
    assert 20 * np.log10(rms(word) / rms(before)) == pytest.approx(1.2, abs=0.3)


def test_noise_follows_from_the_name_whatever_else_there_is() -> None:
    noise = [white(1), white(2), white(3)]
    few = clips([0.1], silent=False)
    expected = in_noise(clips([0.1, 0.1, 0.1]), noise, 5.0).pcm[0]
    elsewhere = replace(few, path=np.array(["/other/low/0.wav"]))
    for split in (few, elsewhere):
        np.testing.assert_array_equal(in_noise(split, noise, 5.0).pcm[0], expected)
    assert (in_noise(few, noise, 5.0, seed=1).pcm[0] != expected).any()
    # Another ratio is the same noise at another level.
    quiet = in_noise(few, noise, 25.0).pcm[0].astype(float) - few.pcm[0]
    np.testing.assert_allclose(quiet * 10, expected.astype(float) - few.pcm[0], atol=6)


def test_pauses_of_a_recording_are_no_noise() -> None:
    recording = np.zeros(60 * RATE, np.int16)
    recording[RATE : RATE + 4000] = white(0)[:4000]
    split = clips([0.1] * 8, silent=False)
    added = in_noise(split, [recording], 0.0).pcm.astype(float) - split.pcm
    assert all(rms(row) > 500 for row in added)
    with pytest.raises(EarmarkError, match="no noise recordings"):
        in_noise(split, [np.zeros(RATE, np.int16)], 0.0)


def test_ratios_are_read() -> None:
    assert parse_snrs(["clean", "10", "-5", "10"]) == (None, 10.0, -5.0)
    for wrong in ("loud", "nan", "1000"):
        with pytest.raises(EarmarkError, match="--snr"):
            parse_snrs([wrong])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a model file, a teacher's run and a student's."""
    root = tmp_path_factory.mktemp("judges")
    recipe = tiny_recipe(write_corpus(root / "corpus"), epochs=1)
    train(recipe, root / "student")
    teach(replace(recipe, teacher=TeacherSettings(kind="cnn2d", width=2)), root / "teacher")
    toy_model.save(root / "toy.onnx")
    (root / "noise").mkdir()
    soundfile.write(root / "noise" / "white.wav", white(0, 20), RATE)
    return root


@pytest.fixture(autouse=True)
def verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.runtime.cli.commands", lambda wanted: {"evaluate": verb})


def test_all_kinds_are_measured_on_the_same_clips(folder: Path, capsys) -> None:
    models = [str(folder / name) for name in ("toy.onnx", "student", "teacher")]
    data = ["--data", str(folder / "corpus"), "--noise", str(folder / "noise")]
    command = ["evaluate", *models, *data, "--neighbours", "--snr", "clean", "-5"]
    assert main([*command, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = ("student", "student", "cnn2d", "knn_mean_variance", "knn_four_moments")
    assert [(line["kind"], line["snr"]) for line in lines] == [
        (kind, snr) for snr in (None, -5.0) for kind in kinds
    ]
    assert len({(line["clips"], line["speakers"]) for line in lines}) == 1
    clean, noisy = ({line["recordings_sha256"] for line in some} for some in (lines[:5], lines[5:]))
    assert len(clean) == len(noisy) == 1 and clean != noisy
    whole = "float32 whole clips"
    assert [line["judged"] for line in lines[:3]] == ["float32 streaming", whole, whole]
    taught = json.loads((folder / "teacher" / "evaluation.json").read_text())
    assert lines[2]["top1"] == taught["top1"] and lines[2]["parameters"] == taught["parameters"]
    assert lines[3]["top1"] > lines[8]["top1"]
    assert main(command) == 0
    assert "-5 dB" in capsys.readouterr().err


def test_a_record_holds_how_its_model_was_taught(folder: Path, tmp_path: Path, capsys) -> None:
    def written(distill: object) -> str:
        recipe = {"seed": 3, "distill": distill}
        name = f"{type(distill).__name__}.onnx"
        return str(toy_model.save(tmp_path / name, training={"recipe": recipe}))

    taught = {"teachers": ["runs/t"], "unlabelled": ["calls"], "weight": 0.9, "mode": "cached"}
    models = [written(each) for each in (taught, None, "damaged")]
    assert main(["evaluate", *models, "--data", str(folder / "corpus"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["distill"] for line in lines] == [{"weight": 0.9, "mode": "cached"}, None, None]


def test_a_setting_that_a_recipe_leaves_out_has_its_default(
    folder: Path, tmp_path: Path, capsys
) -> None:
    whole = json.loads(json.dumps(asdict(tiny_recipe(folder / "corpus"))))
    before = whole | {"train": {k: v for k, v in whole["train"].items() if k != "optimizer"}}
    other = whole | {"train": whole["train"] | {"optimizer": "muon"}}
    models = [
        str(toy_model.save(tmp_path / f"{number}.onnx", training={"recipe": recipe}))
        for number, recipe in enumerate((whole, before, other))
    ]
    assert main(["evaluate", *models, "--data", str(folder / "corpus"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["recipe"] == lines[1]["recipe"] != lines[2]["recipe"]
    assert lines[0]["base"] == lines[1]["base"] != lines[2]["base"]


def test_what_cannot_be_compared_is_refused(folder: Path, tmp_path: Path, capsys) -> None:
    data = ["--data", str(folder / "corpus")]
    toy = str(folder / "toy.onnx")
    other = str(toy_model.save(tmp_path / "other.onnx", training={"clip": 2.0}))
    assert main(["evaluate", toy, other, *data]) != 0
    assert "other labels or clips" in capsys.readouterr().err
    assert main(["evaluate", toy, toy, *data, "--predictions", str(tmp_path / "p.csv")]) != 0
    assert "of one model" in capsys.readouterr().err
    assert main(["evaluate", str(folder), *data]) != 0
    assert "no run directory" in capsys.readouterr().err
