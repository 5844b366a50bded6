"""pymicro-wakeword: microWakeWord's streaming models on TensorFlow Lite in C."""

from typing import TYPE_CHECKING

from .peer import Peer, Push

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _load() -> Push:
    from pymicro_wakeword import (  # pyright: ignore[reportMissingImports]
        MicroWakeWord,
        MicroWakeWordFeatures,
        Model,
    )

    model = MicroWakeWord.from_builtin(Model.ALEXA)
    features = MicroWakeWordFeatures()

    def push(pcm: "NDArray[np.int16]") -> object:
        return [model.process_streaming(row) for row in features.process_streaming(pcm.tobytes())]

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
