"""Whole files or none: output is written under a temporary name and renamed when complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import EarmarkError


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that replaces it when the block succeeds.

    An exception, Ctrl-C included, or a full disk leaves ``target`` as it was and no temporary file
    behind.

    Raises:
        EarmarkError: ``target`` is a folder or device, its folder cannot be made or written, or the
            disk is full.
    """
    # A link stays one: what it points to is replaced.
    final = Path(os.path.realpath(target))
    if final.exists() and not final.is_file():
        # Renaming over /dev/null, say, would replace the device for everybody.
        raise EarmarkError(f"{target}: is no regular file and is left alone: name another")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{final.stem[:40]}.", suffix=final.suffix, dir=final.parent
        )
        os.close(handle)
    except OSError as error:
        raise EarmarkError(f"{target}: cannot be written ({error.strerror or error})") from error
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give the result the permissions of an ordinary new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(final)
    except OSError as error:
        raise EarmarkError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``target``, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(target: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``target``, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
