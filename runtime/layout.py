"""The layout of a corpus folder, shared by those who write one and those who read it.

That of Google Speech Commands: ``<word>/<speaker>_nohash_<n>.<suffix>``, lists of the clips that
are held out beside the word folders, and recordings of noise in ``_background_noise_``.
"""

import os
import unicodedata
from pathlib import Path

NOISE_FOLDER = "_background_noise_"
SOURCES_FILE = "sources.json"
"""Origin and licence of the recordings, beside the word folders."""
SPEAKER_MARK = "_nohash_"
SPLITS = ("train", "validation", "test")
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
_HASH_RANGE = 2**27 - 1


def folder_name(keyword: str) -> str:
    """The class folder of a keyword: lower case, safe on any file system, words joined by ``_``."""
    text = unicodedata.normalize("NFC", keyword).lower()
    kept = "".join(
        c if c.isalnum() or c in "-_'" or unicodedata.combining(c) else " " for c in text
    )
    return "_".join(kept.split())


def marked_speaker(stem: str) -> str:
    """The speaker that a clip's name tells, by its part before the suffix; empty where it tells
    none."""
    speaker, mark, _ = stem.partition(SPEAKER_MARK)
    return speaker if mark else ""


def root_name(root: str | os.PathLike[str]) -> str:
    """The name of a folder, however it was written (``.``, ``data/``). Splits follow from it."""
    return Path(os.path.abspath(root)).name  # noqa: PTH100 - a link has a name of its own


def place_name(root: str | os.PathLike[str]) -> str:
    """The name by which a training knows what it was given: a folder's own, that of a table or of
    shards (``*.tar``) with the folder that it is in, since many are called ``clips.csv``."""
    path = Path(os.path.abspath(root))  # noqa: PTH100 - a link has a name of its own
    return "/".join(path.parts[-2:]) if path.suffix.lower() in (".csv", ".tar") else path.name


def hashed_split(speaker: str) -> str:
    """The split of a speaker in a corpus that has no lists: 80, 10 and 10 % of all names.

    The formula that Speech Commands publishes (P. Warden, "Speech Commands: A Dataset for
    Limited-Vocabulary Speech Recognition", 2018, arXiv 1804.03209, section 7): the SHA-1 of the
    name, reduced to a percentage, so that a speaker stays in a split while a corpus grows.
    """
    # Only who divides speakers has it in memory: it brings a library of 4 MB with it.
    import hashlib

    # Names of files may hold what is no text.
    name = speaker.encode(errors="surrogatepass")
    number = int(hashlib.sha1(name, usedforsecurity=False).hexdigest(), 16)
    percentage = number % (_HASH_RANGE + 1) * (100.0 / _HASH_RANGE)
    if percentage < 10:
        return "validation"
    return "test" if percentage < 20 else "train"
