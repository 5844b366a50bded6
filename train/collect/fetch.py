"""Files from the network: fetched with resumption, bounded, and verified."""

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.errors import EarmarkError
from ..progress import progress

_BLOCK = 1 << 20
_MAX_BYTES = 4 << 30
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 60


def fetch_file(url: str, partial: Path, sha256: str) -> None:
    """Complete ``partial``, of at most 4 GB, trying again while connections drop, and verify it.

    What it holds is taken for the beginning of the file at ``url``. With a wrong checksum
    (``sha256``, hexadecimal) it is removed.

    Raises:
        EarmarkError: no address, no connection, no such file, too large, a wrong checksum.
        OSError: ``partial`` cannot be written.
    """
    _complete(url, partial)
    if file_sha256(partial) != sha256:
        partial.unlink()
        raise EarmarkError(f"{url}: wrong checksum, the download was removed: run it again")


def is_fetched(target: Path, sha256: str) -> bool:
    """Whether the file is there already.

    Raises:
        EarmarkError: another one is.
        OSError: it cannot be read.
    """
    if not target.exists():
        return False
    if file_sha256(target) != sha256:
        raise EarmarkError(f"{target}: is not the released file: move it away")
    return True


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file, progress("Verifying", _size(path), "bytes") as advance:
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def _complete(url: str, partial: Path) -> None:
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
        with _connection():
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
        if start + length > _MAX_BYTES:
            raise EarmarkError(f"{url}: is larger than {_MAX_BYTES} bytes")
        with (
            partial.open("ab" if resumed else "wb") as file,
            progress("Downloading", start + length, "bytes") as advance,
        ):
            advance(start)
            received = 0
            while block := _read(response):
                received += len(block)
                if start + received > _MAX_BYTES:
                    raise EarmarkError(f"{url}: is larger than {_MAX_BYTES} bytes")
                file.write(block)
                advance(len(block))
        if received < length:
            raise http.client.IncompleteRead(b"", length - received)


def _read(response: http.client.HTTPResponse) -> bytes:
    with _connection():
        return response.read(_BLOCK)


@contextmanager
def _connection() -> Iterator[None]:
    """What the system says of the network, such as that no route leads there, as a ConnectionError:
    it is an OSError like those of the disk, which no other attempt mends."""
    try:
        yield
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
