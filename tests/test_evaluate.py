"""Accuracy through the streaming path, and the verb ``evaluate``."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.export.cli_evaluate import evaluate as verb
from earmark.export.evaluate import clip_seconds, evaluate, score
from earmark.export.held_out import Trained, check_folders, measured_corpus
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.layout import hashed_split
from earmark.runtime.manifest import Decision, Source
from earmark.runtime.posteriors import softmax
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import Split, load_split

RATE = 16000
SOUNDS = ("low", "high", "hum", "hiss")


def split_of(pcm: np.ndarray, label: list[int], labels=toy_model.LABELS) -> Split:
    names = np.array([f"clip{i}.wav" for i in range(len(pcm))])
    return Split(labels, pcm, np.array(label), names, names, names, 0)


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line with this verb, whichever others are installed."""
    monkeypatch.setattr("earmark.runtime.cli.commands", lambda wanted: {"evaluate": verb})


def ends_with(hertz: float, start: float, seconds: float = 1.0) -> np.ndarray:
    """Silence, then a tone from ``start`` on."""
    pcm = np.zeros(round(seconds * RATE), np.int16)
    at = round(start * RATE)
    pcm[at:] = toy_model.tone(hertz, seconds)[: len(pcm) - at]
    return pcm


@pytest.mark.parametrize("samples", [16000, 15360, 15361, 15999, 1280, 400, 17000])
@pytest.mark.parametrize("chunk", [320, 1280, 32000])
def test_score_is_the_last_step_within_the_clip(tmp_path: Path, samples: int, chunk: int) -> None:
    """One call on the whole clip, by another model of one step per chunk, tells which that is."""
    rng = np.random.default_rng(samples)
    pcm = rng.integers(-9000, 9000, (3, samples)).astype(np.int16)
    fine = Engine(toy_model.save(tmp_path / "fine.onnx", chunk=320)).scorer()
    expected = []
    for row in pcm:
        fine.reset()
        expected.append(softmax(fine.feed(row))[-1])
    engine = Engine(toy_model.save(tmp_path / "toy.onnx", chunk=chunk))
    np.testing.assert_allclose(score(engine, split_of(pcm, [0, 0, 0])), expected, rtol=1e-5)


def test_clips_do_not_touch_each_other(engine: Engine) -> None:
    loud, quiet = ends_with(toy_model.LOW_HZ, 0.0), np.zeros(RATE, np.int16)
    alone = score(engine, split_of(quiet[None], [3]))
    after = score(engine, split_of(np.stack([loud, quiet]), [0, 3]))
    np.testing.assert_array_equal(after[1], alone[0])
    assert after[0].argmax() == 0 and after[1].argmax() == 3


def test_evaluate_measures_what_it_scores(engine: Engine) -> None:
    pcm = np.stack([ends_with(hertz, 0.5) for hertz in (440, 3000, 440)])
    found = evaluate(engine, split_of(pcm, [0, 1, 1]))
    assert found["top1"] == pytest.approx(2 / 3)
    assert found["confusion"][1][:2] == [1, 1] and found["skipped"] == 0


def test_refusals(engine: Engine, tmp_path: Path) -> None:
    pcm = np.zeros((1, RATE), np.int16)
    with pytest.raises(EarmarkError, match="labels are not those"):
        score(engine, split_of(pcm, [0], ("a", "b")))
    with pytest.raises(EarmarkError, match="longer than a clip"):
        score(engine, split_of(pcm[:, :300], [0]))
    other = toy_model.manifest().geometry.__class__(8000, 1280, 320, 641, 3)
    slow = Engine(toy_model.save(tmp_path / "slow.onnx", geometry=other))
    with pytest.raises(EarmarkError, match="8000 Hz"):
        score(slow, split_of(pcm, [0]))


def test_clip_length_comes_from_the_manifest() -> None:
    assert clip_seconds(toy_model.manifest()) == 1.0
    assert clip_seconds(toy_model.manifest(training={"clip": 1.5})) == 1.5
    with pytest.raises(EarmarkError, match=r"training\.clip"):
        clip_seconds(toy_model.manifest(training={"clip": "long"}))


def record(root: Path, word: str, speaker: str, hertz: float) -> str:
    name = f"{word}/{speaker}_nohash_0.wav"
    (root / word).mkdir(parents=True, exist_ok=True)
    soundfile.write(root / name, ends_with(hertz, 0.2), RATE)
    return name


def test_the_fold_that_training_held_out_is_the_validation_split(tmp_path: Path) -> None:
    root = tmp_path / "sounds"
    for number in range(6):
        name = root / "low" / f"{number % 3 + 1}-{number}.wav"
        name.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, ends_with(440, 0.2), RATE)
    recipe = {"data": {"folds": r"(\d)-", "fold": 2}}
    trained = Trained.of("model", recipe, ())
    held = {
        clip.path.name for clip in measured_corpus([root], [trained]).clips if clip.split != "train"
    }
    assert held == {"2-1.wav", "2-4.wav"}
    for without in ({"data": {"folds": "x", "fold": 0}}, None):
        assert Trained.of("model", without, ()).fold == ("", 0)


def test_recordings_of_ones_own_were_trained_on_unless_lists_say_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "mine"
    names = [record(root, "low", f"{i:04x}", 440) for i in range(40)]
    by_hash = {clip.split for clip in scan(root).clips}
    assert by_hash == {"train", "validation", "test"}
    trained = Trained.of("model", {"data": {"own": ("data/mine",)}}, ())
    assert {clip.split for clip in measured_corpus([root], [trained]).clips} == {"train"}
    assert f"{root}: was data.own of the training" in caplog.text
    (root / "validation_list.txt").write_text(names[0] + "\n")
    held = [c.path for c in measured_corpus([root], [trained]).clips if c.split == "validation"]
    assert held == [root / names[0]]
    other = Trained.of("other", {"data": {"roots": ["data/mine"]}}, ())
    (root / "validation_list.txt").unlink()
    with pytest.raises(EarmarkError, match="other clips of --data"):
        measured_corpus([root], [trained, other])


def test_of_audio_without_labels_nothing_was_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, other = tmp_path / "calls", tmp_path / "words"
    names = [record(root, "low", f"{i:04x}", 440) for i in range(40)]
    for i in range(40):
        record(other, "low", f"o{i:04x}", 440)
    (root / "validation_list.txt").write_text(names[0] + "\n")
    recipe = {"distill": {"unlabelled": ("data/calls",)}}
    trained = Trained.of("model", recipe, (Source("calls", "unknown", "unlabelled audio"),))
    clips = measured_corpus([root, other], [trained]).clips
    assert {clip.split for clip in clips if clip.path.is_relative_to(root)} == {"train"}
    split = {clip.path: clip.split for clip in clips if clip.path.is_relative_to(other)}
    assert split == {clip.path: clip.split for clip in scan(other).clips}
    assert f"{root}: was distill.unlabelled of the training" in caplog.text
    check_folders([trained], "--speech", [str(other)])
    with pytest.raises(EarmarkError, match=r"--speech .*calls: model was trained on all of calls"):
        check_folders([trained], "--speech", [str(root)])


def test_models_of_other_folds_are_compared_on_other_data_alone(
    tmp_path: Path, verbs: None, capsys
) -> None:
    models = []
    for fold in (1, 2):
        training = {"recipe": {"data": {"folds": r"(\d)-", "fold": fold}}}
        path = toy_model.save(tmp_path / f"{fold}.onnx", training=training)
        models.append(str(path))
    folds, other = tmp_path / "folds", tmp_path / "other"
    for root, name in ((folds, "{}-a.wav"), (other, "ann_nohash_{}.wav")):
        (root / "low").mkdir(parents=True)
        for number in (1, 2):
            soundfile.write(root / "low" / name.format(number), ends_with(440, 0.2), RATE)
    assert main(["evaluate", *models, "--data", str(other), "--split", "all"]) == 0
    capsys.readouterr()
    assert main(["evaluate", *models, "--data", str(folds), "--split", "all"]) == 1
    assert "held out other clips of --data" in capsys.readouterr().err


def test_official_test_layout(tmp_path: Path, model: str, verbs: None, capsys) -> None:
    """Folders of classes without a split, one bad clip among them."""
    root = tmp_path / "official"
    wanted = {
        record(root, "low", "ann", 440): "low",
        record(root, "high", "ann", 440): "low",
        record(root, "high", "bob", 3000): "high",
        record(root, "_unknown_", "bob", 440): "low",
        record(root, "_silence_", "x", 0): "_silence_",
        record(root, "bed", "cat", 3000): "high",
    }
    (root / "low" / "bob_nohash_1.wav").write_bytes(b"RIFF")
    predictions, picture = tmp_path / "out" / "p.csv", tmp_path / "out" / "c.png"
    files = ["--predictions", str(predictions), "--confusion", str(picture)]
    assert main(["evaluate", model, "--data", str(root), "--split", "all", "--json", *files]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == 6 and found["skipped"] == 1 and found["split"] == "all"
    assert found["support"] == {"low": 1, "high": 2, "_unknown_": 2, "_silence_": 1}
    assert found["recall"] == {"low": 1.0, "high": 0.5, "_unknown_": 0.0, "_silence_": 1.0}
    assert found["top1"] == 0.5
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"]: row["label"] for row in rows} == wanted
    assert list(rows[0]) == ["path", "label", "score"]
    assert all(0.25 <= float(row["score"]) <= 1 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in picture.parent.iterdir()) == ["c.png", "p.csv"]


def test_a_split_is_chosen_by_speaker(tmp_path: Path, model: str, verbs: None, capsys) -> None:
    root = tmp_path / "words"
    names = [str(i) for i in range(60)]
    for name in names:
        record(root, "low", name, 440)
    assert main(["evaluate", model, "--data", str(root), "--json"]) == 0
    expected = sum(hashed_split(name) == "validation" for name in names)
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["support"]["low"] == expected > 0
    assert err.endswith(
        f"{expected} of 60 clips are judged, those of the validation split: --split all judges the "
        "others too, for data that the model was not trained on\n"
    )
    # Who names a split knows of it.
    command = ["evaluate", model, "--data", str(root), "--split"]
    for split in ("validation", "all"):
        assert main([*command, split]) == 0
        assert "are judged" not in capsys.readouterr().err
    corpus = scan(root)
    engine = Engine(model)
    assert (
        found["top1"]
        == evaluate(engine, load_split(corpus, engine.manifest.labels, "validation"))["top1"]
    )


def test_free_speech_is_unknown(tmp_path: Path, model: str, verbs: None, capsys) -> None:
    root, talk = tmp_path / "words", tmp_path / "talk"
    for name in ("ann", "bob"):
        record(root, "low", name, 440)
    talk.mkdir()
    soundfile.write(talk / "a.wav", ends_with(3000, 2.0), RATE)
    arguments = ["evaluate", model, "--data", str(root), "--split", "all", "--speech", str(talk)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["support"]["_unknown_"] == found["support"]["low"] == 2
    sounds = ("low", "high", "hum", "hiss")
    decision = Decision(thresholds=dict.fromkeys(sounds, 0.7))
    arguments[1] = str(toy_model.save(tmp_path / "sounds.onnx", labels=sounds, decision=decision))
    assert main(arguments) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith("and that is no class here: leave it out (--speech, data.speech)")


@pytest.mark.parametrize("option", ["--speech", "--noise"])
def test_a_folder_that_was_renamed_since_the_training_is_refused(
    tmp_path: Path, verbs: None, capsys, option: str
) -> None:
    """Which of its recordings were held out follows from its name."""
    root = tmp_path / "words"
    for name in ("ann", "bob"):
        record(root, "low", name, 440)
    for folder, source in (("talk", "Talk"), ("renamed", "Talk"), ("another", "Another")):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", ends_with(3000, 2.0), RATE)
        told = [{"name": source, "licence": "CC0-1.0"}]
        (tmp_path / folder / "sources.json").write_text(json.dumps(told))
    recipe = {"data": {option[2:]: ["somewhere/talk"]}}
    sources = (Source("Talk", "CC0-1.0"),)
    model = str(toy_model.save(tmp_path / "toy.onnx", sources=sources, training={"recipe": recipe}))
    command = ["evaluate", model, "--data", str(root), "--split", "all", option]
    assert main([*command, str(tmp_path / "talk")]) == 0
    assert main([*command, str(tmp_path / "another")]) == 0
    capsys.readouterr()
    assert main([*command, str(tmp_path / "renamed")]) != 0
    told = capsys.readouterr().err
    assert f"{option} {tmp_path / 'renamed'}: {model} was trained on Talk as talk" in told


def test_several_with_a_plus_between_are_one(
    tmp_path: Path, model: str, verbs: None, capsys
) -> None:
    root, other = tmp_path / "words", str(toy_model.save(tmp_path / "other.onnx"))
    for name in ("ann", "bob"):
        record(root, "low", name, 440)
        record(root, "high", name, 440)
    command = ["evaluate", model, f"{model}+{other}", "--data", str(root), "--split", "all"]
    assert main([*command, "--json"]) == 0
    alone, both = map(json.loads, capsys.readouterr().out.splitlines())
    assert both["kind"] == "ensemble" and both["parameters"] == 2 * alone["parameters"]
    assert both["name"] == " + ".join(2 * [f"{alone['name']} (student)"])
    # The mean of equals is the same.
    assert both["confusion"] == alone["confusion"]
    assert main(["evaluate", f"{model}+{tmp_path / 'absent'}", "--data", str(root)]) == 1
    assert "absent" in capsys.readouterr().err
    assert main([*command, "--snr", "clean"]) == 0
    table = capsys.readouterr().err
    assert "toy.onnx+other.onnx" in table
    assert main(["evaluate", f"{model}+", "--data", str(root)]) == 1
    assert "with + between" in capsys.readouterr().err


def test_people_get_a_table_on_stderr(tmp_path: Path, model: str, verbs: None, capsys) -> None:
    root = tmp_path / "words"
    record(root, "low", "ann", 440)
    record(root, "high", "bob", 440)
    assert main(["evaluate", model, "--data", str(root), "--split", "all"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "top-1 50.00%" in err and "2 clips of 2 speakers" in err
    assert next(line for line in err.splitlines() if line.startswith("high")).split() == [
        *("high", "1", "0.0%", "low", "1")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "none"], "none: no such folder"),
        (["--data", "words", "--split", "test"], "no clip in the test split: neither a list nor"),
        (["--data", "words", "--confusion", "c.bmp"], "--confusion c.bmp: name a file"),
        (["--data", "words", "--seed", "1"], "--seed: goes with noise, as in --snr 10: give both"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, model: str, verbs: None, capsys, monkeypatch, arguments, message
) -> None:
    monkeypatch.chdir(tmp_path)
    speaker = next(str(i) for i in range(99) if hashed_split(str(i)) == "train")
    record(tmp_path / "words", "low", speaker, 440)
    assert main(["evaluate", model, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and message in err.splitlines()[-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "sigmoid"},
        {"labels": SOUNDS, "decision": Decision(dict.fromkeys(SOUNDS, 0.7))},
    ],
)
def test_noise_that_nothing_takes_is_refused(
    tmp_path: Path, verbs: None, capsys, changes: dict
) -> None:
    root, noise = tmp_path / "words", tmp_path / "noise"
    record(root, "low", "ann", 440)
    noise.mkdir()
    soundfile.write(noise / "hum.wav", tones((440, 2)), RATE)
    model = str(toy_model.save(tmp_path / "toy.onnx", **changes))
    command = ["evaluate", model, "--data", str(root), "--split", "all", "--noise", str(noise)]
    assert main(command) == 1
    assert "--noise: goes with --snr where a model has no" in capsys.readouterr().err
    assert main([*command, "--snr", "0"]) == 0


def test_a_split_without_a_clip_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(EarmarkError, match="no readable clip of the classes in the all split"):
        load_split(scan(tmp_path), toy_model.LABELS, "all")


def tones(*parts: tuple[float, float]) -> np.ndarray:
    """Tones one after the other, each of so many hertz for so many seconds."""
    return np.concatenate([toy_model.tone(*part) for part in parts])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_noise_is_of_the_part_that_no_training_heard(
    tmp_path: Path, model: str, verbs: None, capsys, split: str
) -> None:
    """Of twenty seconds the last two tenths, each for a split of its own."""
    root, noise = tmp_path / "words", tmp_path / "noise"
    for speaker in [str(i) for i in range(99) if hashed_split(str(i)) == split][:3]:
        record(root, "high", speaker, toy_model.HIGH_HZ)
    noise.mkdir()
    own, other = toy_model.LOW_HZ, toy_model.HIGH_HZ
    hertz = (own, other) if split == "validation" else (other, own)
    soundfile.write(noise / "hum.wav", tones((other, 16), (hertz[0], 2), (hertz[1], 2)), RATE)
    command = ["evaluate", model, "--data", str(root), "--noise", str(noise), "--split", split]
    assert main([*command, "--snr", "clean", "-20", "--json"]) == 0
    clean, noisy = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert clean["recall"]["high"] == 1.0
    # What is that loud is all that is heard.
    assert noisy["recall"]["high"] == 0.0 and noisy["confusion"][1][0] == 3


def test_the_seed_chooses_the_noise_of_each_clip(
    tmp_path: Path, model: str, verbs: None, capsys
) -> None:
    root, noise = tmp_path / "words", tmp_path / "noise"
    for number in range(12):
        record(root, "low", f"speaker{number}", toy_model.LOW_HZ)
    noise.mkdir()
    soundfile.write(noise / "hum.wav", tones(*[(440, 2), (3000, 2)] * 5), RATE)
    command = ["evaluate", model, "--data", str(root), "--noise", str(noise), "--split", "all"]

    def scores(*options: str) -> str:
        written = tmp_path / "predictions.csv"
        assert main([*command, "--snr", "-20", "--predictions", str(written), *options]) == 0
        return written.read_text()

    assert scores() == scores("--seed", "0") != scores("--seed", "1")
