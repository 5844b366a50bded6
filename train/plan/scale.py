"""How much there is, and so what to train on it and for how long."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from ..data.survey import Survey
from ..recipe import DataSettings

Device = Literal["edge", "server", "gpu"]
Network = Literal["student", "beats", "convtransformer"]
Scale = Literal["few", "some", "many"]
FEW, MANY = 1_000, 100_000
"""Clips from which a pre-trained network is worth fine-tuning, and from which one can be trained
from scratch."""
_MAX_CLIP = 10.0
_STEPS = 6_000
_FINE_STEPS, _LARGE_STEPS = 6_000, 100_000
"""Of a pre-trained network, which soon knows a few thousand clips, and of one that starts from
random numbers on many."""
_LARGE_BATCH_SECONDS = 64.0
"""Audio in a batch of a large network: long clips take fewer at a time."""


@dataclass(frozen=True)
class Lesson:
    """How long to train, and by how many clips at a time."""

    batch: int
    epochs: int
    steps: int


def scale_of(clips: int) -> Scale:
    """Whether so many clips are too few to fine-tune on, or enough to train from scratch on."""
    return "few" if clips < FEW else "some" if clips <= MANY else "many"


def choose_network(found: Survey, device: Device) -> Network:
    """What to train: by how many clips there are, and by what the device can run."""
    scale = scale_of(found.clips)
    if device == "edge" or scale == "few":
        return "student"
    return "beats" if scale == "some" else "convtransformer"


def clip_seconds(found: Survey) -> float:
    """Clip length: whole tenths of a second."""
    return min(_MAX_CLIP, max(0.2, math.ceil(10 * found.seconds[2] - 0.05) / 10))


def plan_lesson(found: Survey, train: Counter[str], network: Network, keywords: bool) -> Lesson:
    # What an epoch draws: beside keywords, the shares of other words and of background.
    share = DataSettings.unknown + DataSettings.silence if keywords else 0.0
    clips = round(sum(train.values()) / (1 - share)) or 1
    if network == "student":
        batch = 16 if clips < FEW else 64 if clips < 10 * FEW else 128
    else:
        batch = max(4, min(128, 2 ** int(math.log2(_LARGE_BATCH_SECONDS / clip_seconds(found)))))
    steps, least, most = {
        "student": (_STEPS, 20, 200),
        "beats": (_FINE_STEPS, 5, 50),
        "convtransformer": (_LARGE_STEPS, 10, 100),
    }[network]
    epochs = max(least, min(most, round(steps * batch / clips)))
    return Lesson(batch, epochs, epochs * clips // batch)
