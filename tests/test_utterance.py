"""Finding, judging and trimming one utterance, on made-up recordings."""

import numpy as np
import pytest
from earmark.runtime.utterance import MARGIN_SECONDS, Utterance, find, problem, trim
from hypothesis import given, settings
from hypothesis import strategies as st

RATE = 16000


def room(seconds: float, level: float = 0.001) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, round(seconds * RATE)).astype(np.float32)


def recording(*sounds: tuple[float, float, float], seconds: float = 3.0, noise: float = 0.001):
    """Noise with tones at (start, length, amplitude)."""
    pcm = room(seconds, noise)
    for start, length, amplitude in sounds:
        tone = amplitude * np.sin(2 * np.pi * 300 * np.arange(round(length * RATE)) / RATE)
        pcm[round(start * RATE) :][: len(tone)] += tone.astype(np.float32)
    return pcm


def judged(pcm: np.ndarray) -> tuple[Utterance | None, str]:
    found = find(pcm, RATE)
    return found, problem(pcm, RATE, found)


@settings(max_examples=50)
@given(
    st.floats(0.3, 1.0),
    st.floats(0.15, 1.2),
    st.floats(0.05, 0.9),
    st.sampled_from([0.0, 1e-4, 1e-3]),
)
def test_a_word_is_found_and_kept_with_its_margins(
    start: float, length: float, amplitude: float, noise: float
) -> None:
    pcm = recording((start, length, amplitude), noise=noise)
    found, trouble = judged(pcm)
    assert found is not None
    assert trouble == ""
    assert found.begin / RATE == pytest.approx(start, abs=0.011)
    assert found.end / RATE == pytest.approx(start + length, abs=0.011)
    assert found.peak_db == pytest.approx(20 * np.log10(amplitude), abs=1)
    assert found.level_db == pytest.approx(20 * np.log10(amplitude) - 3, abs=1)
    clip = trim(pcm, RATE, found)
    assert clip.dtype == np.int16
    assert len(clip) / RATE == pytest.approx(length + 2 * MARGIN_SECONDS, abs=0.021)


@pytest.mark.parametrize(
    ("pcm", "reason"),
    [
        (np.zeros(0, np.float32), "nothing heard"),
        (np.zeros(3 * RATE, np.float32), "nothing heard"),
        (room(3), "nothing heard"),
        (recording((1, 0.5, 0.01)), "too quiet"),
        (recording((1, 0.5, 0.002), noise=1e-5), "too quiet"),
        (recording((1, 0.5, 1.5)).clip(-1, 1), "clipped"),
        (recording((0.3, 2.6, 0.1), seconds=4), "too long"),
        (recording((1, 0.03, 0.3)), "too short"),
        (recording((1, 0.5, 0.12), noise=0.02), "above the noise"),
        (recording((0.0, 0.5, 0.3)), "cut off"),
        (recording((2.5, 0.5, 0.3)), "cut off"),
    ],
)
def test_what_will_not_do(pcm: np.ndarray, reason: str) -> None:
    assert reason in judged(pcm)[1]


def test_a_phrase_with_pauses_is_one_utterance_and_a_click_apart_is_none_of_it() -> None:
    pcm = recording((0.4, 0.01, 0.9), (1.0, 0.3, 0.2), (1.5, 0.4, 0.2))
    found, trouble = judged(pcm)
    assert found is not None
    assert trouble == ""
    assert (found.begin / RATE, found.end / RATE) == pytest.approx((1.0, 1.9), abs=0.011)


def test_a_margin_ends_with_the_recording() -> None:
    pcm = recording((0.15, 0.5, 0.2), seconds=0.8)
    found = find(pcm, RATE)
    assert found is not None
    assert len(trim(pcm, RATE, found)) == len(pcm)
