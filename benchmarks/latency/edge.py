"""A model file of Earmark as work to time: int16 PCM to the list of detections, on one thread."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.engine import Engine
from ...runtime.manifest import Manifest
from ...train.metrics import HEADLINES
from .audio import blocks, speech_like
from .results import Accuracy, Delay, Row
from .timing import Times, Work


def edge_work(engine: Engine, name: str, pcm: NDArray[np.int16] | None = None) -> Work:
    """A stream that takes a chunk in each step.

    Args:
        engine: the model.
        name: of the row.
        pcm: int16 [samples], repeated as needed; None for noise with the loudness of speech.
    """
    geometry = engine.manifest.geometry
    audio = speech_like(geometry.sample_rate) if pcm is None else pcm
    chunks = blocks(audio, geometry.chunk)
    stream = engine.stream()

    def step(number: int) -> object:
        return stream.push(chunks[number % len(chunks)])

    return Work(name, geometry.chunk / geometry.sample_rate, step)


def edge_row(engine: Engine, name: str, times: Times, *, random: bool = False) -> Row:
    """What is known of a model without running it, and its timings.

    Args:
        engine: the model.
        name: of the row.
        times: of its work.
        random: whether its weights are random numbers, which makes it a row of scaling.
    """
    manifest, geometry = engine.manifest, engine.manifest.geometry
    keywords = len(manifest.keywords)
    return Row(
        kind="scaling" if random else "edge",
        name=name,
        job=f"{keywords} keyword{'' if keywords == 1 else 's'}",
        device="cpu",
        precision=manifest.precision,
        mode=engine.backend,
        weights="random weights" if random else "trained",
        step_ms=1e3 * geometry.chunk / geometry.sample_rate,
        decisions=geometry.steps,
        hot=times.hot,
        paced=times.paced,
        width=_width(manifest),
        keywords=keywords,
        parameters=manifest.parameters,
        file_bytes=engine.size,
        accuracy=None if random else _accuracy(manifest),
        delay=_delay(manifest),
    )


def _delay(manifest: Manifest) -> Delay:
    geometry = manifest.geometry
    return Delay(
        chunk_ms=1e3 * geometry.chunk / geometry.sample_rate,
        look_back_ms=1e3 * geometry.receptive_field / geometry.sample_rate,
        smoothing_ms=1e3 * manifest.decision.smoothing,
    )


def _accuracy(manifest: Manifest) -> Accuracy | None:
    """What the export measured and wrote into the file."""
    found: Any = manifest.metrics.get(f"{manifest.precision}_streaming")
    if isinstance(found, dict) and isinstance(clips := found.get("clips"), int):
        for name in HEADLINES:
            if isinstance(value := found.get(name), float):
                return Accuracy(name, value, f"{clips:,} clips, as its file says")
    return None


def _width(manifest: Manifest) -> int | None:
    recipe: Any = manifest.training.get("recipe")
    student = recipe.get("student") if isinstance(recipe, dict) else None
    width = student.get("width") if isinstance(student, dict) else None
    return width if isinstance(width, int) else None
