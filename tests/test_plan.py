"""Starter recipes: what is found in a data set decides, and what is written loads and trains."""

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from earmark.train.data.corpus import scan
from earmark.train.data.survey import Survey, survey
from earmark.train.fit import train
from earmark.train.mfcc import MfccSettings
from earmark.train.plan import find_folds, plan
from earmark.train.recipe import Recipe, load_recipe, parse_recipe
from earmark.train.run import load_run
from earmark.train.teach import teach
from earmark.train.teachers.run import load_teacher
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import PITCH, RATE, word_pcm, write_corpus


def sounds(root: Path, counts: dict[str, int], folds: int = 2, seconds: float = 1.0) -> Path:
    random = np.random.default_rng(0)
    for index, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        pitch = list(PITCH.values())[index % len(PITCH)]
        for number in range(count):
            pcm = np.resize(word_pcm(pitch, random), round(seconds * RATE))
            fold = f"{number % folds + 1}-" if folds else "clip"
            soundfile.write(root / name / f"{fold}{number}.wav", pcm, RATE)
    return root


def planned(root: Path, tmp_path: Path, **options: Any) -> tuple[Recipe, str]:
    corpus, folds = find_folds([str(root)])
    text = plan([str(root)], corpus, survey(corpus), folds=folds, **options)
    (tmp_path / "plan.toml").write_text(text)
    return load_recipe(tmp_path / "plan.toml"), text


def test_a_survey_counts(tmp_path: Path) -> None:
    root = sounds(tmp_path / "data", {"dog": 6, "rain": 2})
    soundfile.write(root / "dog" / "1-x.wav", np.zeros(8000), 8000)
    soundfile.write(root / "dog" / "1-empty.wav", np.zeros(0), 8000)
    (root / "rain" / "2-bad.wav").write_bytes(b"no audio")
    found = survey(scan(root, folds=r"(\d)-"))
    assert found.clips == 9 and found.unreadable == 2
    assert found.classes == {"dog": 7, "rain": 2} and found.imbalance == 3.5
    assert found.hours == pytest.approx(9 / 3600) and found.seconds == (1.0, 1.0, 1.0)
    assert found.rates == {16000: 8, 8000: 1} and found.folds == (1, 2)
    assert not found.multilabel


def test_a_small_even_set_with_folds_is_planned_and_trains(tmp_path: Path) -> None:
    root = sounds(tmp_path / "data", {"dog": 12, "rain": 12})
    recipe, text = planned(root, tmp_path)
    assert recipe.keywords == ("dog", "rain") and recipe.task == "exclusive"
    assert recipe.data.folds and recipe.data.fold == 2 and recipe.data.balance == "natural"
    assert recipe.data.clip == 1.0 and recipe.augment.noise == 0
    assert "k-NN baseline" in text and "Metric: top-1" in text and "earmark crossval" in text
    short = dataclasses.replace(
        recipe, train=dataclasses.replace(recipe.train, epochs=2, threads=1, accelerator="cpu")
    )
    run = load_run(train(short, tmp_path / "runs" / "planned"))
    assert run.info.clips == {"train": {"dog": 6, "rain": 6}, "validation": {"dog": 6, "rain": 6}}


def test_a_set_with_silence_of_its_own_needs_no_noise(tmp_path: Path) -> None:
    root = sounds(tmp_path / "data", {"dog": 8, "rain": 8, "_silence_": 8})
    recipe, _ = planned(root, tmp_path)
    assert recipe.labels == ("dog", "rain", "_silence_") and recipe.augment.noise == 0
    small = dataclasses.replace(recipe.train, epochs=1, threads=1, accelerator="cpu")
    train(dataclasses.replace(recipe, train=small), tmp_path / "runs" / "planned")
    noisy = dataclasses.replace(recipe.augment, noise=0.5)
    with pytest.raises(EarmarkError, match=r"data\.noise, or set augment\.noise to 0"):
        train(dataclasses.replace(recipe, train=small, augment=noisy), tmp_path / "runs" / "noisy")


def test_an_uneven_set_is_drawn_evenly_and_measured_by_class(tmp_path: Path) -> None:
    recipe, text = planned(sounds(tmp_path / "data", {"dog": 12, "rain": 4}), tmp_path)
    assert recipe.data.balance == "balanced"
    assert "Metric: macro F1" in text and "3.0 times the clips" in text
    assert recipe.data.at_least == 2


def at_rates(root: Path, *rates: int) -> Path:
    """Two classes of eight clips each, the first clips of either at other rates."""
    sounds(root, {"dog": 8, "rain": 8}, folds=0)
    for name in ("dog", "rain"):
        for number, rate in enumerate(rates):
            soundfile.write(root / name / f"clip{number}.wav", np.ones(rate) / 2, rate)
    return root


def test_bands_end_where_most_clips_do(tmp_path: Path) -> None:
    most, text = planned(at_rates(tmp_path / "most", *[8000] * 4, 11025), tmp_path)
    assert most.features.f_max == 5200 and "Most clips have 11025 Hz or less" in text
    half, text = planned(at_rates(tmp_path / "half", *[8000] * 4), tmp_path)
    assert half.features.f_max == MfccSettings().f_max and "Most clips have" not in text


def test_a_class_that_is_left_out_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sounds(tmp_path / "data", {"dog": 8, "rain": 8, "ränu": 1})
    (root / "dog" / "notes.txt").touch()
    (root / "ränu" / "1-0.wav").rename(root / "ränu" / "2-0.wav")
    target = tmp_path / "plan.toml"
    assert main(["plan", str(root), "-o", str(target)]) == 0
    said = capsys.readouterr().err
    told = "Left out, with no clip to train or none to validate on: ränu."
    assert told in said and f"# {told}" in target.read_text()
    assert load_recipe(target).keywords == ("dog", "rain")


def test_several_labels_ask_for_their_own_loss_and_mixup(tmp_path: Path) -> None:
    root = sounds(tmp_path / "audio", {"a": 20, "b": 20}, folds=0)
    lines = ["filename,labels,fold"]
    for number in range(20):
        lines += [f"a/clip{number}.wav,dog;rain,{number % 2 + 1}", f"b/clip{number}.wav,rain,1"]
    (root / "clips.csv").write_text("\n".join(lines))
    recipe, text = planned(root / "clips.csv", tmp_path)
    assert recipe.task == "multilabel" and recipe.augment.mixup > 0
    assert recipe.train.label_smoothing == 0 and recipe.data.folds == ""
    assert "Metric: mean average precision" in text
    with pytest.raises(EarmarkError, match="--keywords: clips have several classes"):
        planned(root / "clips.csv", tmp_path, keywords=["dog"])


def test_keywords_among_other_words(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "words")
    recipe, text = planned(root, tmp_path, keywords=["low", "high"])
    assert recipe.labels == ("low", "high", "_unknown_", "_silence_")
    assert recipe.data.balance == "keywords" and recipe.augment.noise > 0
    assert "false accepts per hour" in text
    for file in (root / "_background_noise_").iterdir():
        file.unlink()
    with pytest.raises(EarmarkError, match="no background noise"):
        planned(root, tmp_path, keywords=["low", "high"])
    with pytest.raises(EarmarkError, match="no folder 'bark' for the keyword 'bark'"):
        planned(root, tmp_path, keywords=["bark"])


def test_noise_and_speech_from_folders_of_their_own(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "words")
    (root / "_background_noise_").rename(tmp_path / "noise")
    noise, talk = str(tmp_path / "noise"), str(tmp_path / "talk")
    found = {"keywords": ["low", "high"], "noise": [noise]}
    recipe, text = planned(root, tmp_path, **found)
    assert recipe.data.noise == (noise,) and "2 noise recordings" in text
    recipe, _ = planned(root, tmp_path, **found, speech=[talk])
    assert recipe.data.speech == (talk,) and recipe.data.speech_share == 0.5
    for word in ("chirp", "buzz"):
        (root / word).rename(tmp_path / word)
    recipe, text = planned(root, tmp_path, **found, speech=[talk])
    assert recipe.data.speech_share == 1 and "no other words" in text
    with pytest.raises(EarmarkError, match="add folders of other words"):
        planned(root, tmp_path, **found)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EarmarkError, match="no background noise"):
        planned(root, tmp_path, **found | {"noise": [str(tmp_path / "empty")]}, speech=[talk])
    recipe, _ = planned(root, tmp_path, noise=[noise])
    assert recipe.data.noise == (noise,) and recipe.augment.noise == 0.8
    with pytest.raises(EarmarkError, match="--speech: goes with --keywords"):
        planned(root, tmp_path, speech=[talk])


def test_the_verb_takes_keywords_and_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, target = write_corpus(tmp_path / "words"), tmp_path / "mine.toml"
    (root / "_background_noise_").rename(tmp_path / "noise")
    noise, talk = str(tmp_path / "noise"), str(tmp_path / "talk")
    command = ["plan", str(root), "-o", str(target), "--keywords"]
    assert main([*command, " ,"]) == 1 and not target.exists()
    assert "--keywords: names no word" in capsys.readouterr().err
    assert main([*command, "low"]) == 1 and "by --noise" in capsys.readouterr().err
    assert main([*command, "low", "--noise", noise, "--speech", talk]) == 0
    recipe = load_recipe(target)
    assert recipe.data.noise == (noise,) and recipe.data.speech == (talk,)


def test_who_plans_without_keywords_is_told_what_that_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "whatever is heard, noise and other speech too, is answered with one of them"
    root = write_corpus(tmp_path / "words")
    assert main(["plan", str(root), "-o", str(tmp_path / "apart.toml")]) == 0
    for text in (capsys.readouterr().err, (tmp_path / "apart.toml").read_text()):
        flat = " ".join(text.replace("\n# ", " ").split())
        assert told in flat and "To spot words in a stream, give --keywords." in flat
    _, text = planned(root, tmp_path, keywords=["low", "high"])
    assert "not for a stream" not in text
    other = sounds(tmp_path / "other", {"dog": 8, "rain": 8, "_unknown_": 8})
    assert "not for a stream" not in planned(other, tmp_path)[1]


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sounds(tmp_path_factory.mktemp("plan") / "data", {"dog": 8, "rain": 8})


@given(
    clips=st.integers(1, 10_000_000),
    counts=st.tuples(st.integers(1, 9_000), st.integers(1, 9_000)),
    length=st.floats(0.05, 3600),
    rate=st.sampled_from([8_000, 11_025, 16_000, 44_100]),
    noise=st.integers(0, 3),
    device=st.sampled_from(["edge", "server", "gpu"]),
)
def test_whatever_is_found_the_recipe_is_valid(
    two_classes: Path, clips: int, counts: tuple[int, int], length: float, rate: int, **more: Any
) -> None:
    corpus, folds = find_folds([str(two_classes)])
    found = Survey(
        clips=clips,
        unreadable=0,
        hours=1.0,
        classes={"dog": counts[0], "rain": counts[1]},
        multilabel=False,
        seconds=(length / 2, length, length),
        rates={rate: clips},
        speakers=2,
        folds=corpus.folds,
        noise=more["noise"],
    )
    text = plan([str(two_classes)], corpus, found, folds=folds, device=more["device"])
    few, many = "k-NN baseline on pooled", "train a large network from scratch"
    middle = "fine-tune a pre-trained BEATs"
    expected = few if clips < 1_000 else middle if clips <= 100_000 else many
    flat = " ".join(text.replace("\n# ", " ").split())
    assert [part in flat for part in (few, middle, many)] == [
        part == expected for part in (few, middle, many)
    ]
    recipe = parse_recipe(tomllib.loads(text), "plan")
    if clips < 1_000 or more["device"] == "edge":
        assert recipe.teacher is None and recipe.student.width in (32, 64)
    else:
        assert recipe.teacher is not None
        assert recipe.teacher.kind == ("beats" if clips <= 100_000 else "convtransformer")
        assert recipe.teacher.head_epochs < recipe.train.epochs


def test_what_the_plan_says_of_its_teacher_is_a_recipe(
    two_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark.train.plan.scale.FEW", 8)
    recipe, text = planned(two_classes, tmp_path)
    large, _ = planned(two_classes, tmp_path, device="gpu")
    assert large.teacher is not None and large.name == f"{recipe.name}-teacher"
    settings = re.findall(r"`([a-z.]+ = [^`]+)`", re.sub(r"\n# ", " ", text))
    (tmp_path / "plan.toml").write_text(text)
    taught = load_recipe(tmp_path / "plan.toml", [each.replace(" = ", "=") for each in settings])
    assert taught.distill is not None and taught.distill.teachers == ("its run",)


def test_a_planned_teacher_is_taught(
    two_classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Sixteen clips, taken for enough to train a large network on.
    monkeypatch.setattr("earmark.train.plan.scale.FEW", 8)
    monkeypatch.setattr("earmark.train.plan.scale.MANY", 9)
    target = tmp_path / "large.toml"
    assert main(["plan", str(two_classes), "--device", "gpu", "-o", str(target)]) == 0
    assert f"next: earmark teach {target}" in capsys.readouterr().err
    small = ["train.epochs=1", "train.threads=1", "teacher.width=32", "teacher.depth=1"]
    small += ['train.accelerator="cpu"', "train.precision=32-true"]
    run = load_teacher(teach(load_recipe(target, small), tmp_path / "runs" / "large"))
    assert run.info.labels == ("dog", "rain")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"dog": 8}, r"one class only \(dog\)"),
        ({"dog": 8, "rain": 1}, r"fewer than two classes have clips in both .*not: rain"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, counts: dict[str, int], expected: str
) -> None:
    with pytest.raises(EarmarkError, match=expected):
        planned(sounds(tmp_path / "data", counts), tmp_path)


def test_a_single_speaker_is_planned_by_the_list_that_the_message_names(tmp_path: Path) -> None:
    root = sounds(tmp_path / "data", {"dog": 8, "rain": 8}, folds=0)
    for file in root.glob("*/*.wav"):
        file.rename(file.with_name(f"me_nohash_{file.stem[4:]}.wav"))
    with pytest.raises(EarmarkError, match=r"validation_list\.txt .*me-validation_nohash_0"):
        planned(root, tmp_path)
    for word in ("dog", "rain"):
        for number in (0, 1):
            file = root / word / f"me_nohash_{number}.wav"
            file.rename(file.with_name(f"me-validation_nohash_{number}.wav"))
            with (root / "validation_list.txt").open("a") as listed:
                listed.write(f"{word}/me-validation_nohash_{number}\n")
    assert planned(root, tmp_path)[0].keywords == ("dog", "rain")


def test_no_audio_and_unreadable_audio_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EarmarkError, match="no class folders with audio"):
        planned(tmp_path / "empty", tmp_path)
    (tmp_path / "bad" / "dog").mkdir(parents=True)
    (tmp_path / "bad" / "dog" / "a.wav").write_bytes(b"no audio")
    with pytest.raises(EarmarkError, match="cannot be read as audio, and none of the 1 can"):
        planned(tmp_path / "bad", tmp_path)


def test_names_that_toml_must_quote_survive(tmp_path: Path) -> None:
    recipe, _ = planned(sounds(tmp_path / "data", {'say "hi" # x': 4, "ränu": 4}), tmp_path)
    assert set(recipe.keywords) == {'say "hi" # x', "ränu"}


def test_the_verb_writes_a_recipe_and_reports(
    two_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mine.toml"
    assert main(["plan", str(two_classes), "-o", str(target), "--json", "--name", "mine"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["clips"] == 16 and report["classes"] == {"dog": 8, "rain": 8}
    assert "Planned from 16 clips" in captured.err and "next: earmark train" in captured.err
    assert load_recipe(target).name == "mine"
    assert main(["plan", str(two_classes), "-o", str(target)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["plan", str(two_classes), "-o", str(target), "--force"]) == 0


def test_defaults_of_a_planned_recipe_are_those_of_any_other(
    two_classes: Path, tmp_path: Path
) -> None:
    recipe, _ = planned(two_classes, tmp_path)
    plain = parse_recipe({"name": "x", "keywords": ["a"]}, "x")
    assert recipe.features == plain.features and recipe.decision == plain.decision
