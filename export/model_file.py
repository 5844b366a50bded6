"""A graph and its manifest as one file."""

import hashlib

import onnx

from ..runtime.manifest import METADATA_KEY, Manifest


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
