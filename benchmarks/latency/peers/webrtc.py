"""webrtcvad: WebRTC's detector of speech by Gaussian mixtures, the floor of floors."""

from typing import TYPE_CHECKING

from .peer import RATE, Peer, Push

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _load() -> Push:
    from webrtcvad import Vad  # pyright: ignore[reportMissingImports]

    detector = Vad(2)

    def push(pcm: "NDArray[np.int16]") -> object:
        return detector.is_speech(pcm.tobytes(), RATE)

    return push


peer = Peer(
    name="webrtcvad",
    job="speech or not",
    distribution="webrtcvad-wheels",
    module="webrtcvad",
    load=_load,
    block=480,
    precision="int16",
    mode="C",
)
