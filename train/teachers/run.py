"""A complete run directory, read back to teach a student.

That of a teacher is one as of :mod:`earmark.train.run`, with two files of its own:
``teacher.json``, the shape of the network, and ``teacher.pt``, the weights. A student's can teach
as well.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ...runtime.manifest import Source
from .. import run as runs
from ..data.dataset import Split
from ..posteriors import posteriors
from ..progress import progress
from ..recipe import Recipe, load_recipe
from . import registry
from .credits import credit
from .student import student_teacher
from .teacher import Teacher

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
    digest: str
    """Of all that its answers follow from besides the audio."""

    @property
    def title(self) -> str:
        """What a manifest calls it."""
        kind = self.recipe.teacher.kind if self.recipe.teacher else "student"
        return f"{self.recipe.name} ({kind})"

    @property
    def sources(self) -> tuple[Source, ...]:
        """The teacher itself, and what it learned from."""
        made = credit(self.recipe.teacher) if self.recipe.teacher else None
        made = made or Source(self.title, "none of its own: that of its training data", "teacher")
        return (made, *self.info.sources)


def load_teacher(path: str | Path) -> TeacherRun:
    """Read a complete teacher, or a complete student that is to teach.

    Raises:
        EarmarkError: it is no run, it is incomplete, or a file in it is damaged.
    """
    path = Path(path)
    if (path / runs.RECIPE).is_file() and load_recipe(path / runs.RECIPE).teacher is None:
        run = runs.load_run(path)
        teacher = student_teacher(run.student).eval().requires_grad_(False)
        shape = json.dumps([asdict(run.recipe.student), asdict(run.recipe.features)])
        digest = _digest(run.weights_sha256, shape)
        return TeacherRun(path, run.recipe, run.info, teacher, digest)
    recipe, info = runs.open_run(path, WEIGHTS, "teach")
    file = path / SHAPE
    try:
        shape = file.read_text(encoding="utf-8")
        backbone = registry.rebuild(json.loads(shape))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EarmarkError(f"{file}: damaged ({error}): train the teacher again") from error
    teacher = Teacher(backbone, len(info.labels))
    weights = runs.read_weights(path / WEIGHTS, teacher, "teach")
    digest = _digest(weights, shape)
    return TeacherRun(path, recipe, info, teacher.eval().requires_grad_(False), digest)


def _digest(weights_sha256: str, shape: str) -> str:
    """More than its weights says what a network answers: its shape has no weights for strides, or
    for how it scales its features."""
    return hashlib.sha256((weights_sha256 + shape).encode()).hexdigest()


@torch.no_grad()
def teacher_posteriors(teacher: Teacher, split: Split) -> NDArray[np.float32]:
    """Posteriors of whole clips, float32 [N, labels], from a teacher in evaluation mode; the
    activation is that of :func:`earmark.train.score.clip_posteriors`."""
    device = next(teacher.parameters()).device
    found = []
    with progress("Asking the teacher", len(split)) as advance:
        for start in range(0, len(split), _BATCH):
            pcm = torch.from_numpy(np.array(split.pcm[start : start + _BATCH])).to(device)
            logits = teacher(pcm.float() / 32768).logits.float()
            found.append(posteriors(logits, split.several is not None).cpu())
            advance(len(pcm))
    return torch.cat(found).numpy()
