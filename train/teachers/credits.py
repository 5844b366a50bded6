"""Who made the pre-trained weights that a teacher starts from."""

from pathlib import Path

from ...runtime.manifest import Source
from . import beats_checkpoints, speech_embedding_file
from .settings import PRETRAINED, TeacherSettings

_AST = Source(
    "AST", "BSD-3-Clause", "teacher", "https://github.com/YuanGongND/ast", "Yuan Gong et al."
)
_WHISPER = Source(
    "Whisper",
    "MIT (OpenAI's repository; the cards of the weights on Hugging Face say Apache-2.0)",
    "teacher",
    "https://github.com/openai/whisper",
    "OpenAI",
)
_WAVLM = Source(
    "WavLM",
    "MIT (the repository's; the weights have none of their own)",
    "teacher",
    "https://github.com/microsoft/unilm/tree/master/wavlm",
    "Microsoft",
)


def credit(settings: TeacherSettings) -> Source | None:
    """The maker and the licence of the weights, None where a network starts from random numbers."""
    if settings.random or settings.kind not in PRETRAINED:
        return None
    if settings.kind == "beats":
        name = Path(settings.weights).stem
        known = name in beats_checkpoints.CHECKPOINTS
        return beats_checkpoints.source(name if known else "BEATs")
    return {
        "ast": _AST,
        "whisper": _WHISPER,
        "wavlm": _WAVLM,
        "speech_embedding": speech_embedding_file.SOURCE,
    }[settings.kind]
