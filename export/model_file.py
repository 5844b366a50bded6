"""A graph and its manifest as one file."""

import onnx

from ..runtime.manifest import METADATA_KEY, Manifest


def with_manifest(graph: onnx.ModelProto, manifest: Manifest) -> bytes:
    """The bytes of a model file: ``graph`` with ``manifest`` in place of what it had."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    return model.SerializeToString()
