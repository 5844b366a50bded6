"""The classical audio CNN: 3 x 3 convolutions and pooling on a log mel image.

The form of VGG (Simonyan and Zisserman 2015) that Kong et al. 2020 (PANNs) use for sounds.
"""

import itertools
from collections.abc import Iterator

from torch import Tensor, nn

from ..mfcc import MfccSettings
from .log_mel import LogMelBackbone
from .settings import CNN2D_BLOCKS


class Cnn2d(LogMelBackbone):
    """Four blocks of two convolutions, each half as large and twice as wide as the one before."""

    def __init__(self, features: MfccSettings, width: int = 32, dropout: float = 0.1) -> None:
        """
        Args:
            features: the front end's settings.
            width: channels of the first block; the embedding has eight times as many.
            dropout: after each block.
        """
        super().__init__(features, {"kind": "cnn2d", "width": width, "dropout": dropout})
        sizes = [1, *(width * 2**i for i in range(CNN2D_BLOCKS))]
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolution(a, b), *_convolution(b, b), nn.AvgPool2d(2))
            for a, b in itertools.pairwise(sizes)
        )
        self.dropout = nn.Dropout(dropout)
        self.width = sizes[-1]

    def encode(self, features: Tensor) -> Tensor:
        x = self.image(features)
        for block in self.blocks:
            x = self.dropout(block(x))
        # Over frequency the mean, over time also the largest: a word fills part of a clip.
        x = x.mean(2)
        return x.mean(2) + x.amax(2)

    def stages(self) -> Iterator[nn.Module]:
        yield self.band_norm
        yield from self.blocks


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
