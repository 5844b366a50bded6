"""A teacher for users without pre-trained weights: convolutions, then attention over time.

Convolutions learn local patterns from few clips, attention relates them over the whole clip (as in
Conformer, Gulati et al. 2020). The image blocks are ConvNeXt's (Liu et al. 2022) with batch norm;
a depthwise convolution before each attention layer tells it the order (Chu et al. 2023).
"""

from collections.abc import Iterator

from torch import Tensor, nn

from ..mfcc import MfccSettings
from .log_mel import LogMelBackbone

HEAD = 32
"""Channels of an attention head."""
# Strides over frequency and time, and blocks, of each stage of the stem. A block costs most where
# the image is large, and tokens are cheap on any machine.
_STEM = (((2, 2), 0), ((2, 2), 1), ((2, 1), 2))


class ConvTransformer(LogMelBackbone):
    """A stem that makes a token of every 40 ms, and a transformer on the tokens."""

    def __init__(
        self, features: MfccSettings, width: int = 192, depth: int = 4, dropout: float = 0.1
    ) -> None:
        """
        Args:
            features: the front end's settings.
            width: channels of the transformer, a multiple of 32; the stem's grow with it.
            depth: attention layers.
            dropout: in the attention layers.
        """
        settings = {"width": width, "depth": depth, "dropout": dropout}
        super().__init__(features, {"kind": "convtransformer", **settings})
        self.width = width
        sizes = (width // 4, width // 2, width * 3 // 4)
        channels, bands, stem = 1, features.mels, []
        for size, (stride, blocks) in zip(sizes, _STEM, strict=True):
            stem.append(
                nn.Sequential(
                    nn.Conv2d(channels, size, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(size),
                    nn.GELU(),
                    *(ImageBlock(size) for _ in range(blocks)),
                )
            )
            channels, bands = size, (bands + 1) // 2
        self.stem = nn.ModuleList(stem)
        self.project = nn.Linear(channels * bands, width)
        self.layers = nn.ModuleList(TokenBlock(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 1)

    def encode(self, features: Tensor) -> Tensor:
        x = self.image(features)
        for stage in self.stem:
            x = stage(x)
        x = self.project(x.flatten(1, 2).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return (self.attend(x).softmax(1) * x).sum(1)

    def stages(self) -> Iterator[nn.Module]:
        yield self.band_norm
        yield from self.stem
        yield self.project
        yield from self.layers
        yield self.norm
        yield self.attend


class ImageBlock(nn.Module):
    """A residual block: a depthwise convolution and two dense layers at every place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.GELU(),
            nn.Conv2d(2 * channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class TokenBlock(nn.Module):
    """A depthwise convolution over [batch, tokens, channels], then a transformer layer."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.order = nn.Conv1d(channels, channels, 5, padding=2, groups=channels)
        self.attention = nn.TransformerEncoderLayer(
            channels,
            channels // HEAD,
            4 * channels,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x + self.order(x.transpose(1, 2)).transpose(1, 2))
