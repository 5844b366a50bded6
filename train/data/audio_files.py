"""Which files hold audio, by their names."""

from pathlib import PurePath

# Suffixes of what libsndfile reads. Others are counted and reported, not tried one by one.
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".voc"),
)


def is_audio(name: str) -> bool:
    """Whether a file of this name holds audio; a hidden one does not."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in AUDIO_SUFFIXES


def audio_stem(name: str) -> str:
    """A file name without its audio suffix, or suffixes (official test clips end in .wav.wav)."""
    while is_audio(name):
        name = PurePath(name).stem
    return name
