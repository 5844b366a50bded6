"""Posteriors of whole clips from a student in torch."""

import numpy as np
import torch
from numpy.typing import NDArray

from .data.dataset import Split
from .posteriors import posteriors
from .student import Student, whole_steps

_BATCH = 64


def clip_posteriors(student: Student, split: Split) -> NDArray[np.float32]:
    """Posteriors of clips, float32 [N, labels], read at the end of each.

    Args:
        student: in evaluation mode, on the CPU.
        split: the clips; where they may have several classes the activation is a sigmoid, else a
            softmax.
    """
    rows = []
    with torch.no_grad():
        for start in range(0, len(split), _BATCH):
            pcm = torch.from_numpy(np.array(split.pcm[start : start + _BATCH])).float() / 32768
            logits = student(whole_steps(pcm, student.step))[0][:, -1]
            rows.append(posteriors(logits, split.several is not None))
    return torch.cat(rows).numpy()
