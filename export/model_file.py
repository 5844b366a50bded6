"""A graph and its manifest as one file."""

import hashlib
from contextlib import suppress
from pathlib import Path

import onnx

from ..runtime.engine import MAX_MODEL_BYTES
from ..runtime.errors import EarmarkError
from ..runtime.files import read_bounded
from ..runtime.manifest import METADATA_KEY, Manifest
from ..runtime.onnx_file import read_onnx


def graph_sha256(graph: onnx.ModelProto) -> str:
    """Hash of a model without its manifest, which the manifest has in ``training``: figures are of
    the graph that they were measured on."""
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def with_manifest(graph: onnx.ModelProto, manifest: Manifest) -> bytes:
    """The bytes of a model file: ``graph`` with ``manifest`` in place of what it had."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    return model.SerializeToString()


def check_output(path: Path) -> None:
    """Refuse to write a model where none belongs, or where something else is.

    Raises:
        EarmarkError: the name does not end in ``.onnx``, or there is a file already that is no
            model of Earmark's.
    """
    if path.suffix != ".onnx":
        raise EarmarkError(f"{path}: name a file that ends in .onnx")
    if path.is_file() and not _is_model(path):
        raise EarmarkError(
            f"{path}: exists already and is no model of Earmark's: name another with -o, or move "
            "it away"
        )


def _is_model(path: Path) -> bool:
    with suppress(EarmarkError, OSError), path.open("rb") as file:
        return METADATA_KEY in read_onnx(read_bounded(file, MAX_MODEL_BYTES)).metadata
    return False
