"""silero-vad: the released ONNX file of Silero's detector of speech, without its torch wrapper."""

from importlib.util import find_spec
from pathlib import Path

from .peer import Peer, Push

_BLOCK, _CONTEXT = 512, 64


def _load() -> Push:
    import numpy as np

    from ....runtime.backends.onnxruntime_import import onnxruntime

    found = find_spec("silero_vad")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'silero_vad'", name="silero_vad")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(Path(found.origin).parent / "data" / "silero_vad.onnx"),
        options,
        providers=["CPUExecutionProvider"],
    )
    audio = np.zeros((1, _CONTEXT + _BLOCK), np.float32)
    state = np.zeros((2, 1, 128), np.float32)
    rate = np.array(16_000, np.int64)

    def push(pcm: bytes) -> object:
        nonlocal state
        audio[0, :_CONTEXT] = audio[0, -_CONTEXT:]
        np.multiply(np.frombuffer(pcm, np.int16), np.float32(1 / 32768), out=audio[0, _CONTEXT:])
        # Their types are those of any tensor of onnxruntime.
        score, state = session.run(None, {"input": audio, "state": state, "sr": rate})  # pyright: ignore
        return score > 0.5  # pyright: ignore

    return push


peer = Peer(
    name="silero-vad",
    job="speech or not",
    distribution="silero-vad",
    # The package itself imports torch, which this use of its file does without.
    module="onnxruntime",
    load=_load,
    block=_BLOCK,
    mode="onnxruntime",
)
