"""A corpus of tones that trains in seconds: a word is a pitch, a speaker a level and a timing."""

from pathlib import Path

import numpy as np
import soundfile
from earmark.runtime.layout import hashed_split
from earmark.train.recipe import Recipe, parse_recipe

RATE = 16000
PITCH = {"low": 300.0, "high": 2500.0, "chirp": 900.0, "buzz": 5000.0}
KEYWORDS = ("low", "high")


def write_corpus(root: Path, speakers: int = 40) -> Path:
    """``speakers`` speakers, of which each says each word once, and two recordings of noise."""
    random = np.random.default_rng(0)
    ids = [f"{i:04x}" for i in range(4 * speakers)]
    chosen = [s for s in ids if hashed_split(s) == "train"][: speakers * 3 // 4]
    chosen += [s for s in ids if hashed_split(s) == "validation"][: speakers // 4]
    for word, pitch in PITCH.items():
        (root / word).mkdir(parents=True, exist_ok=True)
        for speaker in chosen:
            soundfile.write(root / word / f"{speaker}_nohash_0.wav", word_pcm(pitch, random), RATE)
    (root / "_background_noise_").mkdir(exist_ok=True)
    for name in ("white", "more"):
        noise = random.normal(0, 0.02, 20 * RATE)
        soundfile.write(root / "_background_noise_" / f"{name}.wav", noise, RATE)
    return root


def word_pcm(pitch: float, random: np.random.Generator) -> np.ndarray:
    """One second with half a second of a slightly mistuned tone in its middle."""
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * pitch * random.uniform(0.95, 1.05) * time)
    start = random.uniform(0.2, 0.3)
    inside = (time > start) & (time < start + 0.5)
    return (random.uniform(0.1, 0.5) * tone * inside + random.normal(0, 0.002, RATE)).astype(
        np.float32
    )


def tiny_recipe(corpus: Path, **train: object) -> Recipe:
    """A recipe that learns the tones in a few epochs."""
    settings = {"epochs": 4, "batch": 32, "threads": 1, "validate_every": 1, "accelerator": "cpu"}
    return parse_recipe(
        {
            "name": "tones",
            "keywords": list(KEYWORDS),
            "data": {"roots": [str(corpus)]},
            "student": {"width": 8, "dilations": [1, 2], "window": 0.3},
            "augment": {"speed": 0.0, "frequency_mask": 2},
            "train": settings | train,
        },
        "tiny",
    )
