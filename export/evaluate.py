"""Accuracy of a model file on clips, through the same streaming path that a microphone takes."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.engine import Engine
from ..runtime.errors import EarmarkError
from ..runtime.files import atomic_path
from ..runtime.manifest import Manifest
from ..runtime.posteriors import activation
from ..train.data.dataset import Split
from ..train.data.decoded import SAMPLE_RATE
from ..train.metrics import measure
from ..train.progress import progress


def score(engine: Engine, split: Split) -> NDArray[np.float32]:
    """Posteriors of clips, each streamed chunk by chunk from a zero cache.

    A clip's posteriors are those of the last step that ends within the clip. Zeros complete the
    clip's last chunk; no step that contains one of them is read.

    Args:
        engine: the model.
        split: clips of the model's labels.

    Returns:
        float32 [N, labels].

    Raises:
        EarmarkError: the model has other labels or another sample rate, or takes longer steps than
            a clip.
    """
    manifest = engine.manifest
    rate, step = manifest.geometry.sample_rate, manifest.geometry.step
    if split.labels != manifest.labels:
        raise EarmarkError(f"{engine.path}: its labels are not those of the clips")
    if rate != SAMPLE_RATE:
        raise EarmarkError(f"{engine.path}: takes {rate} Hz, clips are read at {SAMPLE_RATE} Hz")
    last = split.pcm.shape[1] // step - 1
    if last < 0:
        raise EarmarkError(
            f"{engine.path}: its steps of {step / rate:g} s are longer than a clip: use longer ones"
        )
    scorer = engine.scorer()
    logits = np.empty((len(split), len(manifest.labels)), np.float32)
    with progress("Scoring clips", len(split)) as advance:
        for pcm, row in zip(split.pcm, logits, strict=True):
            scorer.reset()
            rows = scorer.feed(pcm)
            # What feed returns may be overwritten by flush, so its length is taken first.
            beyond = last - len(rows)
            row[:] = rows[last] if beyond < 0 else scorer.flush()[beyond]
            advance(1)
    return activation(manifest)(logits)


def evaluate(engine: Engine, split: Split) -> dict[str, Any]:
    """Score clips and measure, as ``train.metrics.measure``.

    Raises:
        EarmarkError: as :func:`score`.
    """
    return measure(split, score(engine, split))


def recordings_sha256(split: Split) -> str:
    """SHA-256 of the samples of clips and of their classes: two records are of the same clips, in
    the same noise, where it is equal."""
    digest = hashlib.sha256("\0".join(split.labels).encode())
    for part in (split.pcm, split.target):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def clip_seconds(manifest: Manifest) -> float:
    """Length of the clips that the model was trained on, 1 second where the manifest is silent.

    Raises:
        EarmarkError: the manifest's value is no number.
    """
    value = manifest.training.get("clip", 1.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EarmarkError("manifest field training.clip: expected seconds")
    return float(value)


def write_predictions(
    target: Path, split: Split, posteriors: NDArray[np.float32], roots: Sequence[Path]
) -> None:
    """Write ``path,label,score`` for each clip: the first of its labels and its posterior.

    Args:
        target: CSV file, written whole or not at all.
        split: the clips.
        posteriors: float32 [N, labels].
        roots: data folders; the path of a clip within one is given relative to it.

    Raises:
        EarmarkError: the file cannot be written.
    """
    best = posteriors.argmax(axis=1)
    # File names that are no UTF-8 are written back as the bytes they are.
    with (
        atomic_path(target) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("path", "label", "score"))
        for path, label, row in zip(split.path, best, posteriors, strict=True):
            rows.writerow((_relative(str(path), roots), split.labels[label], f"{row[label]:.6f}"))


def _relative(path: str, roots: Sequence[Path]) -> str:
    for root in roots:
        if Path(path).is_relative_to(root):
            return Path(path).relative_to(root).as_posix()
    return path
