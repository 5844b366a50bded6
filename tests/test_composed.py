"""Composed streams: every word once where the truth says it, halves apart, nothing by chance; and
what is counted on them."""

import dataclasses
import json
import shlex
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.benchmarks.accuracy import det
from earmark.benchmarks.accuracy.cli_det import det as verb
from earmark.benchmarks.accuracy.composed import (
    Composed,
    Materials,
    compose_all,
    plan,
    write_streams,
)
from earmark.benchmarks.accuracy.det_rows import curve_cells, curve_heads
from earmark.benchmarks.accuracy.page import page as accuracy_page
from earmark.benchmarks.accuracy.page_tables import Costs
from earmark.export.det import THRESHOLDS
from earmark.export.matching import Word
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.train.collect.transcribe import SOURCE
from earmark.train.data.dataset import Split
from earmark.train.data.sources import write_source
from tiny_corpus import RATE, write_corpus


def materials(speakers: int = 6, speech: int = 4) -> Materials:
    """Low and high tones and hums of some speakers, and recordings of soft hiss."""
    rows, label, word, speaker = [], [], [], []
    for who in range(speakers):
        for index, (name, hertz) in enumerate([("low", 440), ("high", 3000), ("hum", 1200)]):
            row = np.zeros(RATE, np.int16)
            row[4800:11200] = toy_model.tone(hertz, 0.4, 0.1)
            rows.append(row)
            label.append(index)
            word.append(name)
            speaker.append(f"s{who}")
    names = np.array(speaker)
    split = Split(
        toy_model.LABELS, np.stack(rows), np.array(label), np.array(word), names, names, 0
    )
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 500, 5 * RATE).astype(np.int16)
    talk = tuple((f"talk/{i}.wav", toy_model.tone(1200, 4.0, 0.1)) for i in range(speech))
    return Materials(split, (noise,), talk)


def level(pcm: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(np.square(pcm.astype(float)))) / 32768)


def test_every_keyword_is_said_once_in_each_condition_and_halves_share_nobody() -> None:
    streams = list(compose_all(materials(), (None, 10.0)))
    for snr in (None, 10.0):
        some = [s for s in streams if s.snr == snr]
        said = [(w.keyword, who) for s in some for w, who in zip(s.truth, s.speakers, strict=True)]
        assert sorted(said) == sorted((w, f"s{i}") for w in ("low", "high") for i in range(6))
    halves = [{who for s in streams if s.half == half for who in s.speakers} for half in (0, 1)]
    assert len(halves[0]) == len(halves[1]) == 3 and not halves[0] & halves[1]
    silent = [s for s in streams if not s.truth]
    assert len([s for s in silent if s.name.startswith("speech")]) == 8
    # Other words, like speech, are heard once in the streams without keywords.
    assert sum(len(s.others) for s in silent if s.name.startswith("words")) == 12


def test_what_is_left_of_a_recording_is_one_stream() -> None:
    whole = materials()
    talk = [(name, part) for name, pcm in whole.speech for part in (pcm[: 2 * RATE], pcm[-RATE:])]
    parts = dataclasses.replace(whole, speech=tuple(talk))
    streams = [s for s in compose_all(parts, (None,)) if s.name.startswith("speech")]
    assert len(streams) == len(whole.speech)
    assert {len(s.others) for s in streams} == {2}
    # Two stretches, a pause after each and a second of noise at both ends.
    assert all(3 + 2 + 0.2 <= s.seconds <= 3 + 2 + 1.2 + 0.2 for s in streams)


def test_words_are_where_the_truth_says_and_noise_is_as_far_below() -> None:
    for stream in compose_all(materials(), (None, 10.0)):
        inside = np.zeros(len(stream.pcm), bool)
        for word in (*stream.truth, *stream.others):
            place = slice(round(word.start * RATE), round(word.end * RATE))
            if stream.snr is None:
                assert level(stream.pcm[place]) == pytest.approx(-26, abs=0.1)
            inside[place.start - 400 : place.stop + 400] = True
        if stream.snr is None:
            assert not stream.pcm[~inside].any()
        else:
            assert level(stream.pcm[~inside]) == pytest.approx(-36, abs=0.5)


def test_conditions_and_runs_are_the_same_but_for_the_noise() -> None:
    first, again, other = (
        list(compose_all(materials(), snrs, seed))
        for snrs, seed in (((None, 0.0), 0), ((0.0,), 0), ((0.0,), 1))
    )
    half = len(first) // 2
    for clean, noisy, repeated in zip(first[:half], first[half:], again, strict=True):
        assert clean.truth == noisy.truth and (clean.pcm != noisy.pcm).any()
        np.testing.assert_array_equal(noisy.pcm, repeated.pcm)
    assert [s.truth for s in again] != [s.truth for s in other]


def test_what_cannot_be_composed_is_named() -> None:
    some = materials()
    with pytest.raises(EarmarkError, match="no noise"):
        next(compose_all(dataclasses.replace(some, noise=()), (10.0,)))
    mute = dataclasses.replace(some.words, pcm=some.words.pcm * 0)
    with pytest.raises(EarmarkError, match="no keyword"):
        plan(dataclasses.replace(some, words=mute), 0)


def test_streams_can_be_listened_to(tmp_path: Path) -> None:
    streams = list(write_streams(compose_all(materials(), (10.0,)), tmp_path))
    for stream in streams:
        with wave.open(str(tmp_path / f"10dB-{stream.name}.wav"), "rb") as file:
            assert file.getnframes() == len(stream.pcm)
        lines = (tmp_path / f"10dB-{stream.name}.txt").read_text().splitlines()
        found = [Word(name, float(a), float(b)) for a, b, name in (x.split("\t") for x in lines)]
        assert [w.keyword for w in found if w.keyword in ("low", "high")] == [
            w.keyword for w in stream.truth
        ]


def test_points_are_what_the_curves_say(engine: Engine) -> None:
    """Both go through the decision rule, one over all thresholds at once and one word by word."""
    [takes] = det.listen([engine], compose_all(materials(), (None, 0.0)))
    found = det.measure(engine.manifest, takes, (100.0, 1.0))
    curve = found["curves"]["all"]
    assert found["clips"] == 12 and curve["said"] == 24
    assert found["distinct_hours"] == pytest.approx(found["hours"] / 2)
    assert curve["said"] == sum(found["curves"][name]["said"] for name in found["conditions"])
    for level, threshold in enumerate(THRESHOLDS[::9]):
        decision = dataclasses.replace(
            engine.manifest.decision, thresholds={"low": threshold, "high": threshold}
        )
        one = det.point(engine.manifest, takes, [decision] * 2, 2)
        assert one["misses"] == curve["misses"][9 * level]
        assert one["false_accepts"] == curve["false_accepts"][9 * level]
        assert sum(part["misses"] for part in one["by_keyword"].values()) == one["misses"]
    for point in found["points"]:
        assert point["missed_interval"][0] <= point["missed"] <= point["missed_interval"][1]
        assert point["shown"] == (point["per_hour_interval"][1] <= point["target"])
    titled = found | {"title": "toy"}
    assert not found["points"][1]["shown"] and "not shown" in det.cautions([titled])[-1]
    text, pictures = accuracy_page([], Costs(), [titled], [])
    assert "| toy | as shipped |" in text and pictures["accuracy-det.png"].axes


def test_curves_are_read_where_they_have_no_more_false_accepts_than_asked_for() -> None:
    whole = {"said": 20, "hours": 2.0, "misses": [2, 1, 6, 9, 20]}
    whole["false_accepts"] = [50, 30, 10, 4, 3]
    quiet = {"said": 10, "hours": 1.0, "misses": [1, 0, 2, 4, 10]}
    quiet["false_accepts"] = [25, 15, 5, 2, 2]
    report = {"title": "toy", "conditions": ["clean"], "curves": {"all": whole, "clean": quiet}}
    assert curve_heads(report)[-2:] == ("missed at 20", "fewest, clean")
    assert curve_cells(report) == ["toy", "-", "30.0%", "30.0%", "5.0%", "0.0%"]


def test_what_is_not_shown_is_told_of_all_models(engine: Engine) -> None:
    [takes] = det.listen([engine], compose_all(materials(), (None,)))
    found = det.measure(engine.manifest, takes, (1.0, 0.5))

    def report(title: str, *limits: float) -> dict[str, Any]:
        points = [
            point | {"per_hour_interval": [0.0, limit], "shown": limit <= point["target"]}
            for point, limit in zip(found["points"], limits, strict=True)
        ]
        return found | {"title": title, "points": points, "untold": ["talk"]}

    reports = [report("good", 0.9, 3.5), report("bad", 4.72, 3.5), report("worse", 6.123, 4.0)]
    text, _ = accuracy_page([], Costs(), reports, [])
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(lines) == 3 and lines[0].startswith("- talk has no transcripts")
    one, half = lines[1:]
    assert one.startswith("- 1 false accepts an hour are not shown of bad, worse: ")
    assert "leave room for 4.72 to 6.12 an hour" in one
    assert half.startswith("- 0.5 false accepts an hour are not shown: ")
    assert "leave room for 3.5 to 4 an hour" in half
    assert "leave room for 3.5 an hour" in det.cautions(reports[:2])[-1]
    assert len(det.cautions([report("best", 0.9, 0.4)])) == 1


def test_thresholds_are_judged_on_the_other_half(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    [takes] = det.listen([engine], compose_all(materials(), (None,)))
    used = []
    monkeypatch.setattr(det, "point", lambda m, t, decisions, c: used.append(decisions) or REPORT)
    found = det.measure(engine.manifest, takes, (50.0,))
    chosen = found["points"][0]["thresholds"]
    assert [d.thresholds["low"] for d in used[0]] == chosen[::-1]


REPORT = {"per_hour_interval": [0, 1]}


def test_second_detections_are_counted_apart(engine: Engine) -> None:
    """A word twice the model's refractory period long, interrupted, fires twice."""
    sound = toy_model.tone(440, 0.3, 0.1)
    pcm = np.concatenate([np.zeros(RATE, np.int16), sound, np.zeros(RATE, np.int16), sound])
    pcm = np.append(pcm, np.zeros(RATE, np.int16))
    stream = Composed("x", None, 0, pcm, (Word("low", 1.0, 2.6),), ("s",))
    quiet = Composed("y", None, 0, np.zeros(RATE, np.int16), (), ())
    [takes] = det.listen([engine], [stream, quiet])
    found = det.point(engine.manifest, takes, [engine.manifest.decision] * 2, 1)
    assert (found["misses"], found["doubles"], found["wrong"]) == (0, 1, 0)
    other = dataclasses.replace(stream, truth=(Word("low", 1.0, 1.3),))
    [takes] = det.listen([engine], [other, quiet])
    found = det.point(engine.manifest, takes, [engine.manifest.decision] * 2, 1)
    assert (found["misses"], found["doubles"], found["wrong"]) == (0, 0, 1)


def test_what_was_taken_for_a_keyword_is_told(engine: Engine) -> None:
    """A tone of the keyword under the name of another word, before and after others."""
    quiet, sound = np.zeros(RATE, np.int16), toy_model.tone(440, 0.5)
    pcm = np.concatenate([sound, quiet, quiet, sound, quiet])
    # The second detection comes when the word after it has begun already.
    _, fired = engine.stream().push(pcm)
    others = (Word("bed", 1.0, 1.4), Word("one", 2.5, 3.0), Word("two", fired.time - 0.01, 4.0))
    said = Composed("x", None, 0, quiet, (Word("low", 0.2, 0.8),), ("s",))
    [takes] = det.listen([engine], [said, Composed("y", None, 0, pcm, (), (), others)])
    found = det.point(engine.manifest, takes, [engine.manifest.decision] * 2, 1)
    assert found["taken_for"] == {"low": {"_silence_": 1, "one": 1}}
    assert found["by_kind"].keys() == {det.ALONE}
    assert found["by_kind"][det.ALONE]["false_accepts"] == 2
    report = det.measure(engine.manifest, takes * 2, (1.0,))
    text, _ = accuracy_page([], Costs(), [report | {"title": "toy"}], [])
    assert "| toy | _silence_ 2, one 2 |" in text


def test_free_speech_and_other_words_are_counted_apart(engine: Engine) -> None:
    quiet, sound = np.zeros(RATE, np.int16), toy_model.tone(440, 0.5)
    talk = Composed("t", None, 0, quiet, (), (), (Word("_speech_", 0.2, 0.8),))
    words = Composed(
        "w", None, 1, np.concatenate([quiet, sound, quiet]), (), (), (Word("one", 1.0, 1.5),)
    )
    said = Composed("k", None, 0, sound, (Word("low", 0.0, 0.5),), ("s",))
    [takes] = det.listen([engine], [said, talk, words])
    report = det.measure(engine.manifest, [takes[0], *takes], (1.0,)) | {"title": "toy"}
    kinds = report["shipped"]["by_kind"]
    assert {kind: of["false_accepts"] for kind, of in kinds.items()} == {
        det.FREE: 0,
        det.ALONE: 1,
    }
    assert sum(of["hours"] for of in kinds.values()) == report["shipped"]["hours"]
    text, _ = accuracy_page([], Costs(), [report], [])
    assert "| free speech (0.00 h) | other words one by one (0.00 h) |" in text


def test_lowest_is_where_no_higher_threshold_has_more() -> None:
    counts = np.array([9, 2, 3, 1, 0])
    assert [det.lowest(counts, allowed) for allowed in (0, 1, 2.9, 3, 100)] == [4, 3, 3, 1, 0]
    assert det.lowest(np.array([5, 4]), 1) == 1


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("earmark.runtime.cli.commands", lambda wanted: {"det": verb})
    corpus = write_corpus(tmp_path / "corpus", 24)
    (tmp_path / "other").mkdir()
    for name in "abcd":
        soundfile.write(tmp_path / "other" / f"{name}.wav", toy_model.tone(1200, 3.0), RATE)
    models = [str(toy_model.save(tmp_path / name)) for name in ("one.onnx", "two.onnx")]
    command = ["det", *models, "--data", str(corpus), "--other", str(tmp_path / "other")]
    plot, kept = tmp_path / "det.png", tmp_path / "streams"
    assert main([*command, "--snr", "10", "--plot", str(plot), "--write", str(kept)]) == 0
    shown = capsys.readouterr()
    first, second = map(json.loads, shown.out.splitlines())
    assert (first["title"], second["title"]) == ("one", "two")
    assert first["points"] == second["points"] and first["conditions"] == ["10 dB"]
    assert first["untold"] == [str(tmp_path / "other")] and "has no transcripts" in shown.err
    assert "as shipped" in shown.err and plot.stat().st_size > 1000 and any(kept.glob("*.wav"))
    # Another moving average is judged as that of a file with it.
    decision = dataclasses.replace(Engine(models[0]).manifest.decision, smoothing=0.5)
    slow = str(toy_model.save(tmp_path / "slow.onnx", decision=decision))
    assert main(["det", slow, *command[3:], "--snr", "10"]) == 0
    assert main([*command[:2], *command[3:], "--snr", "10", "--smoothing", "0.5"]) == 0
    own, asked = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["smoothing"] is None is own["smoothing"] and asked["smoothing"] == 0.5
    assert own["curves"] == asked["curves"] != first["curves"]
    assert main([*command[:2], *command[3:], "--snr", "10", "--seed", "1"]) == 0
    [other] = map(json.loads, capsys.readouterr().out.splitlines())
    same = {report["recordings_sha256"] for report in (first, second, own, asked)}
    assert len(same) == 1 and other["recordings_sha256"] not in same
    earlier = asked | {"model": "earlier.onnx", "recordings_sha256": None}
    text, _ = accuracy_page([], Costs(), [asked, earlier], [])
    assert "is not told of `earlier.onnx`." in text
    # The page of accuracy gives the command again, and mixes no streams.
    heard = ["--data", str(corpus), "--other", str(tmp_path / "other")]
    line = shlex.join(["earmark", "det", "MODEL...", *heard, "--snr", "10", "--smoothing", "0.5"])
    assert f"```sh\n{line}\n```" in accuracy_page([], Costs(), [asked], [])[0]
    with pytest.raises(EarmarkError, match="of other streams"):
        accuracy_page([], Costs(), [own, asked], [])
    assert main([*command, "--seed", "-1"]) != 0
    assert "--seed: give a number" in capsys.readouterr().err
    assert main([*command, "--smoothing", "61"]) != 0
    assert "--smoothing: give seconds" in capsys.readouterr().err
    # What a model was trained on is no speech that it never heard.
    source = {"name": "other", "licence": "x", "role": "free speech"}
    taught = str(toy_model.save(tmp_path / "taught.onnx", sources=(_source(source),)))
    assert main(["det", taught, *command[3:]]) != 0
    assert "was trained on other" in capsys.readouterr().err

    # Who wrote down what is said is no recording.
    write_source(tmp_path / "other", dataclasses.replace(SOURCE, name="talk", role="free speech"))
    write_source(tmp_path / "other", SOURCE)
    (tmp_path / "other" / "words.ctm").write_text("a 1 1 1 low\n")
    taught = str(toy_model.save(tmp_path / "taught.onnx", sources=(SOURCE,)))
    assert main(["det", taught, *command[3:], "--snr", "10"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["untold"] == [] and "has no transcripts" not in told.err


def _source(fields: dict[str, str]):
    from earmark.runtime.manifest import Source

    return Source(**fields)


def test_the_same_speech_in_more_noises_makes_no_interval_narrower(engine: Engine) -> None:
    [takes] = det.listen([engine], compose_all(materials(), (20.0,)))
    # The very same audio, as if it had been heard in three noises.
    more = [dataclasses.replace(take, snr=snr) for snr in (20.0, 10.0, 0.0) for take in takes]
    once, thrice = (det.measure(engine.manifest, some, (100.0, 1.0)) for some in (takes, more))

    def intervals(report: dict[str, Any]) -> list[list[float]]:
        points = [*report["points"], report["shipped"]]
        parts = [part for one in points for part in (one, *one["by_keyword"].values())]
        rates = [one["per_hour_interval"] for one in points]
        return rates + [part["missed_interval"] for part in parts]

    def drawn(report: dict[str, Any]) -> Any:
        """Lower and upper end of the band around the curve."""
        [band] = det.det_figure([report | {"title": "toy"}]).axes[0].collections[:1]
        return band.get_paths()[0].vertices[:, 1]

    assert thrice["shipped"]["said"] == 3 * once["shipped"]["said"]
    assert thrice["shipped"]["false_accepts"] == 3 * once["shipped"]["false_accepts"]
    np.testing.assert_allclose(intervals(thrice), intervals(once))
    np.testing.assert_allclose(drawn(thrice), drawn(once))
    assert (np.diff(intervals(once)) > 0).all()
