"""The energy gate: what it skips, and that nothing else changes."""

import json
from pathlib import Path

import numpy as np
import pytest
import toy_model
from earmark.benchmarks.latency.gate import compare
from earmark.benchmarks.scene import write_wav
from earmark.runtime import Detection, EarmarkError, Engine
from earmark.runtime.cli import main
from earmark.runtime.scorer import Scorer
from earmark.runtime.stream import Stream
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spoken_words import RATE, spoken_scene

LEVEL = -60.0


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    # 160 ms of memory in chunks of 20 ms, so that the gate opens and closes often.
    return Engine(toy_model.save(tmp_path_factory.mktemp("toy") / "toy.onnx", chunk=320))


@pytest.fixture(scope="module")
def shipped() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return spoken_scene(tmp_path_factory.mktemp("spoken") / "words")


@st.composite
def mixtures(draw: st.DrawFn) -> np.ndarray:
    """Tones that the toy knows among silence, faint noise and loud noise, int16 [samples]."""
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pieces = []
    for _ in range(draw(st.integers(1, 12))):
        samples = draw(st.integers(1, 8000))
        kind = draw(st.sampled_from(["silence", "faint", "noise", "low", "high", "soft"]))
        if kind in ("silence", "faint", "noise"):
            peak = {"silence": 0, "faint": 8, "noise": 3000}[kind]
            pieces.append(noise.integers(-peak, peak + 1, samples).astype(np.int16))
        else:
            hertz = toy_model.HIGH_HZ if kind == "high" else toy_model.LOW_HZ
            pieces.append(toy_model.tone(hertz, samples / RATE, 0.01 if kind == "soft" else 0.3))
    return np.concatenate(pieces)


def run(stream: Stream, pcm: np.ndarray, cuts: list[int]) -> list[Detection]:
    found, start, turn = [], 0, 0
    while start < len(pcm):
        count = cuts[turn % len(cuts)]
        found += stream.push(pcm[start : start + count])
        start, turn = start + count, turn + 1
    return found


def counted(patch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one entry with each run of a network."""
    calls: list[int] = []
    score = Scorer.score

    def counting(self: Scorer) -> np.ndarray:
        calls.append(1)
        return score(self)

    patch.setattr(Scorer, "score", counting)
    return calls


@settings(max_examples=150)
@given(mixtures(), st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_detections_are_those_of_an_ungated_stream(
    toy: Engine, pcm: np.ndarray, cuts: list[int]
) -> None:
    assume(len(pcm) / (sum(cuts) / len(cuts)) < 3000)
    gated, open_stream = toy.stream(gate=LEVEL), toy.stream()
    assert run(gated, pcm, cuts) == run(open_stream, pcm, [len(pcm)])
    loud = toy_model.tone(1000, 0.02)
    assert gated.push(loud) == open_stream.push(loud)
    assert np.array_equal(gated.posteriors, open_stream.posteriors)
    assert gated.seconds == open_stream.seconds


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(st.integers(0, 80_000), st.sampled_from([0, 1, 10])), min_size=1, max_size=3
    ),
    st.integers(1, 30_000),
)
def test_the_shipped_model_hears_the_same_words(
    shipped: Engine, spoken: np.ndarray, pauses: list[tuple[int, int]], cut: int
) -> None:
    noise = np.random.default_rng(len(pauses))
    pieces = [spoken[: 4 * RATE]]
    for number, (samples, peak) in enumerate(pauses):
        pieces.append(noise.integers(-peak, peak + 1, samples).astype(np.int16))
        pieces.append(spoken[number * RATE : (number + 3) * RATE])
    pcm = np.concatenate(pieces)
    gated, open_stream = shipped.stream(gate=LEVEL), shipped.stream()
    assume(len(pcm) / cut < 3000)
    assert run(gated, pcm, [cut]) == run(open_stream, pcm, [len(pcm)])
    for stream in (gated, open_stream):
        stream.push(np.full(shipped.manifest.geometry.chunk, 3000, np.int16))
    assert np.array_equal(gated.posteriors, open_stream.posteriors)


def test_the_network_rests_in_silence_and_is_as_it_was_after_it(
    shipped: Engine, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    gated, open_stream = shipped.stream(gate=LEVEL), shipped.stream()
    for stream in (gated, open_stream):
        stream.push(spoken[: 3 * RATE])
        stream.push(np.zeros(3 * RATE, np.int16))
    calls.clear()
    assert gated.push(np.zeros(60 * RATE, np.int16)) == []
    assert not calls
    assert not gated.posteriors.any()
    open_stream.push(np.zeros(60 * RATE, np.int16))
    for start in range(0, len(spoken), 1280):
        chunk = spoken[start : start + 1280]
        calls.clear()
        found = gated.push(chunk)
        assert len(calls) <= 1 + 26  # one chunk, and at most once 2.1 s that are replayed
        assert found == open_stream.push(chunk)
    assert np.array_equal(gated.posteriors, open_stream.posteriors)


def test_refractory_periods_run_on_while_the_gate_is_closed(toy: Engine) -> None:
    word, pause = toy_model.tone(440, 0.4), np.zeros(RATE // 2, np.int16)
    pcm = np.concatenate([word, pause, word, pause, pause, word])
    gated, open_stream = toy.stream(gate=LEVEL), toy.stream()
    found = gated.push(pcm)
    assert [d.keyword for d in found] == ["low", "low", "low"]
    assert found == open_stream.push(pcm)


def test_a_sound_below_the_level_is_what_is_lost(toy: Engine) -> None:
    soft = np.concatenate([np.zeros(RATE, np.int16), toy_model.tone(440, 0.5, 0.06)])
    loudness = 20 * np.log10(0.06 / np.sqrt(2))
    lower, upper = toy.stream(gate=loudness - 1), toy.stream(gate=loudness + 1)
    assert len(lower.push(soft)) == 1
    assert upper.push(soft) == []


def test_the_comparison_counts_what_a_level_costs(toy: Engine) -> None:
    soft, loud = (toy_model.tone(440, 0.5, amplitude) for amplitude in (0.06, 0.3))
    ungated, lower, upper = compare(toy, [loud, soft], [-70.0, -25.0], pause=2.0)
    assert ungated.level is None and ungated.skipped == 0
    assert (ungated.detections, lower.detections, upper.detections) == (2, 2, 1)
    assert (lower.lost, lower.added, upper.lost, upper.added) == (0, 0, 1, 0)
    assert 0.5 < lower.skipped < upper.skipped < 1
    assert ungated.seconds == pytest.approx(5)
    (_, bedded) = compare(toy, [loud, soft], [-70.0], pause=2.0, bed=-60.0)
    assert bedded.skipped == 0


def test_the_verb_says_what_was_measured_and_how(
    toy: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "tone.wav", toy_model.tone(440, 0.5))
    options = ("--model", str(toy.path), "--level", "-70", "--pause", "2", "--bed", "-60")
    assert main(["gate", str(tmp_path), *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["backend"]) == ("toy.onnx", toy.backend)
    assert report["settings"] == {"recordings": 1, "pause": 2.0, "bed": -60.0}
    assert [level["level"] for level in report["levels"]] == [None, -70.0]
    assert main(["gate", str(tmp_path), *options]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"toy.onnx by {toy.backend}: 1 recordings, 2 s of pause after each, over" in told


def test_a_folder_without_recordings_is_no_measurement(
    toy: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert main(["gate", str(tmp_path), "--model", str(toy.path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "no audio files there: name others" in " ".join(err.split())


def test_reset_gap_and_flush_open_the_gate(toy: Engine) -> None:
    gated, fresh = toy.stream(gate=LEVEL), toy.stream()
    expected = fresh.push(toy_model.scene())
    gated.push(np.zeros(RATE, np.int16))
    gated.reset()
    assert gated.push(toy_model.scene()) == expected
    gated.push(np.zeros(RATE, np.int16))
    assert gated.flush(0.5) == []
    assert gated.push(toy_model.scene()) == expected
    gated.push(np.zeros(RATE, np.int16))
    at = gated.seconds
    gated.gap(RATE)
    shifted = gated.push(toy_model.scene())
    assert [d.score for d in shifted] == [d.score for d in expected]
    assert shifted[0].time == pytest.approx(at + 1 + expected[0].time)


@pytest.mark.parametrize("level", [0.0, -200.0, float("nan"), float("inf")])
def test_a_senseless_level_is_refused(toy: Engine, level: float) -> None:
    with pytest.raises(EarmarkError, match="gate of"):
        toy.stream(gate=level)


def test_a_memory_too_long_to_replay_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    geometry = replace(toy_model.manifest().geometry, receptive_field=1 << 24)
    engine = Engine(toy_model.save(tmp_path / "toy.onnx", geometry=geometry))
    with pytest.raises(EarmarkError, match="leave the gate off"):
        engine.stream(gate=LEVEL)
