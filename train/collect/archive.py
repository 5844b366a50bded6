"""Archives of recordings: fetched with resumption, verified, and unpacked safely.

The downloads of ``torchaudio.datasets`` start anew after every interruption and trust what they
unpack, so both are done here.
"""

import errno
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from ...runtime.errors import EarmarkError
from ...runtime.layout import SOURCES_FILE
from ...runtime.manifest import Source
from ..data.sources import read_sources, write_source
from ..progress import progress
from .fetch import fetch_file

_MAX_UNPACKED = 8 << 30
_MAX_MEMBERS = 300_000


def download_archive(url: str, sha256: str, folder: str | os.PathLike[str], source: Source) -> Path:
    """Fetch a tar archive and unpack it as ``folder``, which is there whole or not at all.

    What has been fetched is kept beside ``folder`` in a file that ends in ``.partial``; the next
    call goes on from there. A folder whose sources have the name of ``source`` is left as it is.

    Args:
        url: of the archive, http or https.
        sha256: of the archive, hexadecimal.
        folder: must be missing, empty, or an earlier result.
        source: written to ``sources.json`` of the folder.

    Returns:
        ``folder``.

    Raises:
        EarmarkError: the folder holds something else, no connection, a wrong checksum, an archive
            that is unsafe or too large, a full disk, or Python is older than 3.11.4.
    """
    if not hasattr(tarfile, "data_filter"):
        raise EarmarkError("unpacking safely needs Python 3.11.4 or newer: upgrade Python")
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        # By name alone: the spelling of its licence may be an earlier version's.
        known = read_sources(folder) if (folder / SOURCES_FILE).is_file() else []
        if source.name in (one.name for one in known):
            return folder
        raise EarmarkError(f"{folder}: exists already and is not {source.name}: name another")
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        if folder.exists():
            folder.rmdir()
        folder.parent.mkdir(parents=True, exist_ok=True)
        fetch_file(url, partial, sha256)
        _unpack(partial, folder, source)
        partial.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way = "free space" if full else "name another folder"
        raise EarmarkError(f"{folder}: cannot be written ({reason}): {way}") from error
    return folder


def _unpack(archive: Path, folder: Path, source: Source) -> None:
    # Beside its final place, so that the rename stays on one file system.
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with progress("Unpacking", archive.stat().st_size, "bytes") as advance:
            _extract(archive, work, advance)
        write_source(work, source)
        # mkdtemp makes private folders; give it the permissions of an ordinary new one.
        mask = os.umask(0)
        os.umask(mask)
        work.chmod(0o777 & ~mask)
        work.rename(folder)
    except (tarfile.TarError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise EarmarkError(f"{archive}: cannot be unpacked safely ({reason}): remove it") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(archive: Path, work: Path, advance: Callable[[int], None]) -> None:
    total = 0
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as tar:
        position = 0
        for count, member in enumerate(tar, 1):
            if not (member.isreg() or member.isdir()):
                raise tarfile.TarError(f"{member.name!r} is neither file nor folder")
            total += member.size
            if count > _MAX_MEMBERS or total > _MAX_UNPACKED:
                raise tarfile.TarError(
                    f"more than {_MAX_MEMBERS} files or {_MAX_UNPACKED} bytes in it"
                )
            tar.extract(member, work, filter="data")
            advance(file.tell() - position)
            position = file.tell()
