"""Where recordings come from and under which licence: ``sources.json`` beside them."""

import json
from dataclasses import asdict
from pathlib import Path

from ...runtime.errors import EarmarkError
from ...runtime.files import read_text, write_text
from ...runtime.layout import SOURCES_FILE
from ...runtime.manifest import Source


def read_sources(root: Path, role: str = "training data") -> list[Source]:
    """The sources that ``sources.json`` of a folder names, else the folder itself, in ``role``.

    Raises:
        EarmarkError: the file is no JSON list of objects with ``name`` and ``licence``.
    """
    path = root / SOURCES_FILE
    if not path.is_file():
        return [unnamed(root, role)]
    return parse_sources(read_text(path), path)


def unnamed(root: Path, role: str = "training data") -> Source:
    """What stands for a folder that has no ``sources.json``."""
    return Source(name=root.resolve().name, licence="unknown", role=role)


def parse_sources(text: str, path: Path) -> list[Source]:
    """The sources that the text of a ``sources.json`` names; ``path`` is named in errors.

    Raises:
        EarmarkError: it is no JSON list of objects with ``name`` and ``licence``.
    """
    try:
        raw = json.loads(text)
        sources = [Source(**item) for item in raw]
        values = [value for source in sources for value in vars(source).values()]
        if not all(isinstance(value, str) and value.isprintable() for value in values):
            raise TypeError("a field is not printable text")
    except (ValueError, TypeError, RecursionError) as error:
        raise EarmarkError(
            f"{path}: not a list of objects with name and licence ({error}): mend or remove it"
        ) from error
    return sources


def write_source(root: Path, source: Source) -> None:
    """Record in ``sources.json`` of a corpus folder where its recordings come from."""
    known = read_sources(root) if (root / SOURCES_FILE).is_file() else []
    if source not in known:
        text = json.dumps([asdict(s) for s in [*known, source]], indent=1, ensure_ascii=False)
        write_text(root / SOURCES_FILE, text + "\n")
