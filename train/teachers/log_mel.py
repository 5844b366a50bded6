"""Log mel energies as input of a network: the project's one front end, normalised by band."""

from dataclasses import asdict
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..mfcc import Mfcc, MfccSettings
from .teacher import Backbone


class LogMelBackbone(Backbone):
    """A backbone on the log mel energies of :class:`earmark.train.mfcc.Mfcc`."""

    def __init__(self, settings: MfccSettings, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config | {"features": asdict(settings)}
        self.mfcc = Mfcc(settings)
        self.band_norm = nn.BatchNorm1d(settings.mels)

    def features(self, wav: Tensor) -> Tensor:
        # As much silence on either side as makes a frame for each hop.
        s = self.mfcc.settings
        side = s.window - s.hop
        return self.mfcc.log_mel(F.pad(wav, (side // 2, side - side // 2)))

    def image(self, log_mel: Tensor) -> Tensor:
        """[batch, frames, mels] as a normalised image, [batch, 1, mels, frames]."""
        return self.band_norm(log_mel.transpose(1, 2))[:, None]
