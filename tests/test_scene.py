"""Scenes and their truth; hits, misses and false accepts."""

import numpy as np
import pytest
import toy_model
from earmark.benchmarks.scene import compose, hear
from earmark.export.matching import LATE, Word, match
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.stream import Detection
from earmark.train.data.dataset import Split
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

RATE = 16000
BEGIN, END = 0.3, 0.7


def clips(copies: int = 4) -> Split:
    """Tones from 0.3 s to 0.7 s: low and high ones, and others between."""
    pcm, label, word = [], [], []
    for index, (name, hertz) in enumerate([("low", 440), ("high", 3000), ("hum", 1200)]):
        for copy in range(copies):
            row = np.zeros(RATE, np.int16)
            sound = toy_model.tone(hertz, END - BEGIN, 0.05 * (copy + 1))
            row[round(BEGIN * RATE) : round(END * RATE)] = sound
            pcm.append(row)
            label.append(index)
            word.append(name)
    names = np.array([str(i) for i in range(len(pcm))])
    return Split(toy_model.LABELS, np.stack(pcm), np.array(label), np.array(word), names, names, 0)


def white(seed: int = 0, seconds: float = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 500, round(seconds * RATE)).astype(np.int16)


def inside(scene, words) -> np.ndarray:
    """Which samples of the scene belong to one of ``words``."""
    mask = np.zeros(len(scene.pcm), bool)
    for word in words:
        mask[round(word.start * RATE) : round(word.end * RATE)] = True
    return mask


def level(pcm: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(np.square(pcm.astype(float)))) / 32768)


def test_everything_asked_for_is_said_once_without_overlap() -> None:
    scene = compose(clips(), [white()], each=3, others=5, seconds=30, gap=0.4)
    assert scene.seconds == 30 and scene.pcm.dtype == np.int16
    said = [word.keyword for word in scene.truth]
    assert sorted(said) == ["high"] * 3 + ["low"] * 3
    assert said != sorted(said)
    assert [word.keyword for word in scene.others] == ["hum"] * 5
    words = sorted([*scene.truth, *scene.others], key=lambda word: word.start)
    edges = [0.0, *(edge for word in words for edge in word[1:]), 30.0]
    assert min(np.diff(edges)[::2]) >= 0.4
    assert [word.end - word.start for word in words] == pytest.approx([END - BEGIN] * 11, abs=0.011)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_levels(snr: float) -> None:
    scene = compose(clips(), [white(1), 8 * white(2).clip(-4000, 4000)], snr_db=snr)
    words = inside(scene, [*scene.truth, *scene.others])
    quiet = ~inside(
        scene,
        [w._replace(start=w.start - 0.03, end=w.end + 0.03) for w in [*scene.truth, *scene.others]],
    )
    noise_level = level(scene.pcm[quiet])
    assert noise_level == pytest.approx(-26 - snr, abs=0.5)
    power = 10 ** (level(scene.pcm[words]) / 10) - 10 ** (noise_level / 10)
    assert 10 * np.log10(power) == pytest.approx(-26, abs=0.7)


def test_without_noise_there_is_silence_between_the_words() -> None:
    scene = compose(clips(), [])
    around = inside(
        scene,
        [w._replace(start=w.start - 0.03, end=w.end + 0.03) for w in scene.truth + scene.others],
    )
    assert not scene.pcm[~around].any()
    assert scene.pcm[around].any()


def test_the_seed_decides() -> None:
    first, same, other = (compose(clips(), [white()], seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.pcm, same.pcm) and first.truth == same.truth
    assert first.truth != other.truth


def test_clips_repeat_only_where_there_are_too_few() -> None:
    split = clips(4)
    for row in range(len(split)):  # the lengths tell the clips apart
        split.pcm[row, round((END - 0.05 * (row % 4)) * RATE) :] = 0
    lengths = [0.25, 0.3, 0.35, 0.4]
    scene = compose(split, [], each=4, others=4, seconds=30)
    for name in ("low", "high", "hum"):
        said = [w for w in (*scene.truth, *scene.others) if w.keyword == name]
        assert sorted(w.end - w.start for w in said) == pytest.approx(lengths, abs=0.011)
    assert len(compose(clips(1), [], each=3, others=2).truth) == 6


def test_refusals() -> None:
    with pytest.raises(EarmarkError, match="make it longer"):
        compose(clips(), [], each=20, seconds=10)
    rows = clips()
    keep = rows.label != 1
    short = Split(
        rows.labels,
        rows.pcm[keep],
        rows.label[keep],
        rows.word[keep],
        rows.speaker[keep],
        rows.path[keep],
        0,
    )
    with pytest.raises(EarmarkError, match="no clip of high"):
        compose(short, [])


def test_a_model_hears_the_scene(engine: Engine) -> None:
    scene = compose(clips(), [], each=3, others=0, seconds=30, gap=1.0)
    heard = hear(engine, scene.pcm)
    assert heard.posteriors.shape == (30 * RATE // 1280, 4) and len(heard.times) == 375
    assert heard.times[0] == 0.08 and heard.times[-1] == 30.0
    assert list(heard.detections) == engine.stream().push(scene.pcm)
    matching = match(heard.detections, scene.truth)
    assert len(matching.hits) == 6 and not matching.misses and not matching.false_accepts
    summary = matching.summary(scene.seconds)
    assert summary["recall"] == 1.0 and summary["false_accepts_per_hour"] == 0
    # The toy tells a tone while it sounds: before its end.
    assert -0.4 < summary["delay_p50"] < 0
    for detection, word in matching.hits:
        row = np.searchsorted(heard.times, detection.time)
        assert heard.posteriors[row, toy_model.LABELS.index(word.keyword)] > 0.5


def test_hits_misses_and_false_accepts_by_hand() -> None:
    truth = [Word("a", 1, 2), Word("b", 4, 5), Word("a", 7, 8)]
    detections = [
        Detection("a", 1.0, 0.9),  # at its very start
        Detection("a", 1.5, 0.9),  # the same word again
        Detection("b", 5.75, 0.9),  # as late as may be
        Detection("b", 7.5, 0.9),  # another keyword's time
        Detection("a", 8.76, 0.9),  # too late
    ]
    found = match(detections, truth)
    assert found.hits == ((detections[0], truth[0]), (detections[2], truth[1]))
    assert found.misses == (truth[2],)
    assert found.false_accepts == (detections[1], detections[3], detections[4])
    assert found.summary(1800) == {
        "keywords": 3,
        "hits": 2,
        "misses": 1,
        "false_accepts": 3,
        "recall": pytest.approx(2 / 3),
        "false_accepts_per_hour": 6,
        "delay_p50": pytest.approx((-1 + 0.75) / 2),
        "delay_p95": pytest.approx(-1 + 0.95 * 1.75),
        "seconds": 1800,
    }


def test_nothing_said_and_nothing_heard() -> None:
    summary = match([], []).summary(10)
    assert summary["recall"] is None and summary["delay_p50"] is None


TIMES = st.integers(0, 200).map(lambda tick: tick / 10)
WORDS = st.builds(
    lambda keyword, start, length: Word(keyword, start, start + length),
    st.sampled_from("ab"),
    TIMES,
    st.integers(1, 30).map(lambda tick: tick / 10),
)
DETECTIONS = st.builds(lambda k, t: Detection(k, t, 0.9), st.sampled_from("ab"), TIMES)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(WORDS, max_size=8), detections=st.lists(DETECTIONS, max_size=8))
def test_every_word_and_detection_counts_once_and_hits_are_most(words, detections) -> None:
    found = match(detections, words)
    assert sorted([word for _, word in found.hits] + list(found.misses)) == sorted(words)
    heard = [detection for detection, _ in found.hits]
    assert sorted(heard + list(found.false_accepts)) == sorted(detections)
    allowed = np.array(
        [
            [d.keyword == w.keyword and w.start <= d.time <= w.end + LATE for w in words]
            for d in detections
        ]
    ).reshape(len(detections), len(words))
    most = maximum_bipartite_matching(csr_array(allowed.astype(int)), perm_type="column")
    assert len(found.hits) == (most >= 0).sum()
    for detection, word in found.hits:
        assert allowed[detections.index(detection), words.index(word)]
