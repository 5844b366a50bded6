"""Whole files or none: output is written under a temporary name and renamed when complete, and
text is read up to a limit."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import EarmarkError

MAX_TEXT_BYTES = 64 << 20
"""Largest text that is read: a list of a million clips."""
_PIECE = 1 << 18


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that replaces it when the block succeeds.

    An exception, Ctrl-C included, or a full disk leaves ``target`` as it was and no temporary file
    behind.

    Raises:
        EarmarkError: ``target`` is a folder or device, its folder cannot be made or written, or the
            disk is full.
    """
    # A program that imports the engine alone writes no files, and does without 0.6 MB.
    import tempfile

    final = _replaced(target)
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


def check_file_writable(target: str | os.PathLike[str]) -> None:
    """See that :func:`atomic_path` can write a file, before what it is to hold takes minutes.

    Nothing is left of the attempt, and a file that is there stays as it is.

    Raises:
        EarmarkError: ``target`` is a folder or device, or its folder cannot be made or written.
    """
    reason = _refusal(_replaced(target).parent)
    if reason:
        raise EarmarkError(f"{target}: cannot be written ({reason}): name another file")


def check_folder_writable(folder: str | os.PathLike[str]) -> None:
    """See that files can be written into a folder, there or not, before they take minutes to make.

    Nothing is left of the attempt.

    Raises:
        EarmarkError: the folder cannot be made or written.
    """
    reason = _refusal(Path(folder))
    if reason:
        raise EarmarkError(f"{folder}: cannot be written ({reason}): name another folder")


def _replaced(target: str | os.PathLike[str]) -> Path:
    """The file that a new one takes the place of. A link stays one: what it points to is replaced.

    Raises:
        EarmarkError: it is a folder or device.
    """
    final = Path(os.path.realpath(target))
    if final.exists() and not final.is_file():
        # Renaming over /dev/null, say, would replace the device for everybody.
        raise EarmarkError(f"{target}: is no regular file and is left alone: name another")
    return final


def _refusal(folder: Path) -> str:
    """Why nothing can be written into a folder, or into the nearest one above it that is there."""
    import tempfile

    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".earmark-", dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def read_bounded(file: BinaryIO, limit: int) -> bytes:
    """What is left of a file, to its end or one byte beyond ``limit``, whichever comes first.

    In pieces: ``file.read(limit + 1)`` asks the system for the memory of the limit at once, which
    a small device may not have to give.
    """
    found, left = io.BytesIO(), limit + 1
    while left and (piece := file.read(min(left, _PIECE))):
        found.write(piece)
        left -= len(piece)
    return found.getvalue()


def read_text(path: str | os.PathLike[str], limit: int = MAX_TEXT_BYTES) -> str:
    """Read a file as UTF-8, if it is no larger than ``limit`` bytes.

    Raises:
        EarmarkError: it cannot be read, is larger or no UTF-8 text.
    """
    try:
        with Path(path).open("rb") as file:
            data = read_bounded(file, limit)
        if len(data) > limit:
            raise EarmarkError(f"{path}: cannot be read (larger than {limit} bytes)")
        return str(data, "utf-8")
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise EarmarkError(f"{path}: cannot be read (no UTF-8 text: {error})") from error


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``target``, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(target: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``target``, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
