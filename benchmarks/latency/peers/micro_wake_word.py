"""pymicro-wakeword: microWakeWord's streaming models on TensorFlow Lite in C."""

from .peer import Peer, Push


def _load() -> Push:
    from pymicro_wakeword import (  # pyright: ignore[reportMissingImports]
        MicroWakeWord,
        MicroWakeWordFeatures,
        Model,
    )

    model = MicroWakeWord.from_builtin(Model.ALEXA)
    features = MicroWakeWordFeatures()

    def push(pcm: bytes) -> object:
        return [model.process_streaming(row) for row in features.process_streaming(pcm)]

    return push


peer = Peer(
    name="pymicro-wakeword",
    job="1 wake word",
    distribution="pymicro-wakeword",
    module="pymicro_wakeword",
    load=_load,
    # Every third frame of 10 ms.
    decisions=2,
    precision="int8",
    mode="TensorFlow Lite, C",
)
