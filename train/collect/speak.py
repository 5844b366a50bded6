"""Keywords spoken by a machine, for what is measured of a running spotter."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio import make_resampler

SPEECH_DB = -26.0
"""Level of the words, dB below full scale: the usual active speech level (ITU-T P.56)."""
VARIANTS = ("", "+f3", "+m3")


def spoken(keywords: Sequence[str], rate: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each keyword in a few voices of eSpeak NG at the usual level of speech, float32 [samples].

    Raises:
        EarmarkError: eSpeak NG is not installed.
    """
    from .espeak import synthesizer

    engine = synthesizer()
    for keyword in keywords:
        for variant in VARIANTS:
            pcm = engine.speak(
                keyword.replace("_", " "),
                engine.voices("en-us")[0] + variant,
                words_per_minute=140,
                pitch=50,
                pitch_range=50,
            )
            speech = pcm.astype(np.float32) / np.float32(32768)
            if engine.rate != rate:
                resampler: Any = make_resampler(engine.rate, rate)
                speech = resampler.resample_chunk(speech, last=True)
            loud = float(np.sqrt(np.mean(np.square(speech))))
            speech *= 10 ** (SPEECH_DB / 20) / max(loud, 1e-9)
            yield keyword, speech
