"""Folders that are made with settings, and not mixed with what was made with others."""

import json
from pathlib import Path
from typing import Any

from ..runtime.errors import EarmarkError
from ..runtime.files import read_text, write_text


def claim(folder: Path, name: str, settings: dict[str, Any]) -> None:
    """Note in ``folder`` what it is made with, or check that it was made with the same.

    Args:
        folder: missing, empty, or claimed before.
        name: of the note, a JSON file.
        settings: plain values.

    Raises:
        EarmarkError: it holds other files, was made with other settings, or cannot be used.
    """
    note = folder / name
    wanted = json.loads(json.dumps(settings))
    if note.is_file():
        try:
            found = json.loads(read_text(note))
        except (ValueError, RecursionError) as error:
            raise EarmarkError(f"{note}: cannot be read ({error}): remove the folder") from error
        if found != wanted:
            raise EarmarkError(
                f"{folder}: was made with {json.dumps(found)}{_difference(found, wanted)}: use the "
                "same settings, remove it, or name another folder"
            )
        return
    try:
        taken = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise EarmarkError(f"{folder}: not a folder that can be used ({error.strerror})") from error
    if taken:
        raise EarmarkError(f"{folder}: holds other files: name another folder")
    write_text(note, json.dumps(wanted) + "\n")


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    """The names of settings that differ, for the message."""
    if not isinstance(found, dict):
        return ""
    names = dict.fromkeys([*wanted, *found])
    return f", which differs in {', '.join(n for n in names if found.get(n) != wanted.get(n))}"
