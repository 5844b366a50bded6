"""Google Speech Commands v0.02: fetched with resumption, verified, and unpacked safely.

Address and checksum are those of ``torchaudio.datasets.SPEECHCOMMANDS``. Its own download starts
anew after every interruption, and its unpacking trusts the archive, so both are done here.
"""

import hashlib
import http.client
import os
import re
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ..runtime.errors import EarmarkError
from ..runtime.manifest import Source
from .corpus import SOURCES_FILE, read_sources, write_source
from .progress import progress

SOURCE = Source(
    name="Google Speech Commands v0.02",
    licence="CC BY 4.0",
    url="https://arxiv.org/abs/1804.03209",
    attribution="Pete Warden, Google",
)
_NAME = "speech_commands_v0.02"
_BLOCK = 1 << 20
_MAX_ARCHIVE = 4 << 30
_MAX_UNPACKED = 8 << 30
_MAX_MEMBERS = 300_000
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 60


def download_speech_commands(folder: str | os.PathLike[str]) -> Path:
    """Fetch the data set (2.3 GB) into ``folder``, which becomes a corpus for ``scan``.

    Raises:
        EarmarkError: as :func:`download_archive`.
    """
    from .torchaudio_import import torchaudio

    checksums = torchaudio.datasets.speechcommands._CHECKSUMS
    [(url, sha256)] = [item for item in checksums.items() if _NAME in item[0]]
    return download_archive(url, sha256, folder, SOURCE)


def download_archive(url: str, sha256: str, folder: str | os.PathLike[str], source: Source) -> Path:
    """Fetch a tar archive and unpack it as ``folder``, which is there whole or not at all.

    What has been fetched is kept beside ``folder`` in a file that ends in ``.partial``; the next
    call goes on from there. A folder that names ``source`` already is left as it is.

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
    folder = Path(folder)
    if folder.exists():
        if not folder.is_dir() or any(folder.iterdir()):
            if (folder / SOURCES_FILE).is_file() and source in read_sources(folder):
                return folder
            raise EarmarkError(f"{folder}: exists already and is not {source.name}: name another")
        folder.rmdir()
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fetch_file(url, partial)
        _verify(partial, sha256, url)
        _unpack(partial, folder, source)
        partial.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise EarmarkError(f"{folder}: cannot be written ({reason}): free space") from error
    return folder


def fetch_file(url: str, partial: Path) -> None:
    """Complete ``partial``, of at most 4 GB, trying again while connections drop.

    What it holds is taken for the beginning of the file at ``url``: verify the result.

    Raises:
        EarmarkError: no address, no connection, no such file, too large.
        OSError: ``partial`` cannot be written.
    """
    failures = 0
    while True:
        before = _size(partial)
        try:
            _fetch_once(url, partial)
            return
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
        ) as e:
            final = isinstance(e, urllib.error.HTTPError) and e.code < 500
            failures = 0 if _size(partial) > before else failures + 1
            if final or failures >= _ATTEMPTS:
                raise EarmarkError(
                    f"{url}: download failed ({e}): run it again to go on from {_size(partial)} "
                    "bytes"
                ) from e
            time.sleep(failures)


def _fetch_once(url: str, partial: Path) -> None:
    start = _size(partial)
    # Compression by the server would make the range one of another file.
    headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            # The file is complete, or not the server's; the checksum will tell.
            return
        raise
    except ValueError as error:
        raise EarmarkError(f"{url}: is no address ({error})") from error
    with response:
        content_range = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
        resumed = response.status == 206 and content_range is not None
        if resumed and content_range is not None and int(content_range[1]) != start:
            raise http.client.HTTPException("the server resumed at another place")
        if not resumed:
            start = 0
        length = int(response.headers.get("Content-Length") or 0)
        if start + length > _MAX_ARCHIVE:
            raise EarmarkError(f"{url}: is larger than {_MAX_ARCHIVE} bytes")
        with (
            partial.open("ab" if resumed else "wb") as file,
            progress("Downloading", start + length, "bytes") as advance,
        ):
            advance(start)
            received = 0
            while block := response.read(_BLOCK):
                received += len(block)
                if start + received > _MAX_ARCHIVE:
                    raise EarmarkError(f"{url}: is larger than {_MAX_ARCHIVE} bytes")
                file.write(block)
                advance(len(block))
        if received < length:
            raise http.client.IncompleteRead(b"", length - received)


def _verify(partial: Path, sha256: str, url: str) -> None:
    digest = hashlib.sha256()
    with partial.open("rb") as file, progress("Verifying", _size(partial), "bytes") as advance:
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    if digest.hexdigest() != sha256:
        partial.unlink()
        raise EarmarkError(f"{url}: wrong checksum, the download was removed: run it again")


def _unpack(archive: Path, folder: Path, source: Source) -> None:
    # Beside its final place, so that the rename stays on one file system.
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with progress("Unpacking", _size(archive), "bytes") as advance:
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
                raise tarfile.TarError("more files or bytes than the data set has")
            tar.extract(member, work, filter="data")
            advance(file.tell() - position)
            position = file.tell()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
