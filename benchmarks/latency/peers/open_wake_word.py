"""pyopen-wakeword: openWakeWord's models on TensorFlow Lite in C."""

from typing import TYPE_CHECKING

from .peer import Peer, Push

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _load() -> Push:
    from pyopen_wakeword import (  # pyright: ignore[reportMissingImports]
        Model,
        OpenWakeWord,
        OpenWakeWordFeatures,
    )

    model = OpenWakeWord.from_builtin(Model.ALEXA)
    features = OpenWakeWordFeatures.from_builtin()

    def push(pcm: "NDArray[np.int16]") -> object:
        embeddings = features.process_streaming(pcm.tobytes())
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
