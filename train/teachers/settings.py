"""The recipe's section on a teacher."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

CNN2D_BLOCKS = 4
"""Blocks of ``cnn2d``, each of which halves bands and frames."""
PRETRAINED = ("beats", "speech_embedding", "ast", "whisper", "wavlm")
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TeacherSettings:
    """Which network learns, where it starts from, and how its parts learn."""

    kind: Literal[
        "beats",
        "speech_embedding",
        "ast",
        "whisper",
        "wavlm",
        "cnn2d",
        "convtransformer",
        "bcresnet",
    ]
    """The first five start from ``weights``, the others from random numbers. ``bcresnet`` is the
    reference student that figures are compared with."""
    weights: str = ""
    """``beats``: an official checkpoint. ``speech_embedding``: openWakeWord's
    ``embedding_model.onnx``. ``ast``, ``whisper``, ``wavlm``: a folder that transformers saved, or
    the name of a model on its hub."""
    random: bool = False
    """Start a pre-trained kind from random weights of the published shape all the same."""
    width: Annotated[int, Field(ge=0, le=4096)] = 0
    """Channels of a kind that starts from random numbers; 0: its own default. ``bcresnet``: eight
    times the factor in the model's name."""
    depth: Annotated[int, Field(ge=0, le=64)] = 0
    """Attention layers of ``convtransformer``; 0: its own default."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of a kind that starts from random numbers."""
    head_epochs: Annotated[int, Field(ge=0)] = 0
    """First so many epochs train the head alone, on the frozen network's embeddings."""
    backbone_rate: Share = 1.0
    """Learning rate of the network's last layer, as a share of the head's."""
    layer_decay: Share = 1.0
    """Learning rate of a layer, as a share of that of the layer after it."""
