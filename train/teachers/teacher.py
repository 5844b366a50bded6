"""What every teacher is: audio to an embedding and logits, behind one interface."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16_000
Network = TypeVar("Network", bound=nn.Module)


class Outputs(NamedTuple):
    """What a teacher says of a batch of clips."""

    embedding: Tensor
    """[batch, width]."""
    logits: Tensor
    """[batch, classes]."""


class Backbone(nn.Module):
    """A network that makes one embedding of a clip, in two parts so that masks fit in between."""

    width: int
    """Numbers in an embedding."""
    config: dict[str, Any]
    """Plain values that :func:`earmark.train.teachers.registry.rebuild` makes the same shape of."""

    def features(self, wav: Tensor) -> Tensor:
        """Of clips [batch, samples] at 16 kHz in [-1, 1): [batch, frames, bands] in float32, or
        the audio itself where the network reads that."""
        raise NotImplementedError

    def encode(self, features: Tensor) -> Tensor:
        """Embeddings [batch, width] of what :meth:`features` gave."""
        raise NotImplementedError

    def stages(self) -> Iterator[nn.Module]:
        """Its layers from the audio to the embedding, for learning rates by layer."""
        raise NotImplementedError

    def forward(self, wav: Tensor) -> Tensor:
        with torch.autocast(wav.device.type, enabled=False):
            features = self.features(wav.float())
        return self.encode(features)


class Teacher(nn.Module):
    """A backbone and a linear head on its embedding."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.width, classes)

    def forward(self, wav: Tensor) -> Outputs:
        """
        Args:
            wav: float32 [batch, samples] at 16 kHz in [-1, 1).
        """
        embedding = self.backbone(wav)
        return Outputs(embedding, self.head(embedding))


def parameter_groups(
    teacher: Teacher, rate: float, backbone_rate: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Parameters with learning rates that fall from the head down to the audio.

    Layer-wise decay as in Howard and Ruder 2018 (ULMFiT) and Clark et al. 2020 (ELECTRA). What of
    the backbone belongs to no stage learns as slowly as the first one.
    """
    stages = list(teacher.backbone.stages())
    rates = [
        rate * backbone_rate * layer_decay ** (len(stages) - 1 - i) for i in range(len(stages))
    ]
    groups = [{"params": list(teacher.head.parameters()), "lr": rate}]
    seen = {id(p) for p in teacher.head.parameters()}

    def add(module: nn.Module, rate: float) -> None:
        found = [p for p in module.parameters() if id(p) not in seen]
        seen.update(map(id, found))
        if found:
            groups.append({"params": found, "lr": rate})

    for stage, of_stage in zip(stages, rates, strict=True):
        add(stage, of_stage)
    add(teacher.backbone, rates[0])
    return groups


def seeded(seed: int, build: Callable[[], Network]) -> Network:
    """What ``build`` makes with torch's generator at ``seed``, which is then put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
