"""A graph and its manifest as one file."""

import os
from pathlib import Path

import onnx

from ..runtime.errors import EarmarkError
from ..runtime.files import write_bytes
from ..runtime.manifest import METADATA_KEY, Manifest


def with_manifest(graph: onnx.ModelProto, manifest: Manifest) -> bytes:
    """The bytes of a model file: ``graph`` with ``manifest`` in place of what it had."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    return model.SerializeToString()


def write_manifest(
    source: str | os.PathLike[str], target: str | os.PathLike[str], manifest: Manifest
) -> None:
    """Write a model file that differs from ``source`` in its manifest alone.

    Raises:
        EarmarkError: ``source`` cannot be read or ``target`` cannot be written.
    """
    try:
        graph = onnx.load_model_from_string(Path(source).read_bytes())
    except OSError as error:
        raise EarmarkError(f"{source}: cannot be read ({error.strerror or error})") from error
    write_bytes(target, with_manifest(graph, manifest))
