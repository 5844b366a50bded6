"""webrtcvad: WebRTC's detector of speech by Gaussian mixtures, the floor of floors."""

from .peer import RATE, Peer, Push


def _load() -> Push:
    from webrtcvad import Vad  # pyright: ignore[reportMissingImports]

    detector = Vad(2)

    def push(pcm: bytes) -> object:
        return detector.is_speech(pcm, RATE)

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
