"""BC-ResNet (Kim et al. 2021, arXiv 2106.04140): the reference that students are compared with.

It holds the published accuracy records below 500 k parameters. Written from the paper: a network on
[batch, channels, bands, frames] whose temporal part works on the mean over the bands and is
broadcast back to all of them. It is not exported: its broadcasts and normalisations of parts of the
spectrum are slow in int8.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from ..mfcc import MfccSettings
from .log_mel import LogMelBackbone

BANDS = 40
_GROUPS = 5
# Table 1 of the paper: blocks, channels for a width of 8, stride over frequency, dilation of time.
_STAGES = ((2, 8, 1, 1), (2, 12, 2, 2), (4, 16, 2, 4), (4, 20, 1, 8))


class BcResNet(LogMelBackbone):
    """BC-ResNet-(width / 8) up to its last pooling."""

    def __init__(self, features: MfccSettings, width: int = 8, dropout: float = 0.1) -> None:
        """
        Args:
            features: the front end's settings, of 40 bands.
            width: 8, 12, 16, 24, 48 and 64 make the paper's models 1, 1.5, 2, 3, 6 and 8.
            dropout: of whole channels in every block.
        """
        super().__init__(features, {"kind": "bcresnet", "width": width, "dropout": dropout})
        if features.mels != BANDS:
            raise ValueError(f"BC-ResNet reads {BANDS} mel bands, not {features.mels}")
        channels = 2 * width
        self.head = nn.Sequential(
            nn.Conv2d(1, channels, 5, (2, 1), 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        stages = []
        for blocks, size, stride, dilation in _STAGES:
            outputs = size * width // 8
            layers = []
            for index in range(blocks):
                step = stride if index == 0 else 1
                layers.append(Block(channels, outputs, step, dilation, dropout))
                channels = outputs
            stages.append(nn.Sequential(*layers))
        self.body = nn.ModuleList(stages)
        self.width = 4 * width
        self.tail = nn.Sequential(
            # All bands that are left, so that the frequency axis goes.
            nn.Conv2d(channels, channels, 5, padding=(0, 2), groups=channels, bias=False),
            nn.Conv2d(channels, self.width, 1, bias=False),
            nn.BatchNorm2d(self.width),
            nn.ReLU(),
        )
        # The paper's input is not normalised.
        self.band_norm = nn.Identity()

    def encode(self, features: Tensor) -> Tensor:
        x = self.head(self.image(features))
        for stage in self.body:
            x = stage(x)
        return self.tail(x).mean(dim=(2, 3))

    def stages(self) -> Iterator[nn.Module]:
        yield self.head
        yield from self.body
        yield self.tail


class SubSpectralNorm(nn.Module):
    """Batch norm of each channel in five groups of bands (Chang et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels * _GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, bands, frames = x.shape
        x = x.view(batch, channels * _GROUPS, bands // _GROUPS, frames)
        return self.norm(x).view(batch, channels, bands, frames)


class Block(nn.Module):
    """y = x + f2(x) + broadcast(f1(mean over bands of f2(x))); a transition has no ``x``."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, dilation: int, dropout: float
    ) -> None:
        super().__init__()
        self.transition = inputs != outputs or stride != 1
        change = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.spectral = nn.Sequential(
            *(change if self.transition else []),
            nn.Conv2d(outputs, outputs, (3, 1), (stride, 1), (1, 0), groups=outputs, bias=False),
            SubSpectralNorm(outputs),
        )
        self.temporal = nn.Sequential(
            nn.Conv2d(
                *(outputs, outputs, (1, 3), 1, (0, dilation), (1, dilation)),
                groups=outputs,
                bias=False,
            ),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.spectral(x)
        y = y + self.temporal(y.mean(2, keepdim=True))
        return F.relu(y if self.transition else x + y)
