"""Clips set into other audio."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_model
from earmark.export.det import sweep
from earmark.export.trials import EXCERPTS, Excerpts, trial
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.sources import Gap
from earmark.train.data.clip import Clip

RATE = 16000


def clip_of(path: Path, seconds: float = 1.0, rate: int = RATE) -> Clip:
    """A low tone from 0.3 s to 0.7 s of a clip."""
    pcm = np.zeros(round(seconds * rate))
    time = np.arange(round(0.4 * rate)) / rate
    pcm[round(0.3 * rate) : round(0.7 * rate)] = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(path, pcm, rate)
    return Clip(path, "low", "ann", "")


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_clip_is_heard_where_the_truth_says(engine: Engine, tmp_path: Path, rate: int) -> None:
    clip = clip_of(tmp_path / "a.wav", rate=rate)
    heard = trial(engine, clip, [], np.random.default_rng(0))
    (word,) = heard.truth
    assert (word.keyword, heard.group) == ("low", "ann")
    # What lies before the word in its clip is none of it.
    assert word.end - word.start == pytest.approx(0.4, abs=0.021)
    geometry, before = engine.manifest.geometry, round((word.start - 0.3) * RATE)
    # Up to a frame of 10 ms too early, where the tone begins within one.
    assert geometry.receptive_field - 160 <= before
    assert before < geometry.receptive_field + geometry.chunk
    curve = sweep([heard], "low", engine.manifest.decision, geometry, [0.7])
    assert (curve.hits[0], curve.false_accepts[0]) == (1, 0)
    assert -0.4 < curve.delays[0][0] < 0


def test_the_place_depends_on_the_generator_alone(engine: Engine, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.wav")
    starts = [
        trial(engine, clip, [], np.random.default_rng(seed)).truth[0].start for seed in (1, 1, 2)
    ]
    assert starts[0] == starts[1] != starts[2]


def test_what_surrounds_a_clip_is_heard_too(engine: Engine, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "a.wav")
    loud = [toy_model.tone(toy_model.HIGH_HZ, 1.0)]  # shorter than is needed: repeated
    heard = trial(engine, clip, loud, np.random.default_rng(0))
    before = round((heard.truth[0].start - 0.3) * RATE) // 320 - 1
    assert heard.posteriors["high"][:before].min() > 0.9
    assert heard.posteriors["high"][-30:-4].min() > 0.9
    assert heard.posteriors["low"].max() > 0.9


def test_a_clip_that_is_no_word_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"long\.wav: is longer than 10 s"):
        trial(engine, clip_of(tmp_path / "long.wav", 11), [], np.random.default_rng(0))


def test_excerpts_are_a_bounded_sample_of_what_goes_by() -> None:
    def source():
        for second in range(5 * (EXCERPTS + 72)):
            yield np.full(RATE, second, np.int16)

    first, again, other = (Excerpts(RATE, seed) for seed in (0, 0, 1))
    for excerpts in (first, again, other):
        assert sum(1 for _ in excerpts.sample(source())) == 1000
    assert len(first.kept) == EXCERPTS
    numbers = [int(excerpt[0]) for excerpt in first.kept]
    assert len(set(numbers)) == EXCERPTS and max(numbers) > 900
    assert all(len(excerpt) == 5 * RATE and excerpt[-1] - excerpt[0] == 4 for excerpt in first.kept)
    assert numbers == [int(excerpt[0]) for excerpt in again.kept]
    assert numbers != [int(excerpt[0]) for excerpt in other.kept]


def test_an_excerpt_spans_neither_a_gap_nor_two_recordings() -> None:
    excerpts = Excerpts(RATE, 0)
    pieces = [np.full(4 * RATE, 1, np.int16), Gap(0), np.full(6 * RATE, 2, np.int16)]
    assert len(list(excerpts.sample(pieces))) == 3
    list(excerpts.sample([np.full(RATE // 2, 3, np.int16)]))  # too short for any use
    list(excerpts.sample([np.full(2 * RATE, 0.25, np.float32)]))
    kinds = [(len(part) / RATE, set(part.tolist())) for part in excerpts.kept]
    assert kinds == [(5.0, {2}), (1.0, {2}), (2.0, {8192})]
