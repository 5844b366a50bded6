"""Noise of rooms and weather, made of random numbers."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..data.decoded import SAMPLE_RATE


def _coloured(rng: np.random.Generator, samples: int, slope: float) -> NDArray[np.float64]:
    """Noise whose power falls with frequency to the power of ``slope``, flat below 20 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum * np.maximum(frequency, 20) ** (-slope / 2), samples)
    return noise / noise.std()


def _slow(rng: np.random.Generator, samples: int, hertz: float) -> NDArray[np.float64]:
    """A random curve from 0 to 1 that changes about ``hertz`` times a second."""
    points = rng.uniform(0, 1, round(samples / SAMPLE_RATE * hertz) + 2)
    return np.interp(np.linspace(0, len(points) - 1, samples), np.arange(len(points)), points)


def _hum(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Mains hum: 50 Hz and harmonics, over a little noise."""
    time = np.arange(samples) / SAMPLE_RATE
    tones = [
        rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * (50 * k * time + rng.uniform()))
        for k in range(1, 21)
    ]
    return np.sum(tones, axis=0) + 0.05 * _coloured(rng, samples, 1)


def _clicks(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Knocks and key presses: short decaying bursts at random times, over a quiet room."""
    noise = 0.02 * _coloured(rng, samples, 1)
    length = SAMPLE_RATE // 10
    for start in rng.integers(samples - length, size=round(4 * samples / SAMPLE_RATE)):
        decay = np.exp(-np.arange(length) / SAMPLE_RATE / rng.uniform(0.001, 0.02))
        burst = _coloured(rng, length, rng.uniform(0, 1.5)) * decay
        noise[start : start + length] += rng.uniform(0.05, 1) * burst
    return noise


NOISES: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "white": lambda rng, n: _coloured(rng, n, 0),
    "pink": lambda rng, n: _coloured(rng, n, 1),
    "brown": lambda rng, n: _coloured(rng, n, 2),
    "wind": lambda rng, n: _coloured(rng, n, 2.5) * _slow(rng, n, 1.5) ** 2,
    "waves": lambda rng, n: _coloured(rng, n, 0.5) * (0.1 + _slow(rng, n, 0.3)),
    "hum": _hum,
    "clicks": _clicks,
}
"""Makes so many samples at 16 kHz, float64, of no certain level, by name."""
