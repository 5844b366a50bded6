"""Students with random weights: what a size, a chunk or a keyword costs."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...export.graph import build
from ...export.model_file import with_manifest
from ...export.quantize import calibrate
from ...runtime.files import write_bytes
from ...runtime.manifest import SILENCE, UNKNOWN, Decision, Manifest
from ...train import recipe as recipes
from ...train.student import Student
from ...train.teachers.teacher import seeded
from .audio import speech_like

RECIPE = recipes.RECIPES / "commands.toml"
"""Whose front end and network, of the shipped model, are varied."""
WIDTHS = (32, 64, 96, 128)
CHUNKS = (0.02, 0.04, 0.16, 0.32)
KEYWORDS = (1, 35, 100)
"""What is tried beside the usual value, one at a time."""
_NEVER = 0.999
"""A threshold that random weights do not reach, as what is no keyword does not reach a trained
model's: near a threshold a decision takes more work."""


@dataclass(frozen=True)
class Shape:
    """What is varied."""

    width: int
    chunk: float = 0.08
    """Seconds."""
    keywords: int = 8

    @property
    def name(self) -> str:
        """For tables."""
        chunk = f"{1000 * self.chunk:g} ms"
        return f"width {self.width}, {chunk}, {self.keywords} kw"


def shapes() -> list[Shape]:
    """The usual shape, and those that differ from it in one thing."""
    usual = Shape(recipes.load_recipe(RECIPE).student.width)
    return [
        usual,
        *(dataclasses.replace(usual, width=width) for width in WIDTHS if width != usual.width),
        *(dataclasses.replace(usual, chunk=chunk) for chunk in CHUNKS),
        *(dataclasses.replace(usual, keywords=keywords) for keywords in KEYWORDS),
    ]


def write_students(shape: Shape, folder: Path) -> Iterator[Path]:
    """Write the int8 and the float32 file of a student into ``folder``, in that order."""
    recipe = recipes.load_recipe(RECIPE)
    features = recipe.features
    names = tuple(f"word {number}" for number in range(shape.keywords))
    labels = (*names, UNKNOWN, SILENCE)
    settings = dataclasses.replace(recipe.student, width=shape.width)
    student = seeded(0, lambda: _lively(Student(len(labels), settings, features))).eval()
    chunk = round(shape.chunk * features.sample_rate)
    audio = torch.from_numpy(speech_like(features.sample_rate).astype(np.float32) / 32768)
    encodings = calibrate(student, [audio.unflatten(0, (10, -1))])
    for precision in ("int8", "float32"):
        manifest = Manifest(
            name=shape.name,
            labels=labels,
            geometry=student.geometry(chunk),
            decision=Decision(thresholds=dict.fromkeys(names, _NEVER)),
            precision=precision,
            features=dataclasses.asdict(features) | {"kind": "mfcc"},
            parameters=student.parameters_trained,
            training={"recipe": {"student": dataclasses.asdict(settings)}},
        )
        graph = build(student, chunk, encodings if precision == "int8" else None)
        stem = f"{shape.width}-{round(1000 * shape.chunk)}-{shape.keywords}-{precision}"
        write_bytes(path := folder / f"{stem}.onnx", with_manifest(graph, manifest))
        yield path


def _lively(student: Student) -> Student:
    """Batch norms with statistics of their own, so that folding them changes the weights."""
    for norm in student.modules():
        if isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return student
