"""pyopen-wakeword: openWakeWord's models on TensorFlow Lite in C."""

from .peer import Peer, Push


def _load() -> Push:
    from pyopen_wakeword import (  # pyright: ignore[reportMissingImports]
        Model,
        OpenWakeWord,
        OpenWakeWordFeatures,
    )

    model = OpenWakeWord.from_builtin(Model.ALEXA)
    features = OpenWakeWordFeatures.from_builtin()

    def push(pcm: bytes) -> object:
        embeddings = features.process_streaming(pcm)
        return [score > 0.5 for rows in embeddings for score in model.process_streaming(rows)]

    return push


peer = Peer(
    name="pyopen-wakeword",
    job="1 wake word",
    distribution="pyopen-wakeword",
    module="pyopen_wakeword",
    load=_load,
    mode="TensorFlow Lite, C",
)
