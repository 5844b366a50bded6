"""Words as running speech has them: cut short, and between pieces of free speech."""

import numpy as np
from earmark.train.data.speech import cut_word, surround, word_bounds
from hypothesis import given
from hypothesis import strategies as st

RATE = 16000


def word(start: float, length: float, samples: int = RATE) -> np.ndarray:
    pcm = np.zeros(samples, np.int16)
    first, last = round(start * RATE), round((start + length) * RATE)
    pcm[first:last] = np.random.default_rng(0).normal(0, 3000, last - first)
    return pcm


def speech(samples: int = RATE) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 500, samples).astype(np.int16)


@given(st.floats(0, 0.5), st.floats(0.1, 0.4))
def test_the_bounds_hold_the_word_and_little_else(start: float, length: float) -> None:
    first, last = word_bounds(word(start, length))
    assert first <= start * RATE and (start + length) * RATE <= last
    assert last - first <= (length + 0.2) * RATE


@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0.1, 0.4))
def test_a_cut_falls_within_the_word(seed: int, start: float, length: float) -> None:
    pcm = word(start, length)
    part = cut_word(pcm, np.random.default_rng(seed))
    kept = np.flatnonzero(part)
    assert np.array_equal(part[kept[0] : kept[-1] + 1], pcm[kept[0] : kept[-1] + 1])
    energy = np.square(part, dtype=float).sum() / np.square(pcm, dtype=float).sum()
    assert 0.19 < energy < 0.51
    said = np.flatnonzero(pcm)
    assert (kept[0] == said[0]) != (kept[-1] == said[-1])


def test_both_ends_of_words_are_kept() -> None:
    pcm = word(0.4, 0.2)
    parts = [cut_word(pcm, np.random.default_rng(seed)) for seed in range(200)]
    first = np.mean([part[np.flatnonzero(pcm)[0]] != 0 for part in parts])
    assert 0.35 < first < 0.65
    assert not cut_word(np.zeros(RATE, np.int16), np.random.default_rng(0)).any()


def test_speech_is_outside_of_the_word_at_the_level_asked_for() -> None:
    pcm = word(0.4, 0.2)
    mixed = surround(pcm, speech(), -6.0)
    first, last = word_bounds(pcm)
    assert np.array_equal(mixed[first:last], pcm[first:last])
    fade = RATE // 50
    around = np.concatenate([mixed[: first - fade], mixed[last + fade :]]).astype(float)
    level = 20 * np.log10(around.std() / pcm[first:last].astype(float).std())
    assert abs(level + 6) < 0.5


def test_silence_and_noise_have_no_word_to_stand_around() -> None:
    assert word_bounds(np.zeros(RATE, np.int16)) == (0, RATE)
    noise = speech()
    assert np.array_equal(surround(noise, speech(), 0.0), noise)


def test_loud_speech_is_clipped_not_wrapped() -> None:
    mixed = surround(word(0.4, 0.2) * 3, speech(), 40.0)
    assert mixed.max() == 32767 and mixed.min() == -32768
