"""Which files hold audio, by their names, and where they are."""

import os
from pathlib import Path, PurePath

from ...runtime.errors import EarmarkError

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


def find_audio(folder: Path) -> tuple[Path, ...]:
    """All audio files under ``folder``, hidden ones left out, sorted by path.

    Raises:
        EarmarkError: the folder is missing or unreadable.
    """
    found: list[Path] = []
    try:
        # A scandir error inside os.walk is swallowed unless it is asked for.
        for place, folders, files in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(place, name) for name in files if is_audio(name)]
    except OSError as error:
        raise EarmarkError(f"{folder}: cannot be listed ({error.strerror})") from error
    return tuple(sorted(found))


def _raise(error: OSError) -> None:
    raise error
