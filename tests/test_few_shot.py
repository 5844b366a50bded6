"""The benchmark of few recordings: what is measured was not trained on, and it goes on."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.benchmarks.accuracy import few_shot
from earmark.benchmarks.accuracy.few_shot import FewShotSettings, between, measure, run
from earmark.benchmarks.accuracy.few_shot_table import THRESHOLDS, Curve, table
from earmark.export.verify import Limits
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Decision
from tiny_corpus import RATE, word_pcm
from toy_model import HIGH_HZ, LOW_HZ, save, tone

LAST = len(THRESHOLDS)
ONE_KEYWORD = {
    "labels": ("low", "_high_", "_unknown_", "_silence_"),
    "decision": Decision(thresholds={"low": 0.7}, smoothing=0.1, refractory=0.3),
}


def write_tones(folder: Path, count: int, pitch: float) -> Path:
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        soundfile.write(folder / f"{number:03d}.wav", word_pcm(pitch, random), RATE)
    return folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FewShotSettings:
    monkeypatch.setattr(few_shot, "LEAST_MEASURED", 5)
    monkeypatch.setattr(few_shot, "LIMITS", Limits(int8_labels=1.0))
    recordings = write_tones(tmp_path / "words", 12, 300)
    (recordings / "sources.json").write_text('[{"name": "tones", "licence": "CC0-1.0"}]')
    return FewShotSettings(
        word="yes",
        recordings=str(recordings),
        speech=str(write_tones(tmp_path / "talk", 30, 1000)),
        noise=str(write_tones(tmp_path / "noise", 30, 4000)),
        sizes=(0, 4),
        seeds=2,
        synthetic=20,
        overrides=(
            "train.init=",
            "train.epochs=1",
            "train.steps_per_epoch=2",
            "train.batch=8",
            "student.width=8",
            "data.clip=0.9",
            "data.at_least=1",
        ),
    )


def test_what_is_measured_was_not_trained_on_and_a_second_run_reuses_all(
    settings: FewShotSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    text = run(folder, settings).read_text()
    assert "| 0 | alone |" in text and "| 4 | within speech |" in text
    assert (folder / "det.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((folder / "results.json").read_text())
    assert [(c["size"], c["seed"]) for c in results["curves"]] == [(0, 0), (4, 0), (0, 1), (4, 1)]
    assert {c["words"] for c in results["curves"]} == {8}
    own = {f.name.partition("_nohash_")[0] for f in (folder / "own-004" / "yes").iterdir()}
    assert own == {f.stem for f in few_shot._ordered(Path(settings.recordings))[:4]}
    halves = [{f.name for f in (folder / f"speech-{half}").iterdir()} for half in "ab"]
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == 30
    hours = [curve["speech_hours"] for curve in results["curves"]]
    assert hours[0] == pytest.approx(15 / 3600)

    manifest = Engine(folder / "models" / "004-0.onnx").manifest
    roots = manifest.training["recipe"]["data"]
    assert roots["own"] == [str(folder / "own-004")]
    assert roots["speech"] == [str(folder / "speech-a")]
    assert "tones" in {source.name for source in manifest.sources}
    manifest = Engine(folder / "models" / "000-1.onnx").manifest
    assert manifest.training["recipe"]["data"]["own"] == []
    assert manifest.training["recipe"]["data"]["speech"] == [str(folder / "speech-b")]

    # A run that began with one of these has heard half of the speech.
    init = f"train.init={folder / 'runs' / '004-0'}"
    heard = dataclasses.replace(
        settings, overrides=(*settings.overrides, init), speech=str(folder / "speech-a")
    )
    with pytest.raises(EarmarkError, match=r"--speech .*speech-a: .* learned from a folder"):
        run(tmp_path / "again", heard)
    assert not (tmp_path / "again").exists()

    before = {f: f.stat().st_mtime_ns for f in (folder / "models").iterdir()}
    run(folder, settings)
    assert {f: f.stat().st_mtime_ns for f in (folder / "models").iterdir()} == before
    with pytest.raises(EarmarkError, match=r"was made with .*, which differs in seeds: use"):
        run(folder, dataclasses.replace(settings, seeds=1))


def begun(settings: FewShotSettings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a benchmark and stop before anything is trained."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(few_shot, "synthesize", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder, settings)


@pytest.mark.parametrize("field", ["recordings", "speech", "noise", "other"])
@pytest.mark.parametrize("change", ["one more", "one less", "another name", "another size"])
def test_a_benchmark_does_not_go_on_with_other_files(
    settings: FewShotSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    change: str,
) -> None:
    settings = dataclasses.replace(settings, other=str(write_tones(tmp_path / "more", 3, 2000)))
    begun(settings, tmp_path / "out", monkeypatch)
    begun(settings, tmp_path / "out", monkeypatch)
    first = Path(getattr(settings, field)) / "000.wav"
    match change:
        case "one more":
            shutil.copyfile(first, first.with_name("new.wav"))
        case "one less":
            first.unlink()
        case "another name":
            first.rename(first.with_name("new.wav"))
        case "another size":
            soundfile.write(first, np.zeros(RATE // 2, np.int16), RATE)
    with pytest.raises(EarmarkError, match=f"which differs in {field}_files: use the same"):
        run(tmp_path / "out", settings)


@pytest.mark.parametrize("field", ["seed=3", "data.noise=[]"])
def test_what_the_benchmark_sets_is_not_the_users(
    settings: FewShotSettings, tmp_path: Path, field: str
) -> None:
    with pytest.raises(EarmarkError, match=f"--set {field.partition('=')[0]}: is what this"):
        run(tmp_path / "out", dataclasses.replace(settings, overrides=(field,)))
    assert not (tmp_path / "out").exists()


def test_too_few_recordings_are_refused(settings: FewShotSettings, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"12 recordings, at least 13 needed for 8"):
        run(tmp_path / "out", dataclasses.replace(settings, sizes=(8,)))


@pytest.mark.parametrize(("count", "held"), [(0, "no audio"), (3, "all by one speaker")])
def test_free_speech_that_cannot_be_halved_is_refused_before_any_work(
    settings: FewShotSettings, tmp_path: Path, count: int, held: str
) -> None:
    speech = write_tones(tmp_path / "one", count, 1000)
    for file in list(speech.iterdir()):
        file.rename(speech / f"me_nohash_{file.name}")
    with pytest.raises(EarmarkError, match=f"--speech .*one: {held}: add recordings of others"):
        run(tmp_path / "out", dataclasses.replace(settings, speech=str(speech)))
    # Nothing is left behind that would refuse the folder with more recordings.
    assert not (tmp_path / "out").exists()


def curve(misses: list[int], accepts: list[int], others: Sequence[int] = ()) -> Curve:
    """A curve whose first points are given and whose others are those of a silent model."""
    return Curve(
        size=5,
        seed=0,
        words=10,
        misses=(*misses, *[10] * (LAST - len(misses))),
        misses_in_speech=(10,) * LAST,
        speech_hours=0.5,
        speech_accepts=(*accepts, *[0] * (LAST - len(accepts))),
        other_hours=0.5 if others else 0.0,
        other_accepts=(*others, *[0] * (LAST - len(others))),
        model_sha256="",
    )


def test_the_operating_point_is_the_lowest_threshold_that_holds_from_there_on() -> None:
    # Re-arming can make a lower threshold fire less often than a higher one.
    found = curve([0, 1, 2, 3, 4], [9, 1, 3, 1, 0])
    assert [found.miss_rate(count) for count in (0, 1, 2, 3, 9)] == [0.4, 0.3, 0.3, 0.1, 0.0]
    assert curve([0] * LAST, [5] * LAST).miss_rate(0) == 1.0
    # What fires in noise counts as what fires in speech does.
    found = curve([0, 1, 2, 3, 4], [2, 1, 0], [3, 2, 1])
    assert [found.miss_rate(count) for count in (0, 1, 3, 9)] == [0.3, 0.2, 0.1, 0.0]


def test_the_table_says_misses_and_bounds() -> None:
    text = table("yes", [curve([0, 1, 2, 3, 4], [9, 1, 3, 1, 0])])
    assert "| 5 | within speech | 100.0 % (100.0) |" in text
    assert "| 5 | alone | 40.0 % (40.0) | 30.0 % (30.0) | 10.0 % (10.0) | 0.0 % (0.0) |" in text
    # With no event in half an hour, a rate of 6 per hour would have shown one with 95 %.
    assert "0: 0.0 (at most 6.0)" in text


def test_misses_and_false_accepts_are_counted_as_detect_would(tmp_path: Path) -> None:
    engine = Engine(save(tmp_path / "toy.onnx", **ONE_KEYWORD))
    low, high = tone(LOW_HZ, 0.5), tone(HIGH_HZ, 0.5)
    pause = np.zeros(RATE, np.int16)
    files = {
        "hit": [pause, low],
        "miss": [pause, high],
        "twice": [low, pause, low, pause],
        "never": [pause, high, pause],
    }
    for name, parts in files.items():
        soundfile.write(tmp_path / f"{name}.wav", np.concatenate(parts), RATE)
    paths = {name: tmp_path / f"{name}.wav" for name in files}
    found = measure(
        engine, [paths["hit"], paths["miss"]], [paths["twice"], paths["never"]], [paths["never"]]
    )
    middle = int(np.searchsorted(THRESHOLDS, 0.7))
    assert found["words"] == 2 and found["misses"][middle] == 1
    assert found["speech_accepts"][middle] == 2 and found["other_accepts"][middle] == 0
    assert found["speech_hours"] == pytest.approx(5.5 / 3600)
    quiet = measure(engine, [paths["hit"], paths["miss"]], [paths["never"]], [])
    assert quiet["misses_in_speech"][middle] == 1


def test_a_word_between_speech_keeps_its_own_sound_and_loses_its_silence() -> None:
    word = np.concatenate([np.zeros(RATE), tone(LOW_HZ, 0.5) / 32768, np.zeros(RATE)])
    talk = np.random.default_rng(0).normal(0, 0.01, 10 * RATE)
    random = np.random.default_rng(1)
    mixed = between(word.astype(np.float32), talk.astype(np.float32), random)
    around = round(few_shot.AROUND_SECONDS * RATE)
    inside = mixed[around:-around]
    # What is left of the word is its half second and a margin on either side.
    assert 0.5 * RATE <= len(inside) <= 0.7 * RATE
    assert np.abs(inside).max() == pytest.approx(np.abs(word).max(), rel=1e-3)
    level = 20 * np.log10(mixed[:around].std() / inside.std())
    assert -5.5 < level < 0.5


@pytest.mark.parametrize("samples", [1, 100, 319, 700])
def test_a_word_may_be_shorter_than_its_fades(samples: int) -> None:
    random = np.random.default_rng(0)
    talk = random.normal(0, 0.01, 10 * RATE).astype(np.float32)
    mixed = between(np.full(samples, 0.5, np.float32), talk, random)
    around = round(few_shot.AROUND_SECONDS * RATE)
    assert np.isfinite(mixed).all() and len(mixed) == 2 * around + max(samples, RATE // 100)
