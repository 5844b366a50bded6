"""Synthesized command words, of which the shipped model hears at least one voice well."""

from pathlib import Path

import numpy as np
from earmark.runtime import Engine, read_audio
from earmark.train.collect.synth import synthesize

RATE = 16000
WORDS = ("left", "yes", "go", "right")


def spoken_scene(folder: Path) -> np.ndarray:
    """The words in their order, int16, each by the voice that the shipped model is surest of.

    Synthesized voices are not what the model was trained on; a fair choice among twelve keeps the
    scene to what the microphone path, and not the model, decides.
    """
    synthesize(WORDS, folder, other=["cat"], clips=12, seed=0)
    pause = np.zeros(RATE, np.int16)
    parts = [pause]
    for word in WORDS:
        clips = [read_audio(path) for path in sorted((folder / word).glob("*.wav"))]
        surest = max(clips, key=lambda clip: best_posterior(clip, word))
        parts += [(surest * 32767).round().astype(np.int16), pause]
    return np.concatenate(parts)


def best_posterior(clip: np.ndarray, word: str) -> float:
    """The highest smoothed posterior of ``word`` over the clip between two pauses."""
    engine = Engine()
    stream, best = engine.stream(), 0.0
    pause = np.zeros(RATE, np.float32)
    for piece in np.array_split(np.concatenate([pause, clip, pause]), 40):
        stream.push(piece)
        best = max(best, float(stream.posteriors[engine.manifest.labels.index(word)]))
    return best
