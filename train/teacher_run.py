"""A complete teacher's run directory, read back to teach a student.

It is a run directory as of :mod:`earmark.train.run`, with two files of its own: ``teacher.json``,
the shape of the network, and ``teacher.pt``, the weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..runtime.errors import EarmarkError
from ..runtime.manifest import Source
from . import run as runs
from .dataset import Split
from .progress import progress
from .recipe import Recipe
from .teachers import registry
from .teachers.teacher import Teacher

WEIGHTS = "teacher.pt"
SHAPE = "teacher.json"
_BATCH = 256


@dataclass(frozen=True)
class TeacherRun:
    """A complete teacher, read back."""

    path: Path
    recipe: Recipe
    info: runs.RunInfo
    teacher: Teacher
    """In evaluation mode, on the CPU, without gradients."""
    weights_sha256: str

    @property
    def title(self) -> str:
        """What a manifest calls it."""
        assert self.recipe.teacher is not None
        return f"{self.recipe.name} ({self.recipe.teacher.kind})"

    @property
    def sources(self) -> tuple[Source, ...]:
        """The teacher itself, and what it learned from."""
        assert self.recipe.teacher is not None
        made = self.teacher.backbone.source or Source(
            self.title, "none of its own: that of its training data", "teacher"
        )
        return (made, *self.info.sources)


def load_teacher(path: str | Path) -> TeacherRun:
    """Read a complete teacher.

    Raises:
        EarmarkError: it is no run of a teacher, it is incomplete, or a file in it is damaged.
    """
    path = Path(path)
    recipe, info = runs.open_run(path, WEIGHTS, "teach")
    if recipe.teacher is None:
        raise EarmarkError(f"{path}: a student's run: name a teacher's")
    shape = path / SHAPE
    try:
        backbone = registry.rebuild(json.loads(shape.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EarmarkError(f"{shape}: damaged ({error}): train the teacher again") from error
    teacher = Teacher(backbone, len(info.labels))
    digest = runs.read_weights(path / WEIGHTS, teacher, "teach")
    return TeacherRun(path, recipe, info, teacher.eval().requires_grad_(False), digest)


@torch.no_grad()
def teacher_posteriors(teacher: Teacher, split: Split) -> NDArray[np.float32]:
    """Posteriors of whole clips, float32 [N, labels], from a teacher in evaluation mode."""
    device = next(teacher.parameters()).device
    found = []
    with progress("Asking the teacher", len(split)) as advance:
        for start in range(0, len(split), _BATCH):
            pcm = torch.from_numpy(np.array(split.pcm[start : start + _BATCH])).to(device)
            found.append(teacher(pcm.float() / 32768).logits.float().softmax(1).cpu())
            advance(len(pcm))
    return torch.cat(found).numpy()
