"""A student that teaches: one that is trained already, alone or as one of an ensemble.

Students that differ in their seed alone are right more often together than each by itself, and can
teach that to one (Furlanello et al. 2018, "Born-again neural networks").
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..student import Student, whole_steps
from .teacher import Backbone, Teacher


class StudentBackbone(Backbone):
    """A student up to the input of its last layer, averaged as its logits are."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.width = student.settings.width
        self.config = {}

    def features(self, wav: Tensor) -> Tensor:
        return self.student.log_mel(whole_steps(wav, self.student.step))

    def encode(self, features: Tensor) -> Tensor:
        return self.student.embed(features)[:, :, -self.student.average :].mean(2)

    def stages(self) -> Iterator[nn.Module]:
        yield self.student


def student_teacher(student: Student) -> Teacher:
    """A teacher whose logits of a clip are the student's at its end, where the clip is longer than
    the student's moving average."""
    teacher = Teacher(StudentBackbone(student), student.labels)
    with torch.no_grad():
        # The last layer and the average commute: both are linear.
        teacher.head.weight.copy_(student.head.weight[:, :, 0])
        teacher.head.bias.copy_(student.head.bias)  # pyright: ignore[reportArgumentType]
    return teacher
