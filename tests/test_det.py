"""Sweeps over thresholds: what they count is what a stream with each threshold would detect."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_model
from earmark.export.det import THRESHOLDS, Trace, sweep, trace
from earmark.export.matching import Word, match
from earmark.runtime.decision import Decider
from earmark.runtime.engine import Engine
from earmark.runtime.manifest import Decision, Geometry
from earmark.runtime.sources import Gap
from earmark.runtime.stream import Detection
from hypothesis import given, settings
from hypothesis import strategies as st

STEP = 0.02
GEOMETRY = Geometry(sample_rate=16000, chunk=1280, step=320, receptive_field=641, cache=3)
LEVELS = (0.1, 0.45, 0.6, 0.61, 0.9, 1.0)


@st.composite
def traces(draw: st.DrawFn) -> list[Trace]:
    """Recordings with plateaus of random height, and words at random places in some of them."""
    found = []
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(0, 4))):
        pieces = [
            np.clip(height + rng.uniform(-0.1, 0.1, length), 0, 1)
            for height, length in draw(
                st.lists(
                    st.tuples(st.sampled_from([0.0, 0.5, 0.7, 1.0]), st.integers(1, 60)), max_size=6
                )
            )
        ]
        values = np.concatenate([np.zeros(0), *pieces]).astype(np.float32)
        starts = draw(st.lists(st.integers(0, 80), max_size=3))
        words = [Word(draw(st.sampled_from("ab")), s * STEP, s * STEP + 0.3) for s in starts]
        other = rng.random(len(values)).astype(np.float32)
        seconds = len(values) * STEP - 0.01 if len(values) else 0.0
        found.append(Trace(seconds, tuple(words), "", {"a": values, "b": other}))
    return found


@settings(max_examples=150)
@given(
    recordings=traces(),
    smoothing=st.sampled_from([0.0, 0.06, 0.3]),
    release=st.sampled_from([0.0, 0.5, 1.0]),
    refractory=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_a_sweep_is_a_decider_for_each_threshold(
    recordings: list[Trace], smoothing: float, release: float, refractory: float
) -> None:
    decision = Decision({}, smoothing, release, refractory)
    curve = sweep(recordings, "a", decision, GEOMETRY, LEVELS, late=0.2)
    assert curve.said == sum(word.keyword == "a" for t in recordings for word in t.truth)
    for place, threshold in enumerate(LEVELS):
        hits = false_accepts = 0
        delays: list[float] = []
        for recording in recordings:
            decider = Decider(replace(decision, thresholds={"a": threshold}), ("a",), STEP)
            firings = decider.update(recording.posteriors["a"][:, None])
            detections = [
                Detection("a", min((f.row + 1) * 320 / 16000, recording.seconds), f.score)
                for f in firings
            ]
            found = match(detections, [w for w in recording.truth if w.keyword == "a"], 0.2)
            hits += len(found.hits)
            false_accepts += len(found.false_accepts)
            delays += [detection.time - word.end for detection, word in found.hits]
        assert (curve.hits[place], curve.false_accepts[place]) == (hits, false_accepts)
        assert sorted(curve.delays[place]) == sorted(delays)


def test_a_trace_holds_what_a_stream_would_have_decided_by(engine: Engine) -> None:
    pcm = toy_model.scene()
    (whole,) = trace(engine, [pcm], tail=0.5)
    assert whole.seconds == pytest.approx(5.5)
    (pieces,) = trace(engine, np.split(pcm, [100, 101, 5000, 77777]), tail=0.5)
    for keyword in ("low", "high"):
        assert np.array_equal(whole.posteriors[keyword], pieces.posteriors[keyword])
    stream = engine.stream()
    detections = stream.push(pcm) + stream.flush(0.5)
    decision = engine.manifest.decision
    for keyword, threshold in decision.thresholds.items():
        curve = sweep([whole], keyword, decision, engine.manifest.geometry, [threshold])
        assert curve.false_accepts[0] == sum(d.keyword == keyword for d in detections) > 0


def test_a_gap_ends_a_trace(engine: Engine) -> None:
    pcm = toy_model.scene()
    found = trace(engine, [pcm[:30000], Gap(500), pcm[30000:], Gap(0)], group="room")
    assert [t.seconds for t in found] == pytest.approx([30000 / 16000, 5.5 - 30000 / 16000])
    assert {t.group for t in found} == {"room"}
    (alone,) = trace(engine, [pcm[30000:]])
    assert np.array_equal(found[1].posteriors["low"], alone.posteriors["low"])
    assert trace(engine, []) == []


def test_halves_are_the_whole(engine: Engine) -> None:
    (whole,) = trace(engine, [toy_model.scene()])
    first, last = whole.halves(STEP)
    assert first.seconds + last.seconds == pytest.approx(whole.seconds)
    assert first.seconds == pytest.approx(whole.seconds / 2, abs=STEP)
    joined = np.concatenate([first.posteriors["low"], last.posteriors["low"]])
    assert np.array_equal(joined, whole.posteriors["low"])
    assert len(first.posteriors["low"]) == round(first.seconds / STEP)


def test_tones_of_known_loudness_are_missed_where_they_must_be(engine: Engine) -> None:
    """A tone is a hit exactly at the thresholds that its smoothed posterior reaches."""
    recordings, peaks = [], []
    for amplitude in np.geomspace(0.01, 0.3, 12):
        pcm = np.zeros(2 * 16000, np.int16)
        pcm[8000:16000] = toy_model.tone(toy_model.LOW_HZ, 0.5, amplitude)
        stream = engine.stream()
        scores = []
        for start in range(0, len(pcm), 1280):
            stream.push(pcm[start : start + 1280])
            scores.append(stream.posteriors[0])
        peaks.append(max(scores))
        recordings += trace(engine, [pcm], truth=[Word("low", 0.5, 1.0)])
    decision, geometry = engine.manifest.decision, engine.manifest.geometry
    curve = sweep(recordings, "low", decision, geometry)
    # A chunk has four steps and the peak may be at any of them; none is far from the last.
    for threshold, hits in zip(THRESHOLDS, curve.hits, strict=True):
        assert sum(p >= threshold + 0.02 for p in peaks) <= hits
        assert hits <= sum(p >= threshold - 0.02 for p in peaks)
    assert not curve.false_accepts.any()
    assert curve.hits[0] > curve.hits[-8] > 0
    assert curve.seconds == pytest.approx(24)


def test_a_second_detection_of_a_word_is_a_false_accept() -> None:
    values = np.zeros(100, np.float32)
    values[[10, 20]] = 1.0
    once = Trace(2.0, (Word("a", 0.1, 0.5),), "", {"a": values})
    decision = Decision({}, smoothing=0.0, refractory=0.0)
    curve = sweep([once], "a", decision, GEOMETRY, [0.5])
    assert (curve.hits[0], curve.misses[0], curve.false_accepts[0]) == (1, 0, 1)
    assert curve.delays[0] == pytest.approx([11 * STEP - 0.5])


def test_a_long_recording_is_swept_in_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = (rng.random(20_000) ** 8).astype(np.float32)
    whole = Trace(400.0, (), "", {"a": values})
    decision = Decision({}, smoothing=0.04, refractory=0.2)
    curve = sweep([whole], "a", decision, GEOMETRY, [0.3, 0.8])
    for place, threshold in enumerate((0.3, 0.8)):
        decider = Decider(replace(decision, thresholds={"a": threshold}), ("a",), STEP)
        assert curve.false_accepts[place] == len(decider.update(values[:, None])) > 10
