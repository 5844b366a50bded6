"""A static page that runs a model in the browser."""

from pathlib import Path

from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...runtime.files import write_bytes
from .onnxruntime_web import onnxruntime_web

ASSETS = Path(__file__).parent / "assets"
SUFFIXES = {".html", ".css", ".js", ".svg"}
MODEL = "model.onnx"
"""Name of the model beside the page, the one that the page opens first."""
RUNTIME = "ort"
"""Folder of onnxruntime, with its licence."""


def page_files(model: Path | None, tarball: Path | None = None) -> dict[str, bytes]:
    """The files of a page by their path in it.

    Args:
        model: a file that ``earmark export`` wrote; None for the shipped model.
        tarball: see :func:`~.onnxruntime_web.onnxruntime_web`.

    Raises:
        EarmarkError: the model is none, or onnxruntime for browsers cannot be had.
    """
    engine = Engine(model)  # refuses what is no model
    files = {
        str(path.relative_to(ASSETS).as_posix()): path.read_bytes()
        for path in sorted(ASSETS.rglob("*"))
        if path.suffix in SUFFIXES or path.name == "LICENSE.txt"
    }
    files |= {f"{RUNTIME}/{name}": data for name, data in onnxruntime_web(tarball).items()}
    return files | {MODEL: engine.read()}


def write_page(files: dict[str, bytes], folder: Path) -> None:
    """Write a page into a folder that is new, empty or holds an earlier page.

    Raises:
        EarmarkError: the folder holds something else, or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()) and not is_page(folder):
            raise EarmarkError(f"{folder}: holds something else than a page: name a new folder")
    except OSError as error:
        raise EarmarkError(f"{folder}: cannot be written ({error.strerror or error})") from error
    for name, data in files.items():
        write_bytes(folder / name, data)


def is_page(folder: Path) -> bool:
    """Whether a folder holds what :func:`write_page` wrote."""
    return all((folder / name).is_file() for name in ("index.html", MODEL, f"{RUNTIME}/ort.wasm"))
